"""`vlmeval plan`: how a model would be laid over cards, without a card and without weights."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from vlmeval.cli.placement_flags import overrides
from vlmeval.cli.plan_screen import plan_json, print_plan
from vlmeval.cli.worst_sample import planned_workload
from vlmeval.config import ModelSpec, resolve_model
from vlmeval.errors import ModelError, UsageError
from vlmeval.hardware import LaunchEnvironment, launch_environment, parse_cards
from vlmeval.placement.advice import smallest_changes
from vlmeval.placement.device_map import check_device_map, load_device_map
from vlmeval.placement.policy import make_plan, plan_of_map
from vlmeval.vlm.planned import planned_model


def plan(options: argparse.Namespace) -> int:
    """Print the plan. Returns 1 if the model does not fit, else 0."""
    cards = parse_cards(options.cards)
    asked = overrides(options)
    spec = _spec(options)
    model = planned_model(spec.source, spec.arguments.get("revision"))
    workload, notes = planned_workload(options, spec, model.config, model.quantisation)
    launch = launch_environment() if options.cards.strip().lower() == "auto" else LaunchEnvironment()
    if options.device_map:
        places = {card.index for card in cards}
        given = check_device_map(load_device_map(Path(options.device_map)), model.profile, places)
        found = plan_of_map(model.profile, workload, cards, given, asked)
    else:
        build = getattr(spec(), "_build_device_map", None)
        found = make_plan(model.profile, workload, cards, launch, asked, build)
    changes = [] if found.fits else smallest_changes(model.profile, workload, cards, asked, found, launch)
    if options.json:
        print(json.dumps(plan_json(spec.name, options.data, workload, found, changes, notes), indent=2))
    else:
        print_plan(spec.name, options.data, workload, found, changes, notes)
    return 0 if found.fits else 1


def _spec(options: argparse.Namespace) -> ModelSpec:
    from vlmeval.dataset.registry import resolve_dataset

    if not options.model:
        raise UsageError("--model is missing: name the model to plan for")
    for name in options.data:
        resolve_dataset(name)
    spec = resolve_model(options.model)
    names = ("dtype", "min_pixels", "max_pixels", "max_new_tokens")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    spec = replace(spec, arguments={**spec.arguments, **options.model_args, **given})
    spec.check()
    if not spec.source:
        raise ModelError(f"model {spec.name!r} has no model_path, so there is nothing to plan")
    return spec
