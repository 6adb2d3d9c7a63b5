"""An open question with an answer in words."""

from __future__ import annotations

from typing import ClassVar

from vlmeval.dataset.base import Dataset
from vlmeval.types import Sample, TaskType

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."


class ImageVQADataset(Dataset):
    """TextVQA, DocVQA and any TSV with questions and answers; the trait "short_answer" asks for a word or phrase.

    How it is scored has to be declared: what a right answer in words is, no column tells.
    """

    type: ClassVar[TaskType] = "VQA"

    def build_text(self, sample: Sample) -> str:
        short = SHORT_ANSWER if "short_answer" in self.task.traits else ""
        return sample.question + short + self.prompt_suffix


class VizWiz(ImageVQADataset):
    """VizWiz: ten answers of people each, in the column `answers`."""

    default_scoring = "vqa_accuracy"


class OCRBench(ImageVQADataset):
    """OCRBench: 1,000 questions about texts, a point each."""

    default_scoring = "ocrbench"
    default_traits = frozenset({"small_images", "fine_print"})


class MathVista(ImageVQADataset):
    """MathVista: the question says itself how to answer."""

    default_scoring = "mathvista"
    default_traits = frozenset({"reasoning", "judge"})


class MathVision(ImageVQADataset):
    """MathVision: choices and expressions."""

    default_scoring = "mathvision"
    default_traits = frozenset({"reasoning", "judge"})


class MathVerse(ImageVQADataset):
    """MathVerse: one problem in several versions, from much text to none."""

    default_scoring = "mathverse"
    default_traits = frozenset({"reasoning", "judge"})


class MathVerseStepwise(MathVerse):
    """MathVerse asked to reason first: the prompt stands in a column of its own, the question stays the judge's."""

    needed_columns = ("index", "question", "query_cot")

    def build_text(self, sample: Sample) -> str:
        return sample.fields["query_cot"] + self.prompt_suffix


class MMVet(ImageVQADataset):
    """MM-Vet: answers at length, graded."""

    default_scoring = "mmvet"
    default_traits = frozenset({"own_wording", "judge"})


class LLaVABench(ImageVQADataset):
    """LLaVA-Bench: answers at length, graded beside GPT-4's."""

    default_scoring = "llavabench"
    default_traits = frozenset({"judge", "detailed"})
