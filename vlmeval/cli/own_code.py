"""Errors in code of the user's own: which line of it, in one line. Errors of this package keep their traceback."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""What a class named in a config may raise."""


def told(error: BaseException) -> str:
    """`ValueError: boom (own.py, line 9, in generate_inner)`; nothing if no line of the user's own is to blame."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    if not own:
        return ""
    text = f"{type(error).__name__}: {error} ({_place(own[-1])}"
    return text + ("" if frames[-1] is own[-1] else f"; raised in {_place(frames[-1])}") + ")"


def _place(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}"


def _is_own(filename: str) -> bool:
    """Neither of this package, nor installed, nor of Python itself."""
    path = Path(filename)
    if filename.startswith("<"):
        return False
    folders = (PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    return not any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)
