"""Small real TSVs: pandas' to_csv form, written by the csv module."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

COLUMNS = ("index", "image", "question", "A", "B", "answer")


@cache
def png(shade: int = 0) -> bytes:
    """A small picture, another one for each shade."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 255 - shade, 128)).save(file, "PNG")
    return file.getvalue()


def cell(shade: int = 0) -> str:
    """That picture as an image cell."""
    return base64.b64encode(png(shade)).decode()


def row(index: object, **cells: str) -> dict[str, str]:
    """A complete multiple-choice row; `cells` replace and add."""
    return {
        "index": str(index),
        "image": cell(),
        "question": "What is it?",
        "A": "bird",
        "B": "boat",
        "answer": "A",
        **cells,
    }


def tsv_bytes(rows: Sequence[Mapping[str, str]]) -> bytes:
    columns = list(dict.fromkeys(column for cells in rows for column in cells))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, dialect="excel-tab", lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def write_tsv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    path.write_bytes(tsv_bytes(rows))
    return path
