"""The one pass over a TSV that its index is made from, and what makes the file no benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from vlmeval.dataset.image_cells import image_parts
from vlmeval.dataset.tsv_rows import LineReader, Row, read_rows
from vlmeval.errors import DatasetError, ImageError, nearest_names

IMAGE_COLUMNS = ("image", "image_path", "video")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")

Record = tuple[int, int, str, int, int, str, str, str]


class IndexPass:
    """Reads the header when made and the rows when `records` is consumed; then `summary` is complete."""

    def __init__(
        self, path: Path, file: BinaryIO, needed: Sequence[str], progress: Callable[[int], None] | None
    ) -> None:
        self._path = path
        self._lines = LineReader(path, file, progress)
        self._rows = read_rows(self._lines)
        self.columns = self._read_header(needed)
        self._texts = [at for at, column in enumerate(self.columns) if column != "image"]
        self._image = self.columns.index("image") if "image" in self.columns else None
        self._name = self.columns.index("index")
        self._blanks = [0] * len(self.columns)
        self._integers = True
        self._count = 0

    def records(self) -> Iterator[Record]:
        """What the table `rows` gets, one for each row of the file."""
        for position, row in enumerate(self._rows):
            self._check_cells(row)
            name = row.cells[self._name]
            self._integers = self._integers and _INTEGER.fullmatch(name) is not None
            self._count = position + 1
            for at, cell in enumerate(row.cells):
                if not cell:
                    self._blanks[at] += 1
            parts, error = self._image_parts(row)
            cells = json.dumps([row.cells[at] for at in self._texts], ensure_ascii=False)
            yield position, row.line, name, row.offset, row.length, parts, error, cells
        if not self._count:
            raise DatasetError(f"{self._path} has a header and no rows; fetch or write it again")

    def summary(self) -> dict[str, str]:
        """What the table `meta` gets."""
        return {
            "md5": self._lines.md5,
            "columns": json.dumps(self.columns),
            "blank_counts": json.dumps(dict(zip(self.columns, self._blanks, strict=True))),
            "integer_names": json.dumps(self._integers),
            "length": json.dumps(self._count),
        }

    @staticmethod
    def check_columns(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
        """Raises DatasetError unless the columns that every benchmark needs are there."""
        missing = [f"no column {name!r}" for name in needed if name not in columns]
        if not any(name in columns for name in IMAGE_COLUMNS):
            missing.append("none of the columns 'image', 'image_path' and 'video'")
        if not missing:
            return
        near = [
            f"{name!r} is near {found[0]!r}"
            for name in needed
            if name not in columns
            if (found := nearest_names(name, columns, 1))
        ]
        hint = "; is it separated by commas? Tabs are needed" if len(columns) == 1 and "," in columns[0] else ""
        raise DatasetError(
            f"{path}, line 1: the header has {' and '.join(missing)}; its {len(columns)} columns: "
            f"{_shown(', '.join(columns), 300)}" + ("; " + ", ".join(near) if near else "") + hint
        )

    def _read_header(self, needed: Sequence[str]) -> list[str]:
        header = next(self._rows, None)
        if header is None:
            raise DatasetError(f"{self._path} is empty; fetch or write it again")
        # An index that pandas wrote has an empty name, and pandas reads it back as `Unnamed: 0`.
        columns = [name or f"Unnamed: {at}" for at, name in enumerate(header.cells)]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DatasetError(f"{self._path}, line {header.line}: columns named twice: {', '.join(twice)}")
        self.check_columns(self._path, columns, tuple(dict.fromkeys(("index", *needed))))
        return columns

    def _check_cells(self, row: Row) -> None:
        if len(row.cells) != len(self.columns):
            raise DatasetError(
                f"{self._path}, line {row.line}: {len(row.cells)} cells where the header has {len(self.columns)} "
                f"columns (the row begins {_shown(row.cells[0], 40)!r}); a tab or line break inside a cell needs "
                "quotes around the cell, and a cut file has to be fetched again"
            )
        if not row.cells[self._name]:
            raise DatasetError(f"{self._path}, line {row.line}: column 'index' is empty; every row needs one")

    def _image_parts(self, row: Row) -> tuple[str, str]:
        """The images of a row as JSON, and why they cannot be had."""
        if self._image is None:
            return "[]", ""
        try:
            return json.dumps(image_parts(row.cells[self._image])), ""
        except ImageError as error:
            return "[]", str(error)


def _shown(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
