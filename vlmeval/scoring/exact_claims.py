"""Where an answer says which option it takes, for the protocol `exact`, in English and Chinese.

Ours, no outside source. In this order, and each only where its words stand in the answer:

1. A strong marker (`the answer is`, `答案是`) and the letter or else the text behind it.
2. A verdict on a letter (`B is correct`), and a letter the answer begins with (`B. dog`).
3. Where neither has named a letter, or something is corrected: a weak marker (`so`, `it's`, `选`) and the letter behind
   it, and `all but B are wrong`.

Two and three need a letter that stands alone. What is denied or asked (`exact_denial`) is no claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

from vlmeval.scoring.exact_answer import Answer
from vlmeval.scoring.exact_denial import is_denied
from vlmeval.scoring.exact_label import ByLetter, ByText, read_label, read_text
from vlmeval.scoring.exact_lists import is_listed
from vlmeval.scoring.exact_markers import corrects, says_also, strong_markers, weak_markers
from vlmeval.scoring.exact_options import Mention, OptionTexts
from vlmeval.scoring.exact_verdicts import all_but, leading, lone_letters, verdicts

STRONG, WEAK = 2, 1

_TALKS_OF = re.compile(r"(?:option|choice|选项)[\s,:]*", re.IGNORECASE)
_OF_ONE = re.compile(r"(?:option|choice|letter)\s+\(?[a-z]\b")
"""`Option A is`: what follows is said of that option, and is not the answer."""
_ANNOUNCES = re.compile(r"(?:options|choices)(?:\s+are)?\s*:?\s*")
_CONSIDERS = re.compile(
    r"\b(?:consider|check|look at|examine|evaluate|analy[sz]e|regarding|as for|about|compare)\s+(?:the\s+)?$"
    r"|(?:看看?|考虑|分析|检查|关于|对于|比较|至于)\s*$"
)
_TAKEN = re.compile(
    r"\W*[A-Za-z](?:\s*$|\s*[.!:;)\]}>\n(\"']|,?\s*(?:because|since|as|not|rather|instead|over)\b"
    r"|\s*,?(?!描述|说|指|表示|写|有|中|里|提到|包含|是(?!正确|对|答案|最|我|正解))[\u2e80-\u9fff])"
)
"""`Option A`, then no verb: `option A says` speaks of the option and does not take it."""
_TAKES_SMALL = re.compile(r"choose|pick|select|option|choice|选", re.IGNORECASE)


class Claim(NamedTuple):
    """At character `at` the answer takes `label`; None where it names several, or one that does not exist."""

    at: int
    label: str | None
    strength: int
    by_text: bool = False


_place = attrgetter("at")


def claims(answer: Answer, options: Mapping[str, str], known: OptionTexts, found: list[Mention]) -> list[Claim]:
    """Every claim in the answer that can matter, by position; `found` are the mentions of option texts in it."""
    made = list(_strong(answer, options, found))
    alone = [] if known.letters.isdisjoint(answer.words) else lone_letters(answer)
    if len(alone) == 1 == len(made) and made[0].at <= alone[0] and made[0].label and not made[0].by_text:
        return made  # the one letter there is has been taken
    if any([answer.text[at].upper() in options for at in alone]):
        made += [Claim(at, letter, STRONG) for at, letter in verdicts(answer, options, alone)]
        first = leading(answer, options, found)
        if first is not None:
            made.append(Claim(0, first.label, STRONG if first.label else WEAK))
        explicit = [claim for claim in made if claim.strength == STRONG and not claim.by_text]
        if not explicit or corrects(answer):
            made += _weak(answer, options, found)
            made += [Claim(at, letter, STRONG) for at, letter in all_but(answer, options)]
    return sorted(made, key=_place) if len(made) > 1 else made


def _strong(answer: Answer, options: Mapping[str, str], found: list[Mention]) -> Iterator[Claim]:
    """`the answer is B`, `答案是狗`: by letter, or else by text."""
    for hit in strong_markers(answer):
        at = hit.end()
        if not (_ANNOUNCES.fullmatch(hit.group()) or is_listed(answer.text, at) or is_denied(answer, at)):
            read: ByLetter | ByText | None = read_label(answer, at, options, found)
            if read is None and not _OF_ONE.match(hit.group()):
                read = read_text(answer, at, found)
            if read is not None and not says_also(answer, at):
                yield Claim(at, read.label, STRONG, isinstance(read, ByText))


def _weak(answer: Answer, options: Mapping[str, str], found: list[Mention]) -> Iterator[Claim]:
    """`so B`, `it's B`, `选B`: by letter only."""
    letters_mean_texts = any([option.strip() in options for option in options.values()])
    for hit in weak_markers(answer):
        at = hit.end()
        if is_listed(answer.text, at) or _CONSIDERS.search(answer.lowered[max(0, hit.start() - 20) : hit.start()]):
            continue
        of_label = _TAKES_SMALL.search(hit.group()) is not None
        if letters_mean_texts and not of_label:
            continue
        read = read_label(answer, at, options, found, upper_only=not of_label)
        if read is None or (_TALKS_OF.fullmatch(hit.group()) and not _TAKEN.match(answer.text, at)):
            continue
        if not says_also(answer, at) and not is_denied(answer, at):
            yield Claim(at, read.label, WEAK)
