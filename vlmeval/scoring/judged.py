"""What a rule that needs a judge has to say, so that whoever talks to the judge need not know the benchmark.

A module of such a rule (`mathvista`, `mathvision`, `mathverse`, `mmvet`, `llavabench`) has these functions, all pure:

    settled(sample, text)        -> Verdict | None   what a rule can decide without a judge
    judge_prompt(sample, text)   -> str              what the judge is asked about the rest
    read_reply(sample, reply)    -> Verdict | None   None: the reply cannot be used; never a guess
    score_verdicts(answers, verdicts) -> Score       of all of them; a row without a verdict counts as wrong, with a
    note

and where a row is judged in several parts (`mmdu`: the turns of a conversation)

    turns_of(sample, text) -> [(Sample, text), ...]  each a sample with an index of its own, which names its verdict

The judge prompts are worded by us after the sources each file names: numbers of another judge or prompt are not
comparable with published ones to the digit, and the score's notes say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from vlmeval.errors import UsageError
from vlmeval.scoring.aggregate import mean_metric
from vlmeval.scoring.ground_truths import ground_truths
from vlmeval.scoring.rows import Answers, Reading, Row, RowsRead, make_score, read_rows
from vlmeval.scoring.rules import Rule
from vlmeval.types import Index, Metric, Sample, Score, ScoreTable


class Verdict(NamedTuple):
    """What one answer is worth (0..1), what was taken out of it, and who said so."""

    hit: float
    extracted: str
    how: str
    details: Mapping[str, object] = {}


class JudgedRule(Protocol):
    """A module of a rule that needs a judge."""

    def settled(self, sample: Sample, text: str) -> Verdict | None:
        """Decided without a judge."""

    def judge_prompt(self, sample: Sample, text: str) -> str:
        """What to ask."""

    def read_reply(self, sample: Sample, reply: str) -> Verdict | None:
        """What the judge said."""

    def score_verdicts(self, answers: Answers, verdicts: Mapping[Index, Verdict]) -> Score:
        """The score of all rows."""


def judged_rule(rule: Rule) -> JudgedRule:
    """The functions of a rule that needs a judge. Raises UsageError for one that does not."""
    if not rule.judge:
        raise UsageError(f"the rule {rule.name} needs no judge")
    return cast(JudgedRule, import_module(f"vlmeval.scoring.{rule.module}"))


def read_verdicts(answers: Answers, verdicts: Mapping[Index, Verdict]) -> RowsRead:
    """Every row with its verdict."""

    def read(sample: Sample, text: str) -> Reading:
        verdict = verdicts.get(sample.index)
        if verdict is None:
            return Reading(None, 0.0, "no verdict")
        return Reading(verdict.extracted, verdict.hit, verdict.how, verdict.details)

    return read_rows(answers, {"vlmevalkit": read, "exact": read})


def verdict_score(
    answers: Answers, read: RowsRead, metric: str, metrics: Sequence[Metric], table: ScoreTable, *notes: str
) -> Score:
    """A score in percent, saying how many rows have no verdict and that the judge's prompt is ours."""
    undecided = sum(row.state == "unmatched" for row in read.counted)
    own = ["the judge's prompt is worded by this kit: not comparable with published numbers to the digit"]
    if undecided:
        own.append(f"{undecided} of {len(read.counted)} rows have no verdict: counted as wrong")
    return make_score(
        answers,
        read,
        metric=metric,
        unit="percent",
        metrics=metrics,
        layout="words",
        table=table,
        notes=(*own, *notes),
    )


def accuracy_by(
    answers: Answers, read: RowsRead, names_of: Mapping[Index, Sequence[str]], column: str
) -> tuple[list[Metric], ScoreTable]:
    """Overall and every name a row is under (a row may be under several), and upstream's table of them."""
    groups: dict[str, list[Row]] = {}
    for row in read.counted:
        for name in names_of.get(row.sample.index, ()):
            groups.setdefault(name, []).append(row)
    metrics = [mean_metric(answers, read.counted, "Overall", "overall")]
    metrics += [mean_metric(answers, rows, name, "category") for name, rows in groups.items()]
    rows = [(m.group, m.count, round(m.value * m.count / 100, 6), m.value) for m in metrics]
    return metrics, ScoreTable(columns=(column, "tot", "hit", "acc"), rows=tuple(rows))


def options_of(cell: str) -> dict[str, str]:
    """A cell with a list of choices as A, B, C ...; empty where it holds none."""
    choices = ground_truths(cell) if cell.strip().startswith("[") else ()
    return {chr(ord("A") + at): choice for at, choice in enumerate(choices)}
