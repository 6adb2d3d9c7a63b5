"""One model on every benchmark of a run: what is left, answering it, scoring it, and saying so."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmeval.cli.judging import score_with
from vlmeval.cli.own_process import OwnProcess
from vlmeval.cli.placing import say_peaks, say_placed, show_plan
from vlmeval.cli.recorder import opened_turns
from vlmeval.cli.replicas import Crew
from vlmeval.cli.screen import say, warn
from vlmeval.cli.submitting import kind_for, submit
from vlmeval.config import ModelSpec, RunConfig
from vlmeval.dataset.base import Dataset
from vlmeval.errors import JudgeError
from vlmeval.hardware import launch_environment, machine
from vlmeval.inference.answering import Request, answer, finished, requests
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.inference.ladder import climbed
from vlmeval.inference.run_folder import RunFolder, open_run_folder
from vlmeval.inference.turns import Said, forget_turns
from vlmeval.inference.versions import versions
from vlmeval.judging.judge import Judge
from vlmeval.report.live import duration
from vlmeval.report.result_files import write_predictions, write_score_files
from vlmeval.report.run_folder import DatasetStatus, link_results, scored_status, update_status
from vlmeval.report.screen import ScoredRun
from vlmeval.scoring.protocols import PROTOCOLS
from vlmeval.types import Index, Prediction, Sample
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.quiet import quiet_transformers
from vlmeval.vlm.transformers_model import TransformersModel

HEADLINE = "vlmevalkit"
"""The protocol whose numbers stand in the files other tools read."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One benchmark of a run: its samples and prompts, and the answers that are there already."""

    dataset: Dataset
    requests: tuple[Request, ...]
    records: Mapping[Index, Prediction]
    changed: str = ""
    """What has to be said where the benchmark's file is another one than at the run's last answers."""

    @property
    def pending(self) -> list[Request]:
        """Without an answer yet; those that failed are tried again."""
        done = {index for index, record in self.records.items() if record.status == "ok"}
        return [request for request in self.requests if request.sample.index not in done]

    @property
    def samples(self) -> list[Sample]:
        """In the benchmark's order."""
        return [request.sample for request in self.requests]


def evaluate(
    spec: ModelSpec,
    model: BaseModel,
    datasets: Sequence[Dataset],
    config: RunConfig,
    scored: list[ScoredRun],
    crew: Crew,
    judge: Judge | None = None,
) -> bool:
    """Run one model, adding to `scored`. False if there were samples and not one could be answered."""
    settings = run_settings(model, config)
    folder = open_run_folder(config.work_dir, spec.name, settings, reuse=config.reuse)
    works = [_open_work(model, dataset, folder) for dataset in datasets]
    if config.mode != "eval" and any(work.pending for work in works):
        plan = show_plan(spec, model, datasets, config)
        folder, works = _same_precision(model, folder, works, settings, config)
        _say_folder(spec, folder)
        with folder.lock():
            if crew.wanted(model, works, plan):
                stamps = crew.answer(spec, model, works, folder, plan)
                folder.stamp({"replicas": stamps})
                works = [_reread(work, folder) for work in works]
            else:
                works = _infer_all(model, works, folder, config)
                stamps = {"": dict(model.stamp())}
                # Once more: what was measured, and what did not go as planned.
                folder.stamp({"stamp": stamps[""]})
            say_peaks(stamps)
            _say_reuse(stamps)
    else:
        crew.not_needed()
        _say_folder(spec, folder)
    for work in works:
        if work.changed:
            warn(work.changed)
    _report(folder, works, config, scored, judge)
    answered = sum(record.status == "ok" for work in works for record in work.records.values())
    return answered > 0 or not any(work.requests for work in works)


def run_settings(model: BaseModel, config: RunConfig) -> dict[str, Any]:
    """What may change an answer. The seed does only where something is drawn."""
    settings = dict(model.settings())
    if settings.get("generation.do_sample", True):
        settings["seed"] = config.seed
    if config.placement.allow_fewer_pixels:
        settings["allow_fewer_pixels"] = True
    return settings


def _open_work(model: BaseModel, dataset: Dataset, folder: RunFolder) -> Work:
    asked = tuple(requests(model, dataset, dataset))
    journal = read_journal(folder.journal_path(dataset.name))
    records = finished(asked, journal)
    changed = _changed(dataset, folder, sum(r.sample.index in journal for r in asked), len(records))
    return Work(dataset=dataset, requests=asked, records=records, changed=changed)


