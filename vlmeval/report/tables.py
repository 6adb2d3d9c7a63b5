"""Tables as files: xlsx, tsv, csv and json, in the formats `PRED_FORMAT` and `EVAL_FORMAT` name.

Text stays text: an answer such as `=cmd|...` is a string cell in the xlsx, never a formula. Characters a file cannot
hold are written as `_xHHHH_`, the escape of the xlsx format; what looks like such an escape has its own in an xlsx. An
xlsx cell holds 32,767 characters: a longer text is cut there, and the whole table goes into a tsv beside it.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

from vlmeval.errors import MissingPackageError, UnknownNameError
from vlmeval.storage import replace_file, storage_error

if TYPE_CHECKING:
    from openpyxl.worksheet._write_only import WriteOnlyWorksheet

Cell = Union[str, int, float, None]
Row = Sequence[Cell]
TableFormat = Literal["xlsx", "tsv", "csv", "json"]

XLSX_CELL_LIMIT = 32_767
XLSX_ROW_LIMIT = 1_048_576
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_CHANGED_BY_XML = re.compile("\r|_(?=x[0-9A-Fa-f]{4}_)")
"""XML knows one line end, and a spreadsheet reads `_x000D_` as one."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Source: OWASP, CSV Injection."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A table on disk: `path` as asked for, `beside` what had to be written next to it, `notes` why."""

    path: Path
    beside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def prediction_format(requested: str | None) -> tuple[TableFormat, str]:
    """The format for predictions and, where it is not what one would expect, a line saying why.

    xlsx unless something else is asked for. Asked for by name and not to be had is an error; by default it falls back.
    """
    name = (requested or "xlsx").strip().lower()
    if name not in ("xlsx", "tsv", "json"):
        raise UnknownNameError("PRED_FORMAT", name, ("xlsx", "tsv", "json"), hint="known: xlsx, tsv, json")
    if name != "xlsx":
        return ("tsv", "") if name == "tsv" else ("json", "")
    if importlib.util.find_spec("openpyxl") is not None:
        return "xlsx", ""
    if requested:
        raise MissingPackageError("openpyxl", "PRED_FORMAT=xlsx")
    return "tsv", "predictions are written as tsv: the package openpyxl, needed for xlsx, is not installed"


def evaluation_format(requested: str | None) -> TableFormat:
    """The format for score tables: csv unless json is asked for."""
    name = (requested or "csv").strip().lower()
    if name not in ("csv", "json"):
        raise UnknownNameError("EVAL_FORMAT", name, ("csv", "json"), hint="known: csv, json")
    return "csv" if name == "csv" else "json"


def write_table(stem: Path, columns: Sequence[str], rows: Sequence[Row], fmt: TableFormat) -> Written:
    """Write `{stem}.{fmt}`. Rows are as long as `columns`; numbers stay numbers, text stays text."""
    path = stem.with_name(f"{stem.name}.{fmt}")
    if fmt == "xlsx":
        return _write_xlsx(path, columns, rows)
    if fmt == "json":
        replace_file(path, _json_bytes(columns, rows))
    else:
        replace_file(path, _separated_bytes(columns, rows, fmt))
    return Written(path=path)


def _json_bytes(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    """A list of records, one a line."""
    records = (json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows)
    return ("[\n" + ",\n".join(records) + "\n]\n").encode("utf-8", "backslashreplace")


def _separated_bytes(columns: Sequence[str], rows: Iterable[Row], fmt: TableFormat) -> bytes:
    """tsv holds texts as they are, for programs; csv is made to be opened: what looks like a formula gets a `'`."""
    clean = _guarded if fmt == "csv" else _escaped
    text = _Lines()
    # Only with this line end are cells quoted that have a lone carriage return, which readers take for a line end.
    writer = csv.writer(text, delimiter="," if fmt == "csv" else "\t", lineterminator="\r\n")
    writer.writerow([clean(column) for column in columns])
    writer.writerows([clean(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8")


class _Lines(io.StringIO):
    """The csv module writes a row at a time: its line end becomes a plain one."""

    def write(self, row: str) -> int:
        return super().write(row.removesuffix("\r\n") + "\n")


def _escaped(cell: Cell) -> Cell:
    if isinstance(cell, str) and _UNWRITABLE.search(cell):
        return _UNWRITABLE.sub(lambda hit: f"_x{ord(hit.group()):04X}_", cell)
    return cell


def _escaped_for_xml(cell: Cell) -> Cell:
    """Reversibly: Excel and `vlmeval score` read back the very text."""
    if isinstance(cell, str) and _CHANGED_BY_XML.search(cell):
        cell = _CHANGED_BY_XML.sub(lambda hit: f"_x{ord(hit.group()):04X}_", cell)
    return _escaped(cell)


def _guarded(cell: Cell) -> Cell:
    return "'" + str(_escaped(cell)) if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else _escaped(cell)


def _write_xlsx(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> Written:
    if len(rows) >= XLSX_ROW_LIMIT:
        beside = write_table(path.with_suffix(""), columns, rows, "tsv").path
        return Written(path=beside, notes=(f"{len(rows)} rows do not fit an xlsx sheet: written as {beside.name}",))
    try:
        content, cut = _xlsx_bytes(columns, rows)
    except OSError as error:  # openpyxl streams through the folder for temporary files
        raise storage_error(path, error) from error
    replace_file(path, content)
    if not cut:
        return Written(path=path)
    tsv = path.with_name(path.name.removesuffix(".xlsx") + ".tsv")
    replace_file(tsv, _separated_bytes(columns, rows, "tsv"))
    note = f"{cut} cells of {path.name} are cut at {XLSX_CELL_LIMIT} characters; the whole texts are in {tsv.name}"
    return Written(path=path, beside=(tsv,), notes=(note,))


def _xlsx_bytes(columns: Sequence[str], rows: Iterable[Row]) -> tuple[bytes, int]:
    """The workbook, and how many cells had to be cut."""
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    cut = 0
    for row in (columns, *rows):
        cells = [_escaped_for_xml(cell) for cell in row]
        for at, cell in enumerate(cells):
            if isinstance(cell, str):
                fitting = _fitting(cell)
                cut += fitting != cell
                cells[at] = fitting
        sheet.append([_text_cell(sheet, cell) for cell in cells])
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue(), cut


def _fitting(text: str) -> str:
    """`text` cut to what a cell holds; the limit counts UTF-16 units."""
    if 2 * len(text) <= XLSX_CELL_LIMIT or len(text.encode("utf-16-le")) <= 2 * XLSX_CELL_LIMIT:
        return text
    return text.encode("utf-16-le")[: 2 * XLSX_CELL_LIMIT].decode("utf-16-le", "ignore")


def _text_cell(sheet: WriteOnlyWorksheet, cell: Cell) -> object:
    """openpyxl takes `=...` for a formula and `#N/A` for an error unless the cell says it is a string."""
    if not isinstance(cell, str) or not cell.startswith((*_FORMULA_STARTS, "#")):
        return cell
    from openpyxl.cell import WriteOnlyCell

    made = WriteOnlyCell(sheet, value=cell)
    made.data_type = "s"
    made.quotePrefix = True
    return made
