"""Where an answer says which option it takes, for the protocol `exact`, in English and Chinese.

Ours, no outside source. A claim is a marker (`the answer is`, `选`, `option`, `is correct` ...) and an option, by
letter or by text. A letter is a letter only where it cannot be an article (`A dog`), part of a name (`B-52`, `A+`) or
one of a list (`A and B`); a letter followed by another option's text is a contradiction and claims nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

from vlmeval.scoring.exact_denial import SENTENCE_END, is_denied, is_denied_after
from vlmeval.scoring.exact_options import SHORT_WORDS, Mention

STRONG, WEAK = 2, 1


class Claim(NamedTuple):
    """At character `at` the answer takes `label`; None where it names several, or one that does not exist."""

    at: int
    label: str | None
    strength: int
    by_text: bool = False


_OPEN = r"""["'(\[{<$]*"""
_CLOSE = r"""["')\]}>$]*"""
_NO_NAME = r"(?![A-Za-z0-9+_]|-\w|'\w)"

_LABEL = re.compile(
    rf"""[\s:]*{_OPEN}[\s:]*{_OPEN}(?:(?:option|choice|letter|选项|选择?)\s*)?{_OPEN}([A-Za-z]){_NO_NAME}"""
)
_LIST = re.compile(
    rf"""{_CLOSE}\s*(?:,|/|&|;|\+|-|~|\bto\b|\bvs\b\.?|\band\b|\bor\b|和|或者?|还是|以?及|[与跟]|,\s*(?:and|or)\b)\s*"""
    rf"""(?:option\s+|well,?\s+or\s+|maybe\s+|perhaps\s+|possibly\s+|then\s+|(?:it\s+)?(?:could|might|may|can)\s+(?:also\s+)?be\s+"""
    rf"""|选项)?{_OPEN}([A-Z])(?![A-Za-z0-9])"""
)
_IN_LIST = re.compile(
    rf"(?<![A-Za-z])([A-Z]){_CLOSE}\s*(?:,|/|&|\band\b|\bor\b|和|或者?|还是|以?及|[与跟])+\s*{_OPEN}$"
)
_ARTICLE_USE = re.compile(
    r"[ \t]+(?!(?:is|was|because|since|as|and|or|but|for|due|rather|instead|not|would|should|seems|fits|matches|over"
    r"|best|here|based|from|among|with|which|in|at|cannot|can|could|must|isn't|can't|if|when)\b)[A-Za-z]"
)
_SEPARATOR = re.compile(rf"{_CLOSE}[ \t]*[.,:)\-]*[ \t]*(?:(?:[Aa]n?|[Tt]he)\s+(?=\w))?")

_SUBJECT = r"(?:answer|ans|choice|option|selection|solution|conclusion|response|letter)"
_VERB = r"(?:is|would be|should be|must be|will be|has to be|be|was|may be|might be)"
_ADVERB = (
    r"(?:(?:clearly|definitely|probably|most likely|likely|obviously|certainly|actually|therefore|simply|just|thus)"
    r"\s+)?"
)
_STRONG_MARKER = re.compile(
    rf"\b{_SUBJECT}s?\b(?:[^.!?\n:=]{{0,80}}?\b{_VERB}\b|\s*[.:=\-]|\s*\n)[\s:]*{_ADVERB}"
    r"|\bcorrect:\s*|[✅✔☑✓](?![ \t]*\n)"
    r"|答案[\])\"]*\s*(?:应该|应当|应|就|一定|可能|肯定|显然)?\s*(?:是|为|选择?)?\s*[:=]?\s*"
    r"|^\s*答\s*:\s*"
    r"|(?:正确|最佳|最终|最合适)的?(?:答案|选项|选择)\s*(?:应该|应|就)?\s*(?:是|为|选)?\s*[:=]?\s*",
    re.IGNORECASE,
)
_STRONG_MARKER_LOWER = re.compile(r"(?=[acosrl\s])(?:" + _STRONG_MARKER.pattern + ")")
_WEAK_MARKER = re.compile(
    r"(?:\b(?:choose|chose|pick|select|selected|go with|going with|opt for|vote for|match(?:es)?|only|say|guess|think"
    r"|believe|leaves|leaves only|leaving|points? to|lean(?:ing)? towards?|prefer"
    r"|answer|is|be|so|therefore|thus|hence|actually|probably|likely|definitely"
    r"|clearly|certainly|perhaps|maybe|doubt|option|choice"
    r"|(?<!anything )(?<!everything )(?<!nothing )(?<!all )but(?: rather)?)\b|\b(?:it|that|this)'s\b"
    rf"|\bno,|=>|->|→|⇒|\b(?:wait|scratch that|second thought)\b[\s,.:]*"
    r"|(?:\b(?:conclusion|assistant|output|result|pick|verdict|final|correction|\d{1,2})|[?.!\n]\s?A):(?=\s*[A-Z][.\s]*$))"
    rf"[\s,:]*{_ADVERB}|(?:选项|选择?|是|为|所以|因此|应|不对|等等|其实)(?:的是)?\s*[:,]?\s*",
    re.IGNORECASE,
)
_WEAK_MARKER_LOWER = re.compile(r"(?=[acdeghijlmopstvnbw=-])(?:" + _WEAK_MARKER.pattern + ")")
"""For texts in ASCII without a colon: what a weak marker can begin with there."""
CORRECTION = re.compile(
    r"(?=[wacnojs等不更其])"  # changes no match, is faster
    r"(?:\b(?:wait|actually|correction|on second thought|just kidding|scratch that)\b|\bno,|等等|不对|更正|其实)",
    re.IGNORECASE,
)
_CORRECTION_HINTS = ("wait", "actual", "correct", "second th", "kidding", "scratch", "no,")
"""A correction in ASCII has one of these in it."""
_STRONG_WORDS = ("ans", "choice", "option", "select", "solution", "conclusion", "response", "letter", "correct:")
_STRONG_CHARS = ("答", "正确", "最", "✅", "✔", "☑", "✓")
"""Every strong marker begins with one of these."""
_ALSO_REACH = 16
_ALSO = re.compile(r"\b(?:so|as|nor)\s+(?:is|are|was|were|do|does|can|could)\s+(?:option\s+)?$", re.IGNORECASE)
"""`A can be excluded, and so can B`: what is said of B stands before."""
_TALKS_OF = re.compile(r"(?:option|choice|选项)[\s,:]*", re.IGNORECASE)
_TAKEN = re.compile(
    r"\W*[A-Za-z](?:\s*$|\s*[.!:;)\]}>\n(\"']|,?\s*(?:because|since|as|not|rather|instead|over)\b"
    r"|\s*,?(?!描述|说|指|表示|写)[\u2e80-\u9fff])"
)
"""`Option A`, then no verb: `option A says` speaks of the option and does not take it."""
_TAKES_SMALL = re.compile(r"choose|pick|select|option|choice|选", re.IGNORECASE)
_VERDICT = re.compile(
    # The look-behind stands after the letter, so that the search can jump from capital to capital.
    rf"""([A-Z])(?<![A-Za-z0-9+\-.'].){_CLOSE}(?:
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
    r"([A-Z])\)?\s+(?:can|could|is|are|was|were|have|has)\s+(?:(?:been|be)\s+)?"
    r"(?:excluded|eliminated|ruled out|discarded|wrong|incorrect|false)\b(?!\W*\bor\b)"
    r"|除了?([A-Z])(?:选项|项)?(?:之?外|以外)?,?[^.;!?\n]{0,10}(?:不|错|排除)",
    re.IGNORECASE,
)
_LEADING = re.compile(rf"\s*{_OPEN}([A-Z]){_NO_NAME}{_CLOSE}")
_LEADING_GOES_ON = re.compile(
    r"\s*$|\s*\n|\s*[:,](?!\w)|\s*\.(?![A-Za-z])|\)|\s+-\s|\s+\(?(?:because|since|rather than|instead of|not|over)\b"
    r"|\s*(?:选项|项)?\s*(?:因为|而不是)|[,:](?=[\u2e80-\u9fff])"
)
_BARE_LINE = re.compile(r"^[ \t]*(?:\d+[.)][ \t]*)?[(\[]?([A-Z])[)\].,]*[ \t]*$", re.MULTILINE)
_LISTED = re.compile(r"(?<![A-Za-z])[(\[]?([A-Z])[)\].:,]*\s+")
_LETTER = re.compile(r"(?<![A-Za-z0-9])(?:[A-Zb-z]|a(?![ \t]+[A-Za-z]))(?![A-Za-z0-9])")
_ARTICLE = re.compile(r"a[ \t]+[A-Za-z]")
_SHAPES = bytes(
    ord("a") if chr(code).isalpha() else ord("0") if chr(code).isdigit() else ord(" ") for code in range(128)
) + bytes(128)
"""Every ASCII letter as `a`, every digit as `0`, all else as a blank."""
_LISTED_LINE = re.compile(r"^[ \t]*[(\[]?([A-Z])[)\].:,](?=[ \t]*\S)", re.MULTILINE)


def claims(text: str, options: Mapping[str, str], found: list[Mention]) -> list[Claim]:
    """Every claim in `text` that can matter, by position; `found` are the mentions of option texts in it."""
    made = list(_strong(text, options, found))
    alone = _lone_letters(text)
    if any([text[at].upper() in options for at in alone]):
        made += _verdicts(text, options, alone)
        made += _leading(text, options, found)
        explicit = [claim for claim in made if claim.strength == STRONG and not claim.by_text]
        if not explicit or corrects(text):
            made += _weak(text, options, found)
            made += _all_but(text, options)
    return sorted(made, key=_place) if len(made) > 1 else made


_place = attrgetter("at")


def corrects(text: str) -> bool:
    """Whether `CORRECTION` is in `text`."""
    if text.isascii() and not any(map(text.lower().__contains__, _CORRECTION_HINTS)):
        return False
    return CORRECTION.search(text) is not None


def _lone_letters(text: str) -> list[int]:
    """Where letters stand alone in `text`, articles left out: all hits of `_LETTER`."""
    if not text.isascii():
        return [hit.start() for hit in _LETTER.finditer(text)]
    shapes = f" {text} ".encode().translate(_SHAPES)
    places = []
    at = shapes.find(b" a ")
    while at >= 0:
        if text[at] != "a" or not _ARTICLE.match(text, at):
            places.append(at)
        at = shapes.find(b" a ", at + 2)
    return places


def lists_options(text: str) -> bool:
    """Whether several lines begin with different letters, as when the question is repeated or gone through."""
    return "\n" in text and len(set(_LISTED_LINE.findall(text))) > 1


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


def _first_strong_word(text: str) -> int | None:
    """From where on a strong marker can stand; None where there is none."""
    lowered = text.lower()
    words = [word for word in _STRONG_WORDS if word in lowered]
    if text.isascii():
        return min(map(lowered.find, words)) if words else None
    return 0 if words or any(chars in text for chars in _STRONG_CHARS) else None


def _strong(text: str, options: Mapping[str, str], found: list[Mention]) -> Iterator[Claim]:
    """`the answer is B`, `答案是狗`: by letter, or else by text."""
    start = _first_strong_word(text)
    if start is None:
        return
    plain = text.isascii()  # the same on small letters, and faster
    marked = _STRONG_MARKER_LOWER.finditer(text.lower(), start) if plain else _STRONG_MARKER.finditer(text, start)
    for hit in marked:
        at = hit.end()
        if not is_denied(text, at):
            read = read_label(text, at, options, found) or _read_text(text, at, found)
            if read is not None and not _ALSO.search(text[max(0, at - _ALSO_REACH) : at]):
                yield Claim(at, read.label, STRONG, isinstance(read, _Text))


def _weak(text: str, options: Mapping[str, str], found: list[Mention]) -> Iterator[Claim]:
    """`so B`, `it's B`, `选B`: by letter only."""
    plain = ":" not in text and text.isascii()  # the same on small letters, and faster
    letters_mean_texts = any([option.strip() in options for option in options.values()])
    for hit in _WEAK_MARKER_LOWER.finditer(text.lower()) if plain else _WEAK_MARKER.finditer(text):
        at = hit.end()
        of_label = _TAKES_SMALL.search(hit.group()) is not None
        if letters_mean_texts and not of_label:
            continue
        read = read_label(text, at, options, found, upper_only=not of_label)
        if _TALKS_OF.fullmatch(hit.group()) and not _TAKEN.match(text, at):
            continue
        if read is None or _ALSO.search(text[max(0, at - _ALSO_REACH) : at]):
            continue
        if not is_denied(text, at):
            yield Claim(at, read.label, WEAK)


_TEXT_LIST = re.compile(
    rf"{_CLOSE}\s*(?:,|/|&|\band\b|\bor\b|和|或者?|还是|以?及|[与跟])+\s*(?:(?:an?|the)\s+)?", re.IGNORECASE
)
_OPENING = re.compile(r"""[\s"'(\[<:]*(?:(?:an?|the)\s+)?""", re.IGNORECASE)


class _Read(NamedTuple):
    label: str | None


class _Text(NamedTuple):
    label: str | None


def read_label(
    text: str, at: int, options: Mapping[str, str], found: list[Mention], upper_only: bool = False
) -> _Read | None:
    """The letter at character `at`: `_Read(None)` if one of several, unknown or contradicted; None if there is none."""
    hit = _LABEL.match(text, at)
    if hit is None:
        return None
    letter, end = hit.group(1), hit.end()
    behind = _SEPARATOR.match(text, end).end() if found else end  # type: ignore[union-attr]
    own_text = next((m for m in found if m.start == behind), None)
    same = own_text is not None and own_text.label == letter.upper()
    if letter == "I" and "I" not in options:
        return None
    if letter in "AaIi" and _ARTICLE_USE.match(text, end) and not (same and letter.isupper() and letter != "A"):
        return None
    if letter.islower() and (upper_only or not re.match(r"""["')\]}>]*\s*(?:[.,;:!)]|$|\n)""", text[end : end + 8])):
        return None
    if is_denied_after(text, end):
        return None
    differs = own_text is not None and not same and not is_denied_after(text, own_text.end)
    if _several(text, end) or letter.upper() not in options or differs:
        return _Read(None)
    return _Read(letter.upper())


def _several(text: str, end: int) -> bool:
    more = _LIST.match(text, end)
    return more is not None and not (more.group(1) in "AI" and _ARTICLE_USE.match(text, more.end()))


def _read_text(text: str, at: int, found: list[Mention]) -> _Text | None:
    """The option whose text stands at `at`, or else the only one in the rest of the sentence."""
    stop = SENTENCE_END.search(text, at)
    end = stop.start() if stop else len(text)
    here = [m for m in found if at <= m.start < end and not is_denied(text, m.start)]
    opening = _OPENING.match(text, at)
    first = next((m for m in here if opening is not None and m.start == opening.end()), None)
    listed = first is None or any(_TEXT_LIST.fullmatch(text, first.end, m.start) for m in here)
    labels = {m.label for m in (here if listed or first is None else [first])}
    return _Text(labels.pop()) if len(labels) == 1 else None


def _verdicts(text: str, options: Mapping[str, str], alone: list[int]) -> Iterator[Claim]:
    """`B is correct`, `B正确`; in ASCII only a letter in `alone` can be one."""
    hits = filter(None, [_VERDICT.match(text, at) for at in alone]) if text.isascii() else _VERDICT.finditer(text)
    behind = 0
    for hit in hits:
        if hit.start() < behind or (_YES_BEHIND.search(hit.group()) and _has_short_words(options)):
            continue
        behind = hit.end()
        listed = _IN_LIST.search(text, max(0, hit.start() - 12), hit.start())
        among = listed is not None and listed.group(1) != hit.group(1)  # `of A and B, B is better` is no list
        if hit.group(1) in options and not among and not is_denied(text, hit.start()):
            yield Claim(hit.start(), hit.group(1), STRONG)


_YES_BEHIND = re.compile(r":\s*\w+$")


def _has_short_words(options: Mapping[str, str]) -> bool:
    return any(option.strip().lower() in SHORT_WORDS | {"true", "correct"} for option in options.values())


def _all_but(text: str, options: Mapping[str, str]) -> Iterator[Claim]:
    """`All but B are wrong`, `除了B都不对`."""
    for hit in _ALL_BUT.finditer(text):
        letter = hit.group(1) or hit.group(2)
        if letter in options:
            yield Claim(hit.start(), letter, STRONG)


def _leading(text: str, options: Mapping[str, str], found: list[Mention]) -> Iterator[Claim]:
    """An answer that begins with a letter: `B. dog`, `(B) ...`, `B because`, `B狗`."""
    hit = _LEADING.match(text)
    if hit is None or hit.group(1) not in options or lists_letters(text) or lists_texts(text, found):
        return
    end = hit.end()
    alone = not text[end:].partition("\n")[0].strip(" .")
    read = read_label(text, 0, options, found)
    if read is None or (lists_options(text) and not alone):
        return
    told = any(m.start == _SEPARATOR.match(text, end).end() for m in found)  # type: ignore[union-attr]
    bracketed = text[end - 1] in ")]"
    if told or bracketed or read.label is None or _LEADING_GOES_ON.match(text, end):
        yield Claim(0, read.label, STRONG if read.label else WEAK)
