"""`vlmeval score`: what any answers are worth, ours or made elsewhere, without running a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmeval.answers.agreement import check_agreement
from vlmeval.answers.reader import Answers, Repeated, read_answers, repeated_choice
from vlmeval.cli.configured import plans_of
from vlmeval.cli.judging import make_judge, score_with, settings_from
from vlmeval.cli.screen import say, warn
from vlmeval.cli.submitting import kind_for, submit
from vlmeval.dataset.base import Dataset
from vlmeval.dataset.registry import DatasetPlan
from vlmeval.errors import DatasetError, UsageError
from vlmeval.judging.judge import Judge
from vlmeval.report.result_files import file_prefix, write_predictions, write_score_files
from vlmeval.report.screen import ScoredRun, print_scores
from vlmeval.report.submissions import Kind, find_kind
from vlmeval.report.tables import TableFormat, evaluation_format, prediction_format
from vlmeval.scoring.protocols import find_protocol
from vlmeval.types import Score


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Answers of one file to one benchmark, their scores by protocol, and what has to be said about them."""

    model: str
    dataset: Dataset
    answers: Answers
    scores: Mapping[str, Score]
    notes: tuple[str, ...]

    @property
    def stamps(self) -> dict[str, object]:
        """What the score file says about where the answers came from."""
        return {
            "answers": str(self.answers.path),
            "answers_are": "a journal" if self.answers.is_journal else "a table",
            "dataset_md5": self.dataset.fingerprint,
            "dataset_path": str(self.dataset.path),
            "rows": len(self.dataset),
            "notes": list(self.notes),
        }


def score(options: argparse.Namespace) -> int:
    """Score every file on every benchmark asked for, write the result files, print the table."""
    plans = plans_of(options.data, options.config)
    _check(options, plans)
    protocols = tuple(dict.fromkeys(find_protocol(name).name for name in options.protocol))
    repeated = repeated_choice(options.repeated)
    predictions, note = prediction_format(options.format)
    if note:
        warn(note)
    wanted = find_kind(options.submission) if options.submission else None
    settings = settings_from(options)
    judge = make_judge(settings) if settings else None
    runs = []
    for dataset in (plan.open() for plan in plans):
        dataset = dataset.head(options.limit)
        dataset = dataset.with_judge() if judge else dataset
        for note in dataset.notes:
            say("", f"note: {note}")
        for name in options.files:
            path = answer_file(Path(name).expanduser(), dataset)
            kind = kind_for(dataset, wanted)
            if kind and (wanted or dataset.why_no_answers):
                _submit(path, dataset, kind, protocols[0], repeated, options)
                continue
            scored = score_file(path, dataset, protocols, repeated, options.model, options.seed, judge)
            runs.append(_write(scored, Path(options.out).expanduser(), predictions))
    if runs:
        print_scores(runs)
    return 0


def _submit(
    path: Path, dataset: Dataset, kind: Kind, protocol: str, repeated: Repeated, options: argparse.Namespace
) -> None:
    answers = read_answers(path, dataset.indices, repeated=repeated)
    for note in (*answers.notes, *check_agreement(answers, dataset.name, dataset.fingerprint, dataset.texts())):
        warn(note)
    model = options.model or model_of(path, dataset.name)
    folder = Path(options.out).expanduser() / file_prefix(model, dataset.name)
    submit(folder, model, dataset, answers.predictions, kind, protocol)


def _check(options: argparse.Namespace, plans: Sequence[DatasetPlan]) -> None:
    if not options.files:
        raise UsageError("no answers named: vlmeval score FILE --data NAME; see: vlmeval score --help")
    if not plans:
        raise UsageError("no benchmark named: add --data NAME or a .tsv file; see: vlmeval list datasets")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit} must be at least 1")
    if options.model and len(options.files) > 1:
        raise UsageError(f"--model names one model, and there are {len(options.files)} files; leave it out")


def answer_file(path: Path, dataset: Dataset) -> Path:
    """The file itself, or in a run's folder the journal of this benchmark. Raises DatasetError if it has none."""
    if not path.is_dir():
        return path
    # The stem of a journal is `{model}_{dataset}`, and the folder above is called like the model.
    found = sorted(path.glob(f"*_{file_prefix('', dataset.name).removeprefix('_')}.jsonl"))
    named = [journal for journal in found if journal.stem == file_prefix(path.resolve().parent.name, dataset.name)]
    if len(named or found) == 1:
        return (named or found)[0]
    there = ", ".join(journal.name for journal in sorted(path.glob("*.jsonl"))) or "none"
    raise DatasetError(f"{path} has {len(found)} journals of {dataset.name}; journals there: {there}; name the file")


def score_file(
    path: Path,
    dataset: Dataset,
    protocols: Sequence[str],
    repeated: Repeated,
    model: str | None,
    seed: int,
    judge: Judge | None = None,
) -> Scored:
    """Read a file and score it under each protocol. Raises DatasetError for a file or benchmark that cannot be."""
    if dataset.why_not_scorable:
        raise DatasetError(f"{dataset.name} cannot be scored: {dataset.why_not_scorable}")
    answers = read_answers(path, dataset.indices, repeated=repeated)
    notes = (*answers.notes, *check_agreement(answers, dataset.name, dataset.fingerprint, dataset.texts()))
    scores = {name: score_with(judge, dataset, answers.predictions, name, seed) for name in protocols}
    return Scored(
        model=model or model_of(path, dataset.name), dataset=dataset, answers=answers, scores=scores, notes=notes
    )


def model_of(path: Path, dataset: str) -> str:
    """`{model}_{dataset}.xlsx` was made by `model`; any other file goes by its own name."""
    stem = path.stem
    return stem.removesuffix(file_prefix("", dataset)) or stem


def _write(scored: Scored, out: Path, fmt: TableFormat) -> ScoredRun:
    dataset, answers = scored.dataset, scored.answers
    folder = out / file_prefix(scored.model, dataset.name)
    samples = list(dataset.texts())
    columns = dataset.columns
    written = write_predictions(folder, scored.model, dataset.name, columns, samples, answers.predictions, fmt)
    files = write_score_files(
        folder,
        scored.model,
        dataset.name,
        scored.scores,
        samples,
        answers.predictions,
        scored.stamps,
        columns=columns,
        fmt=fmt,
        eval_format=evaluation_format(None),
        images=dataset.image_clusters(),
    )
    for line in (*written.notes, *files.notes):
        warn(line)
    paths = (written.path, files.result, files.table, files.score)
    return ScoredRun(
        model=scored.model,
        dataset=dataset.name,
        scores=scored.scores,
        files=paths,
        notes=(*dataset.notes, *scored.notes),
    )
