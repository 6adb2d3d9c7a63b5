"""Tables of answers as records of text: xlsx, tsv, csv, json and JSON lines.

Nothing is converted. What only JSON can say, a number or null, is written as text the way the file has it, and null is
an empty cell.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmeval.answers.xlsx import read_sheet
from vlmeval.errors import DatasetError, UnknownNameError

SUFFIXES = (".jsonl", ".xlsx", ".tsv", ".csv", ".json")
_XLSX_CELL_LIMIT = 32_767


@dataclass(frozen=True, kw_only=True)
class AnswerTable:
    """`rows` as long as `columns`, all texts; `path` for messages."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    dated_cells: int = 0
    """Cells of an xlsx that a spreadsheet made dates of."""

    def column(self, name: str) -> int:
        """Where a column stands, compared without case. Raises DatasetError with the columns there are."""
        found = self.find(name)
        if found is None:
            shown = ", ".join(self.columns[:30]) or "none"
            hint = _other_separator(self.path, self.columns[0]) if len(self.columns) == 1 else ""
            raise DatasetError(f"{self.path} has no column {name!r}; its columns: {shown}{hint}")
        return found

    def find(self, name: str) -> int | None:
        """Where a column stands; the exact spelling first (`A` is not `a`)."""
        if name in self.columns:
            return self.columns.index(name)
        lowered = [column.strip().lower() for column in self.columns]
        return lowered.index(name.lower()) if name.lower() in lowered else None

    @property
    def cut_cells(self) -> int:
        """Texts as long as an xlsx cell can be: the answer went on."""
        if self.path.suffix.lower() != ".xlsx":
            return 0
        return sum(
            len(cell.encode("utf-16-le", "surrogatepass")) // 2 >= _XLSX_CELL_LIMIT
            for row in self.rows
            for cell in row
            if 2 * len(cell) >= _XLSX_CELL_LIMIT
        )


def _other_separator(path: Path, header: str) -> str:
    """What to try where a whole header is one column; empty if nothing in it separates."""
    if ";" in header:
        return "; its cells are separated by semicolons: save it with commas"
    if path.suffix.lower() == ".csv" and "\t" in header:
        return "; its cells are separated by tabs: call it .tsv"
    if path.suffix.lower() == ".tsv" and "," in header:
        return "; its cells are separated by commas: call it .csv"
    return ""


def read_table(path: Path) -> AnswerTable:
    """Read any of the formats by its suffix. Raises DatasetError with what is wrong and where."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UnknownNameError("kind of answer file", path.name, (), f"known: {', '.join(SUFFIXES)}")
    if suffix == ".xlsx":
        sheet = read_sheet(path)
        return replace(_padded(path, sheet.rows), dated_cells=sheet.dated)
    text = _text(path)
    if suffix in (".tsv", ".csv"):
        return _padded(path, _separated(path, text, "\t" if suffix == ".tsv" else ","))
    return _from_records(path, _json_records(path, text, lines=suffix == ".jsonl"))


def cell_text(value: object) -> str:
    """A JSON value as the text a table of texts would have: null and NaN are empty, numbers as in the file."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    return str(value) if isinstance(value, (int, float)) else json.dumps(value, ensure_ascii=False)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in raw[:2]:  # without its mark every other byte is 0
        raise DatasetError(f"{path} looks like UTF-16: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save it as UTF-8"
        ) from error


def _separated(path: Path, text: str, separator: str) -> list[list[str]]:
    """Answers are long: the csv module's limit of 131,072 characters a cell is lifted for as long as this reads."""
    with _long_cells():
        try:
            return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        except csv.Error as error:
            raise DatasetError(
                f"{path} is no proper {path.suffix[1:]}: {error}; quotes in a cell are doubled"
            ) from error


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _padded(path: Path, rows: Iterable[Sequence[str]]) -> AnswerTable:
    """The first row as header. A shorter row is filled up (an xlsx leaves out what is empty); a longer one is wrong."""
    filled = [list(row) for row in rows if row]
    if not filled:
        raise DatasetError(f"{path} is empty")
    columns = tuple(filled[0])
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DatasetError(f"{path}: columns named twice: {', '.join(twice)}")
    for number, row in enumerate(filled[1:], 2):
        if len(row) > len(columns) and any(row[len(columns) :]):
            raise DatasetError(
                f"{path}, record {number}: {len(row)} cells where the header has {len(columns)} columns; a separator "
                "inside a cell needs quotes around it"
            )
        row += [""] * (len(columns) - len(row))
    return AnswerTable(path=path, columns=columns, rows=[row[: len(columns)] for row in filled[1:]])


def _json_records(path: Path, text: str, *, lines: bool) -> list[dict[str, Any]]:
    records: Any
    if lines:
        records = [_parsed(path, line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        records = _parsed(path, text, 1)
    if isinstance(records, dict):
        if {"index", "prediction"} <= records.keys() and all(isinstance(value, list) for value in records.values()):
            return _from_lists(path, records)
        # `{"17": "B", ...}`: answers by index. A table by columns has dicts as values.
        columns = [name for name, value in records.items() if isinstance(value, dict)]
        if columns:
            names = list(dict.fromkeys(key for name in columns for key in records[name]))
            return [{name: records[name].get(key) for name in columns} for key in names]
        return [{"index": key, "prediction": value} for key, value in records.items()]
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DatasetError(f'{path} is no list of records; give [{{"index": 1, "prediction": "B"}}, ...]')
    return records


def _from_lists(path: Path, columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """`{"index": [1, 2], "prediction": ["B", "C"]}`: a list for each column."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DatasetError(f"{path}: its columns are lists of different lengths: {told}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError) as error:
        at = getattr(error, "lineno", 1) + line - 1
        raise DatasetError(f"{path}, line {at}: no JSON ({error})") from error


class _Number(str):
    """A number of a JSON file, with the digits it has there."""

    __slots__ = ()


def _from_records(path: Path, records: Sequence[dict[str, Any]]) -> AnswerTable:
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    rows = [[cell_text(record.get(column)) for column in columns] for record in records]
    if not rows:
        raise DatasetError(f"{path} has no records")
    return AnswerTable(path=path, columns=columns, rows=rows)
