"""Letters that an answer judges or begins with, for the protocol `exact`: `B is correct`, `all but B`, `B. dog`.

Ours, no outside source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import ascii_lowercase

from vlmeval.scoring.exact_answer import Answer
from vlmeval.scoring.exact_denial import is_denied
from vlmeval.scoring.exact_label import CLOSE, NO_NAME, OPEN, ByLetter, mention_behind, read_label
from vlmeval.scoring.exact_lists import judges_each, lists_letters, lists_options, lists_texts
from vlmeval.scoring.exact_options import SHORT_WORDS, Mention

_IN_LIST = re.compile(rf"(?<![A-Za-z])([A-Z]){CLOSE}\s*(?:,|/|&|\band\b|\bor\b|和|或者?|还是|以?及|[与跟])+\s*{OPEN}$")
_VERDICT = re.compile(
    # The look-behind stands after the letter, so that the search can jump from capital to capital.
    rf"""([A-Z])(?<![A-Za-z0-9+\-.'].){CLOSE}(?:
    \s+(?:is|seems|looks|appears|would\ be|should\ be|must\ be|has\ to\ be)\s+(?:to\ be\s+)?(?:\w+ly\s+)?(?:the\s+)?
        (?:correct|right|best|better|closest|accurate|true|appropriate|answer
        |(?:most|more)\s+(?:likely|accurate|appropriate|suitable|plausible|fitting|reasonable|probable|logical))\b
    |\s+(?:is|would\ be)\s+(?:the|my)\s+(?:(?!wrong|incorrect|worst|least|other)\w+\s+)?
        (?:answer|choice|option|pick|one|match)\b
    |\s+it\s+is\b
    |,?\s+I(?:\s+(?:would|'d))?\s*(?:guess|think|believe|suppose|reckon|say)(?=\s*(?:[.,;:!)]|$|because\b))
    |\s+(?:fits|matches|describes|suits|answers)\b
    |\s*:\s*(?:[Yy]es|[Cc]orrect|[Tt]rue)\b
    |\s*(?:选项|项)?\s*(?:是|为|才是)?\s*(?:正确|对的|对(?=[.,!\s]|$)|最佳|最合适|最符合|符合|答案))""",
    re.VERBOSE,
)
_ALL_BUT = re.compile(
    r"\b(?:all|every\w*|each)\b[^.,;!?\n]{0,30}\b(?:but|except(?: for)?|other than|apart from)\s+(?:option\s+)?\(?"
    r"([a-z])\)?\s+(?:can|could|is|are|was|were|have|has)\s+(?:(?:been|be)\s+)?"
    r"(?:excluded|eliminated|ruled out|discarded|wrong|incorrect|false)\b(?!\W*\bor\b)"
    r"|除了?([a-z])(?:选项|项)?(?:之?外|以外)?,?[^.;!?\n]{0,10}(?:不|错|排除)",
)
_LEADING = re.compile(rf"\s*{OPEN}([A-Z]){NO_NAME}{CLOSE}")
_LEADING_GOES_ON = re.compile(
    r"\s*$|\s*\n|\s*[:,](?!\w)|\s*\.(?![A-Za-z])|\)|\s+-\s|\s+\(?(?:because|since|rather than|instead of|not|over)\b"
    r"|\s*(?:选项|项)?\s*(?:因为|而不是)|[,:](?=[\u2e80-\u9fff])"
)
_YES_BEHIND = re.compile(r":\s*\w+$")
_LETTER = re.compile(r"(?<![A-Za-z0-9])(?:[A-Zb-z]|a(?![ \t]+[A-Za-z]))(?![A-Za-z0-9])")
_LETTERS = frozenset(ascii_lowercase)
_ARTICLE = re.compile(r"a[ \t]+[A-Za-z]")


def lone_letters(answer: Answer) -> list[int]:
    """Where letters stand alone in the answer, articles left out: all hits of `_LETTER`."""
    text = answer.text
    if not answer.is_ascii:
        return [hit.start() for hit in _LETTER.finditer(text)]
    places = []
    for letter in answer.words & _LETTERS:
        alone = f" {letter} "
        at = answer.spaced.find(alone)
        while at >= 0:
            if letter != "a" or text[at] == "A" or not _ARTICLE.match(text, at):
                places.append(at)
            at = answer.spaced.find(alone, at + 2)
    return sorted(places)


def verdicts(answer: Answer, options: Mapping[str, str], alone: list[int]) -> Iterator[tuple[int, str]]:
    """`B is correct`, `B正确`: (character, letter); only a letter in `alone` can be one."""
    behind = 0
    for hit in filter(None, [_VERDICT.match(answer.text, at) for at in alone]):
        if hit.start() < behind or (_YES_BEHIND.search(hit.group()) and _has_short_words(options)):
            continue
        behind = hit.end()
        listed = _IN_LIST.search(answer.text, max(0, hit.start() - 12), hit.start())
        among = listed is not None and listed.group(1) != hit.group(1)  # `of A and B, B is better` is no list
        if hit.group(1) in options and not among and not is_denied(answer, hit.start()):
            yield hit.start(), hit.group(1)


def _has_short_words(options: Mapping[str, str]) -> bool:
    return any(option.strip().lower() in SHORT_WORDS | {"true", "correct"} for option in options.values())


def all_but(answer: Answer, options: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """`All but B are wrong`, `除了B都不对`: (character, letter)."""
    for hit in _ALL_BUT.finditer(answer.lowered):
        letter = answer.text[slice(*hit.span(hit.lastindex or 1))]
        if letter in options:
            yield hit.start(), letter


def leading(answer: Answer, options: Mapping[str, str], found: list[Mention]) -> ByLetter | None:
    """An answer that begins with a letter: `B. dog`, `(B) ...`, `B because`, `B狗`."""
    text = answer.text
    hit = _LEADING.match(text)
    if (
        hit is None
        or hit.group(1) not in options
        or lists_letters(text)
        or lists_texts(text, found)
        or judges_each(text)
    ):
        return None
    end = hit.end()
    alone = not text[end:].partition("\n")[0].strip(" .")
    read = read_label(answer, 0, options, found)
    if read is None or (lists_options(text) and not alone):
        return None
    bracketed = text[end - 1] in ")]"
    if mention_behind(text, end, found) or bracketed or read.label is None or _LEADING_GOES_ON.match(text, end):
        return read
    return None
