"""Option extraction that is meant to be right (protocol `exact`, version 2). Ours, no outside source.

What an answer says is taken in this order, and where it says nothing or two things, nothing is:

1. Only what stands behind the last `</think>`; an unclosed `<think>` has no answer.
2. What was put into `\\boxed{}`, `<answer>`, `<conclusion>` or `"answer":` alone decides, the last one if
   there are several.
3. A bare letter, or a bare option text.
4. What is claimed: `the answer is B`, `选B`, `B is correct`, `B. dog`, `The answer is bird`. Claims that are negated or
   asked do not count. Of several the corrected one (`wait`, `actually`), else the explicit ones; if these differ, the
   last, but only if it is a conclusion (`but`, `so`, `final`, `所以`).
5. A refusal, and an answer that was cut off: nothing, unless it is an option's own text.
6. A last line that is a letter, a letter in brackets, the one option whose text is mentioned and not negated, the text
   an answer concludes with (`so 15 cm in total`), words of one option only (`left` for `the left image`).

A letter that the text beside it contradicts (`the dog (A)` where A is a cat) makes it nothing.

Agreement with hand-made labels is tested on `tests/scoring/exact_labelled.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vlmeval.scoring.exact_answer import Answer, signs
from vlmeval.scoring.exact_bare import may_be_bare, read_bare
from vlmeval.scoring.exact_by_text import (
    AROUND,
    concluded,
    is_cut_off,
    is_doubtful,
    is_telling,
    only,
    only_text,
    shortened,
    yes_or_no,
)
from vlmeval.scoring.exact_claims import STRONG, Claim, claims
from vlmeval.scoring.exact_denial import is_absent_after, is_denied, is_denied_after
from vlmeval.scoring.exact_label import read_label
from vlmeval.scoring.exact_lists import judges_each, lists_letters, lists_options, lists_texts
from vlmeval.scoring.exact_markers import corrects, last_correction
from vlmeval.scoring.exact_options import Mention, OptionTexts, mentions, option_texts
from vlmeval.scoring.exact_text import plain_answer
from vlmeval.scoring.match import Match

_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_ANSWER_TAG = re.compile(
    r"<(?:final_)?(?:answer|conclusion)>(.*?)</(?:final_)?(?:answer|conclusion)>", re.IGNORECASE | re.DOTALL
)
_ANSWER_KEY = re.compile(r"""["'](?:final_)?(?:answer|choice|option)["']\s*:\s*["']([^"']*)["']""", re.IGNORECASE)
_SHORT = 24
"""Up to this length an answer is tried as a letter or text before anything is looked up in it; changes no result."""
_CONCLUSION = re.compile(
    r"\b(?:but|however|so|therefore|thus|hence|final|finally|conclusion|overall|in summary)\b"
    r"|但|不过|所以|因此|综上|最终|故|(?:应[当该]?|[就只]?能|[,。])选",
    re.IGNORECASE,
)
_IT_IS = re.compile(r"(?:\b(?:it|this|that)(?:'s| is)\s+(?:an?\s+|the\s+)?|[它这]是)$", re.IGNORECASE)
_BRACKET_OPENS = re.compile(r"\s*[(\[](?:option|choice|选项)?\s*", re.IGNORECASE)
_HENCE = re.compile(r"[\s,.;]*(?:(?:so|therefore|thus|hence)\b|所以|因此)[^.,;!?\n]{0,40}", re.IGNORECASE)
_REFUSAL = re.compile(
    r"(?=[suanfcdihtp抱对无不看以没请难])(?:"  # changes no match, is faster
    r"\b(?:sorry|unable to|as an ai|no idea|unclear|unknown|failed to obtain|none of|no image)\b"
    r"|\b(?:cannot|can't|can not|could not|couldn't) (?:be )?(?:determine|answer|see|tell|help|view|process|provide"
    r"|identify|make out|say|decide|choose|judge)"
    r"|\b(?:do not|don't) (?:know|have)\b|\bnot (?:sure|certain|enough|possible|provided|clear)\b"
    r"|\bplease (?:provide|upload|send|share|attach)\b"
    r"|\b(?:can|could) you (?:please )?(?:provide|upload|send|share|attach)\b"
    r"|\bimpossible to\b|\bhard to (?:say|tell)\b|\btoo (?:blurry|dark|small)\b"
    r"|抱歉|对不起|无法|不知道|不清楚|看不到|看不清|不能(?:确定|判断|回答|决定)|以上都不|没有正确|请提供|难以)"
)
_REFUSAL_SIGNS = signs(
    "sorry unable ai idea unclear unknown failed none image cannot can could couldn do don not impossible hard too "
    "please you",
    "抱对无不看以没请难",
)
_LONGEST_MARK_WORDS = 4
_IN_BRACKETS = re.compile(r"[(\[](?:(?:[Oo]ption|[Cc]hoice|选项)\s*)?([A-Z])[)\]]")
_SENTENCE_BREAK = re.compile(r"(?<!vs)[.!?]\s+")
_LETTER_FIRST = re.compile(r"[(\[]?[A-Z][)\].:,](?![A-Za-z])")
_SHORT_ANSWER_END = re.compile(
    r"\s*(?:,(?!\s*(?:yes|no|maybe)\b)|[.;:!\n]|$|的|啊|呢)|\s+(?:it|there|this|that|he|she|they|i|we)\b", re.IGNORECASE
)


def extract_option(answer: str | None, options: Mapping[str, str]) -> str | None:
    """The label `answer` chooses, or None where it chooses none."""
    return match_option(answer, options).label


def match_option(answer: str | None, options: Mapping[str, str]) -> Match:
    """`extract_option` with the step that decided."""
    if answer in options:
        return Match(answer, "letter")
    text = plain_answer(answer or "")
    boxed = (
        ("\\boxed" in text and _BOXED.findall(text))
        or ("</" in text and _ANSWER_TAG.findall(text))
        or (":" in text and _ANSWER_KEY.findall(text))
    )
    known = option_texts(options)
    if boxed:
        marked = Answer(boxed[-1])
        return _read_marked(marked, options, known) or Match(None, "what is marked as the answer is no option")
    if len(text) <= _SHORT:
        return read_bare(text, options, known) or _read_prose(Answer(text), options, known)
    said = Answer(text)
    bare = read_bare(text, options, known) if may_be_bare(said, known) else None
    return bare or _read_prose(said, options, known)


def _read_marked(answer: Answer, options: Mapping[str, str], known: OptionTexts) -> Match | None:
    """What was put into a box or tag: a letter, a text, a letter with its text, or sentences."""
    bare = read_bare(answer.text, options, known)
    if bare is not None:
        return bare
    if len(answer.text.split()) > _LONGEST_MARK_WORDS:
        return _read_prose(answer, options, known)
    found = mentions(answer, known)
    letter = read_label(answer, 0, options, found)
    if letter is not None:
        return Match(letter.label, "letter") if letter.label else None
    return only(found, "text")


def _refuses(answer: Answer) -> bool:
    return _REFUSAL_SIGNS.in_(answer) and _REFUSAL.search(answer.lowered) is not None


def _read_prose(answer: Answer, options: Mapping[str, str], known: OptionTexts) -> Match:
    text = answer.text
    if (
        answer.is_ascii
        and len(answer.words) > 1
        and len(answer.said[0]) == 1
        and all([len(word) == 1 and word.isalpha() for word in answer.said])
    ):
        return Match(None, "several letters")
    found = mentions(answer, known)
    made = claims(answer, options, known, found)
    short = _short_word(text, known) if known.short else None
    if short is not None:
        if corrects(answer):
            return yes_or_no(text, known) or Match(None, "corrected")
        made.insert(0, Claim(0, short, STRONG))
    if made:
        return Match(None, "text and letter differ") if _contradicted(text, made, found) else _decide(answer, made)
    plain = [m for m in found if is_telling(m, options)]
    if _refuses(answer):
        plain = [m for m in plain if _REFUSAL.search(options[m.label].lower())]
        return only(plain, "text") or Match(None, "refusal")
    doubtful = [m for m in plain if is_doubtful(answer, m, options)]
    stated = [
        m for m in plain if m not in doubtful and not is_denied(answer, m.start) and not is_absent_after(answer, m.end)
    ]
    bracketed = _bracketed(answer, options)
    if bracketed and stated and bracketed.label not in {m.label for m in stated}:
        return Match(None, "text and letter differ")
    if is_cut_off(text):
        return _last_line(answer, options, known, found) or Match(None, "cut off")
    return (
        _last_line(answer, options, known, found)
        or (bracketed if len({m.label for m in stated}) < 2 else None)
        or (
            only_text(answer, stated, found, known)
            if {m.label for m in doubtful} <= {m.label for m in stated}
            else None
        )
        or concluded(text, stated)
        or yes_or_no(text, known)
        or shortened(text, known)
        or Match(None, "no claim")
    )


def _decide(answer: Answer, made: list[Claim]) -> Match:
    """One label out of claims that may differ, or nothing."""
    if len(made) == 1 and made[0].label is not None:
        return Match(made[0].label, "claim")
    correction = last_correction(answer)
    if correction is not None:
        made = [claim for claim in made if claim.at >= correction] or made
    strongest = max(claim.strength for claim in made)
    heard = [claim for claim in made if claim.strength == strongest]
    singles = [claim for claim in heard if claim.label is not None]
    last = singles[-1] if singles and strongest < STRONG else heard[-1]
    rivals = [claim for claim in heard if claim.label != last.label and claim.at <= last.at]
    if last.by_text and any(c.label not in (None, last.label) for c in made if not c.by_text and c.at > last.at):
        return Match(None, "text and letter differ")
    if last.label is None or (rivals and not _CONCLUSION.search(answer.text, rivals[-1].at, last.at)):
        return Match(None, "several options claimed" if rivals else "claims no single option")
    return Match(last.label, "claim")


def _short_word(text: str, known: OptionTexts) -> str | None:
    """`Yes, ...` where yes is an option: such words count only as the first word, and alone."""
    start = len(text) - len(text.lstrip(AROUND))
    for word, label in known.short:
        if text[start : start + len(word)].lower() == word:
            return label if _SHORT_ANSWER_END.match(text, start + len(word)) else None
    return None


def _last_line(answer: Answer, options: Mapping[str, str], known: OptionTexts, found: list[Mention]) -> Match | None:
    if known.letters.isdisjoint(answer.words):
        return None
    text = answer.text
    if lists_letters(text) or lists_texts(text, found) or judges_each(text):
        return None
    line = text.rstrip().rpartition("\n")[2]
    if answer.said and answer.said[-1] in known.letters:
        core = _SENTENCE_BREAK.split(line.rstrip(AROUND))[-1].strip(AROUND)
        if core in options and not line.endswith("?"):
            return Match(core, "letter on the last line")
    if not _LETTER_FIRST.match(line) or lists_options(text):
        return None
    last = Answer(line)
    letter = read_label(last, 0, options, mentions(last, known))
    return Match(letter.label, "letter on the last line") if letter and letter.label else None


def _bracketed(answer: Answer, options: Mapping[str, str]) -> Match | None:
    """`The animal (B) barks`: the only letter in brackets."""
    text = answer.text
    if "(" not in text and "[" not in text:
        return None
    hits = [hit for hit in _IN_BRACKETS.finditer(text) if hit.group(1) in options]
    labels = {
        hit.group(1) for hit in hits if not is_denied(answer, hit.start()) and not is_denied_after(text, hit.end())
    }
    return Match(labels.pop(), "letter in brackets") if len(labels) == 1 else None


def _contradicted(text: str, made: list[Claim], found: list[Mention]) -> bool:
    """`It is a dog, so the answer is A`, `the dog (option A)` where A is a cat."""
    if len(made) > 1 or made[0].by_text:
        return False
    label, at = made[0].label, made[0].at
    last = next((m for m in reversed(found) if m.end <= at), None)
    if last is None or last.label == label:
        return False
    if _BRACKET_OPENS.fullmatch(text, last.end, at):
        return True
    return (
        _HENCE.fullmatch(text, last.end, at) is not None
        and _IT_IS.search(text[max(0, last.start - 20) : last.start]) is not None
    )
