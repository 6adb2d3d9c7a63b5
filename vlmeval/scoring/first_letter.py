"""The first capital letter of an answer, after some phrases were taken out: how Video-MME and MME-RealWorld read.

Source: both benchmarks' own evaluation as VLMEvalKit applies it (vlmeval/dataset/utils/videomme.py, multiple_choice.py,
August 2026), faults included: `I BELIEVE (C)` is B, and commas are missing between two pairs of the phrases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
)


def without_phrases(text: str, more: Sequence[str] = ()) -> str:
    """What is left of an answer."""
    for phrase in (*PHRASES, *more):
        text = text.replace(phrase, "")
    return text


def first_letter_of(letters: str, text: str) -> str | None:
    """The first of these letters, wherever it stands; None for none."""
    found = re.search(f"[{letters}]", text)
    return found[0] if found else None
