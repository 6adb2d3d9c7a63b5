"""LLaVA-Bench (in the wild): a judge grades the answer beside GPT-4's, which saw a description of the image.

Source: https://arxiv.org/abs/2304.08485 as VLMEvalKit applies it (August 2026): two grades from 1 to 10; the score is
the sum of the model's grades over the sum of GPT-4's, in percent, overall and per category. Columns: `caption`,
`gpt4_ans`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vlmeval.scoring.aggregate import by_name
from vlmeval.scoring.interval import statistic_interval
from vlmeval.scoring.judged import Verdict, read_verdicts, verdict_score
from vlmeval.scoring.rows import Answers, Row
from vlmeval.types import Index, Level, Metric, Sample, Score, ScoreTable

if TYPE_CHECKING:
    import numpy as np

MODEL, GPT4 = "score", "gpt4_score"
_GRADES = re.compile(r"\s*(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\s*")


def settled(sample: Sample, text: str) -> Verdict | None:
    """Nothing is decided without the judge."""
    return None


def judge_prompt(sample: Sample, text: str) -> str:
    """Asks for two grades; GPT-4's answer is the first."""
    return (
        f"[Context]\n{sample.fields.get('caption', '')}\n\n[Question]\n{sample.question}\n\n"
        f"[Assistant 1]\n{sample.fields.get('gpt4_ans', '')}\n\n[Assistant 2]\n{text}\n\n[Task]\n"
        "Two assistants have answered a question about an image; the context describes the image. Grade how helpful, "
        "relevant, accurate and detailed each answer is, from 1 to 10, whatever their order. Write the two grades, "
        "Assistant 1's first, separated by a blank, on the first line. Then explain them.\n"
    )


def read_reply(sample: Sample, reply: str) -> Verdict | None:
    """The first line has to be two grades from 1 to 10."""
    hit = _GRADES.fullmatch(reply.strip().partition("\n")[0])
    if hit is None or not all(1 <= float(grade) <= 10 for grade in hit.groups()):
        return None
    gpt4, model = (float(grade) for grade in hit.groups())
    return Verdict(model / 10, f"{model:g} beside {gpt4:g}", "by judge", {MODEL: model, GPT4: gpt4})


def score_verdicts(answers: Answers, verdicts: Mapping[Index, Verdict]) -> Score:
    """The relative score in percent. Rows without a verdict have no grades and are left out of the ratio."""
    read = read_verdicts(answers, verdicts)
    graded = [row for row in read.counted if row.details]
    metrics = [_relative(answers, graded, "Overall", "overall")]
    rows: list[tuple[str | float, ...]] = [("overall", *_grades(graded))]
    for name, members in by_name(graded, lambda sample: sample.category):
        metrics.append(_relative(answers, members, name, "category"))
        rows.append((name, *_grades(members)))
    columns = ("split", "Relative Score (main)", "VLM Score", "GPT4 Score")
    table = ScoreTable(columns=columns, rows=tuple(rows))
    return verdict_score(answers, read, "score relative to GPT-4", metrics, table, "rows without grades are left out")


def _parts(rows: Sequence[Row]) -> list[list[float]]:
    return [[float(str(row.details[MODEL])), float(str(row.details[GPT4]))] for row in rows]


def _grades(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Relative score in percent, and both means times 10."""
    parts = _parts(rows)
    model, gpt4 = sum(p[0] for p in parts), sum(p[1] for p in parts)
    n = len(parts) or 1
    return (model / gpt4 * 100 if gpt4 else 0.0, model / n * 10, gpt4 / n * 10)


def _relative(answers: Answers, rows: Sequence[Row], group: str, level: Level) -> Metric:
    def ratio(totals: np.ndarray) -> np.ndarray:
        value: np.ndarray = totals[:, 0] / totals[:, 1] * 100
        return value

    clusters = [answers.cluster(row.sample) for row in rows]
    interval = statistic_interval(_parts(rows), clusters, ratio, seed=answers.seed)
    return Metric(group=group, value=_grades(rows)[0], count=len(rows), interval=interval, level=level)
