"""MMMU: multiple choice and open questions with up to seven images, which `<image N>` in the text stands for.

Source: https://arxiv.org/abs/2311.16502 as VLMEvalKit words it (August 2026).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from vlmeval.dataset.mcq import ImageMCQDataset
from vlmeval.dataset.tsv_index import IndexedRow
from vlmeval.types import Message, Sample

_MARKER = re.compile(r"<image (\d)>")


class MMMUDataset(ImageMCQDataset):
    """Where the text has markers, images stand where they are, as often as they are named, and no others are shown."""

    default_scoring = "choices_and_open"
    default_traits = frozenset({"image_markers", "multi_image"})

    def build_prompt(self, sample: Sample) -> list[Message]:
        images_first = super().build_prompt(sample)
        pieces = _MARKER.split(self.build_text(sample))
        if len(pieces) == 1:
            return images_first
        message: list[Message] = [{"type": "text", "value": pieces[0]}]
        for number, text in zip(pieces[1::2], pieces[2::2], strict=True):
            message.append({"type": "image", "value": sample.images[int(number) - 1]})
            message.append({"type": "text", "value": text})
        return message

    @property
    def why_no_answers(self) -> str:
        """The test split as it is published has `?` where the answers were."""
        told = super().why_no_answers
        unknown = list(self._index.column(self.answer_column).values()).count("?") if not told else 0
        if not unknown:
            return told
        note = f"; {self._answer_note}" if self._answer_note else ""
        return f"column {self.answer_column!r} is '?' in {unknown} of {len(self)} rows{note}"

    def _with_images(self, row: IndexedRow, sample: Sample) -> Sample:
        """A marker without its image is told as a missing image is: the sample fails, the run goes on."""
        sample = super()._with_images(row, sample)
        numbers = [int(number) for number in _MARKER.findall(self.build_text(sample))]
        wrong = sorted({number for number in numbers if not 1 <= number <= len(sample.images)})
        if sample.image_error or not wrong:
            return sample
        names = ", ".join(f"<image {number}>" for number in wrong)
        return replace(sample, image_error=f"row {row.name} (line {row.line}): its text names {names} and it has "
                       f"{len(sample.images)} images")  # fmt: skip


class MMMUProDataset(MMMUDataset):
    """MMMU-Pro with ten options; its own wording, whatever the family. Source: https://arxiv.org/abs/2409.02813."""

    default_scoring = "choices"
    default_traits = frozenset({"image_markers", "multi_image", "dataset_prompt"})
    closing: ClassVar[str] = "Answer directly with the option letter from the given choices. "

    def build_text(self, sample: Sample) -> str:
        """Upstream leaves hints out here."""
        return super().build_text(replace(sample, hint=""))


_LAST_LINE = (
    "The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER "
    "is one of the options. Think step by step before answering. "
)


class MMMUProStepwise(MMMUProDataset):
    """The same, reasoned first."""

    default_scoring = "mmmu_pro_stepwise"
    default_traits = MMMUProDataset.default_traits | {"reasoning"}
    closing = "Answer the following multiple-choice question. " + _LAST_LINE


class MMMUProVision(ImageMCQDataset):
    """MMMU-Pro where the picture has the question and its options: the file has no question."""

    needed_columns = ("index",)
    default_scoring = "choices"
    default_traits = frozenset({"dataset_prompt"})
    request: ClassVar[str] = "Answer directly with the option letter from the given choices. "

    def build_text(self, sample: Sample) -> str:
        return "Answer the following multiple-choice question in the image. " + self.request


class MMMUProVisionStepwise(MMMUProVision):
    """The same, reasoned first."""

    default_scoring = "mmmu_pro_stepwise"
    default_traits = frozenset({"dataset_prompt", "reasoning"})
    request = _LAST_LINE
