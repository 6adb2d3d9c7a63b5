"""An open question with an answer in words."""

from __future__ import annotations

from typing import ClassVar

from vlmeval.dataset.base import Dataset
from vlmeval.types import Sample, TaskType

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."


class ImageVQADataset(Dataset):
    """TextVQA, DocVQA and any TSV with questions and answers; the trait "short_answer" asks for a word or phrase.
    Its scoring is still to come."""

    type: ClassVar[TaskType] = "VQA"

    def build_text(self, sample: Sample) -> str:
        return sample.question + (SHORT_ANSWER if "short_answer" in self.task.traits else "")
