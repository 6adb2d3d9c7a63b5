"""The plan's replicas as processes: which cards each of them sees, and what it is told of its placement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vlmeval.cli.placing import worst_of
from vlmeval.config import RunConfig
from vlmeval.dataset.base import Dataset
from vlmeval.hardware import LaunchEnvironment, cards_possible
from vlmeval.inference.executors import ReplicaSpec
from vlmeval.inference.torchrun import rank_replica
from vlmeval.placement.layout import Replica
from vlmeval.placement.policy import Plan
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.multi_card import MultiCardMixin
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel


def replicas_of(count: int, model: BaseModel, plan: Plan | None) -> list[ReplicaSpec]:
    """The first `count` replicas of a plan, each with its cards; without a plan, of a machine without cards."""
    if plan is None or not isinstance(model, TransformersModel):
        return [ReplicaSpec(number=number, name=f"replica {number}") for number in range(count)]
    shared = replace(model.placement, dtype=model.precision.dtype, attention=model.precision.attention)
    return [_on_cards(number, replica, shared) for number, replica in enumerate(plan.replicas[:count])]


def _on_cards(number: int, replica: Replica, shared: Placement) -> ReplicaSpec:
    """A replica that sees its own cards alone, where CUDA can be told so; there they are numbered from 0."""
    cards = [share.card for share in replica.cards]
    is_cuda = all(card.kind == "cuda" for card in cards)
    numbers = {card.place: place if is_cuda else card.place for place, card in enumerate(cards)}
    overrides = shared.overrides
    if overrides is not None:
        most = {int(numbers[index]): most for index, most in overrides.max_memory.items() if index in numbers}
        overrides = replace(overrides, max_memory=most)
    placement = replace(
        shared,
        overrides=overrides,
        is_planned=shared.device_map is None,
        seen=None,
        cards=tuple(int(numbers[card.place]) for card in cards),
        device_map={module: numbers[place] for module, place in replica.device_map.items()},
    )
    names = ",".join(card.physical or str(card.index) for card in cards)
    environ = {"CUDA_VISIBLE_DEVICES": names} if is_cuda else {}
    return ReplicaSpec(number=number, name=f"replica {number}", placement=placement.words(), environ=environ)


def own_rank(launched: LaunchEnvironment, config: RunConfig) -> ReplicaSpec:
    """The replica of this rank of torchrun: on one card, or on as many as were asked for."""
    overrides = config.placement.overrides
    each: int | None = 1
    if overrides is not None:
        each = overrides.cards_per_replica or (None if overrides.auto_split else 1)
    return rank_replica(launched, each=each)


def rank_placement(model: BaseModel, datasets: Sequence[Dataset], config: RunConfig) -> dict[str, Any]:
    """What the replica of a rank is told, which plans for its own cards by itself. Empty where there is no card."""
    if not isinstance(model, MultiCardMixin) or config.simulate_cards or not cards_possible():
        return {}
    overrides = config.placement.overrides
    if overrides is not None:
        overrides = replace(overrides, max_memory={})  # a rank numbers its own cards from 0
    return replace(config.placement, workload=worst_of(model, datasets, config)[0], overrides=overrides).words()
