"""MMMU-Pro reasoned step by step: multiple choice, the answer asked for as a last line `Answer: $LETTER`.

Source: VLMEvalKit's MMMU_Pro_*_COT (August 2026), after https://arxiv.org/abs/2409.02813. Under `vlmevalkit` a response
with exactly one line that begins with `Answer:` is cut to it before it is read as any other; `exact` reads the whole.
"""

from __future__ import annotations

import string

from vlmeval.scoring.multiple_choice import choice_reader, score_read
from vlmeval.scoring.protocols import find_protocol
from vlmeval.scoring.rows import Answers, Reading
from vlmeval.types import Sample, Score

_MARK = "Answer:"


def score(answers: Answers) -> Score:
    """Multiple choice."""
    choose = choice_reader(find_protocol(answers.protocol), answers.judged)

    def read(sample: Sample, text: str) -> Reading:
        return choose(sample, final_line(text) if answers.protocol == "vlmevalkit" else text)

    return score_read(answers, read)


def final_line(text: str) -> str:
    """What stands behind `Answer:`; the one capital of the line where it has one (the A of `Answer` is one, so that
    can only be A); the whole text where there is no such line, or several."""
    lines = [line for line in map(str.strip, text.strip().split("\n")) if line.startswith(_MARK)]
    if len(lines) != 1:
        return text
    capitals = {char for char in lines[0] if char in string.ascii_uppercase}
    return capitals.pop() if len(capitals) == 1 else lines[0][len(_MARK) :]
