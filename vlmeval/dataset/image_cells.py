"""What an image cell holds: base64, the name of another row, or a list of either. Parsed, never evaluated."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from vlmeval.errors import ImageError

MAX_REFERENCE_CHARS = 64
"""A cell of at most this many characters names another row; no image is that small in base64."""

Part = tuple[Literal["data", "row"], str]
"""One image of a cell: ("data", digest of its base64) or ("row", index of the row that has it)."""


def elements(cell: str) -> list[str]:
    """The entries of a cell that may be a list literal; one entry if it is none, no entry if it is empty.

    Raises ImageError for a cell that opens like a list and is none.
    """
    cell = cell.strip()
    if not cell:
        return []
    return _list_elements(cell) if cell.startswith("[") else [cell]


def image_parts(cell: str) -> list[Part]:
    """What a cell of the column `image` says, without its bytes."""
    return [_part(text) for text in elements(cell)]


def decode_base64(text: str) -> bytes:
    """Raises ImageError, without the row's name: the caller knows it."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image is no base64: {error} ({len(text)} characters, {_shown(text)})") from error


def path_inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused when the name (which is data) would lead out of the folder."""
    pure, windows = PurePosixPath(name), PureWindowsPath(name)
    if pure.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ImageError(f"the path {_shown(name)} leads out of {folder}; give names inside that folder")
    return folder / pure


def _part(text: str) -> Part:
    if len(text) <= MAX_REFERENCE_CHARS:
        return ("row", text)
    return ("data", hashlib.sha256(text.encode()).hexdigest())


def _list_elements(cell: str) -> list[str]:
    values = _parse_list(cell)
    if not isinstance(values, list):
        raise ImageError(f"the cell opens like a list and is none: {_shown(cell)}")
    if not values:
        raise ImageError("the cell is an empty list")
    texts = [str(value) if isinstance(value, int) else value for value in values]
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise ImageError(f"entry {number} of {len(texts)} in the list is no text: {_shown(repr(text))}")
    return [text.strip() for text in texts]


def _parse_list(cell: str) -> object:
    """JSON if it is, else a Python literal (what pandas writes for a list)."""
    import ast

    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
