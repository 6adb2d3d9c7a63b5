"""Letters and options gone through one after the other, for the protocol `exact`. Ours, no outside source."""

from __future__ import annotations

import re

from vlmeval.scoring.exact_options import Mention

_LISTED_LINE = re.compile(r"^[ \t]*[(\[]?([A-Z])(?:[)\].:,]|[ \t]+(?=-\s))(?=[ \t]*\S)", re.MULTILINE)
_LISTED_AGAIN = re.compile(r"(?:^|[,;.\n])[ \t]*[(\[]?([A-Z])[)\]]?[ \t]*[:-]\s")
_BARE_LINE = re.compile(r"^[ \t]*(?:\d+[.)][ \t]*)?[(\[]?([A-Z])[)\].,]*[ \t]*$", re.MULTILINE)
_LISTED = re.compile(r"(?<![A-Za-z])[(\[]?([A-Z])[)\].:,]*\s+")


def lists_options(text: str) -> bool:
    """Whether several lines begin with different letters, as when the question is repeated or gone through."""
    return "\n" in text and len(set(_LISTED_LINE.findall(text))) > 1


def judges_each(text: str) -> bool:
    """`A: 40 %, B: 60 %`: whether several letters have something put to them in the same way."""
    return (":" in text or "-" in text) and len(set(_LISTED_AGAIN.findall(text))) > 1


def lists_letters(text: str) -> bool:
    """Whether several lines are nothing but a letter, and not the same."""
    return "\n" in text and len(set(_BARE_LINE.findall(text))) > 1


def lists_texts(text: str, found: list[Mention]) -> bool:
    """Whether several options stand in one line with letter and text: `A) cat B) dog`."""
    if len(found) < 2:
        return False
    line = text.partition("\n")[0]
    starts = {m.start: m.label for m in found}
    return len({hit.group(1) for hit in _LISTED.finditer(line) if starts.get(hit.end()) == hit.group(1)}) > 1


def is_listed(text: str, at: int) -> bool:
    """Whether what stands at `at` begins a line that is one of a row of options: `A. cat`, then `B. dog`."""
    if "\n" not in text:
        return False
    lines = list(_LISTED_LINE.finditer(text))
    here = [hit for hit in lines if hit.start() <= at <= hit.end() or text[at : hit.start()].isspace()]
    if not here:
        return False
    place = lines.index(here[0])
    return any(
        ord(lines[near].group(1)) - ord(here[0].group(1)) == near - place
        for near in (place - 1, place + 1)
        if 0 <= near < len(lines)
    )
