"""Multiple choice: options in the columns A, B, C, ..., the right one's letter in `answer`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import ClassVar

from vlmeval.dataset.base import Dataset
from vlmeval.scoring.ground_truths import ground_truths
from vlmeval.types import Sample, TaskType

L2_SHORT_NAMES: dict[str, str] = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}
"""What MMBench's l2-categories are called in score tables."""


class ImageMCQDataset(Dataset):
    """MMBench, CCBench, MMStar and any TSV with option columns. With the trait "circular", rotated copies of a
    question count as one."""

    type: ClassVar[TaskType] = "MCQ"
    default_scoring = "choices"
    l2_short_names = L2_SHORT_NAMES
    # The blank before the newline is upstream's; published numbers have it.
    closing: ClassVar[str] = "Please select the correct answer from the options above. \n"

    def read_options(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The non-empty cells of the columns A, B, C, ... up to the first letter that is no column."""
        options = {}
        for label in string.ascii_uppercase:
            if label not in fields:
                break
            if fields[label]:
                options[label] = fields[label]
        return options

    def build_text(self, sample: Sample) -> str:
        hint = f"Hint: {sample.hint}\n" if sample.hint else ""
        text = f"{hint}Question: {sample.question}\n"
        if sample.options:
            options = "".join(f"{label}. {option}\n" for label, option in sample.options.items())
            text += f"Options:\n{options}{self.closing}"
        return text + self.prompt_suffix


class HRBenchDataset(ImageMCQDataset):
    """HR-Bench: a column `cycle_category` names the rotation of a question."""

    default_scoring = "hr_bench"


def listed_options(cell: str) -> dict[str, str]:
    """Up to five options of a list by place; what stands before a text is as long as `(A) `. A cell that is no list
    offers none."""
    listed = ground_truths(cell)
    return {label: text[4:] for label, text in zip("ABCDE", listed, strict=False)} if len(listed) > 1 else {}


class MMERealWorld(ImageMCQDataset):
    """MME-RealWorld-Lite: five options in one cell, as a list of `(A) text`; its own wording, whatever the family."""

    options_column = "multi-choice options"
    needed_columns = ("index", "question", options_column)
    default_scoring = "mme_realworld"
    default_traits = frozenset({"dataset_prompt"})
    closing: ClassVar[str] = (
        "Select the best answer to the above multiple-choice question based on the image. Respond with only the letter "
        "(A, B, C, D, or E) of the correct option. \nThe best answer is:"
    )

    def read_options(self, fields: Mapping[str, str]) -> dict[str, str]:
        return listed_options(fields[self.options_column])

    def build_text(self, sample: Sample) -> str:
        listed = "\n".join(ground_truths(sample.fields[self.options_column]))
        return f"{sample.question} The choices are listed below:\n{listed}\n{self.closing}{self.prompt_suffix}"
