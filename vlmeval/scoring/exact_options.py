"""Where an option's text stands in an answer, for the protocol `exact`. Ours, no outside source.

Texts are compared as words: a number, a Latin word, or one Chinese character. So `dog` is not in `hotdog`, 3 is not in
13 or 3.5, and an option's leading article does not count. Where one option's text lies inside another's mention, the
longer one is meant. A number that is reckoned with is no mention. Chinese has no word borders: 猫 is found in 熊猫
unless that is an option.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from vlmeval.scoring.exact_text import folded_option, one_spelling

SHORT_WORDS = frozenset({"yes", "no", "none", "是", "否", "有", "没有", "没", "对", "错", "不是", "无"})
_WORD = re.compile(
    r"(?<![\w)])-[$€£¥]?\d+(?:[.,:/]\d+)*%?"
    r"|[$€£¥]?\d+(?:[.,:/]\d+)*(?:%|(?=(?:mm|cm|km|m|mg|kg|g|ml|l|s|h|am|pm)\b)|[a-z]+)?"
    r"|[^\W\d_\u2e80-\u9fff\uac00-\ud7af]+(?:'[a-z]+)?|[\u2e80-\u9fff\uac00-\ud7af]"
)
_LATIN_WORD = re.compile("[a-z]+")
"""All that `_WORD` finds in small ASCII letters without digits and apostrophes, and faster."""
_NO_LETTER_ALONE = b"0123456789'"
_OPERATOR_BEHIND = re.compile(r"\s?[-+*/×÷^]\s?\d")
_OPERATOR_BEFORE = re.compile(r"\d\s?[-+*/×÷^]\s?$")
_ARTICLES = frozenset({"a", "an", "the"})


class Mention(NamedTuple):
    """An option's text in an answer, from character `start` to `end`."""

    label: str
    start: int
    end: int


class OptionTexts(NamedTuple):
    """What has to be known of a question's options, made once for all answers to it."""

    labels_of: Mapping[str, Sequence[str]]
    """Which labels have a folded text."""
    words: Mapping[str, tuple[str, ...]]
    latin: Mapping[str, tuple[str, ...]]
    """The options that a text of nothing but small Latin letters and marks can mention, found without cutting it into
    words: one with a digit, an apostrophe or another script in it is not in such a text."""
    stems: Sequence[tuple[str, str]]
    """Labels, and what stands in every text that mentions the option, be it in the singular or plural."""
    short: Sequence[tuple[str, str]]
    """The options that are one of the short words, with their labels, the longest first."""


def option_texts(options: Mapping[str, str]) -> OptionTexts:
    """What has to be known of `options`."""
    return _option_texts(tuple(options.items()))


@lru_cache(maxsize=4096)
def _option_texts(options: tuple[tuple[str, str], ...]) -> OptionTexts:
    labels_of: dict[str, list[str]] = {}
    for label, option in options:
        labels_of.setdefault(folded_option(option), []).append(label)
    words = {label: _option_words(option) for label, option in options}
    short = [(word, label) for label, option in options if (word := option.strip().lower()) in SHORT_WORDS]
    return OptionTexts(
        labels_of,
        words,
        {label: parts for label, parts in words.items() if parts and all(map(_LATIN_WORD.fullmatch, parts))},
        [(label, max(*parts[:-1], _singular(parts[-1]), "", key=len)) for label, parts in words.items() if parts],
        sorted(short, key=lambda item: -len(item[0])),
    )


@lru_cache(maxsize=4096)
def _option_words(option: str) -> tuple[str, ...]:
    words = tuple(_WORD.findall(one_spelling(option).lower()))
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def mentions(text: str, known: OptionTexts) -> list[Mention]:
    """Every mention of an option's text in `text` (already in one spelling), without those inside a longer one."""
    lowered = text.lower()
    likely = [label for label, stem in known.stems if stem in lowered]
    if not likely:
        return []
    latin = lowered.isascii() and len(lowered.encode().translate(None, _NO_LETTER_ALONE)) == len(lowered)
    if latin:
        likely = [label for label in likely if label in known.latin]
        plainly = [Mention(label, *place) for label in likely for place in _places(lowered, known.latin[label])]
        if plainly or not likely:
            return _without_inner(plainly)
    hits = list((_LATIN_WORD if latin else _WORD).finditer(lowered))
    said = [hit.group() for hit in hits]
    wanted = {label: known.words[label] for label in likely}
    found = list(_find(said, wanted)) or list(_find(said, wanted, _singular))
    spans = [Mention(label, hits[first].start(), hits[last].end()) for label, first, last in found]
    return _without_inner([span for span in spans if not _is_operand(text, span)])


def _is_operand(text: str, span: Mention) -> bool:
    """Whether the span is a number that something is done with: neither 1 nor 4 is meant by `1 - 1/4`."""
    if not text[span.start : span.end].isdigit():
        return False
    return bool(
        _OPERATOR_BEHIND.match(text, span.end) or _OPERATOR_BEFORE.search(text[max(0, span.start - 8) : span.start])
    )


def _without_inner(spans: list[Mention]) -> list[Mention]:
    if len(spans) < 2:
        return spans
    return [m for m in spans if not any(_inside(m, other) for other in spans)]


def _places(text: str, words: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """From where to where `words` stand in a row in `text`, both in small Latin letters."""
    at = text.find(words[0])
    while at >= 0:
        end: int | None = at + len(words[0])
        for word in words[1:]:
            end = _end_of_next(text, end, word) if end is not None else None
        if end is not None and not _is_letter(text, at - 1) and not _is_letter(text, end):
            yield at, end
        at = text.find(words[0], at + 1)


def _end_of_next(text: str, end: int, word: str) -> int | None:
    """Where `word` ends, if it is the next one after a word that ended at `end`."""
    at = end
    while at < len(text) and not _is_letter(text, at):
        at += 1
    return at + len(word) if at > end and text.startswith(word, at) else None


def _is_letter(text: str, at: int) -> bool:
    return 0 <= at < len(text) and "a" <= text[at] <= "z"


def _find(
    words: list[str], wanted: Mapping[str, tuple[str, ...]], ending: Callable[[str], str] = str
) -> Iterator[tuple[str, int, int]]:
    """(label, first word, last word) where the words of an option stand in a row, the last one compared by `ending`."""
    ended = words if ending is str else [ending(word) for word in words]
    for label, option in wanted.items():
        wanted_last = ending(option[-1]) if option else ""
        if not option or wanted_last not in ended:
            continue
        for last, word in enumerate(ended):
            first = last - len(option) + 1
            if word == wanted_last and first >= 0 and tuple(words[first:last]) == option[:-1]:
                yield label, first, last


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _inside(small: Mention, big: Mention) -> bool:
    covered = big.start <= small.start and small.end <= big.end
    return covered and big.end - big.start > small.end - small.start
