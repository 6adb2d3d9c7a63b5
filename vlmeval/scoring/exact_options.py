"""Where an option's text stands in an answer, for the protocol `exact`. Ours, no outside source.

Texts are compared as words: a number, a Latin word, or one Chinese character. So `dog` is not in `hotdog`, 3 is not in
13 or 3.5, and an option's leading article does not count. A unit may be spelled out: `10 centimeters` is 10 cm. Where
one option's text lies inside another's mention, the longer one is meant. A number that is reckoned with, bounds (`more
than 5`) or numbers something (`Step 2`) is no mention. Chinese has no word borders: 猫 is found in 熊猫 unless that is
an option.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from vlmeval.scoring.exact_answer import Answer
from vlmeval.scoring.exact_text import folded_option, one_spelling

SHORT_WORDS = frozenset({"yes", "no", "none", "是", "否", "有", "没有", "没", "对", "错", "不是", "无"})
_WORD = re.compile(
    r"(?<![\w)])-[$€£¥]?\d+(?:[.,:/]\d+)*%?"
    r"|[$€£¥]?\d+(?:[.,:/]\d+)*(?:%|(?=(?:mm|cm|km|m|mg|kg|g|ml|l|s|h|am|pm)\b)|[a-z]+)?"
    r"|[^\W\d_\u2e80-\u9fff\uac00-\ud7af]+(?:'[a-z]+)?|[\u2e80-\u9fff\uac00-\ud7af]"
)
_LATIN_WORD = re.compile("[a-z]+")
"""All that `_WORD` finds in small ASCII letters without digits and apostrophes, and faster."""
_CHINESE = re.compile("[\u2e80-\u9fff]")
"""A word of its own wherever it stands, so that it is found without cutting the text into words."""
_HAS_DIGIT = re.compile("[0-9]").search
_OPERATOR_BEHIND = re.compile(r"\s?[-+*/×÷^]\s?\d|\s?[+*/×÷^]\s?[a-z(]\b")
_OPERATOR_BEFORE = re.compile(r"\d\s?[-+*/×÷^]\s?$")
_NUMBERED = re.compile(
    r"(?:\b(?:option|choice|step|figure|fig|image|picture|panel|row|column|line|part|question|page)s?[ .#]{1,2}|^[ \t]*"
    r"|\n[ \t]*)$",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"(?:[<>≤≥]\s?|\b(?:(?:more|less|fewer|greater|larger|smaller|higher|lower) than|at (?:least|most)"
    r"|over|under|above|below)\s"
    r"|超过|多于|少于|大于|小于|不到|至少|至多)$",
    re.IGNORECASE,
)
_BOUND_BEHIND = re.compile(
    r"\s+(?:or (?:so|more|less|fewer|under|over|above)|plus|percent|per cent)\b|\s*(?:左右|上下|以上|以下|以内)",
    re.IGNORECASE,
)
_LIST_MARK = re.compile(r"[.)][ \t]+\w")
_ARTICLE = re.compile(r"\W*(?:an?(?! (?:major|minor|flat|sharp)\b)|the)\s+\w")
_ARTICLES = frozenset({"a", "an", "the"})
_EMPTY_WORDS = _ARTICLES | frozenset("is are was were it its it's he she they this that there 他 她 它 这 那".split())
_SPELLED = {
    "mm": "millimeters",
    "cm": "centimeters",
    "m": "meters",
    "km": "kilometers",
    "g": "grams",
    "kg": "kilograms",
}
_SPELLED |= {word: short for short, word in _SPELLED.items()}


class Mention(NamedTuple):
    """An option's text in an answer, from character `start` to `end`."""

    label: str
    start: int
    end: int


class Form(NamedTuple):
    """One way to write an option's text."""

    words: tuple[str, ...]
    stem: str
    """What stands in every text that mentions the option so, be it in the singular or plural."""
    latin: bool
    """Whether a text of nothing but small Latin letters and marks can mention it, so that it is found there without
    cutting the text into words: one with a digit, an apostrophe or another script in it is not in such a text."""


class OptionTexts(NamedTuple):
    """What has to be known of a question's options, made once for all answers to it."""

    labels_of: Mapping[str, Sequence[str]]
    """Which labels have a folded text."""
    forms: Sequence[tuple[str, Form]]
    content: Mapping[str, frozenset[str]]
    """The words of each option, without articles, pronouns and `is`."""
    short: Sequence[tuple[str, str]]
    """The options that are one of the short words, with their labels, the longest first."""
    letters: frozenset[str]
    """The labels, in small letters."""
    most_words: int
    """How many words of Latin letters and digits the longest option has."""
    long: Sequence[tuple[str, frozenset[str]]]
    """`content` of the options of more than one word."""

    def telling(self, label: str) -> frozenset[str]:
        """The words that only this option has; none for an option of one word."""
        own = self.content[label]
        if len(own) < 2:
            return frozenset()
        return own.difference(*[other for name, other in self.content.items() if name != label])


class _Option(NamedTuple):
    folded: Sequence[str]
    forms: Sequence[Form]
    content: frozenset[str]
    latin_words: int
    short: str
    """It, if it is one of the short words."""


def option_texts(options: Mapping[str, str]) -> OptionTexts:
    """What has to be known of `options`."""
    return _option_texts(tuple(options.items()))


