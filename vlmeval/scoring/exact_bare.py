"""An answer that is nothing but a letter, an option's text, or both (protocol `exact`). Ours, no outside source."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vlmeval.scoring.exact_answer import Answer
from vlmeval.scoring.exact_options import OptionTexts
from vlmeval.scoring.exact_text import folded, folded_option
from vlmeval.scoring.match import Match

_BEFORE_LETTER = re.compile(r"\W*(?:\d{1,2}[.)]\s+)?\W*")
_NO_WORD = "".join(chr(code) for code in range(128) if not chr(code).isalnum() and chr(code) != "_")
_LETTER_WORDS = frozenset({"option", "choice", "letter"})
"""What a letter may be written together with at the end of an answer, as in `optionB`."""
_LABEL_WORD = re.compile(
    r"(?:option|choice|letter|选项|(?:the\s+)?(?:correct\s+|final\s+|best\s+)?answer(?:\s+is)?\b|(?:正确|最终)?答案[是为选]?|选择?)?"
    r"[\s:\"'(\[]*([A-Za-z])(?:\W+\1)*\s*(?:选项|项)?[吧呢啊的]?",
    re.IGNORECASE,
)
_LETTER_AND_TEXT = re.compile(r"[\s\"'(\[<]*([A-Z])[)\].:,\s]+(.*)", re.DOTALL)


def may_be_bare(answer: Answer, known: OptionTexts) -> bool:
    """Whether it is worth trying if the whole text is a letter or an option's text."""
    said = answer.said
    return (
        not answer.is_ascii
        or len(said) <= known.most_words
        or len(said[-1]) == 1
        or said[-1][:-1] in _LETTER_WORDS
        or said[0] in known.letters
    )


def read_bare(text: str, options: Mapping[str, str], known: OptionTexts) -> Match | None:
    """The whole text as a letter, an option's text, or both."""
    word = _LABEL_WORD.fullmatch(_within(text))
    if word and word.group(1).upper() in options:
        return Match(word.group(1).upper(), "letter")
    whole = folded(text)
    same = known.labels_of.get(whole) if whole else None
    if same:
        return Match(same[0], "text") if len(same) == 1 else None
    both = _LETTER_AND_TEXT.match(text)
    if both and both.group(1) in options and folded(both.group(2)) == folded_option(options[both.group(1)]):
        return Match(both.group(1), "letter and text")
    return None


def _within(text: str) -> str:
    """Without the marks around it and a number before it: `1. (B)!` as B."""
    start, end = _BEFORE_LETTER.match(text).end(), len(text)  # type: ignore[union-attr]
    if text.isascii():
        return text[start:].rstrip(_NO_WORD)
    while end > start and not (text[end - 1].isalnum() or text[end - 1] == "_"):
        end -= 1
    return text[start:end]
