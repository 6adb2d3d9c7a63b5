"""A TSV that is in no table: what kind of benchmark it is, told by its rule or its columns."""

from __future__ import annotations

from collections.abc import Sequence

from vlmeval.conversation import texts_of_cell
from vlmeval.dataset.base import Dataset
from vlmeval.dataset.mcq import ImageMCQDataset
from vlmeval.dataset.multi_turn import ImageMTDataset, holds_conversations
from vlmeval.dataset.tsv_index import TsvIndex
from vlmeval.dataset.video import VideoMCQDataset
from vlmeval.dataset.vqa import ImageVQADataset
from vlmeval.dataset.yes_no import ImageYORNDataset
from vlmeval.scoring.rules import find_rule


def class_of_unknown(name: str, index: TsvIndex, scoring: str) -> tuple[type[Dataset], tuple[str, ...]]:
    """The kind of a TSV that is in no table, by its rule or its columns, and a line that says so."""
    by_type: dict[str, type[Dataset]] = {
        "MCQ": ImageMCQDataset, "Y/N": ImageYORNDataset, "VQA": ImageVQADataset, "MT": ImageMTDataset,
    }  # fmt: skip
    kind: type[Dataset]
    if "video" in index.columns and not {"image", "image_path"} & {*index.columns}:
        kind, why = VideoMCQDataset, "it has a column video"
    elif scoring:
        kind, why = by_type[find_rule(scoring).type], f"its rule is {scoring}"
    elif "A" in index.columns and "B" in index.columns:
        kind, why = ImageMCQDataset, "it has option columns"
    elif holds_conversations(questions := _first_questions(index)):
        kind, why = ImageMTDataset, "its questions are lists of turns"
    elif "answer" in index.columns and {a.strip().lower() for a in index.distinct("answer", 9)} <= {"yes", "no"}:
        kind, why = ImageYORNDataset, "its answers are all yes or no"
    else:
        kind, why = ImageVQADataset, "it has no option columns"
    notes: tuple[str, ...] = (f"{name}: in no table, taken as {kind.type} because {why}",)
    if kind in (ImageYORNDataset, ImageVQADataset) and not scoring:
        notes += _lists_among(name, questions)
    return kind, notes


def _first_questions(index: TsvIndex) -> list[str]:
    place = index.text_columns.index("question")
    return [row.cells[place] for row in index.rows(0, min(5, len(index)))]


def _lists_among(name: str, questions: Sequence[str]) -> tuple[str, ...]:
    """What is said of a file where some questions are lists of turns, which are asked as they are written."""
    lists = sum(bool(texts_of_cell(question)) for question in questions)
    if not lists:
        return ()
    return (
        f"{name}: {lists} of its first {len(questions)} questions are lists of turns; if it holds conversations, "
        'give it "class": "ImageMTDataset" in a config entry',
    )
