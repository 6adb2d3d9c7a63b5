"""The dataset doctor: everything in a TSV that makes a run fail or a score mean something else than it says.

It reads the file by itself, row by row, so that a file which cannot be opened is examined as far as it goes. Nothing is
changed. What each protocol would lose is told by `doctor_losses`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vlmeval.dataset.image_cells import decode_base64, elements, image_parts, path_inside
from vlmeval.dataset.index_pass import IMAGE_COLUMNS
from vlmeval.dataset.mcq import listed_options
from vlmeval.dataset.tsv_index import NEEDED, check_file
from vlmeval.dataset.tsv_rows import LineReader, read_rows
from vlmeval.errors import DatasetError, ImageError
from vlmeval.images import header_size

Severity = Literal["error", "warning", "note"]
FEW = 5
_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`error`: samples fail or scores are wrong; `warning`: likely a mistake; `note`: worth knowing.

    `rows` are the indices concerned, `count` how many things (rows unless `what` says otherwise).
    """

    severity: Severity
    what: str
    count: int = 0
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckedRow:
    """One row as the file has it. `sizes` are those of its own images; `digests` name images, "row:7" another row's."""

    line: int
    name: str
    cells: dict[str, str]
    digests: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    image_fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The rows that have as many cells as there are columns, and what was found on the way."""

    columns: tuple[str, ...]
    rows: tuple[CheckedRow, ...]
    findings: tuple[Finding, ...]


def examine(
    path: Path,
    image_folder: Path,
    progress: Callable[[int], None] | None = None,
    needed: Sequence[str] = NEEDED,
) -> Examined:
    """Read the file once. Raises DatasetError where there is no table to read at all."""
    check_file(path)
    findings: list[Finding] = []
    rows: list[CheckedRow] = []
    with path.open("rb", buffering=2**20) as file:
        lines = LineReader(path, file, progress)
        records = read_rows(lines)
        header = next(records, None)
        if header is None:
            raise DatasetError(f"{path} is empty")
        columns = tuple(name or f"Unnamed: {at}" for at, name in enumerate(header.cells))
        images = _Images(image_folder)
        ragged: list[int] = []
        try:
            for record in records:
                if len(record.cells) != len(columns):
                    ragged.append(record.line)
                    continue
                rows.append(_checked(record.line, dict(zip(columns, record.cells, strict=True)), images))
        except DatasetError as error:
            findings.append(Finding(severity="error", what=f"the rest of the file cannot be read: {error}"))
    findings += _table_findings(columns, rows, ragged, needed)
    findings += _image_findings(columns, rows)
    return Examined(columns=columns, rows=tuple(rows), findings=tuple(findings))


def with_answers_from(examined: Examined, column: str) -> Examined:
    """The same with the cells of `column` as the answers, for benchmarks that keep them elsewhere."""
    if column == "answer" or column not in examined.columns:
        return examined
    rows = tuple(replace(row, cells={**row.cells, "answer": row.cells[column]}) for row in examined.rows)
    return replace(examined, columns=tuple(dict.fromkeys((*examined.columns, "answer"))), rows=rows)


def with_options_from(examined: Examined, column: str) -> Examined:
    """The same with the options that `column` lists as the columns A, B, ..."""
    if not column or column not in examined.columns:
        return examined
    listed = [listed_options(row.cells[column]) for row in examined.rows]
    labels = sorted({label for options in listed for label in options})
    rows = tuple(
        replace(row, cells={**row.cells, **{label: options.get(label, "") for label in labels}})
        for row, options in zip(examined.rows, listed, strict=True)
    )
    return replace(examined, columns=tuple(dict.fromkeys((*examined.columns, *labels))), rows=rows)


class _Images:
    """The images of cells, each looked at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[tuple[int, int] | None, str]] = {}

    def of(self, cells: dict[str, str]) -> Iterator[tuple[str, tuple[int, int] | None, str]]:
        """Digest, size and fault of each image of a row. Raises ImageError for a cell that cannot be understood."""
        if cells.get("image"):
            for (kind, text), element in zip(image_parts(cells["image"]), elements(cells["image"]), strict=True):
                if kind == "row":
                    yield f"row:{text}", None, ""
                else:
                    if text not in self._seen:
                        self._seen[text] = self._looked_at(element)
                    yield text[:16], *self._seen[text]
            return
        names = elements(cells.get("image_path", ""))
        if not names:
            raise ImageError("no image")
        for name in names:
            if name not in self._seen:
                self._seen[name] = self._in_file(name)
            yield name, *self._seen[name]

    @staticmethod
    def _looked_at(base64_text: str) -> tuple[tuple[int, int] | None, str]:
        try:
            data = decode_base64(base64_text)
        except ImageError as error:
            return None, str(error)
        return _size_and_fault(data)

    def _in_file(self, name: str) -> tuple[tuple[int, int] | None, str]:
        try:
            return _size_and_fault(path_inside(self._folder, name).read_bytes())
        except ImageError as error:
            return None, str(error)
        except OSError as error:
            return None, f"{self._folder / name}: {error.strerror}"


