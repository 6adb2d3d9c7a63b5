"""The first sheet of an xlsx, every cell as the text the file has: no types, no missing values, no formulas run.

Source: ECMA-376 part 1, 18.3 (sheet), 18.4 (shared strings). A cell that a spreadsheet took for a formula comes back as
the text that was typed (`=cmd|...`). Numbers keep the digits of the file. Read with expat in one pass: 30,000 rows of
12 columns take about a third of openpyxl's time, and nothing but the standard library is needed.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, NoReturn
from xml.parsers import expat

from vlmeval.answers.xlsx_dates import DateStyles, date_text
from vlmeval.errors import DatasetError

MAX_XML_BYTES = 2**31
"""More than this unpacked is no table of answers but an attempt to fill the memory."""
MAX_COLUMNS = 16_384
_CHUNK_BYTES = 2**20
_ESCAPE = re.compile("_x(00[01][0-9A-F]|FFF[EF])_|_x(005F)_(?=x[0-9A-Fa-f]{4}_)")
"""Only control characters, and what makes of an escape a text: writers other than Excel leave a literal `_x0041_` as it
is."""


class Sheet(NamedTuple):
    """`rows` of texts, empty cells as "", without the empty ones at a row's end; how many cells are dates."""

    rows: list[list[str]]
    dated: int


def read_xlsx(path: Path) -> list[list[str]]:
    """The rows of the first sheet, as `read_sheet` has them."""
    return read_sheet(path).rows


def read_sheet(path: Path) -> Sheet:
    """The first sheet.

    Raises DatasetError for a file that is no xlsx, damaged, or larger than 2 GiB unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sheet = _first_sheet(archive, path)
            texts: list[str] = []
            if "xl/sharedStrings.xml" in archive.namelist():
                texts = _SharedStrings(path).read(archive, "xl/sharedStrings.xml")
            return _Sheet(path, texts, *_dates(archive, path)).read(archive, sheet)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, EOFError, expat.ExpatError) as error:
        raise DatasetError(f"{path} cannot be read as xlsx: {error}; save it again, or give a tsv or csv") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error


def _dates(archive: zipfile.ZipFile, path: Path) -> tuple[frozenset[str], bool]:
    """The numbers of the styles that show dates, and whether days count from 1904."""
    styles, from_1904 = DateStyles(), False

    def workbook(name: str, attributes: Mapping[str, str]) -> None:
        nonlocal from_1904
        if name == "workbookPr":
            from_1904 = attributes.get("date1904", "0") in ("1", "true")

    _parse(archive, "xl/workbook.xml", path, start=workbook)
    if "xl/styles.xml" in archive.namelist():
        _parse(archive, "xl/styles.xml", path, start=styles.start, end=styles.end)
    return frozenset(styles.numbers), from_1904


def _first_sheet(archive: zipfile.ZipFile, path: Path) -> str:
    """The name in the archive of the sheet that stands first in the workbook."""
    sheets: list[str] = []
    targets: dict[str, str] = {}

    def sheet(name: str, attributes: Mapping[str, str]) -> None:
        if name == "sheet":
            sheets.extend(value for key, value in attributes.items() if key.rpartition(":")[2] == "id")

    def relation(name: str, attributes: Mapping[str, str]) -> None:
        if name == "Relationship":
            targets[attributes.get("Id", "")] = attributes.get("Target", "")

    _parse(archive, "xl/workbook.xml", path, start=sheet)
    _parse(archive, "xl/_rels/workbook.xml.rels", path, start=relation)
    if not sheets or sheets[0] not in targets:
        raise DatasetError(f"{path} has no sheet")
    target = targets[sheets[0]]
    return target.lstrip("/") if target.startswith("/") else str(PurePosixPath("xl") / target)


def _parse(
    archive: zipfile.ZipFile,
    member: str,
    path: Path,
    *,
    start: Callable[[str, Mapping[str, str]], None],
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
) -> None:
    """Hand the elements of a member to the callbacks, names without their prefix."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, attributes: start(name.rpartition(":")[2], attributes)
    if end is not None:
        parser.EndElementHandler = lambda name: end(name.rpartition(":")[2])
    if text is not None:
        parser.CharacterDataHandler = text

    def refuse(*_: object) -> NoReturn:
        raise DatasetError(f"{path}: {member} declares a document type, which no spreadsheet does: not read")

    parser.StartDoctypeDeclHandler = refuse
    with archive.open(member) as file:
        _feed(parser, file, path)  # type: ignore[arg-type]


