"""What an extraction rule says about one answer: the option it found, and by which step."""

from __future__ import annotations

from typing import NamedTuple

REFUSAL = "Z"
"""The label that stands for "matched, and none of the options": always wrong."""


class Match(NamedTuple):
    """`label` is an option of the question, `REFUSAL`, or None for nothing found; `how` is a few words for the log."""

    label: str | None
    how: str