def _changed(dataset: Dataset, folder: RunFolder, answered: int, kept: int) -> str:
    """Whether the file of a benchmark is still that of the run, and what it means for the answers there are."""
    recorded = folder.record().get("datasets", {}).get(dataset.name, "")
    if not recorded or recorded == dataset.fingerprint or not answered:
        return ""
    told = f"{dataset.name}: its file has changed since the run (its MD5 was {recorded}, is {dataset.fingerprint})"
    others = answered - kept
    return f"{told}: scored by the file as it is now" + (
        f", {others} answers are to rows that ask otherwise now and do not count" if others else ""
    )


def _same_precision(
    model: BaseModel, folder: RunFolder, works: list[Work], settings: Mapping[str, Any], config: RunConfig
) -> tuple[RunFolder, list[Work]]:
    """Answers of another number type or attention are not continued: those of one run shall be of one kind."""
    stamp = dict(model.stamp())
    if "dtype" in stamp:
        say(
            "runs as",
            f"{stamp['dtype']}, {stamp['attention']} attention, {stamp['device']} ({stamp['precision_reason']})",
        )
    if "videos" in stamp:
        say("videos", f"{type(model).__name__} takes none: {stamp['videos']}")
    before = folder.record().get("stamp")
    chosen: dict[str, Any] = {name: stamp[name] for name in ("dtype", "attention") if name in stamp}
    if before is not None and any(before.get(name) != value for name, value in chosen.items()):
        folder = open_run_folder(config.work_dir, folder.model, {**settings, **chosen}, reuse=config.reuse)
        works = [_open_work(model, work.dataset, folder) for work in works]
    datasets = {**folder.record().get("datasets", {}), **{w.dataset.name: w.dataset.fingerprint for w in works}}
    folder.stamp({"stamp": stamp, "machine": machine(), "versions": versions(), "datasets": datasets})
    return folder, works


def _say_folder(spec: ModelSpec, folder: RunFolder) -> None:
    say("model", f"{spec.name} ({spec.class_path}, {spec.source or 'no checkpoint'})")
    say("run", f"{folder.path} ({'new' if folder.is_new else 'continued'})")
    for change in folder.changes:
        say("", f"new because of a changed setting: {change}")


def _say_reuse(stamps: Mapping[str, Mapping[str, Any]]) -> None:
    """Images whose features were there already, over all replicas."""
    reused, images = (
        sum(int(stamp.get(name) or 0) for stamp in stamps.values()) for name in ("images_reused", "images")
    )
    if reused:
        say("reuse", f"vision features of {reused} of {images} images reused")


def _infer_all(model: BaseModel, works: Sequence[Work], folder: RunFolder, config: RunConfig) -> list[Work]:
    """Answer in this process what is pending, one benchmark after the other."""
    with OwnProcess(folder.model, model, works) as own:
        return [
            _infer(model, number, work, folder, config, own) if work.pending else _all_there(work)
            for number, work in enumerate(works)
        ]


def _all_there(work: Work) -> Work:
    say("answers", f"{work.dataset.name}: all {len(work.requests)} are there already")
    return work


def _infer(model: BaseModel, number: int, work: Work, folder: RunFolder, config: RunConfig, own: OwnProcess) -> Work:
    pending, total = work.pending, len(work.requests)
    name = work.dataset.name
    retried = sum(record.status == "failed" for record in work.records.values())
    done = total - len(pending)
    if done:
        again = f", {retried} failed before and are tried again" if retried else ""
        say("answers", f"{name}: {done} of {total} are there already{again}")
    started = time.monotonic()
    if isinstance(model, TransformersModel):
        quiet_transformers()
    model.load()
    say_placed(model)
    say("answers", f"{name}: {len(pending)} to go; model ready in {duration(time.monotonic() - started)}")
    with Journal(folder.journal_path(name)) as journal, opened_turns(folder, work) as turns:
        own.loaded()
        answer(
            model,
            work.dataset.task,
            turns.resumed(pending),
            journal,
            batch_size=config.batch_size,
            seed=config.seed,
            on_finished=lambda prediction: own.answered(number, prediction, verbose=config.verbose),
            on_begun=lambda batch, left: own.begun(number, batch, left),
            on_turn=lambda request: turns.add(request.sample.index, Said.of(request)),
        )
    own.ended(number)
    return _reread(work, folder)


