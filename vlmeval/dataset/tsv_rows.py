"""The rows of a TSV file, one at a time, with where each one stands in the file.

Cells are what `csv` and pandas' `to_csv(sep="\\t")` write: a cell that begins with a quote runs to the closing quote,
tabs and newlines included, with inner quotes doubled; a quote anywhere else is a quote. Nothing is converted: `None`,
`NA`, `nan`, `007` and `3` stay that text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vlmeval.errors import DatasetError

BOM = b"\xef\xbb\xbf"
MAX_RECORD_CHARS = 64 * 2**20
"""A row of several lines longer than this is taken for a quote that never closes, before it eats the memory."""


class UnclosedQuote(ValueError):
    """A record that ends inside a quoted cell."""


class Row(NamedTuple):
    """One record: its first line (from 1), where it stands in bytes, and its cells."""

    line: int
    offset: int
    length: int
    cells: list[str]


class LineReader:
    """The lines of a file as text. Counts lines and bytes, and takes the file's MD5 on the way."""

    def __init__(self, path: Path, file: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        self.path = path
        self.line = 0
        self.position = 0
        self._file = file
        self._progress = progress
        self._md5 = hashlib.md5(usedforsecurity=False)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = next(self._file)
        self._md5.update(raw)
        self.line += 1
        self.position += len(raw)
        if self._progress is not None:
            self._progress(self.position)
        return _decode(raw, self.path, self.line)

    @property
    def md5(self) -> str:
        """Of what was read so far."""
        return self._md5.hexdigest()


def read_rows(lines: LineReader) -> Iterator[Row]:
    """The records of the file, blank lines left out; the header is the first of them."""
    while True:
        offset, line = lines.position, lines.line + 1
        text = next(lines, None)
        if text is None:
            return
        if text in ("\n", "\r\n"):
            continue
        try:
            cells = split_record(text, lines)
        except UnclosedQuote as error:
            raise DatasetError(
                f"{lines.path}, line {line}: {error}; a cell that begins with a quote must end with one, and quotes "
                "inside it are doubled"
            ) from error
        yield Row(line, offset, lines.position - offset, cells)


def parse_record(raw: bytes, path: Path) -> list[str]:
    """The cells of one record whose bytes are at hand."""
    return split_record(_decode(raw, path, 1), iter(()))


def split_record(text: str, more: Iterator[str]) -> list[str]:
    """Split one record; `text` is its first line, `more` gives the next ones while a quote is open."""
    if '"' not in text:
        return _without_line_end(text).split("\t")
    cells = []
    at = 0
    while True:
        quoted = ""
        if text.startswith('"', at):
            quoted, at, text = _quoted_cell(text, at, more)
        end = text.find("\t", at)
        if end < 0:
            cells.append(quoted + _without_line_end(text[at:]))
            return cells
        cells.append(quoted + text[at:end])
        at = end + 1


def _quoted_cell(text: str, at: int, more: Iterator[str]) -> tuple[str, int, str]:
    """The cell whose opening quote stands at `at`, the place after its closing quote, and the text with added lines."""
    start = search = at + 1
    while True:
        end = text.find('"', search)
        if end < 0:
            search = len(text)
            text += _next_line(more, text)
        elif text.startswith('"', end + 1):
            search = end + 2
        else:
            return text[start:end].replace('""', '"'), end + 1, text


def _next_line(more: Iterator[str], text: str) -> str:
    line = next(more, None)
    if line is not None and len(text) < MAX_RECORD_CHARS:
        return line
    why = "the file ends first" if line is None else f"{MAX_RECORD_CHARS // 2**20} MiB follow"
    raise UnclosedQuote(f"a cell opens with a quote that never closes ({why})")


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _decode(raw: bytes, path: Path, line: int) -> str:
    if line == 1:
        raw = raw.removeprefix(BOM)
    if b"\0" in raw or raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        hint = "it looks like UTF-16: save it as UTF-8" if line == 1 else "the file is damaged, fetch it again"
        raise DatasetError(f"{path}, line {line}: a NUL byte at byte {raw.find(0) + 1} of the line; {hint}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line); "
            "save the file as UTF-8"
        ) from error
