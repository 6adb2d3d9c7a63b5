"""MMDU: conversations about images, each turn's answer graded by a judge in six respects and over all.

Source: https://arxiv.org/abs/2406.11833 as VLMEvalKit applies it (vlmeval/dataset/utils/mmdu.py a2ce962 and
image_mt.py): the judge sees one turn's question, its reference and the answer, and gives 1 to 10 for each. The table
has two rows, means times 10: `all` counts a turn without grades as 0, `valid` leaves it out. Every turn is graded; one
version of VLMEvalKit (0e648ad) returns after the first, so numbers made with it are of first turns only.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmeval.scoring.interval import statistic_interval
from vlmeval.scoring.judged import Verdict, verdict_score
from vlmeval.scoring.rows import Answers, Row
from vlmeval.scoring.turns import TurnVerdicts, Verdicts, read_conversations, turn_notes, turns_of, verdicts_on
from vlmeval.types import Metric, Sample, Score, ScoreTable

__all__ = ["judge_prompt", "read_reply", "score_verdicts", "settled", "turns_of"]

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
"""Of the judge's prompt, and of how its replies are read."""
OVERALL = "Overall Score"
RESPECTS: Mapping[str, str] = {
    "Creativity": "does it bring something of its own, or only the obvious",
    "Richness": "how deep and how broad is it: explanations, examples, useful detail",
    "Visual Perception": "is what it says about the images there to be seen, and how much of that does it mention",
    "Logical Coherence": "does it follow, without contradictions, from the question and from itself",
    "Answer Accuracy": "is it right, and does it answer what was asked",
    "Image Relationship Understanding": "does it keep the images apart, and say how they relate",
    OVERALL: "all of this together",
}
_LEAST, _MOST = 1, 10
_TASK = """\
You grade one answer that an AI assistant gave in a conversation about images. You do not see the images: the \
reference answer tells what is in them. Grade strictly, from 1 to 10, in each of these respects:
{respects}
1-2: wrong, missing or beside the point. 3-4: a little of it, with errors. 5-6: the basics, not more. 7-8: good, and \
mostly complete. 9-10: as good as the reference in every part, or better. An answer to something else gets at most 2 \
everywhere.

First one short sentence for each respect. Then, as the last line, all grades as one JSON object of whole numbers:
{form}
"""


def settled(sample: Sample, text: str) -> Verdict | None:
    """Nothing is decided without the judge."""
    return None


def judge_prompt(sample: Sample, text: str) -> str:
    """Asks for seven grades of the answer to one turn."""
    respects = "\n".join(f"- {name}: {about}" for name, about in RESPECTS.items())
    form = json.dumps(dict.fromkeys(RESPECTS, 0)).replace(": 0", ": ...")
    task = _TASK.format(respects=respects, form=form)
    return f"{task}\n[Question]\n{sample.question}\n\n[Reference]\n{sample.answer}\n\n[Answer]\n{text}\n\n[End]\n"


def read_reply(sample: Sample, reply: str) -> Verdict | None:
    """The last object in the reply has to hold all seven grades, whole numbers from 1 to 10; else None."""
    start = reply.rfind("{")
    grades = _grades(reply[start : reply.rfind("}") + 1]) if start >= 0 else None
    if grades is None:
        return None
    return Verdict(grades[OVERALL] / _MOST, str(grades[OVERALL]), "by judge", grades)


def _grades(text: str) -> dict[str, int] | None:
    found: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        break
    if not isinstance(found, dict):
        return None
    by_name = {str(name).strip().lower(): value for name, value in found.items()}
    grades: dict[str, int] = {}
    for name in RESPECTS:
        value = by_name.get(name.lower())
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not _LEAST <= value <= _MOST:
            return None
        grades[name] = value
    return grades


def score_verdicts(answers: Answers, verdicts: Verdicts) -> Score:
    """Mean grades in percent. Of a failed conversation all turns count as 0; intervals are over conversations."""
    rows = read_conversations(answers, verdicts, _means)
    parts = [_parts(verdicts_on(row, verdicts)) for row in rows.counted]
    metrics = [_metric(answers, rows.counted, parts, OVERALL)]
    metrics += [_metric(answers, rows.counted, parts, name) for name in RESPECTS if name != OVERALL]
    notes = turn_notes(answers, rows, verdicts, "counted as 0")
    score = verdict_score(answers, rows, "mean grade of the turns", metrics, _table(parts), *notes)
    return replace(score, layout="turns")


def _sum(found: TurnVerdicts, name: str) -> float:
    return float(sum(int(str(verdict.details[name])) for verdict in found if verdict))


def _means(found: TurnVerdicts) -> Mapping[str, object]:
    return {name: _sum(found, name) / len(found) for name in RESPECTS}


def _parts(found: TurnVerdicts) -> list[float]:
    """Of one conversation: the sum of the grades in each respect, the turns, and those with grades."""
    return [*(_sum(found, name) for name in RESPECTS), float(len(found)), float(len(found) - found.count(None))]


def _metric(answers: Answers, rows: Sequence[Row], parts: Sequence[Sequence[float]], name: str) -> Metric:
    at = list(RESPECTS).index(name)

    def mean(totals: np.ndarray) -> np.ndarray:
        value: np.ndarray = totals[:, at] / totals[:, -2] * _MOST
        return value

    turns = sum(part[-2] for part in parts)
    clusters = [answers.cluster(row.sample) for row in rows]
    return Metric(
        group="Overall" if name == OVERALL else name,
        value=sum(part[at] for part in parts) / turns * _MOST if turns else 0.0,
        count=int(turns),
        interval=statistic_interval(parts, clusters, mean, seed=answers.seed),
        level="overall" if name == OVERALL else "category",
    )


def _table(parts: Sequence[Sequence[float]]) -> ScoreTable:
    """Upstream's: all turns, and those with grades."""

    def row(name: str, count: float) -> Iterator[str | float]:
        yield name
        for at in range(len(RESPECTS)):
            yield sum(part[at] for part in parts) / count * _MOST if count else 0.0

    counts = {"all": sum(part[-2] for part in parts), "valid": sum(part[-1] for part in parts)}
    return ScoreTable(columns=("set", *RESPECTS), rows=tuple(tuple(row(*entry)) for entry in counts.items()))
