"""Conversations for a judge: each turn as a question of its own, and a conversation as what its turns are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from vlmeval.conversation import texts_of_cell
from vlmeval.scoring.judged import Verdict
from vlmeval.scoring.rows import Answers, Reading, Row, RowsRead, read_rows
from vlmeval.types import Index, Sample

Verdicts = Mapping[Index, Verdict]
TurnVerdicts = Sequence[Verdict | None]
"""Of one conversation, in order; None for a turn without."""


def turns_of(sample: Sample, text: str) -> list[tuple[Sample, str]]:
    """What is graded: each turn as a sample of its own, and the answer to it, empty where there is none."""
    questions, references, said = _texts(sample.question), _texts(sample.answer), _said(text)
    return [
        (
            replace(
                sample,
                index=f"{sample.index} (turn {turn + 1})",
                question=question,
                answer=references[turn] if turn < len(references) else "",
            ),
            said[turn] if turn < len(said) else "",
        )
        for turn, question in enumerate(questions)
    ]


def verdicts_on(row: Row, verdicts: Verdicts) -> TurnVerdicts:
    """Of each turn; none of a conversation that failed, whatever was said of its turns."""
    turns = [turn.index for turn, _ in turns_of(row.sample, "")]
    return [None if row.state in ("failed", "missing") else verdicts.get(index) for index in turns]


def read_conversations(
    answers: Answers, verdicts: Verdicts, details: Callable[[TurnVerdicts], Mapping[str, object]] = lambda _: {}
) -> RowsRead:
    """Every conversation as the mean of its turns, a turn without a verdict as 0; `details` are further cells of it."""

    def read(sample: Sample, text: str) -> Reading:
        found = [verdicts.get(turn.index) for turn, _ in turns_of(sample, text)]
        if not any(found):
            return Reading(None, 0.0, "no verdict")
        shown = ", ".join(verdict.extracted if verdict else "none" for verdict in found)
        return Reading(shown, sum(verdict.hit for verdict in found if verdict) / len(found), "by judge", details(found))

    return read_rows(answers, {"vlmevalkit": read, "exact": read})


def turn_notes(answers: Answers, rows: RowsRead, verdicts: Verdicts, fate: str) -> list[str]:
    """The turns in words; `fate` is what becomes of those without a verdict."""
    found = [verdict for row in rows.counted for verdict in verdicts_on(row, verdicts)]
    notes = [f"{len(found)} turns in {len(rows.counted)} conversations; the judge grades each by itself"]
    unlike = [row.sample.index for row in rows.counted if _is_of_other_length(row, answers)]
    if unlike:
        few = ", ".join(map(str, unlike[:5])) + (", ..." if len(unlike) > 5 else "")
        notes.append(f"{len(unlike)} conversations have another number of answers than of questions (index {few})")
    if without := found.count(None):
        notes.append(f"{without} of {len(found)} turns have no grades (failed, empty or not judged): {fate}")
    return notes


def _is_of_other_length(row: Row, answers: Answers) -> bool:
    if row.state in ("failed", "missing"):
        return False
    return len(_said(answers.predictions[row.sample.index].prediction)) != len(_texts(row.sample.question))


def _texts(cell: str) -> list[str]:
    """One a turn; what is no list is one text, as it was when it was asked."""
    found = texts_of_cell(cell)
    return [cell] if found is None else found


def _said(cell: str) -> list[str]:
    """The same of answers; what opens like a list and is none was cut off, and is nothing."""
    return [] if texts_of_cell(cell) is None and cell.lstrip().startswith("[") else _texts(cell)