@lru_cache(maxsize=8192)
def _option_texts(options: tuple[tuple[str, str], ...]) -> OptionTexts:
    """One pass, for in many files every row has options of its own."""
    labels_of: dict[str, list[str]] = {}
    forms, short, content, most_words = [], [], {}, 0
    for label, text in options:
        option = _read_option(text)
        for folded in option.folded:
            labels_of.setdefault(folded, []).append(label)
        for form in option.forms:
            forms.append((label, form))
        content[label] = option.content
        most_words = max(most_words, option.latin_words)
        if option.short:
            short.append((option.short, label))
    short.sort(key=lambda item: -len(item[0]))
    long = [item for item in content.items() if len(item[1]) > 1]
    return OptionTexts(labels_of, forms, content, short, frozenset(map(str.lower, content)), most_words, long)


@lru_cache(maxsize=4096)
def _read_option(text: str) -> _Option:
    lowered = one_spelling(text).lower()
    words = tuple(_WORD.findall(lowered))
    words = words[1:] if len(words) > 1 and _ARTICLE.match(lowered) else words
    spelled = tuple(" ".join(_SPELLED.get(word, word.replace("%", " percent")) for word in words).split())
    folded = [folded_option(text)] + ([" ".join(spelled)] if spelled != words else [])
    forms = [_form(way) for way in dict.fromkeys((words, spelled)) if way]
    latin_words = max(len(Answer(whole).said) for whole in folded)
    short = text.strip().lower()
    return _Option(folded, forms, _content(words), latin_words, short if short in SHORT_WORDS else "")


def _form(words: tuple[str, ...]) -> Form:
    stem = max(*words[:-1], _singular(words[-1]), "", key=len)
    return Form(words, stem, all(map(_LATIN_WORD.fullmatch, words)))


def content_words(text: str) -> frozenset[str]:
    """The words of a text in the singular, without those that tell nothing."""
    return _content(_WORD.findall(text.lower()))


def _content(words: Sequence[str]) -> frozenset[str]:
    return frozenset(map(_singular, words)) - _EMPTY_WORDS


def mentions(answer: Answer, known: OptionTexts) -> list[Mention]:
    """Every mention of an option's text in the answer, without those inside a longer one."""
    lowered = answer.lowered
    likely = [item for item in known.forms if item[1][1] in lowered]
    if not likely:
        return []
    latin = answer.is_ascii and "'" not in lowered and not _HAS_DIGIT(lowered)
    if latin:
        likely = [item for item in likely if item[1].latin]
        plainly = _plainly(answer, likely)
        if plainly or not likely:
            return plainly
    elif all([len(item[1][0]) == 1 and _CHINESE.fullmatch(item[1][0][0]) for item in likely]):
        return [
            Mention(label, at, at + 1)
            for label, form in likely
            for at, character in enumerate(lowered)
            if character == form.stem
        ]
    hits = list((_LATIN_WORD if latin else _WORD).finditer(lowered))
    said = [hit.group() for hit in hits]
    found = list(_find(said, likely)) or list(_find(said, likely, _singular))
    spans = [Mention(label, hits[first].start(), hits[last].end()) for label, first, last in found]
    return _without_inner([span for span in spans if not _is_no_amount(answer.text, span)])


def _is_no_amount(text: str, span: Mention) -> bool:
    """Whether the span is a number that something is done with, as 1 and 4 in `1 - 1/4`, or that numbers something, as
    in `Step 2`, or bounds it, as in `more than 5`."""
    if not text[span.start].isdigit():
        return False
    before = text[max(0, span.start - 14) : span.start]
    if _BOUND.search(before) or _BOUND_BEHIND.match(text, span.end):
        return True
    if not text[span.start : span.end].isdigit():
        return False
    if _OPERATOR_BEHIND.match(text, span.end) or _OPERATOR_BEFORE.search(before):
        return True
    numbered = _NUMBERED.search(before)
    return bool(numbered and (numbered.group().strip() or _LIST_MARK.match(text, span.end)))


def _without_inner(spans: list[Mention]) -> list[Mention]:
    if len(spans) < 2:
        return spans
    return [m for m in spans if not any(_inside(m, other) for other in spans)]


def _plainly(answer: Answer, likely: Sequence[tuple[str, Form]]) -> list[Mention]:
    """Where the words of an option stand in a row in a text of nothing but Latin letters and marks."""
    spaced, made = answer.spaced, []
    for label, (words, _, _) in likely:
        if not answer.words.issuperset(words):
            continue
        first = f" {words[0]} "
        at = spaced.find(first)
        while at >= 0:
            end: int | None = at + len(first) - 1
            for word in words[1:]:
                end = _end_of_next(spaced, end, word) if end is not None else None
            if end is not None:
                made.append(Mention(label, at, end - 1))  # a blank was put before the text
            at = spaced.find(first, at + 1)
    return _without_inner(made)


def _end_of_next(spaced: str, end: int, word: str) -> int | None:
    """Where `word` ends, if it is the next one after a word that ended at `end`."""
    at = end
    while spaced[at : at + 1] == " ":
        at += 1
    behind = at + len(word)
    return behind if spaced.startswith(word, at) and spaced[behind] == " " else None


def _find(
    words: list[str], wanted: Sequence[tuple[str, Form]], ending: Callable[[str], str] = str
) -> Iterator[tuple[str, int, int]]:
    """(label, first word, last word) where the words of an option stand in a row, the last one compared by `ending`."""
    ended = words if ending is str else [ending(word) for word in words]
    for label, (option, _, _) in wanted:
        wanted_last = ending(option[-1])
        if wanted_last not in ended:
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