def _size_and_fault(data: bytes) -> tuple[tuple[int, int] | None, str]:
    size = header_size(data)
    if size is None:
        return None, f"no image that can be read ({len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:8]})"
    tail = data[-64:]
    cut = (data.startswith(b"\x89PNG") and _PNG_END not in tail) or (
        data.startswith(b"\xff\xd8") and _JPEG_END not in data[-1024:]
    )
    return size, "the image is cut off: its end is missing" if cut else ""


def _checked(line: int, cells: dict[str, str], images: _Images) -> CheckedRow:
    digests, sizes, fault = [], [], ""
    try:
        for digest, size, problem in images.of(cells):
            digests.append(digest)
            sizes += [size] if size else []
            fault = fault or problem
    except ImageError as error:
        fault = str(error)
    texts = {name: cell for name, cell in cells.items() if name != "image"}
    return CheckedRow(
        line=line,
        name=cells.get("index", ""),
        cells=texts,
        digests=tuple(digests),
        sizes=tuple(sizes),
        image_fault=fault,
    )


def _table_findings(
    columns: Sequence[str], rows: Sequence[CheckedRow], ragged: Sequence[int], needed: Sequence[str]
) -> Iterator[Finding]:
    for name in needed:
        if name not in columns:
            yield Finding(severity="error", what=f"there is no column {name!r}")
    if not any(name in columns for name in IMAGE_COLUMNS):
        yield Finding(severity="error", what="there is none of the columns 'image', 'image_path' and 'video'")
    for name in sorted({name for name in columns if columns.count(name) > 1}):
        yield Finding(severity="error", what=f"the column {name!r} is there twice")
    if ragged:
        lines = tuple(f"line {line}" for line in ragged)
        yield Finding(
            severity="error", what="rows have more or fewer cells than columns", count=len(ragged), rows=lines
        )
    if not rows:
        yield Finding(severity="error", what="there are no rows")
    if "index" in columns:
        yield from _index_findings(rows)
    if "question" in columns:
        blank = [row.name for row in rows if not row.cells["question"].strip()]
        yield from found("error", "rows have no question", blank)
    damaged = [row.name for row in rows if any("\ufffd" in cell for cell in row.cells.values())]
    yield from found("warning", "rows have the character U+FFFD: a wrong encoding has lost something", damaged)
    hidden = [row.name for row in rows if any(not _plain(cell) for cell in row.cells.values())]
    yield from found("warning", "rows have control characters or change the writing direction", hidden)


def _plain(text: str) -> bool:
    """Without C0 controls other than tab and line ends, and without bidirectional overrides (Unicode TR 9)."""
    return text.isprintable() or not any(
        (c < " " and c not in "\t\n\r") or c == "\x7f" or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
        for c in text
    )


def _index_findings(rows: Sequence[CheckedRow]) -> Iterator[Finding]:
    yield from found("error", "rows have no index", [f"line {row.line}" for row in rows if not row.name])
    lines: dict[str, list[int]] = {}
    for row in rows:
        lines.setdefault(row.name, []).append(row.line)
    twice = [f"{name} (lines {', '.join(map(str, at))})" for name, at in lines.items() if len(at) > 1 and name]
    yield from found("error", "indices are used more than once", twice)
    numbers = sum(name.removeprefix("-").isdigit() and str(int(name)) == name for name in lines)
    if 0 < numbers < len(lines):
        odd = [name for name in lines if not (name.removeprefix("-").isdigit() and str(int(name)) == name)]
        yield from found("warning", f"indices are no plain numbers as the other {numbers} are: all count as text", odd)


def _image_findings(columns: Sequence[str], rows: Sequence[CheckedRow]) -> Iterator[Finding]:
    if not any(name in columns for name in ("image", "image_path")):
        return
    missing = [row.name for row in rows if row.image_fault == "no image"]
    yield from found("error", "rows have no image", missing)
    broken = [f"{row.name} ({row.image_fault})" for row in rows if row.image_fault not in ("", "no image")]
    yield from found("error", "rows have an image that cannot be had", broken)
    own = {row.name for row in rows if row.digests and not row.digests[0].startswith("row:")}
    lost = [
        f"{row.name} (to {digest[4:]})"
        for row in rows
        for digest in row.digests
        if digest.startswith("row:") and digest[4:] not in own
    ]
    yield from found("error", "rows refer to the image of a row that has none or is not there", lost)
    sizes = [size for row in rows for size in row.sizes]
    if not sizes:
        return
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    shown = ", ".join(
        f"{what} {w}x{h}"
        for what, (w, h) in zip(
            ("smallest", "median", "largest"), (by_area[0], by_area[len(by_area) // 2], by_area[-1]), strict=True
        )
    )
    yield Finding(severity="note", what=f"images embedded or in files: {shown}", count=len(sizes))
    narrow = [row.name for row in rows if any(max(size) > 200 * min(size) for size in row.sizes)]
    yield from found("warning", "rows have an image longer than 200 times its width: Qwen2-VL refuses it", narrow)


def found(severity: Severity, what: str, rows: Sequence[str]) -> Iterator[Finding]:
    """A finding if there are rows it is about."""
    if rows:
        yield Finding(severity=severity, what=what, count=len(rows), rows=tuple(rows))


def option_columns(columns: Sequence[str]) -> list[str]:
    """The columns A, B, C, ... up to the first letter that is none."""
    labels = []
    for label in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        if label not in columns:
            break
        labels.append(label)
    return labels
