"""The plan of a run: shown before anything loads, and compared with what the cards measured at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vlmeval.cli.plan_screen import print_plan
from vlmeval.cli.screen import say
from vlmeval.cli.worst_sample import workload_of
from vlmeval.config import ModelSpec, RunConfig
from vlmeval.dataset.base import Dataset
from vlmeval.hardware import probed_cards
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.policy import Plan
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.card_planning import placement_line
from vlmeval.vlm.multi_card import MultiCardMixin
from vlmeval.vlm.planned import planned_quantisation
from vlmeval.vlm.transformers_model import TransformersModel

GIB = 2**30


def show_plan(spec: ModelSpec, model: BaseModel, datasets: Sequence[Dataset], config: RunConfig) -> Plan | None:
    """Tell the model what the run asks of its placement, and print the plan. None where there is nothing to plan: no
    card, or a class that does not plan by itself. Raises PlacementError for a model that does not fit."""
    if not isinstance(model, MultiCardMixin):
        return None
    seen = None if config.simulate_cards else probed_cards()
    placement = replace(config.placement, seen=seen)
    model.place(placement)
    if model.planning_profile() is None:
        return None
    workload, notes = worst_of(model, datasets, config)
    model.place(replace(placement, workload=workload))
    plan = model.plan()
    if plan is not None:
        print_plan(spec.name, [dataset.name for dataset in datasets], workload, plan, [], notes)
    return plan


def worst_of(model: MultiCardMixin, datasets: Sequence[Dataset], config: RunConfig) -> tuple[Workload, tuple[str, ...]]:
    """The workload of the run's own samples, and which of them decide."""
    if not isinstance(model, TransformersModel):
        return model.planning_workload(), ()
    raw = model.checkpoint.config
    return workload_of(
        model, raw, datasets, batch=config.batch_size or 1, dtype=model.dtype, quantisation=planned_quantisation(raw)
    )


def say_placed(model: BaseModel) -> None:
    """Where a model lies that could not be planned for before it was loaded."""
    if isinstance(model, MultiCardMixin) and not isinstance(model, TransformersModel) and model.replica is not None:
        say("placed", placement_line(model.replica))


def say_peaks(stamps: Mapping[str, Mapping[str, Any]]) -> None:
    """Planned against measured peak of each card, by what each replica stamped ("" is this process); of replicas in
    processes of their own also what did not go as planned. Of batches larger than the plan's prompt it is what these
    were reckoned to take, if all their answers were as long as the settings let them be."""
    for name, stamp in sorted(stamps.items()):
        owner = f"{name}, " if name else ""
        for note in stamp.get("placement_notes", ()) if name else ():
            say("note", f"{owner}{note}")
        for card in stamp.get("plan", ()):
            if card["measured_peak_bytes"] is not None:
                say("memory", f"{owner}card {card['physical']} ({card['name']}): {_peaks(card)}")


def _peaks(card: Mapping[str, Any]) -> str:
    """`peak planned 10.20 GiB (batches; one prompt 1.58 GiB), measured 9.80 GiB (-3.9%)`."""
    measured, one = card["measured_peak_bytes"], card["planned_peak_bytes"]
    planned = max(one, card.get("batch_peak_bytes") or 0)
    size, unit = (GIB, "GiB") if planned >= GIB else (2**20, "MiB")
    of_one = f" (batches; one prompt {one / size:.2f} {unit})" if planned > one else ""
    told = f"peak planned {planned / size:.2f} {unit}{of_one}, measured {measured / size:.2f} {unit}"
    return f"{told} ({measured / planned - 1:+.1%})"
