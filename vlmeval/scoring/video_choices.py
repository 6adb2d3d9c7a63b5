"""Choices about videos: Video-MME, MVBench and MLVU, as VLMEvalKit reads and groups them.

Source: VLMEvalKit (vlmeval/dataset/utils/videomme.py, mvbench.py, mlvu.py, dataset/mlvu.py, August 2026). Under
`vlmevalkit` each has a first look of its own, and what that leaves is read as any multiple choice; under `exact` all
are. An empty answer, which upstream's MVBench takes for right, is nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from vlmeval.scoring.aggregate import Unit, metric_of
from vlmeval.scoring.first_letter import first_letter_of, without_phrases
from vlmeval.scoring.multiple_choice import choice_reader, score_read
from vlmeval.scoring.protocols import find_protocol
from vlmeval.scoring.rows import Answers, Reader, Reading
from vlmeval.types import Metric, Sample, Score, ScoreTable

DURATIONS = ("short", "medium", "long")
M_AVG, M_AVG_TASKS = "M-Avg", ("plotQA", "needle", "ego", "count", "anomaly_reco", "topic_reasoning")
"""The tasks in upstream's M-Avg, by rows. MLVU's authors average over the tasks, and over `order` as well."""
_MORE_PHRASES = ("Answer:", "Option:")


def score_video_mme(answers: Answers) -> Score:
    """Accuracy, by duration, domain and task type; the table has sub-categories too."""
    base = score_read(answers, _reader(answers, _first_of_four))
    units = _units(answers, base)
    lengths = [(name, _where(units, "duration", name)) for name in DURATIONS]
    metrics = list(base.metrics)
    metrics[1:1] = [metric_of(own, name, "none", "l2-category", answers.seed) for name, own in lengths if own]
    return replace(base, metrics=tuple(metrics), table=_by_duration(units))


def score_mvbench(answers: Answers) -> Score:
    """Accuracy over all rows, and by task type."""
    base = score_read(answers, _reader(answers, _option_in_brackets))
    return replace(base, table=_by_task(base.metrics))


def score_mlvu(answers: Answers) -> Score:
    """M-Avg, accuracy over all rows, and by task type."""
    base = score_read(answers, _reader(answers, _letter_before_bracket))
    chosen = [unit for unit in _units(answers, base) if unit.sample.category in M_AVG_TASKS]
    average = [metric_of(chosen, M_AVG, "none", "overall", answers.seed)] if chosen else []
    metrics = (*average, *base.metrics)
    note = f"{M_AVG} counts the rows of {', '.join(M_AVG_TASKS)}, as upstream does"
    return replace(base, metrics=metrics, table=_by_task(metrics), notes=(*base.notes, note))


_First = Callable[[str, Sample], "str | None"]


def _reader(answers: Answers, first: _First) -> Reader:
    """Under `vlmevalkit` what `first` finds, else as for any multiple choice."""
    rules = find_protocol(answers.protocol)
    usual = choice_reader(rules, answers.judged)
    if rules.name != "vlmevalkit":
        return usual

    def read(sample: Sample, text: str) -> Reading:
        label = first(text, sample)
        if label is None:
            return usual(sample, text)
        return Reading(label, float(label == sample.answer), f"{label} at first look")

    return read


def _first_of_four(text: str, sample: Sample) -> str | None:
    """Video-MME: the first of the letters A to D, wherever it stands, after some phrases were taken out."""
    return first_letter_of("ABCD", without_phrases(text.strip(), _MORE_PHRASES))


def _option_in_brackets(text: str, sample: Sample) -> str | None:
    """MVBench: the first word is part of `(a)` of the right option, or holds it."""
    word = text.lower().split(" ")[0]
    right = f"({sample.answer.lower()})"
    is_right = bool(word) and (word.replace(".", "") in right or right in word)
    return sample.answer if is_right else None


def _letter_before_bracket(text: str, sample: Sample) -> str | None:
    """MLVU: what stands before the first closing bracket, or all there is, is the right letter."""
    end = text.find(")")
    said = text[max(0, end - 1) : end] if end >= 0 else text
    return sample.answer if said == sample.answer else None


def _units(answers: Answers, score: Score) -> list[Unit]:
    samples = {sample.index: sample for sample in answers.samples}
    return [Unit(samples[row.index], row.hit, answers.cluster(samples[row.index])) for row in score.rows]


def _where(units: Iterable[Unit], column: str, value: str) -> list[Unit]:
    return [unit for unit in units if unit.sample.fields.get(column) == value]


def _by_duration(units: Sequence[Unit]) -> ScoreTable:
    """A row for each duration and one for all; columns: overall, domains, sub-categories, task types."""
    groups = [
        (column, name)
        for column in ("domain", "sub_category", "task_type")
        for name in sorted({unit.sample.fields.get(column, "") for unit in units} - {""})
    ]
    rows: list[tuple[str | float | int | None, ...]] = []
    for duration in (*DURATIONS, "overall"):
        own = list(units) if duration == "overall" else _where(units, "duration", duration)
        cells = [_mean(_where(own, column, name)) for column, name in groups]
        rows.append((duration, _mean(own), *cells))
    return ScoreTable(columns=("duration", "overall", *(name for _, name in _told_apart(groups))), rows=tuple(rows))


def _told_apart(groups: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A name that is a domain and a sub-category (Multilingual) gets the kind beside it the second time."""
    seen: set[str] = set()
    found = []
    for column, name in groups:
        found.append((column, f"{name} ({column})" if name in seen else name))
        seen.add(name)
    return found


def _by_task(metrics: Iterable[Metric]) -> ScoreTable:
    """Upstream's: a row for each task type, then the others."""
    listed = sorted(metrics, key=lambda metric: metric.level == "overall")
    rows = tuple(
        (m.group if m.group != "Overall" else "overall", round(m.value * m.count), m.count, m.value) for m in listed
    )
    return ScoreTable(columns=("task", "success", "overall", "acc"), rows=rows)


def _mean(units: Sequence[Unit]) -> float | None:
    return sum(unit.hit for unit in units) / len(units) if units else None
