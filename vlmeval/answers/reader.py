"""From a file of answers to predictions of a benchmark's rows, with everything that does not fit counted.

A journal of ours is read as the run would read it. Any other file is a table with the columns `index` and `prediction`
(and `thinking`). An answer that begins with upstream's words for a failure is a failed sample, not an answer.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vlmeval.answers.tables import AnswerTable, read_table
from vlmeval.conversation import texts_as_cell, texts_of_cell
from vlmeval.errors import DatasetError, UnknownNameError
from vlmeval.inference.journal import read_journal
from vlmeval.storage import storage_error
from vlmeval.types import Index, Prediction

FAILURE = "Failed to obtain answer"
"""How upstream, and our own tables, write a sample that has no answer."""
Repeated = Literal["refuse", "first", "last"]
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_FEW = 5


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a file holds for one benchmark. `rows` are the file's own cells of each row, for comparing with the
    benchmark; `notes` what has to be said about the file, with counts."""

    path: Path
    is_journal: bool
    predictions: Mapping[Index, Prediction]
    rows: Mapping[Index, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_answers(path: Path, indices: Sequence[Index], *, repeated: Repeated = "refuse") -> Answers:
    """The answers in `path` to the rows named by `indices`.

    Raises DatasetError if the file cannot be read, holds no answer to any of these rows, or answers a row twice and
    differently (unless `repeated` says which answer counts).
    """
    _check(path)
    if path.suffix.lower() == ".jsonl" and _is_journal(path):
        return _from_journal(path, indices)
    return _from_table(read_table(path), indices, repeated)


def _check(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    if path.is_dir():
        raise DatasetError(f"{path} is a folder; give the file with the answers")
    if not size:
        raise DatasetError(f"{path} is empty (0 bytes)")


def _is_journal(path: Path) -> bool:
    """Whether the first line that is whole is a record of ours: it has a status and a fingerprint. A run killed at its
    first record leaves a torn line before the others."""
    try:
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    return isinstance(record, dict) and {"index", "status", "fingerprint"} <= record.keys()
    except OSError as error:
        raise storage_error(path, error) from error
    return False


def _from_journal(path: Path, indices: Sequence[Index]) -> Answers:
    records = read_journal(path)
    known = set(indices)
    strangers = [index for index in records if index not in known]
    predictions = {index: records[index] for index in indices if index in records}
    _refuse_none(path, predictions, [str(index) for index in strangers], indices)
    notes = [_unknown_note(path, [str(index) for index in strangers])] if strangers else []
    return Answers(path=path, is_journal=True, predictions=predictions, notes=tuple(notes))


def _from_table(table: AnswerTable, indices: Sequence[Index], repeated: Repeated) -> Answers:
    table = _with_turns_joined(table)
    name_at, text_at, thinking_at = table.column("index"), table.column("prediction"), table.find("thinking")
    rows, unknown, nameless, twice = _matched(table, name_at, text_at, indices, repeated)
    predictions = {}
    for index, row in rows.items():
        thinking = row[thinking_at] if thinking_at is not None else ""
        predictions[index] = _prediction(index, row[text_at], thinking)
    _refuse_none(table.path, predictions, unknown, indices)
    cells = {index: dict(zip(table.columns, row, strict=True)) for index, row in rows.items()}
    notes = _table_notes(table, predictions.values(), unknown, nameless, twice, repeated)
    return Answers(path=table.path, is_journal=False, predictions=predictions, rows=cells, notes=notes)


def _with_turns_joined(table: AnswerTable) -> AnswerTable:
    """VLMEvalKit's older tables of conversations have the turns in `prediction_0`, `prediction_1`, ... and their number
    in `nturn`: the same with the column `prediction`, as it writes them now."""
    at = [table.find(f"prediction_{turn}") for turn in range(len(table.columns))]
    places = [place for place in at if place is not None]
    count_at = table.find("nturn")
    if table.find("prediction") is not None or not places or count_at is None:
        return table
    rows = []
    for row in table.rows:
        count = row[count_at].strip().removesuffix(".0")
        said = [row[place] for place in places][: int(count) if count.isdigit() else None]
        rows.append([*row, texts_as_cell(said)])
    return replace(table, columns=(*table.columns, "prediction"), rows=rows)


def _matched(
    table: AnswerTable, name_at: int, text_at: int, indices: Sequence[Index], repeated: Repeated
) -> tuple[dict[Index, Sequence[str]], list[str], int, int]:
    """The row of each index in the benchmark's order, names that are no index, rows without name, rows repeated."""
    known: dict[str, Index] = {str(index): index for index in indices}
    integers = bool(indices) and all(isinstance(index, int) for index in indices)
    found: dict[Index, Sequence[str]] = {}
    unknown, conflicts, nameless, twice = [], [], 0, 0
    for row in table.rows:
        name = row[name_at].strip()
        if not name:
            nameless += any(row)
            continue
        index = _index(name, known, integers)
        if index is None:
            unknown.append(name)
            continue
        if index in found:
            twice += 1
            if found[index][text_at] != row[text_at]:
                conflicts.append(index)
            if repeated == "first":
                continue
        found[index] = row
    if conflicts and repeated == "refuse":
        raise DatasetError(
            f"{table.path}: {len(conflicts)} rows are answered twice and differently (index "
            f"{_few(conflicts)}); take the wrong ones out, or say --repeated first or --repeated last"
        )
    return {index: found[index] for index in indices if index in found}, unknown, nameless, twice


def _index(name: str, known: Mapping[str, Index], integers: bool) -> Index | None:
    """`17`, and where indices are numbers a spreadsheet's `17.0`; never `007` for 7."""
    whole = _WHOLE.fullmatch(name) if integers else None
    return known.get(whole.group(1) if whole else name)


def _prediction(index: Index, text: str, thinking: str) -> Prediction:
    if text.startswith("[") and FAILURE in text:
        for turn, said in enumerate(texts_of_cell(text) or (), 1):
            if said.startswith(FAILURE):
                failed = _prediction(index, said, thinking)
                return replace(failed, error=f"turn {turn}: {failed.error}")
    if text.startswith(FAILURE):
        error = text.removeprefix(FAILURE).removeprefix(" via API").lstrip(". ") or "no reason given"
        return Prediction(index=index, status="failed", fingerprint="", error=error)
    return Prediction(index=index, status="ok", fingerprint="", prediction=text, thinking=thinking)


def _refuse_none(path: Path, found: Mapping[Index, object], unknown: Sequence[str], indices: Sequence[Index]) -> None:
    if found:
        return
    if not unknown:
        raise DatasetError(f"{path} has no answers: nothing stands in it but the names of its columns")
    raise DatasetError(
        f"{path}: not one of its {len(unknown)} indices ({_few(unknown)}) is an index of the benchmark, whose "
        f"{len(indices)} rows begin {_few(indices)}; are these answers to another benchmark?"
    )


def _table_notes(
    table: AnswerTable,
    predictions: Iterable[Prediction],
    unknown: Sequence[str],
    nameless: int,
    twice: int,
    repeated: Repeated,
) -> tuple[str, ...]:
    name, notes = table.path.name, []
    if unknown:
        notes.append(_unknown_note(table.path, unknown))
    if nameless:
        notes.append(f"{name}: {nameless} rows have no index: ignored")
    if twice:
        taken = "the first" if repeated == "first" else "the last" if repeated == "last" else "the answers agree, one"
        notes.append(f"{name}: {twice} rows are answered more than once: {taken} counts")
    empty = sum(p.status == "ok" and not p.prediction for p in predictions)
    if empty:
        notes.append(f"{name}: {empty} answers are empty")
    if table.dated_cells:
        notes.append(
            f"{name}: {table.dated_cells} cells are dates, which spreadsheets make of texts like 1-2 or 3/4: read as "
            "2024-01-02; score the file they were made from where there is one"
        )
    if table.cut_cells:
        notes.append(
            f"{name}: {table.cut_cells} cells are as long as an xlsx cell can be, so their texts were cut; "
            "score the journal, the tsv or the json instead where there is one"
        )
    return tuple(notes)


def _unknown_note(path: Path, unknown: Sequence[str]) -> str:
    return (
        f"{path.name}: {len(unknown)} answers have an index that is none of the benchmark's ({_few(unknown)}): ignored"
    )


def _few(values: Sequence[object]) -> str:
    shown = ", ".join(str(value)[:40] for value in values[:_FEW])
    return shown + (", ..." if len(values) > _FEW else "")


def repeated_choice(text: str) -> Repeated:
    """The value of `--repeated`. Raises UnknownNameError."""
    if text == "first":
        return "first"
    if text == "last":
        return "last"
    if text != "refuse":
        raise UnknownNameError("--repeated", text, ("refuse", "first", "last"), "known: refuse, first, last")
    return "refuse"
