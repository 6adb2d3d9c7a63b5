"""MME-RealWorld: multiple choice with five options, the last of which says that the picture does not tell.

Source: https://arxiv.org/abs/2408.13257 and its evaluation as VLMEvalKit applies it (August 2026). Under `vlmevalkit`
the first capital A to E anywhere in the answer counts, faults included: `I BELIEVE (C)` is B, an empty answer A. The
table has, after upstream's `_rating.json`, a line for every l2-category of a subtask, for every subtask (`Avg`) and for
both tasks; `category` is `task/subtask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmeval.scoring.first_letter import first_letter_of, without_phrases
from vlmeval.scoring.multiple_choice import choice_reader, score_read
from vlmeval.scoring.protocols import find_protocol
from vlmeval.scoring.rows import Answers, Reading
from vlmeval.types import RowScore, Sample, Score, ScoreTable

TASKS = ("Reasoning", "Perception")
AVERAGE = "Avg"
_MOST_WORDS = 10


def score(answers: Answers) -> Score:
    """The usual score with a table by task, subtask and category."""
    choose = choice_reader(find_protocol(answers.protocol), answers.judged)

    def read(sample: Sample, text: str) -> Reading:
        label = first_letter(text) if answers.protocol == "vlmevalkit" else None
        if label:
            return Reading(label, float(label == sample.answer), f"{label} by the first letter")
        if answers.protocol == "vlmevalkit" and sample.index not in answers.judged:
            return Reading(None, 0.0, "nothing extracted: no letter")
        return choose(sample, text)

    found = score_read(answers, read)
    return replace(found, table=_table({sample.index: sample for sample in answers.samples}, found.rows))


def first_letter(text: str) -> str:
    """The letter upstream reads; empty where it reads none."""
    said = without_phrases(text.strip())
    hit = first_letter_of("ABCDE", said)
    if hit:
        return hit
    if len(said.split()) > _MOST_WORDS:
        return ""
    return next((label for label in "ABCDE" if said.lower() in f"({label.lower()})"), "")


def _table(samples: dict[int | str, Sample], rows: Sequence[RowScore]) -> ScoreTable:
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        sample = samples[row.index]
        task, _, subtask = sample.category.partition("/")
        kind = _kind(sample.l2_category)
        for key in ((task, subtask, kind), (task, subtask, AVERAGE), (task, AVERAGE, AVERAGE)):
            groups.setdefault(key, []).append(row.hit)
    every = [row.hit for row in rows]
    lines: list[tuple[str | float, ...]] = [("Overall", AVERAGE, AVERAGE, _share(every))]
    lines += [(*key, _share(groups[key])) for key in sorted(groups, key=_order)]
    return ScoreTable(columns=("task", "subtask", "category", "accuracy"), rows=tuple(lines))


def _order(key: tuple[str, str, str]) -> tuple[int, str, bool, str, bool, str]:
    """Tasks as upstream has them, averages first."""
    task, subtask, kind = key
    place = TASKS.index(task) if task in TASKS else len(TASKS)
    return place, task, subtask != AVERAGE, subtask, kind != AVERAGE, kind


def _kind(l2_category: str) -> str:
    """In small letters; all attributes of a thing are one."""
    name = l2_category.lower()
    return name.split("/")[0] + "/attribute" if "attribute" in name else name


def _share(hits: Sequence[float]) -> float:
    return sum(hits) / len(hits) if hits else 0.0
