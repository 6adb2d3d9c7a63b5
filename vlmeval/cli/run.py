"""`vlmeval run`: from flags to models and benchmarks that exist, then one model after the other."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vlmeval
from vlmeval.cli.placement_flags import overrides
from vlmeval.cli.screen import say, warn
from vlmeval.config import ConfigFile, ModelSpec, RunConfig, read_config_file, resolve_model
from vlmeval.dataset.base import Dataset
from vlmeval.dataset.config_entry import resolve_among
from vlmeval.dataset.registry import DatasetPlan
from vlmeval.errors import PlacementError, UnknownNameError, UsageError
from vlmeval.hardware import LaunchEnvironment, check_launch, launch_environment, parse_cards, visible_names
from vlmeval.placement.device_map import load_device_map
from vlmeval.storage import storage_error
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.multi_card import MultiCardMixin
from vlmeval.vlm.placement_request import Placement

if TYPE_CHECKING:
    from vlmeval.cli.replicas import Crew

MODEL_FLAGS = (
    "dtype", "attention", "min_pixels", "max_pixels", "max_image_pixels",
    "max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty",
)  # fmt: skip
"""Flags that are arguments of the model's class; only those given are passed on."""


def run(options: argparse.Namespace) -> int:
    """Answer and score everything asked for. Returns 1 if a model answered nothing at all, else 0."""
    config = _with_formats(run_config(options))
    launched = launch_environment()
    check_launch(launched)
    with contextlib.ExitStack() as stack:
        _simulate(config.simulate_cards, stack)
        return _prepared(config, launched)


def _simulate(cards: str, stack: contextlib.ExitStack) -> None:
    """Cards that are not there, for as long as the stack is open."""
    if not cards:
        return
    described = parse_cards(cards)
    from vlmeval.placement.simulate.machine import simulated_machine

    stack.enter_context(simulated_machine(described, visible=visible_names()))
    warn(f"--simulate-cards {cards}: the cards are not there, the CPU computes; answers are real, speed is not")


def _prepared(config: RunConfig, launched: LaunchEnvironment) -> int:
    models = [spec() for spec in config.models]
    for model in models:
        model.check()
    plans = resolve_among(config.datasets, config.dataset_settings)
    _check_writable(config.work_dir)
    # Not before: a mistake in the command is told sooner without what answers and scores.
    from vlmeval.cli.replicas import Crew, serve_rank

    if launched.rank > 0:
        return serve_rank(launched, config, plans)
    with Crew(config, launched) as crew:
        return _run(config, models, plans, crew)


def _run(config: RunConfig, models: Sequence[BaseModel], plans: Sequence[DatasetPlan], crew: Crew) -> int:
    crew.start_early(models, plans)
    from vlmeval.cli.evaluate import evaluate
    from vlmeval.cli.judging import make_judge
    from vlmeval.report.screen import ScoredRun, print_scores

    datasets = [plan.open().head(config.limit) for plan in plans]
    say("vlmeval", vlmeval.__version__)
    judge = make_judge(config.judge) if config.judge else None
    if judge is not None:
        datasets = [dataset.with_judge() for dataset in datasets]
    for dataset in datasets:
        traits = ", ".join([dataset.task.type, *sorted(dataset.task.traits)])
        say("data", f"{dataset.name}: {len(dataset)} rows ({traits}), {dataset.path}")
        for note in dataset.notes:
            say("", f"note: {note}")
    if config.dry_run:
        return _dry_run(config, models, datasets)
    scored: list[ScoredRun] = []
    try:
        pairs = zip(config.models, models, strict=True)
        results = [evaluate(spec, model, datasets, config, scored, crew, judge) for spec, model in pairs]
    finally:
        # What is scored is shown even if a later model cannot be run.
        if scored:
            print_scores(scored)
    return 0 if all(results) else 1


