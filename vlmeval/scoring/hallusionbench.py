"""HallusionBench: questions in sets, each asked on several figures.

Source: VLMEvalKit's rating of HallusionBench (August 2026), after https://arxiv.org/abs/2310.14566. aAcc counts
questions, fAcc figures with every question right, qAcc questions right on every figure; all in percent. An index is
split at `_`: part 3 is the set, 4 the figure, 5 the question; sets are numbered within an l2-category.
The headline is the mean of the three, as VLMEvalKit's summary has it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from vlmeval.errors import DatasetError
from vlmeval.scoring.aggregate import by_name
from vlmeval.scoring.interval import clustered_interval, statistic_interval
from vlmeval.scoring.rows import Answers, Row, read_rows
from vlmeval.scoring.yes_no import READERS, yes_no_score
from vlmeval.types import Level, Metric, Sample, Score, ScoreTable

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("aAcc", "fAcc", "qAcc")
SET, FIGURE, QUESTION = 3, 4, 5


def score(answers: Answers) -> Score:
    """aAcc, fAcc and qAcc over everything, per category and per l2-category."""
    read = read_rows(answers, READERS)
    metrics = [_mean_of_three(answers, read.counted), *_three(answers, read.counted, "", "overall")]
    table: list[tuple[str | float, ...]] = [("Overall", *(metric.value for metric in metrics[1:]))]
    levels: list[tuple[Level, Callable[[Sample], str]]] = [
        ("category", lambda sample: sample.category),
        ("l2-category", lambda sample: sample.l2_category),
    ]
    for level, name_of in levels:
        for name, rows in by_name(read.counted, name_of):
            found = _three(answers, rows, name, level)
            table.append((name, *(metric.value for metric in found)))
            metrics += found
    whole = ScoreTable(columns=("split", *COLUMNS), rows=tuple(table))
    return yes_no_score(answers, read, "mean of aAcc, fAcc and qAcc", metrics, whole)


def _part(sample: Sample, part: int) -> str:
    parts = str(sample.index).split("_")
    if len(parts) <= QUESTION:
        raise DatasetError(
            f"row {sample.index}: HallusionBench's index has set, figure and question as parts {SET}, {FIGURE} and "
            f"{QUESTION} between underscores (as VD_figure_0_1_2_3_...); this one has {len(parts)} parts"
        )
    return parts[part]


def _key(sample: Sample, part: int) -> tuple[str, str, str]:
    return (sample.l2_category, _part(sample, SET), _part(sample, part))


def _set(sample: Sample) -> Hashable:
    """What is drawn together: the questions of a set share their figures."""
    return (sample.l2_category, _part(sample, SET))


def _groups(rows: Sequence[Row], part: int) -> list[tuple[float, Hashable]]:
    """Whether every row of a figure (or question) is right, and the set it is of."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        groups.setdefault(_key(row.sample, part), []).append(row.hit)
    return [(float(all(hits)), key[:2]) for key, hits in groups.items()]


def _counted(rows: Sequence[Row]) -> list[list[tuple[float, Hashable]]]:
    """What each of the three numbers is the mean of."""
    return [[(row.hit, _set(row.sample)) for row in rows], _groups(rows, FIGURE), _groups(rows, QUESTION)]


def _three(answers: Answers, rows: Sequence[Row], name: str, level: Level) -> list[Metric]:
    import numpy as np

    metrics = []
    for column, found in zip(COLUMNS, _counted(rows), strict=True):
        hits = [hit for hit, _ in found]
        interval = clustered_interval(hits, [cluster for _, cluster in found], seed=answers.seed)
        metrics.append(
            Metric(
                group=f"{name} {column}" if name else column,
                value=float(np.mean(hits) * 100) if hits else 0.0,
                count=len(hits),
                interval=None if interval is None else (100 * interval[0], 100 * interval[1]),
                level=level,
            )
        )
    return metrics


def _mean_of_three(answers: Answers, rows: Sequence[Row]) -> Metric:
    """The headline; one line of parts a set, so that the three numbers are drawn together."""
    lines: dict[Hashable, list[float]] = {}
    for at, found in enumerate(_counted(rows)):
        for hit, cluster in found:
            line = lines.setdefault(cluster, [0.0] * 6)
            line[2 * at] += hit
            line[2 * at + 1] += 1
    parts = list(lines.values())
    value = float(_mean(_summed(parts))[0]) if parts else 0.0
    return Metric(
        group="Overall",
        value=value,
        count=len(rows),
        interval=statistic_interval(parts, list(lines), _mean, seed=answers.seed),
    )


def _summed(parts: Sequence[Sequence[float]]) -> np.ndarray:
    import numpy as np

    return np.asarray(parts).sum(axis=0, keepdims=True)


def _mean(totals: np.ndarray) -> np.ndarray:
    shares: np.ndarray = totals[:, 0::2] / totals[:, 1::2] * 100
    mean: np.ndarray = shares.sum(axis=1) / 3
    return mean
