"""Option extraction as VLMEvalKit does it when no judge is asked (protocol `vlmevalkit`, version 1).

Source: the behaviour of VLMEvalKit in August 2026, stated in words as five steps and reproduced here from those words,
faults included, so that a number can be set beside a published one:

1. The answer as text; a missing one is `nan`. If it contains `Failed to obtain answer via API`, only step 5 runs.
2. One of four refusals in it -> `Z`, whatever letters there are.
3. Some punctuation becomes blanks; the tokens that are labels of this question are counted, each label once.
   Exactly one label: it counts if its first occurrence is among the last four tokens. No label but a token `Z` -> `Z`.
4. `answer is`, white space, asterisks, one of A-D, whatever follows.
5. Unless the answer is more than twice as long as all options together: the one option whose text occurs in it.

What is wrong with it, on purpose: `The answer is bird` -> B, `A dog` -> A, `The answer is not A` -> A; `（B）`, `A。`,
`答案是B` and `</think>A` -> nothing. The protocol `exact` is where these are right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vlmeval.scoring.match import REFUSAL, Match

_API_FAILURE = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_TAIL = 4
_ANSWER_IS = re.compile(r"answer is\s+\**([A-D])", re.IGNORECASE)


def extract_option(answer: str | None, options: Mapping[str, str]) -> str | None:
    """The label `answer` is taken to choose, "Z" for a refusal, None for nothing."""
    return match_option(answer, options).label


def match_option(answer: str | None, options: Mapping[str, str]) -> Match:
    """`extract_option` with the step that decided."""
    text = "nan" if answer is None else str(answer)
    if _API_FAILURE in text:
        return _match_text(text, options)
    if any(refusal in text for refusal in _REFUSALS):
        return Match(REFUSAL, "refusal")
    return _match_token(text, options) or _match_phrase(text, options) or _match_text(text, options)


def _match_token(text: str, options: Mapping[str, str]) -> Match | None:
    tokens = text.translate(_BLANKS).split()
    found = set(tokens).intersection(options)
    if len(found) == 1:
        label = found.pop()
        return Match(label, "letter") if tokens.index(label) >= len(tokens) - _TAIL else None
    if not found and REFUSAL in tokens:
        return Match(REFUSAL, "letter Z")
    return None


def _match_phrase(text: str, options: Mapping[str, str]) -> Match | None:
    hit = _ANSWER_IS.search(text)
    label = hit.group(1).upper() if hit else None
    return Match(label, "answer is") if label in options else None


def _match_text(text: str, options: Mapping[str, str]) -> Match:
    if len(text) > 2 * sum(len(option) for option in options.values()):
        return Match(None, "too long to be an option's text")
    lowered = text.lower()
    found = [label for label, option in options.items() if option.lower() in lowered]
    if len(found) == 1:
        return Match(found[0], "text")
    return Match(None, "the text of several options" if found else "nothing found")