def _feed(parser: expat.XMLParserType, file: BinaryIO, path: Path) -> None:
    done = 0
    while chunk := file.read(_CHUNK_BYTES):
        done += len(chunk)
        if done > MAX_XML_BYTES:
            raise DatasetError(f"{path} unpacks to more than {MAX_XML_BYTES / 2**30:.0f} GiB: not read")
        parser.Parse(chunk, False)
    parser.Parse(b"", True)


class _SharedStrings:
    """The texts that cells name by number. Phonetic hints (`rPh`) are no part of a text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texts: list[str] = []
        self._parts: list[str] = []
        self._in_text = False
        self._hints = 0

    def read(self, archive: zipfile.ZipFile, member: str) -> list[str]:
        _parse(archive, member, self._path, start=self._start, end=self._end, text=self._text)
        return self._texts

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "si":
            self._parts = []
        elif name == "t":
            self._in_text = not self._hints
        elif name == "rPh":
            self._hints += 1

    def _end(self, name: str) -> None:
        if name == "t":
            self._in_text = False
        elif name == "rPh":
            self._hints -= 1
        elif name == "si":
            self._texts.append(unescaped("".join(self._parts)))

    def _text(self, text: str) -> None:
        if self._in_text:
            self._parts.append(text)


class _Sheet:
    """The cells of a sheet, row by row."""

    def __init__(self, path: Path, shared: list[str], date_styles: frozenset[str], from_1904: bool) -> None:
        self._path = path
        self._shared = shared
        self._date_styles = date_styles
        self._from_1904 = from_1904
        self._dated = 0
        self._style = ""
        self._rows: list[list[str]] = []
        self._row: list[str] = []
        self._columns: dict[str, int] = {}
        self._at = 0
        self._kind = "n"
        self._value: list[str] = []
        self._formula: list[str] = []
        self._into: list[str] | None = None
        self._hints = 0

    def read(self, archive: zipfile.ZipFile, member: str) -> Sheet:
        _parse(archive, member, self._path, start=self._start, end=self._end, text=self._text)
        return Sheet(self._rows, self._dated)

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "c":
            reference = attributes.get("r")
            self._at = self._column(reference) if reference else len(self._row)
            self._kind = attributes.get("t", "n")
            self._style = attributes.get("s", "")
            self._value, self._formula = [], []
        elif name == "v" or (name == "t" and not self._hints):
            self._into = self._value
        elif name == "f":
            self._into = self._formula
        elif name == "rPh":
            self._hints += 1
        elif name == "row":
            self._row = []

    def _end(self, name: str) -> None:
        if name == "c":
            text = self._cell()
            if self._at < len(self._row):
                raise DatasetError(f"{self._path} is damaged: row {len(self._rows) + 1} has its cells out of order")
            if text:
                self._row.extend([""] * (self._at - len(self._row)))
                self._row.append(text)
            elif self._at == len(self._row):
                self._row.append("")
        elif name == "row":
            while self._row and not self._row[-1]:
                self._row.pop()
            self._rows.append(self._row)
        elif name == "rPh":
            self._hints -= 1
        elif name in ("v", "t", "f"):
            self._into = None

    def _text(self, text: str) -> None:
        if self._into is not None:
            self._into.append(text)

    def _cell(self) -> str:
        if self._formula:
            return "=" + unescaped("".join(self._formula))
        value = "".join(self._value)
        if self._kind == "s":
            if not value.strip().isdigit() or int(value) >= len(self._shared):
                raise DatasetError(
                    f"{self._path} is damaged: a cell names shared text {value!r} of {len(self._shared)}"
                )
            return self._shared[int(value)]
        if self._kind == "b":
            return {"1": "True", "0": "False"}.get(value, value)
        if self._kind == "n" and value and self._style in self._date_styles:
            self._dated += 1
            return date_text(value, self._from_1904)
        return unescaped(value) if self._kind in ("inlineStr", "str") else value

    def _column(self, reference: str) -> int:
        """`C17` -> 2."""
        letters = reference.rstrip("0123456789")
        if letters not in self._columns:
            number = 0
            for letter in letters:
                number = number * 26 + ord(letter) - ord("A") + 1
            if not letters.isascii() or not letters.isupper() or number > MAX_COLUMNS:
                raise DatasetError(f"{self._path} is damaged: a cell is named {reference[:20]!r}")
            self._columns[letters] = number - 1
        return self._columns[letters]


def unescaped(text: str) -> str:
    """`_x000D_` as the character it stands for."""
    return _ESCAPE.sub(lambda hit: chr(int(hit.group(1) or hit.group(2), 16)), text) if "_x" in text else text
