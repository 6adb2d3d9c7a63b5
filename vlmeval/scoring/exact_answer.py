"""An answer with what the rules of the protocol `exact` look up in it again and again. Ours, no outside source.

Nearly all rules look for a few words, and nearly all answers have none of them. `Signs.in_` says so from the answer's
set of words, without a search; only where it says maybe is the text searched.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_WORD = re.compile("[a-z0-9]+")
_SPACED = bytes(code if chr(code).isalnum() else ord(" ") for code in range(128)) + bytes(128)
"""ASCII letters and digits as they are, all else as a blank."""


class Answer:
    """A text in one spelling (`exact_text.plain_answer`)."""

    __slots__ = ("chars", "is_ascii", "lowered", "said", "spaced", "text", "words")

    def __init__(self, text: str) -> None:
        self.text = text
        self.is_ascii = text.isascii()
        if self.is_ascii:
            self.lowered = text.lower()
            """In small letters and of the same length, so that searches need not think of case."""
            self.spaced = f" {self.lowered} ".encode().translate(_SPACED).decode()
            """The same with a blank for all that is no letter or digit, and one around it; only of ASCII."""
            self.said = self.spaced.split()
            """What stands between characters that are no ASCII letters or digits."""
            self.chars: frozenset[str] = frozenset()
        else:
            # What `re.IGNORECASE` takes for an i as well, and `lower` makes two characters of.
            self.lowered = text.replace("\u0130", "i").replace("\u0131", "i").lower()
            self.spaced = ""
            self.said = _WORD.findall(self.lowered)
            self.chars = frozenset(text)
        self.words = frozenset(self.said)


class Signs(NamedTuple):
    """What a search can begin to find only where one of these words or characters is."""

    words: frozenset[str]
    chars: frozenset[str] = frozenset()

    def in_(self, answer: Answer) -> bool:
        """Whether it is worth searching."""
        return not (self.words.isdisjoint(answer.words) and self.chars.isdisjoint(answer.chars))


def signs(words: str, chars: str = "") -> Signs:
    """Signs from words between blanks, in small letters, and characters outside ASCII."""
    return Signs(frozenset(words.split()), frozenset(chars))
