"""The option an answer takes by its text alone, where no letter and no `the answer is` says it (protocol `exact`).

Ours, no outside source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vlmeval.scoring.exact_answer import Answer, signs
from vlmeval.scoring.exact_denial import is_denied, is_denied_after
from vlmeval.scoring.exact_options import SHORT_WORDS, Mention, OptionTexts, content_words
from vlmeval.scoring.exact_text import folded
from vlmeval.scoring.exact_yes_no import extract_yes_no_exact
from vlmeval.scoring.extract_yes_no import NO, YES
from vlmeval.scoring.match import Match

AROUND = " \t\r\n.,;:!?\"'()[]{}<>$-_/|~"
_SO = re.compile(
    r"(?:\b(?:so|therefore|thus|hence),?\s+(?:[^.,;:!?\n]{0,60}\b(?:is|are|was|were|be|'s|=|left with)\s+)?"
    r"|\b(?:since|because|as)\s(?:[^.;:!?\n]|\.\d){0,100},\s+[^.,;:!?\n]{0,60}\b(?:is|are|was|were)\s+"
    r"|\b(?:giving|making|which (?:gives|makes|leaves|equals|is)"
    r"|but\s+(?:is|it's|it is)?\s*(?:actually|in fact|really))"
    r"\s+)(?:(?:an?|the)\s+)?$|=[^=,;\n]*=\s*$|(?:(?:所以|因此|但其实|但实际上|其实|可见|综上)(?:,?[^.,;:!?\n不没]{0,20}[是为])?|共(?:有|计|是)?)$",
    re.IGNORECASE,
)
_REACH = 80
_OF_ANOTHER = re.compile(
    r"\b(?:option|choice)\s+\(?[a-z]\)?\s+(?:only\s+)?(?:is|was|says|states|describes|mentions|refers|shows|means|reads"
    r"|lists|suggests|talks|claims|implies|stands|represents)\b[^.!?\n]*$"
    r"|(?:选项?\s*[a-z](?:选项|项)?|[a-z]\s*(?:选项|项))\s*(?:描述|说|指|表示|写|讲|代表|提到|是|为|有)[^.!?\n]*$"
    r"|\b(?:yellow|redd|green|blu|brown|purpl|orang|gr[ae]y|black|whit|pink)ish[ -]$|[偏粉橘橙玫紫近]$"
    r"|\b(?:all|every(?:thing|one)?|anything) but (?:(?:an?|the) )?$",
    re.IGNORECASE,
)
"""Before a text that is said of an option (`option B says`), is a shade of another (`yellowish green`) or excepted."""
_OF_ANOTHER_SIGNS = signs("option choice all every everything everyone anything", "选项偏粉橘橙玫紫近")
_PLACES = frozenset({"left", "right", "above", "below"})
_SIDE = re.compile(
    r"\b(?:the|his|her|its|their|my|our|your|to|on|at|is|are|be|far|upper|lower|top|bottom|turn\w*|point\w*|fac\w+|look\w*"
    r"|go\w*|mov\w+|head\w*|lean\w*)\W+$|^\W*$",
    re.IGNORECASE,
)
_ON_THE_PAGE = re.compile(
    r"\b(?:as|see|see the \w+|describ\w+|mention\w*|list\w*|shown|given|stated|noted|provided|discussed|said|explained"
    r"|options|choices|image|picture|question|from the|the)\s+$",
    re.IGNORECASE,
)
_BEFORE_WORD = frozenset(
    "是只条个一的有和为像着叫那这到了见在抱头匹种吃选答案两三四五六七几位小大白黑黄多些又即指与或及但看:："
)
_BEHIND_WORD = frozenset("在的是和正站坐趴躺吗吧啊呢跑飞游叫了着有也与或及睡最才又儿咪没不而,。，、")
_CUT = re.compile(
    r"(?:[,:;(=+、与和或及把被而但且]|因为|所以|如果|则|由于|由|再|代入|可以|得|从|\b(?:and|or|but|the|an?|of|with|from|because|since|if|when|where|"
    r"which|whose|while|than|into|its|their|our|is|are|was|were|be|by|to|then|as|at|between|(?:and|then|after|so)\s+(?:that|this|then)))\s*$",
    re.IGNORECASE,
)
_ENDS_SENTENCE = frozenset(".!?")
_CUT_REACH = 24
_DOUBT_CUT = re.compile(r"(?:[.;]\s*however\b|,\s*但是?)[^.!?,\n]{0,30}[^.!?\s]$", re.IGNORECASE)
_ENDS = re.compile(r"(?:(?:\s+\w+)?\s+(?:in total|in all|overall|altogether|all together))?\W*")
_AGREED = re.compile(r"\b(?:that|this|you)(?:'s|'re| is| are) $", re.IGNORECASE)
_RANGE = re.compile(r"\d\s?(?:to|-|~|到|至)\s?$")
_COORDINATED = re.compile(r"(?:\b(?:or|and)\s|[/,]|或|和|还是)\s*(?:an?\s|the\s)?\s*$", re.IGNORECASE)
_UNSURE = re.compile(r"\b(?:if|maybe|perhaps|otherwise)\b", re.IGNORECASE)
_LONGEST_SHORTENED = 200
_YES_NO = ({YES: "yes", NO: "no"}, {YES: "是", NO: "否"}, {YES: "是", NO: "不是"}, {YES: "有", NO: "没有"})


def is_telling(mention: Mention, options: Mapping[str, str]) -> bool:
    """Whether the option's text says something in a sentence: not `no`, or `B` as the text of A."""
    option = options[mention.label].strip()
    return option.lower() not in SHORT_WORDS and option.lower() != "i" and option not in options


