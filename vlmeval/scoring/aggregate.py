"""From what each row was worth to the rows of a score table: overall, l2-categories, categories, per split.

Source: the table of VLMEvalKit's `_acc.csv`: one line per value of `split`, or the single line `none`; columns
`Overall`, the sorted l2-categories (shown by a short name where one is given), the sorted categories.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from vlmeval.scoring.interval import clustered_interval
from vlmeval.scoring.rows import Answers, Row
from vlmeval.types import Level, Metric, Sample

NO_SPLIT = "none"


class Unit(NamedTuple):
    """What counts once in the denominator: a row, or a circular group shown by its base row.

    `cluster` names what is drawn together for the interval; units of one image may share one.
    """

    sample: Sample
    hit: float
    cluster: Hashable


def metrics_by_group(
    units: Sequence[Unit], *, short_names: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[Metric, ...]:
    """Overall, then the sorted l2-categories, then the sorted categories; each for every split it occurs in."""
    members: dict[tuple[str, Level, str], list[Unit]] = {}
    for unit in units:
        split = unit.sample.split or NO_SPLIT
        members.setdefault((split, "overall", "Overall"), []).append(unit)
        if unit.sample.l2_category:
            members.setdefault((split, "l2-category", unit.sample.l2_category), []).append(unit)
        if unit.sample.category:
            members.setdefault((split, "category", unit.sample.category), []).append(unit)
    if not members:
        return (Metric(group="Overall", value=0.0, count=0),)
    depth = {"overall": 0, "l2-category": 1, "category": 2}
    names = short_names or {}
    return tuple(
        metric_of(members[key], names.get(key[2], key[2]) if key[1] == "l2-category" else key[2], key[0], key[1], seed)
        for key in sorted(members, key=lambda key: (depth[key[1]], key[2], key[0]))
    )


def metric_of(units: Sequence[Unit], group: str, split: str, level: Level, seed: int) -> Metric:
    """The mean of `units` and its interval."""
    hits = [unit.hit for unit in units]
    interval = clustered_interval(hits, [unit.cluster for unit in units], seed=seed)
    return Metric(
        group=group, value=sum(hits) / len(hits), count=len(hits), split=split, interval=interval, level=level
    )


def mean_metric(answers: Answers, rows: Sequence[Row], group: str, level: Level) -> Metric:
    """The mean of the rows' hits in percent, and its interval over images.

    The mean is numpy's, whose order of adding differs from `sum` in the last digit: published numbers have it.
    """
    import numpy as np

    if not rows:
        return Metric(group=group, value=0.0, count=0, level=level)
    hits = [row.hit for row in rows]
    interval = clustered_interval(hits, [answers.cluster(row.sample) for row in rows], seed=answers.seed)
    percent = None if interval is None else (100 * interval[0], 100 * interval[1])
    return Metric(group=group, value=float(np.mean(hits) * 100), count=len(rows), interval=percent, level=level)


def by_name(rows: Sequence[Row], name_of: Callable[[Sample], str]) -> list[tuple[str, list[Row]]]:
    """The rows of each name, names sorted; rows without one are in none."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(name_of(row.sample), []).append(row)
    return sorted((name, members) for name, members in groups.items() if name)