def _reread(work: Work, folder: RunFolder) -> Work:
    records = finished(work.requests, read_journal(folder.journal_path(work.dataset.name)))
    work = replace(work, records=records)
    if not work.pending:
        forget_turns(folder.turns_path(work.dataset.name))
    return work


def _report(
    folder: RunFolder, works: Sequence[Work], config: RunConfig, scored: list[ScoredRun], judge: Judge | None
) -> None:
    """Write the result files, and score what can be scored unless only inference was asked for.

    Raises JudgeError in the end, when all else is written, if the judge could not be asked.
    """
    statuses: dict[str, DatasetStatus] = {}
    judge_error: JudgeError | None = None
    for work in works:
        name, dataset = work.dataset.name, work.dataset
        if not work.records:
            statuses[name] = DatasetStatus(status="skipped", skip_reason="no answers")
            warn(f"{name}: no answers of these settings in {folder.path}, so nothing to score; run --mode infer first")
            continue
        fmt = config.prediction_format
        written = write_predictions(folder.path, folder.model, name, dataset.columns, work.samples, work.records, fmt)
        for line in written.notes:
            warn(line)
        if config.limit and (more := len(read_journal(folder.journal_path(name))) - len(work.records)) > 0:
            warn(
                f"{name}: --limit {config.limit}: the result files leave out {more} answers that the journal has; "
                "the same command without --limit puts them back"
            )
        if config.mode == "infer" or not dataset.scorable:
            reason = dataset.why_not_scorable or "only inference was asked for"
            statuses[name] = DatasetStatus(status="not scored", prediction_file=written.path.name, skip_reason=reason)
            say("answers", f"{name}: not scored, {reason}; the answers are in {written.path}")
            kind = kind_for(dataset)
            if kind and dataset.why_no_answers:
                submit(folder.path, folder.model, dataset, work.records, kind, HEADLINE)
            continue
        try:
            run = _score(folder, work, written.path, config, judge)
        except JudgeError as error:
            judge_error = error
            statuses[name] = DatasetStatus(
                status="error",
                prediction_file=written.path.name,
                judge_model=config.judge.name if config.judge else None,
                error_message=str(error),
            )
            continue
        statuses[name] = scored_status(run.scores[HEADLINE], written.path)
        scored.append(run)
    about = {
        "commit": versions()["commit"],
        "argv": sys.argv,
        "world_size": launch_environment().world_size,
        "mode": config.mode,
    }
    update_status(folder.path, about, statuses)
    link_results(folder.path, folder.path.parent)
    if judge_error is not None:
        raise judge_error


def _score(folder: RunFolder, work: Work, predictions: Path, config: RunConfig, judge: Judge | None) -> ScoredRun:
    name, dataset = work.dataset.name, work.dataset
    scores = {protocol: score_with(judge, dataset, work.records, protocol, config.seed) for protocol in PROTOCOLS}
    record = folder.record()
    stamps = {
        **{key: record.get(key) for key in ("settings", "stamp", "machine", "versions", "created_at")},
        "dataset_md5": dataset.fingerprint,
        "dataset_path": str(dataset.path),
        "limit": config.limit,
        "memory": climbed(work.records),
        **({"notes": [work.changed]} if work.changed else {}),
    }
    files = write_score_files(
        folder.path,
        folder.model,
        name,
        scores,
        work.samples,
        work.records,
        stamps,
        columns=dataset.columns,
        fmt=config.prediction_format,
        eval_format=config.evaluation_format,
        images=dataset.image_clusters(),
    )
    for line in files.notes:
        warn(line)
    paths = (predictions, files.result, files.table, files.score, folder.journal_path(name))
    notes = (*dataset.notes, *told_of_memory(climbed(work.records)))
    return ScoredRun(model=folder.model, dataset=name, scores=scores, files=paths, notes=notes)


def told_of_memory(found: Mapping[str, Sequence[Index]]) -> Iterator[str]:
    """One line for the answers that needed room made, and one for those that saw smaller images."""
    smaller = found["fewer_pixels"]
    if found["answered_after"]:
        yield f"memory ran out on the way: {len(found['answered_after'])} answers were given once room was made"
    if smaller:
        names = ", ".join(map(str, smaller[:5])) + (", ..." if len(smaller) > 5 else "")
        yield f"{len(smaller)} answers are to images with fewer pixels than the run asked for (index {names})"
