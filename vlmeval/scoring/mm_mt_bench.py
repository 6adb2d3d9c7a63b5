"""MM-MT-Bench: conversations about images, each turn's answer graded from 1 to 10 by a judge.

Source: https://github.com/mistralai/mistral-evals (eval/tasks/mm_mt_bench.py) as VLMEvalKit applies it
(vlmeval/dataset/utils/mm_mt_bench.py 73ae6de): the mean over turns (micro), over the means of the categories (macro),
of each category and of each turn. Turns whose reply has no grade are left out there, and under `vlmevalkit` here; under
`exact` they count as 0. Turns of a failed conversation count as 0 under both. The judge here sees the questions up to
the turn it grades; VLMEvalKit shows it those to come as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmeval.scoring import turns
from vlmeval.scoring.aggregate import by_name
from vlmeval.scoring.interval import statistic_interval
from vlmeval.scoring.judged import Verdict, verdict_score
from vlmeval.scoring.rows import Answers, Row
from vlmeval.scoring.turns import Verdicts, read_conversations, turn_notes, verdicts_on
from vlmeval.types import Level, Metric, Sample, Score, ScoreTable

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
"""Of the judge's prompt, and of how its replies are read."""
_LEAST, _MOST = 1, 10
_GRADE = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")
Part = tuple[float, float]
"""The sum of grades and how many turns it is of."""


def settled(sample: Sample, text: str) -> Verdict | None:
    """Nothing is decided without the judge."""
    return None


def turns_of(sample: Sample, text: str) -> list[tuple[Sample, str]]:
    """Each turn with the questions before it."""
    found = turns.turns_of(sample, text)
    asked = [turn.question for turn, _ in found]
    return [
        (
            replace(turn, question="\n\n".join(f"[Question {n}]\n{text}" for n, text in enumerate(asked[: at + 1], 1))),
            said,
        )
        for at, (turn, said) in enumerate(found)
    ]


def judge_prompt(sample: Sample, text: str) -> str:
    """Asks for one grade of the answer to the last question."""
    return (
        "You grade the answer that an AI assistant gave to the last of these questions about images, which you do not "
        "see; the earlier questions are there for context. Say first where the answer agrees with the reference and "
        "where it is wrong. Then grade how correct and how helpful it is, from 1 to 10, in double brackets on a line "
        f"of its own, as in [[5]].\n\n{sample.question}\n\n[Reference]\n{sample.answer}\n\n[Answer]\n{text}\n\n[End]\n"
    )


def read_reply(sample: Sample, reply: str) -> Verdict | None:
    """The last number in double brackets, from 1 to 10."""
    grades = _GRADE.findall(reply)
    if not grades or not _LEAST <= float(grades[-1]) <= _MOST:
        return None
    return Verdict(float(grades[-1]) / _MOST, grades[-1], "by judge")


def score_verdicts(answers: Answers, verdicts: Verdicts) -> Score:
    """The mean grade in percent; intervals are over conversations."""
    rows = read_conversations(answers, verdicts)
    keeps = rows.rules.counts_missing
    parts = {row.sample.index: _grades(row, verdicts, keeps) for row in rows.counted}
    most = max((len(grades) for grades in parts.values()), default=0)
    categories = by_name(rows.counted, lambda sample: sample.category or "unknown")

    def metric(name: str, level: Level, own: Sequence[Row], at: int = -1) -> Metric:
        grades = [_sum(parts[row.sample.index], at) for row in own]
        clusters = [answers.cluster(row.sample) for row in own]
        interval = statistic_interval(grades, clusters, _ratio, seed=answers.seed)
        total, count = (sum(part[place] for part in grades) for place in (0, 1))
        value = total / count * 100 / _MOST if count else 0.0
        return Metric(group=name, value=value, count=int(count), interval=interval, level=level)

    by_category = [metric(name, "category", own) for name, own in categories]
    by_turn = [metric(f"turn_{at}", "l2-category", rows.counted, at) for at in range(most)]
    micro = metric("Overall", "overall", rows.counted)
    values = [one.value for one in by_category if one.count]
    macro = Metric(
        group="macro", value=sum(values) / len(values) if values else 0.0, count=len(values), level="overall"
    )
    metrics = [micro, macro, *by_turn, *by_category]
    notes = turn_notes(
        answers, rows, verdicts, "counted as 0" if keeps else "left out, unless their conversation failed"
    )
    score = verdict_score(answers, rows, "mean grade of the turns", metrics, _table(metrics), *notes)
    return replace(score, layout="turns")


def _grades(row: Row, verdicts: Verdicts, keeps: bool) -> list[Part]:
    """Of each turn of a conversation."""
    counts = keeps or row.state in ("failed", "missing")
    found = verdicts_on(row, verdicts)
    return [(verdict.hit * _MOST, 1.0) if verdict else (0.0, float(counts)) for verdict in found]


def _sum(grades: Sequence[Part], at: int) -> Part:
    """Of all turns, or of one."""
    own = grades if at < 0 else grades[at : at + 1]
    return sum(grade for grade, _ in own), sum(count for _, count in own)


def _ratio(totals: np.ndarray) -> np.ndarray:
    value: np.ndarray = totals[:, 0] / totals[:, 1] * 100 / _MOST
    return value


def _table(metrics: Sequence[Metric]) -> ScoreTable:
    """Upstream's names, and grades from 1 to 10 as there."""
    names = {"Overall": "micro_average", "macro": "macro_average"}
    rows = tuple((names.get(one.group, one.group), round(one.value * _MOST / 100, 4), one.count) for one in metrics)
    return ScoreTable(columns=("name", "score", "count"), rows=rows)
