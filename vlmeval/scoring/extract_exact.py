"""Option extraction that is meant to be right (protocol `exact`, version 1). Reads a bare letter so far."""

from __future__ import annotations

from collections.abc import Mapping

from vlmeval.scoring.match import Match


def extract_option(answer: str | None, options: Mapping[str, str]) -> str | None:
    """The label `answer` chooses, or None where it chooses none."""
    return match_option(answer, options).label


def match_option(answer: str | None, options: Mapping[str, str]) -> Match:
    """`extract_option` with the step that decided."""
    bare = (answer or "").strip().rstrip(".").strip("()（）")
    return Match(bare, "letter") if bare in options else Match(None, "nothing found")