def is_doubtful(answer: Answer, mention: Mention, options: Mapping[str, str]) -> bool:
    """Whether the option's text may mean something else there: `you're right`, 热狗, or what `option B says`."""
    option = options[mention.label].strip()
    before = answer.text[max(0, mention.start - _REACH) : mention.start]
    if (_OF_ANOTHER_SIGNS.in_(answer) or "ish" in answer.lowered) and _OF_ANOTHER.search(before):
        return True
    if option.lower() in _PLACES:
        return not _is_place(option.lower(), before)
    return len(option) == 1 and not option.isascii() and not _stands_alone(answer.text, mention)


def _is_place(word: str, before: str) -> bool:
    """`On the left`, not `he left`; `above it`, not `as said above`."""
    if word == "right" and _AGREED.search(before):
        return False
    return bool(_SIDE.search(before)) if word in ("left", "right") else not _ON_THE_PAGE.search(before)


def _stands_alone(text: str, mention: Mention) -> bool:
    """Whether a Chinese character is a word there: 狗 in 一只狗在跑, not in 热狗 or 狗尾草."""
    before, behind = text[: mention.start][-1:], text[mention.end : mention.end + 1]
    return (not _is_chinese(before) or before in _BEFORE_WORD) and (not _is_chinese(behind) or behind in _BEHIND_WORD)


def _is_chinese(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff"


def only_text(answer: Answer, stated: list[Mention], found: list[Mention], known: OptionTexts) -> Match | None:
    """The only option mentioned, unless all the words that tell another one from the rest are in the text as well."""
    said = only(stated, "text")
    if said is None or any([_ends_range(answer.text, m.start) for m in stated]):
        return None
    named = {m.label for m in found}
    for label, words in known.long:
        if label not in named and any(map(answer.lowered.__contains__, words)):
            here, more = content_words(answer.text), words - known.content[said.label or ""]
            for needed, new in ((known.telling(label), known.telling(label)), (words, more)):
                if new and needed <= here and (len(new) > 1 or _is_one_of_several(answer.text, stated)):
                    return None
    return None if _letter_is_denied(answer, said.label or "") else said


def _ends_range(text: str, at: int) -> bool:
    """`12 to 24 cm`."""
    return text[at].isdigit() and _RANGE.search(text[max(0, at - 6) : at]) is not None


def _letter_is_denied(answer: Answer, label: str) -> bool:
    """`It can't be D, for lions have manes` says nothing of the lion."""
    if label.lower() not in answer.words:
        return False
    letters = re.finditer(rf"(?<![A-Za-z0-9]){re.escape(label)}(?![A-Za-z0-9'])", answer.text)
    return any(is_denied(answer, hit.start()) or is_denied_after(answer.text, hit.end()) for hit in letters)


def _is_one_of_several(text: str, stated: list[Mention]) -> bool:
    """Whether an `or` or the like stands before a mention."""
    return any(_COORDINATED.search(text[max(0, m.start - 12) : m.start]) for m in stated)


def concluded(text: str, stated: list[Mention]) -> Match | None:
    """`5 cm on the left, 10 cm on the right, so 15 cm.`: what the text ends with, after a word that concludes."""
    last = max(stated, key=lambda m: m.end, default=None)
    if last is None or not _ENDS.fullmatch(text, last.end) or not _SO.search(text[: last.start]):
        return None
    return Match(last.label, "text concluded")


def yes_or_no(text: str, known: OptionTexts) -> Match | None:
    """`Yeah`, `I'd say no` where yes and no are the options."""
    pair = next((pair for pair in _YES_NO if known.labels_of.keys() == set(pair.values())), None)
    if pair is None or len(known.content) != len(pair) or _UNSURE.search(text):
        return None
    said = extract_yes_no_exact(text)
    return Match(known.labels_of[pair[said]][0], "yes or no") if said else None


def shortened(text: str, known: OptionTexts) -> Match | None:
    """`No` for `No, it is sunny`; `left` for `the left image`: nothing but words of one option, and all of those that
    tell it from the others."""
    if len(text) > _LONGEST_SHORTENED or "?" in text:
        return None
    said = content_words(text)
    heads = [labels for text_of, labels in known.labels_of.items() if text_of.partition(",")[0] == folded(text)]
    if len(heads) == 1 == len(heads[0]):
        return Match(heads[0][0], "part of a text")
    near = [label for label, words in known.content.items() if said and said <= words]
    fits = [label for label in near if (telling := known.telling(label)) and telling <= said]
    return Match(fits[0], "part of a text") if len(fits) == 1 else None


def only(found: list[Mention], how: str) -> Match | None:
    labels = {m.label for m in found}
    return Match(labels.pop(), how) if len(labels) == 1 else None


def is_cut_off(text: str) -> bool:
    """Whether the text stops where no sentence can end: `..., and after that`, `代入得`."""
    if text.rstrip()[-1:] in _ENDS_SENTENCE:
        return False
    return _CUT.search(text[-_CUT_REACH:]) is not None or _DOUBT_CUT.search(text) is not None
