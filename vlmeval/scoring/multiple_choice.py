"""Multiple choice: is the option the answer chooses the right one, by row or by circular group.

Intervals draw together what shares an image: rows, or circular groups by the image of their base row.

Source: VLMEvalKit's multiple-choice evaluation without a judge. Nothing found counts as wrong. A failed sample is never
read as text: it is wrong, stays in the denominator and is listed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

from vlmeval.scoring.aggregate import NO_SPLIT, Unit, metric_of, metrics_by_group
from vlmeval.scoring.circular import circular_groups, group_of
from vlmeval.scoring.match import Match
from vlmeval.scoring.open_questions import read_open
from vlmeval.scoring.protocols import Protocol, find_protocol
from vlmeval.scoring.rows import Answers, Reader, Reading, Row, RowsRead, named, read_row, record_notes
from vlmeval.types import Index, Metric, Prediction, RowScore, Sample, Score

PER_ROW = "Vanilla"
"""The extra metric of a circular benchmark: every row by itself, copies included. Not part of upstream's table."""


def score(answers: Answers) -> Score:
    """Multiple choice as the benchmark declares it."""
    return score_read(answers, choice_reader(find_protocol(answers.protocol), answers.judged))


HEADLINE_SPLIT = "validation"
"""Of MMMU's two splits the one whose accuracy is the headline."""


def score_with_open_questions(answers: Answers) -> Score:
    """MMMU: a row without options is an open question, see `open_questions`."""
    rules = find_protocol(answers.protocol)
    choose = choice_reader(rules, answers.judged)

    def read(sample: Sample, text: str) -> Reading:
        return choose(sample, text) if sample.options else read_open(sample, text, rules)

    result = score_read(answers, read, open_questions=True)
    return replace(result, metrics=tuple(sorted(result.metrics, key=lambda metric: metric.split != HEADLINE_SPLIT)))


def score_multiple_choice(
    dataset: str,
    samples: Iterable[Sample],
    predictions: Mapping[Index, Prediction],
    *,
    protocol: str,
    circular: bool,
    l2_short_names: Mapping[str, str] | None = None,
    seed: int = 0,
    images: Mapping[Index, Hashable] | None = None,
) -> Score:
    """The accuracy of `predictions` on `samples` under the named protocol; `seed` is that of the intervals."""
    return score(
        Answers(
            dataset=dataset,
            samples=list(samples),
            predictions=predictions,
            protocol=protocol,
            seed=seed,
            images=images or {},
            circular=circular,
            l2_short_names=l2_short_names or {},
        )
    )


def choice_reader(rules: Protocol, judged: Mapping[Index, Match] | None = None) -> Reader:
    """Which option an answer takes under a protocol, and whether it is the right one.

    `judged` has what a judge said about answers in which the rules find nothing.
    """
    said = judged or {}

    def read(sample: Sample, text: str) -> Reading:
        label, how = rules.match(text, sample.options)
        if label is None and sample.index in said:
            label, how = said[sample.index]
        if label is None:
            return Reading(None, 0.0, f"nothing extracted: {how}")
        return Reading(label, float(label == sample.answer), f"{label} by {how}")

    return read


def score_read(answers: Answers, read: Reader, *, open_questions: bool = False) -> Score:
    """The accuracy of what a reader takes the answers to say."""
    rules = find_protocol(answers.protocol)
    rows = [read_row(sample, answers.predictions.get(sample.index), read) for sample in answers.samples]
    counted = {row.sample.index: row for row in rows if rules.counts_missing or row.state != "missing"}
    units, row_scores = _by_group(counted, answers) if answers.circular else _by_row(counted, answers)
    metrics = metrics_by_group(units, short_names=answers.l2_short_names, seed=answers.seed)
    if answers.circular:
        metrics += _per_row_metrics(counted, answers)
    return Score(
        dataset=answers.dataset,
        protocol=rules.name,
        protocol_version=rules.version,
        metric="circular accuracy" if answers.circular else "accuracy",
        unit="fraction",
        metrics=metrics,
        rows=row_scores,
        samples=len(rows),
        failed=named(rows, "failed"),
        unmatched=named(rows, "unmatched"),
        missing=named(rows, "missing"),
        notes=_notes(answers, RowsRead(rows, list(counted.values()), rules), open_questions),
    )


def _by_row(counted: Mapping[Index, Row], answers: Answers) -> tuple[list[Unit], tuple[RowScore, ...]]:
    units = [Unit(row.sample, row.hit, answers.cluster(row.sample)) for row in counted.values()]
    scores = tuple(
        RowScore(index=index, hit=row.hit, extracted=row.extracted, log=row.log) for index, row in counted.items()
    )
    return units, scores


def _by_group(counted: Mapping[Index, Row], answers: Answers) -> tuple[list[Unit], tuple[RowScore, ...]]:
    """Groups instead of rows; the letters of a group are written in a row, `-` where there is none."""
    units, scores = [], []
    for group, samples in circular_groups(row.sample for row in counted.values()).items():
        rows = [counted[sample.index] for sample in samples]
        hit = float(all(row.hit for row in rows))
        units.append(Unit(samples[0], hit, answers.cluster(samples[0])))
        letters = " ".join(row.extracted or "-" for row in rows)
        log = "; ".join(f"{row.sample.index}: {row.log} (answer {row.sample.answer})" for row in rows)
        scores.append(RowScore(index=samples[0].index, hit=hit, extracted=letters, log=log, g_index=group))
    return units, tuple(scores)


def _per_row_metrics(counted: Mapping[Index, Row], answers: Answers) -> tuple[Metric, ...]:
    splits: dict[str, list[Unit]] = {}
    for row in counted.values():
        group = group_of(row.sample)
        base = counted.get(group)
        unit = Unit(row.sample, row.hit, answers.cluster(base.sample) if base else group)
        splits.setdefault(row.sample.split or NO_SPLIT, []).append(unit)
    return tuple(metric_of(splits[split], PER_ROW, split, "overall", answers.seed) for split in sorted(splits))


def _notes(answers: Answers, read: RowsRead, open_questions: bool) -> tuple[str, ...]:
    """Whatever a reader of the number has to know, with counts."""
    notes = record_notes(answers.dataset, read, answers.predictions)
    if answers.circular:
        notes.append(f"{PER_ROW} counts every row by itself; the other numbers count groups of rotated copies")
        grouped = sum(map(len, circular_groups(row.sample for row in read.counted).values()))
        if grouped < len(read.counted):
            notes.append(f"{len(read.counted) - grouped} rows do not count: the base row of their group is not there")
    unanswered = [row.sample for row in read.rows if row.sample.answer not in row.sample.options]
    opened = sum(not sample.options for sample in unanswered) if open_questions else 0
    if opened:
        notes.append(f"{opened} rows have no options: read as open questions")
    if len(unanswered) > opened:
        notes.append(
            f"{len(unanswered) - opened} rows have an answer that is none of their options: they cannot be right"
        )
    return tuple(notes)