def _dry_run(config: RunConfig, models: Sequence[BaseModel], datasets: Sequence[Dataset]) -> int:
    """Show the plans and stop. Returns 1 if a model does not fit."""
    from vlmeval.cli.placing import show_plan

    fits = True
    for spec, model in zip(config.models, models, strict=True):
        print()
        try:
            plan = show_plan(spec, model, datasets, config)
        except PlacementError as error:
            warn(f"{spec.name}: {error}")
            fits = False
            continue
        if plan is None:
            say("plan", f"{spec.name} runs whole: {_why_whole(model)}")
        fits = fits and (plan is None or plan.fits)
    return 0 if fits else 1


def _why_whole(model: BaseModel) -> str:
    if not isinstance(model, MultiCardMixin):
        return f"{type(model).__name__} does not plan by itself"
    if model.planning_profile() is None:
        return "no plan can be made before it is loaded"
    return (
        f"on card {model.replica_cards()[0].index}" if model.replica_cards() else "no card is visible, the CPU computes"
    )


def _with_formats(config: RunConfig) -> RunConfig:
    """The file formats the environment asks for, so that one that cannot be written is told before the work."""
    from vlmeval.report.tables import evaluation_format, prediction_format

    predictions, note = prediction_format(os.environ.get("PRED_FORMAT"))
    if note:
        warn(note)
    return replace(
        config, prediction_format=predictions, evaluation_format=evaluation_format(os.environ.get("EVAL_FORMAT"))
    )


def run_config(options: argparse.Namespace) -> RunConfig:
    """The checked settings of a run. Raises UsageError for a name, key or value that cannot be used."""
    from vlmeval.cli.judging import settings_from

    file = read_config_file(Path(options.config)) if options.config else ConfigFile(models={}, datasets={})
    given = {name: getattr(options, name) for name in MODEL_FLAGS if getattr(options, name) is not None}
    if options.allow_pickled_weights:
        given["allow_pickle"] = True
    arguments = {**options.model_args, **options.gen_kwargs, **given}
    names = options.model or list(file.models)
    revision, trusted = arguments.get("revision"), options.trust_remote_code
    specs = {name: resolve_model(name, file.models, revision=revision, trusted=trusted) for name in names}
    _check_trusted(trusted, specs)
    models = tuple(_with_arguments(specs[name], arguments) for name in names)
    return RunConfig(
        models=models,
        datasets=tuple(dict.fromkeys(options.data or file.datasets)),
        dataset_settings=file.datasets,
        work_dir=Path(options.work_dir).expanduser(),
        mode=options.mode,
        limit=options.limit,
        batch_size=_batch_size(options.batch_size),
        seed=options.seed,
        reuse=options.reuse,
        placement=_placement(options),
        judge=settings_from(options),
        dry_run=options.dry_run,
        simulate_cards=options.simulate_cards or "",
        verbose=options.verbose,
    )


def _placement(options: argparse.Namespace) -> Placement:
    given = load_device_map(Path(options.device_map)) if options.device_map else None
    return Placement(
        overrides=overrides(options),
        device_map=given,
        cpu_offload=options.cpu_offload,
        allow_fewer_pixels=options.allow_fewer_pixels,
        batches_in_flight=_in_flight(options.batches_in_flight),
    )


def _in_flight(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batches-in-flight {text!r} is neither auto nor a whole number from 1")
    return int(text)


def _check_trusted(trusted: Sequence[str], specs: Mapping[str, ModelSpec]) -> None:
    """Every name given with --trust-remote-code is one of this run's models, and that model does run code of its own.

    Raises UsageError: a trust that applies to nothing is a mistake.
    """
    for name in trusted:
        spec = next((s for typed, s in specs.items() if name in (typed, s.name, s.source)), None)
        if spec is None:
            raise UnknownNameError("model in --trust-remote-code", name, specs)
        if not spec.arguments.get("trust_remote_code"):
            raise UsageError(
                f"--trust-remote-code {name}: it needs no code of its own, there is a class for it; leave the flag out"
            )


def _with_arguments(spec: ModelSpec, arguments: Mapping[str, Any]) -> ModelSpec:
    spec = replace(spec, arguments={**spec.arguments, **arguments})
    spec.check()
    return spec


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text!r} is neither auto nor a whole number from 1")
    return int(text)


def _check_writable(work_dir: Path) -> None:
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        probe = work_dir / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise storage_error(work_dir, error) from error
