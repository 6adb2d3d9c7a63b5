"""Which option stands at one place of an answer, by letter or by text (protocol `exact`). Ours, no outside source.

A letter is a letter only where it cannot be an article (`A dog`), part of a name (`B-52`, `A+`) or one of a list
(`A and B`); a letter followed by another option's text is a contradiction and names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from vlmeval.scoring.exact_answer import Answer
from vlmeval.scoring.exact_denial import SENTENCE_END, is_denied, is_denied_after
from vlmeval.scoring.exact_options import Mention

OPEN = r"""["'(\[{<$]*"""
CLOSE = r"""["')\]}>$]*"""
NO_NAME = r"(?![A-Za-z0-9+_]|-\w|'\w|[型座城栋区楼组班级队市国厂站柱杯瓶管球点])"

_LABEL = re.compile(
    rf"""[\s:]*{OPEN}[\s:]*{OPEN}(?:(?:option|choice|letter|选项|选择?)\s*)?{OPEN}([A-Za-z]){NO_NAME}"""
)
_LIST = re.compile(
    rf"""{CLOSE}\s*(?:,|/|&|;|\+|-|~|\bto\b|\bvs\b\.?|\band\b|\bor\b|和|或者?|还是|以?及|[与跟]|,\s*(?:and|or)\b)\s*"""
    rf"""(?:option\s+|well,?\s+or\s+|maybe\s+|perhaps\s+|possibly\s+|then\s+|(?:it\s+)?(?:could|might|may|can)\s+(?:also\s+)?be\s+"""
    rf"""|选项)?{OPEN}([A-Z])(?![A-Za-z0-9])"""
)
_ARTICLE_USE = re.compile(
    r"[ \t]+(?!(?:is|was|because|since|as|and|or|but|for|due|rather|instead|not|would|should|seems|fits|matches|over"
    r"|best|here|based|from|among|with|which|in|at|cannot|can|could|must|isn't|can't|if|when)\b)[A-Za-z]"
)
_SEPARATOR = re.compile(rf"{CLOSE}[ \t]*[.,:)\-]*[ \t]*(?:(?:[Aa]n?|[Tt]he)\s+(?=\w))?")

_FORMULA = re.compile(r"\s*[=≈≠≤≥<>^](?![=>])\s*\S|\s*[+*/×÷]\s*\w|\([a-z]\)|[ -](?:major|minor|flat|sharp)\b")
"""Behind a letter that is a quantity or a note, as in `C = 2πr`, `D major`."""
_NEXT_LISTED = re.compile(r"[ \t,;/|]*(?:(?:and|or)\b|和|或)?[ \t]*[(\[]?([A-Z])[)\].:,]*[ \t]*")
_SMALL_ENDS = re.compile(r"""["')\]}>]*\s*(?:[.,;:!)]|$|\n)""")
_TEXT_LIST = re.compile(
    rf"{CLOSE}\s*(?:,|/|&|\band\b|\bor\b|和|或者?|还是|以?及|[与跟])+\s*(?:(?:an?|the)\s+)?", re.IGNORECASE
)
_OPENING = re.compile(r"""[\s"'(\[<:]*(?:(?:an?|the)\s+)?""", re.IGNORECASE)


class ByLetter(NamedTuple):
    """A letter was read; `label` is None where it is one of several, unknown or contradicted."""

    label: str | None


class ByText(NamedTuple):
    """The rest of a sentence was read; `label` is None where it names several options or none."""

    label: str | None


def read_label(
    answer: Answer, at: int, options: Mapping[str, str], found: list[Mention], upper_only: bool = False
) -> ByLetter | None:
    """The letter at character `at`; None where there is none, or one that is no label or denied."""
    text = answer.text
    hit = _LABEL.match(text, at)
    if hit is None:
        return None
    letter, end = hit.group(1), hit.end()
    own_text = mention_behind(text, end, found)
    same = own_text is not None and own_text.label == letter.upper()
    if letter == "I" and "I" not in options:
        return None
    if letter in "AaIi" and _ARTICLE_USE.match(text, end) and not (same and letter.isupper() and letter != "A"):
        return None
    if letter.islower() and (upper_only or not _SMALL_ENDS.match(text[end : end + 8])):
        return None
    if is_denied_after(text, end) or (_FORMULA.match(text, end) and not same):
        return None
    if own_text is not None and same and _goes_through(text, own_text, found):
        return ByLetter(None)
    differs = own_text is not None and not same and not is_denied_after(text, own_text.end)
    if _several(text, end) or letter.upper() not in options or differs:
        return ByLetter(None)
    return ByLetter(letter.upper())


def mention_behind(text: str, end: int, found: list[Mention]) -> Mention | None:
    """The option's text that follows a letter which ends at `end`, as in `B. a dog`."""
    if not found:
        return None
    behind = _SEPARATOR.match(text, end).end()  # type: ignore[union-attr]
    return next((m for m in found if m.start == behind), None)


def _goes_through(text: str, own_text: Mention, found: list[Mention]) -> bool:
    """`A. cat, B. dog`: whether behind a letter's own text comes another letter with its own."""
    more = _NEXT_LISTED.match(text, own_text.end)
    if more is None or more.group(1) == own_text.label:
        return False
    return any(m.start == more.end() and m.label == more.group(1) for m in found)


def _several(text: str, end: int) -> bool:
    more = _LIST.match(text, end)
    return more is not None and not (more.group(1) in "AI" and _ARTICLE_USE.match(text, more.end()))


def read_text(answer: Answer, at: int, found: list[Mention]) -> ByText | None:
    """The option whose text stands at `at`, or else the only one in the rest of the sentence."""
    if not found:
        return None
    text = answer.text
    stop = SENTENCE_END.search(text, at)
    end = stop.start() if stop else len(text)
    here = [m for m in found if at <= m.start < end and not is_denied(answer, m.start)]
    opening = _OPENING.match(text, at)
    first = next((m for m in here if opening is not None and m.start == opening.end()), None)
    listed = first is None or any(_TEXT_LIST.fullmatch(text, first.end, m.start) for m in here)
    labels = {m.label for m in (here if listed or first is None else [first])}
    return ByText(labels.pop()) if len(labels) == 1 else None
