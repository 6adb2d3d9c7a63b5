"""`vlmeval data check`: the dataset doctor's report, in plain lines or as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from vlmeval.cli.configured import plans_of
from vlmeval.cli.screen import say
from vlmeval.dataset.base import Dataset
from vlmeval.dataset.doctor import FEW, Examined, Finding, examine, option_columns, with_answers_from, with_options_from
from vlmeval.dataset.doctor_answers import answer_findings
from vlmeval.dataset.doctor_losses import loss_findings
from vlmeval.dataset.doctor_turns import turn_findings
from vlmeval.dataset.doctor_videos import video_findings, with_choices
from vlmeval.dataset.multi_turn import holds_conversations
from vlmeval.dataset.progress import BytesProgress
from vlmeval.dataset.registry import DatasetPlan
from vlmeval.dataset.row_images import image_folder
from vlmeval.dataset.video import VideoMCQDataset
from vlmeval.errors import DatasetError, UnknownNameError, UsageError
from vlmeval.types import TaskType


def data(options: argparse.Namespace) -> int:
    """Returns 1 if a benchmark has an error, else 0."""
    if options.what != "check":
        raise UnknownNameError("data command", options.what, ("check",), "known: check")
    plans = plans_of(options.names, options.config)
    if not plans:
        raise UsageError("no benchmark named: vlmeval data check NAME or a .tsv file; see: vlmeval list datasets")
    reports = [(plan, _findings(plan)) for plan in plans]
    if options.json:
        content = [
            {"name": plan.name, "path": str(plan.path), "findings": [asdict(finding) for finding in findings]}
            for plan, findings in reports
        ]
        print(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        for plan, findings in reports:
            _print(plan, findings, options.all)
    return 1 if any(f.severity == "error" for _, findings in reports for f in findings) else 0


def _findings(plan: DatasetPlan) -> list[Finding]:
    if plan.fetch and not plan.on_disk:
        plan.open()  # fetches it, or says why it cannot be had
    with contextlib.suppress(DatasetError):  # told below, with everything else that is wrong
        plan = plan.recognised()
    progress = BytesProgress(f"reading {plan.path.name}", plan.path.stat().st_size if plan.on_disk else None)
    known = plan.dataset_class or Dataset
    try:
        examined = examine(plan.path, image_folder(plan.path, plan.data_root), progress, known.needed_columns)
    finally:
        progress.close()
    shape = f"{len(examined.rows)} rows, {len(examined.columns)} columns: {', '.join(examined.columns)}"
    findings = [Finding(severity="note", what=shape), *examined.findings]
    if plan.dataset_class is not None and issubclass(plan.dataset_class, VideoMCQDataset):
        examined = with_choices(examined)
    examined = with_options_from(with_answers_from(examined, plan.answer_column), known.options_column)
    kind = plan.dataset_class.type if plan.dataset_class else _kind(examined)
    if "index" in examined.columns:
        of_kind = (
            turn_findings(examined) if kind == "MT" else answer_findings(examined, kind, "circular" in plan.traits)
        )
        findings += of_kind
    return findings + list(_when_open(plan, examined))


def _when_open(plan: DatasetPlan, examined: Examined) -> Iterator[Finding]:
    try:
        dataset: Dataset = plan.open()
    except DatasetError as error:
        yield Finding(severity="error", what=f"a run cannot open it: {error}")
        return
    yield from (Finding(severity="note", what=note) for note in dataset.notes)
    if isinstance(dataset, VideoMCQDataset):
        yield from video_findings(dataset)
    if dataset.path == plan.path.absolute():  # no stand-in for a file that cannot be had
        yield from loss_findings(examined, dataset)


def _kind(examined: Examined) -> TaskType:
    """As `open_dataset` guesses it, for a file in no table."""
    if len(option_columns(examined.columns)) > 1:
        return "MCQ"
    if holds_conversations([row.cells.get("question", "") for row in examined.rows[:FEW]]):
        return "MT"
    answers = {row.cells.get("answer", "").strip().lower() for row in examined.rows}
    return "Y/N" if answers and answers <= {"yes", "no"} else "VQA"


def _print(plan: DatasetPlan, findings: Sequence[Finding], everything: bool) -> None:
    say("data", f"{plan.name}: {plan.path}")
    for severity in ("error", "warning", "note"):
        for finding in findings:
            if finding.severity == severity:
                count = f"{finding.count} " if finding.count else ""
                say(severity, f"{count}{finding.what}{_rows(finding, everything)}")
    errors, warnings = (sum(f.severity == severity for f in findings) for severity in ("error", "warning"))
    say("", f"{errors} kinds of error, {warnings} of warning")


def _rows(finding: Finding, everything: bool) -> str:
    if not finding.rows:
        return ""
    shown = finding.rows if everything else finding.rows[:FEW]
    more = f", ... {len(finding.rows) - len(shown)} more: --all" if len(shown) < len(finding.rows) else ""
    return f": {', '.join(shown)}{more}"
