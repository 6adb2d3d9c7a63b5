"""Thinking text: what a reasoning model says to itself before `</think>`, taken off the answer."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vlmeval.errors import UsageError

OPEN, CLOSE = "<think>", "</think>"


def split_thinking(text: str, opened: bool = False) -> tuple[str, str]:
    """(thinking, answer). `opened`: the prompt ended with `<think>`, so the text begins inside it.

    The answer is what follows the last `</think>`. Without one, a text that began to think (and met the token limit)
    has no answer; any other text is all answer, even if it mentions the mark.

    >>> split_thinking("<think>two reds</think>\\n\\nB")
    ('two reds', 'B')
    """
    before, mark, after = text.rpartition(CLOSE)
    if mark:
        return before.strip().removeprefix(OPEN).strip(), after.strip()
    if opened or text.lstrip().startswith(OPEN):
        return text.strip().removeprefix(OPEN).strip(), ""
    return "", text


def splitting_wanted(asked: bool | None, environ: Mapping[str, str] = os.environ) -> bool:
    """What the caller asked for, else the environment's SPLIT_THINK (upstream's name), else yes. Raises UsageError."""
    if asked is not None:
        if not isinstance(asked, bool):
            raise UsageError(f"split_thinking={asked!r} is neither true nor false")
        return asked
    word = environ.get("SPLIT_THINK", "").strip().lower()
    if word in ("", "1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"SPLIT_THINK={word!r} is neither 0 nor 1")
