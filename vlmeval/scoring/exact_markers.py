"""The words that lead up to an option, for the protocol `exact`, in English and Chinese. Ours, no outside source.

Strong markers (`the answer is`, `答案是`) say that what follows is the answer; weak ones (`so`, `it's`, `选`) only lead
up to a letter. A correction (`wait`, `actually`) makes what stands before it count no more. All are searched for in
small letters; the look-aheads on the first character change no match, they make the search faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlmeval.scoring.exact_answer import Answer, signs

_SUBJECT = r"(?:answer|ans|choice|option|selection|solution|conclusion|response|letter)"
_VERB = r"(?:is|would be|should be|must be|will be|has to be|be|was|may be|might be)"
_ADVERB = (
    r"(?:(?:clearly|definitely|probably|most likely|likely|obviously|certainly|actually|therefore|simply|just|thus)"
    r"\s+)?"
)
_STRONG_MARKER = re.compile(
    r"(?=[acosrl\s答正最✅✔☑✓])(?:"
    rf"(?<![a-z0-9]){_SUBJECT}s?\b(?:[^.!?\n:=]{{0,80}}?\b{_VERB}\b|\s*[.:=\-]|\s*\n)[\s:]*{_ADVERB}"
    r"|\bcorrect:\s*|[✅✔☑✓](?![ \t]*\n)"
    r"|答案[\])\"]*\s*(?:应该|应当|应|就|一定|可能|肯定|显然)?\s*(?:是|为|选择?)?\s*[:=]?\s*"
    r"|^\s*答\s*:\s*"
    r"|(?:正确|最佳|最终|最合适)的?(?:答案|选项|选择)\s*(?:应该|应|就)?\s*(?:是|为|选)?\s*[:=]?\s*)"
)
_STRONG_WORDS = frozenset(
    "answer answers ans anss choice choices option options selection selections solution solutions conclusion "
    "conclusions response responses letter letters correct".split()
)
_STRONG_CHARS = frozenset("答正最✅✔☑✓")
_WEAK_MARKER = re.compile(
    r"(?=[a-dg-jl-psftrvw\d?.!\n=\-→⇒选是为所因应不等其])(?:"
    r"(?:\b(?:choose|chose|pick|select|selected|go with|going with|opt for|vote for|match(?:es)?|only|say|guess|think"
    r"|believe|leaves|leaves only|leaving|points? to|lean(?:ing)? towards?|prefer"
    r"|answer|is|be|so|therefore|thus|hence|actually|probably|likely|definitely"
    r"|clearly|certainly|perhaps|maybe|doubt|option|choice"
    r"|(?<!anything )(?<!everything )(?<!nothing )(?<!all )but(?: rather)?)\b|\b(?:it|that|this)'s\b"
    r"|\bno,|=>|->|→|⇒|\b(?:wait|scratch that|second thought)\b[\s,.:]*"
    r"|(?:\b(?:conclusion|assistant|output|result|pick|verdict|final|correction|\d{1,2})|[?.!\n]\s?a):"
    r"(?=\s*[a-z][.\s]*$))"
    rf"[\s,:]*{_ADVERB}|(?:选项|选择?|是|为|所以|因此|(?<![反适响相对供效])应|不对|等等|其实)"
    r"(?:的是)?[ \t]*(?:[:,]\s*)?)"
)
_CORRECTION = re.compile(
    r"(?=[wacnojsitl等不更其])"
    r"(?:\b(?:wait|actually|correction|on second thought|just kidding|scratch that|i misread|that (?:is|was) wrong)\b"
    r"|\blet me (?:re\w+|look again|check again|count again|think again|correct)\b|\bno,|等等|不对|更正|其实)"
)
_CORRECTION_SIGNS = signs("wait actually correction second kidding scratch no misread wrong let", "等不更其")
_ALSO_REACH = 16
_ALSO = re.compile(r"\b(?:so|as|nor)\s+(?:is|are|was|were|do|does|can|could)\s+(?:option\s+)?$")
_ALSO_SIGNS = signs("so as nor")


def strong_markers(answer: Answer) -> Iterator[re.Match[str]]:
    """Every `the answer is` and its like."""
    words = answer.words & _STRONG_WORDS
    if answer.is_ascii and words:
        return _STRONG_MARKER.finditer(answer.lowered, min(map(answer.lowered.find, words)))
    if words or not _STRONG_CHARS.isdisjoint(answer.chars):
        return _STRONG_MARKER.finditer(answer.lowered)
    return iter(())


def weak_markers(answer: Answer) -> Iterator[re.Match[str]]:
    """Every `so`, `it's`, `选` and their like."""
    return _WEAK_MARKER.finditer(answer.lowered)


def corrects(answer: Answer) -> bool:
    """Whether the answer takes back what it said before."""
    return _CORRECTION_SIGNS.in_(answer) and _CORRECTION.search(answer.lowered) is not None


def last_correction(answer: Answer) -> int | None:
    """Behind which character what counts begins."""
    hits = list(_CORRECTION.finditer(answer.lowered)) if _CORRECTION_SIGNS.in_(answer) else []
    return hits[-1].end() if hits else None


def says_also(answer: Answer, at: int) -> bool:
    """`A can be excluded, and so can B`: what is said of the letter at `at` stands before."""
    if not _ALSO_SIGNS.in_(answer):
        return False
    return _ALSO.search(answer.lowered[max(0, at - _ALSO_REACH) : at]) is not None
