"""Whether an answer negates, supposes or asks what it mentions, for the protocol `exact`. Ours, no outside source.

Only the clause a mention stands in is looked at: `not A but B` denies A, `not a cat, a dog` the cat. Where it is hard
to say, as under `although`, `whether` or a far-reaching `no`, the mention counts as denied: rather no answer than a
wrong one. All searches but those behind a mention are made in small letters.
"""

from __future__ import annotations

import re

from vlmeval.scoring.exact_answer import Answer, signs

_LOOK_BACK = 200

SENTENCE_END = re.compile(r"[!?\n]|\.(?!\d)")
# The look-aheads on the first character change no match; they make the search some three times as fast.
_CLAUSE_END = re.compile(
    r"(?=[;!?\n.,:bstwh而但所因故])(?:[;!?\n]|[.,:](?!\d)|\b(?:but|so|because|since|therefore|thus|hence|while)\b"
    r"|而是|但|所以|因此|因为|故|而)"
)
_DENIAL = re.compile(
    r"(?=[ncweuirabltsmopfhd虽尽错禁不没无非排除是'❌✗✘✖])(?:\b(?:not|never|neither|nor|cannot|no|none|without|except|excluding|unlike"
    r"|instead of|rather than|eliminate[sd]?|rule[sd]? out|whether|if|although|though|before|wrong|incorrect|least"
    r"|hardly|barely|scarcely|unless|lack(?:s|ing)?|far from|anything but|doubt (?:it|that|this|if|the)"
    r"|compared (?:with|to)|need (?:more|further|additional|a clearer|to see)"
    r"|(?:(?:some|many|most|other)(?: \w+){0,2}|others|people|one|someone|users?|friends?)"
    r" (?:would|could|might|may|says?|said|thinks?|thought|claims?|argue))\b"
    r"|n't\b|虽然|尽管|错误的|错的|禁止|不|没|无|非|排除|除了|是否|[❌✗✘✖])"
)
_DENIAL_SIGNS = signs(
    "not never neither nor cannot no none without except excluding unlike instead rather eliminate eliminates "
    "eliminated rule rules ruled whether if although though before wrong incorrect least t hardly barely scarcely "
    "unless lack lacks lacking far anything doubt need "
    "compared some many most other others people one someone user users friend friends",
    "虽尽错禁不没无非排除否❌✗✘✖",
)
_NO_DENIAL = re.compile(
    r"\bif (?:i|you) (?:(?:had|have|were|was|am|are) (?:(?:forced|asked|pressed) )?to|must) \w+"
    r"|\b(?:no|without(?: a)?) doubt\b|\bnot (?:only|sure|certain|entirely sure)\b"
    r"|(?:如果)?(?:非|一定|必须)要?选(?:一个|择)?|毫无疑问|无疑|不仅|不只"
)
_SUPPOSED = re.compile(r"\s*if\b.*\b(?:would|were|had)\b|\s*(?:如果|假如|若)", re.DOTALL)
_SUPPOSED_SIGNS = signs("if", "如假若")
_IF_ONLY = re.compile(r"[^.!?\n]*\bif\b[^.!?\n]*\b(?:were|had|would)\b")
_ABSENT_AFTER = re.compile(
    r"[\"')\]]*,?\s+(?:(?:is|are|was|were)\s+(?:incorrect|wrong|missing|absent|gone|no longer"
    r"|not (?:visible|present|shown|there|here|in|depicted))"
    r"|(?:but|yet)\s+(?:(?:it|that)\s+)?(?:is|was)(?:n't| not)\b(?! (?:sure|certain|clear))"
    r"|(?:is|are)n't (?:visible|present|shown|there|here|in|depicted))\b"
    r"|\s*(?:没|不(?!错|仅|只)|未|并非|并不)|[^.!?\n,]{0,4},?\s*(?:但|其实|实际上)*并?不是\s*(?:[.!]|$)"
    r"|\W*\b(?:is|seems|looks|would be) (?:clearly |definitely |probably )?(?:the )?(?:least|worst|most unlikely)\b",
    re.IGNORECASE,
)
_ABSENT_SIGNS = signs("incorrect wrong missing absent gone longer not t least worst unlikely", "没不未并")
_DENIED_AFTER = re.compile(
    r"""["')\]}>]*\s*(?:option|choice|选项|项)?\s*(?:
    (?:is|was|are|seems|looks)\s+(?:\w+\s+)?
        (?:not\b|wrong|incorrect|false|out\b|impossible|unlikely|ruled|eliminated|excluded
        |(?:the\s+)?(?:least|worst|most\s+unlikely)\b)
    |(?:is|was|does|do|can|could|would|should)n't\b|cannot\b|(?:does|do|can|could|would|should|must)\s+not\b
    |,?\s*(?:I\s+(?:don't|do\s+not)\s+(?:think|believe)|I\s+think\s+not\b|(?:maybe|perhaps|or|probably)\s+not\b)
    |(?:can|could|should|must|may)\s+(?:also\s+)?be\s+(?:ruled|eliminated|excluded|discarded|dismissed)
    |是错|错|不|并不|也不|可以?排除|被排除|排除|有误)""",
    re.VERBOSE | re.IGNORECASE,
)


def is_denied(answer: Answer, at: int) -> bool:
    """Whether the clause before character `at` negates what stands there, or the sentence around it is a question."""
    if _DENIAL_SIGNS.in_(answer) and _is_negated(answer.lowered, at):
        return True
    if _SUPPOSED_SIGNS.in_(answer) and _is_supposed(answer.lowered, at):
        return True
    if "?" not in answer.text:
        return False
    end = SENTENCE_END.search(answer.text, at)
    return end is not None and end.group() == "?"


def _is_negated(lowered: str, at: int) -> bool:
    # Looking at all that can be the clause comes first: it is one search, and mostly finds nothing.
    if not _DENIAL.search(lowered[max(0, at - _LOOK_BACK) : at]):
        return False
    clause = lowered[_last_end(_CLAUSE_END, lowered, at) : at]
    return bool(_DENIAL.search(clause) and _DENIAL.search(_NO_DENIAL.sub("", clause)))


def _is_supposed(lowered: str, at: int) -> bool:
    """`If it were a dog, the answer would be ...`, from either end."""
    sentence = _NO_DENIAL.sub("", lowered[_last_end(SENTENCE_END, lowered, at) : at])
    return bool(_SUPPOSED.match(sentence) or (lowered.find("if", at) >= 0 and _IF_ONLY.match(lowered, at)))


def is_denied_after(text: str, at: int) -> bool:
    """Whether what stands behind a letter, from character `at`, says that it is not the one."""
    return _DENIED_AFTER.match(text, at) is not None


def is_absent_after(answer: Answer, at: int) -> bool:
    """Whether what stands behind an option's text, from character `at`, says that it is not to be seen."""
    return _ABSENT_SIGNS.in_(answer) and _ABSENT_AFTER.match(answer.text, at) is not None


def _last_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where the last hit of `pattern` before `at` ends, not looking back further than needed."""
    last = max(0, at - _LOOK_BACK)
    for hit in pattern.finditer(text, last, at):
        last = hit.end()
    return last
