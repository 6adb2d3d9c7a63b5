"""Conversations about images: the questions of a row are put one after the other, each after the model's own answers.

Source: VLMEvalKit, vlmeval/dataset/image_mt.py and inference_mt.py (50b8ff5). `question` and `answer` hold a list of
texts, one a turn; `<ImageHere>` in a question stands for the row's next image, over all its turns. Images that no
question names are not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from vlmeval.conversation import ANSWER, is_broken_list, texts_of_cell
from vlmeval.dataset.base import Dataset
from vlmeval.dataset.tsv_index import IndexedRow
from vlmeval.errors import ImageError
from vlmeval.types import ImagePart, Message, PromptSize, Sample, TaskType, TextPart

IMAGE_HERE = "<ImageHere>"


class ImageMTDataset(Dataset):
    """Any TSV of conversations. How it is scored has to be declared."""

    type: ClassVar[TaskType] = "MT"
    default_traits = frozenset({"multi_image"})

    def build_prompt(self, sample: Sample) -> list[Message]:
        """All turns in one list, a mark after each question. Raises ImageError for a sample that cannot be asked."""
        if sample.image_error:
            raise ImageError(sample.image_error)
        images = iter(sample.images)
        message: list[Message] = []
        for question in self.questions(sample):
            for number, text in enumerate(question.split(IMAGE_HERE)):
                if number:
                    message.append(ImagePart(type="image", value=next(images)))
                if text or question == "":
                    message.append(TextPart(type="text", value=text))
            message.append(ANSWER)
        return message

    def build_text(self, sample: Sample) -> str:
        """All questions, for what asks for one text."""
        return "\n".join(self.questions(sample))

    def questions(self, sample: Sample) -> list[str]:
        """One a turn; a cell that is no list is one question, as upstream takes it (one like a broken list fails)."""
        found = texts_of_cell(sample.question)
        return [question + self.prompt_suffix for question in ([sample.question] if found is None else found)]

    def sizes_of(
        self, sample: Sample, images: Sequence[tuple[int, int]], text_of: Callable[[Sample], str]
    ) -> Iterator[PromptSize]:
        """One for each turn: a later one has more of everything, but fewer images may be cut finer. Always by the
        benchmark's own wording."""
        shown, texts = 0, []
        for turn, question in enumerate(self.questions(sample)):
            shown += question.count(IMAGE_HERE)
            texts.append(question.replace(IMAGE_HERE, ""))
            if shown <= len(images):
                own = tuple(images[:shown])
                yield PromptSize(index=sample.index, images=own, text="\n".join(texts), earlier_answers=turn)

    def _with_images(self, row: IndexedRow, sample: Sample) -> Sample:
        """What cannot be asked is told as a missing image is: the sample fails, the run goes on."""
        sample = super()._with_images(row, sample)
        if sample.image_error:
            return sample
        questions = self.questions(sample)
        wanted = sum(question.count(IMAGE_HERE) for question in questions)
        wrong = ""
        if is_broken_list(sample.question):
            wrong = "its question opens and closes like a list and is no list of texts"
        elif not questions:
            wrong = "its list of questions is empty"
        elif wanted > len(sample.images):
            wrong = f"its questions name {wanted} images ({IMAGE_HERE}) and it has {len(sample.images)}"
        return replace(sample, image_error=f"row {row.name} (line {row.line}): {wrong}") if wrong else sample


def holds_conversations(questions: Sequence[str]) -> bool:
    """Whether these cells, the first of a file, are all lists of texts."""
    return bool(questions) and all(texts_of_cell(question) for question in questions)


class MMDUDataset(ImageMTDataset):
    """MMDU: long conversations about several images, graded turn by turn."""

    default_scoring = "mmdu"
    default_traits = frozenset({"multi_image", "judge"})


class MMMTBenchDataset(ImageMTDataset):
    """MM-MT-Bench: shorter conversations by category, one grade a turn."""

    default_scoring = "mm_mt_bench"
    default_traits = frozenset({"multi_image", "judge"})
