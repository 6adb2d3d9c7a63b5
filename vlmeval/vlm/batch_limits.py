"""How many prompts a model of transformers answers at once: by the plan's memory model on cards, by rule on a CPU.

Nothing is tried: what a batch needs is computed from the sizes of its prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from vlmeval.hardware import cpu_cores, host_card
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.cutting import ImageTokens, together
from vlmeval.placement.in_flight import card_needs
from vlmeval.placement.layout import CardPlan, Layout, Replica
from vlmeval.placement.policy import Plan
from vlmeval.placement.profile import ModelProfile
from vlmeval.types import Message, Task
from vlmeval.vlm.prompt_size import PromptSize
from vlmeval.vlm.sized_prompts import SizedPrompts

FILL = 0.95
"""How full a batch may make the fullest card, of what is free on it after the reserve."""
MOST_ON_CARDS = 512
"""More at once gains no speed, and all of it is lost when a run is cut off."""
MOST_ON_CPU = 64
TOKENS_ON_CPU = 4096
"""Prompt tokens of a batch on a CPU, padded. By measurement (bench/batches.md): beyond this, or beyond 64 prompts, a
prompt costs as much CPU time as before, and only memory grows."""
CPU_SHARE = 0.5
"""Of the host memory that is free, what a batch may take beside the weights."""
SIZE_STEP = 32
"""Sizes are rounded up to this, so that a limit is computed once for many batches."""


class BatchLimits(SizedPrompts):
    """Limits of batches, from the config and from the plan."""

    @cached_property
    def _limits(self) -> dict[PromptSize, int]:
        return {}

    _too_much: float = math.inf
    """How large the smallest batch was that memory ran out with, by `_load_at_once`."""

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn: then an answer would depend on its neighbours in the batch."""
        return False

    def batch_limit(self, worst: PromptSize) -> int:
        """How many prompts of this size fit, at least 1."""
        if self.draws:
            return 1
        rounded = _rounded(worst)
        if rounded not in self._limits:
            limit = self._limit_on_cards(rounded) if self.replica_cards() else self._limit_on_cpu(rounded)
            while limit > 1 and self._load_at_once(rounded, limit) >= self._too_much:
                limit -= 1
            self._limits[rounded] = limit
        return self._limits[rounded]

    def is_too_much(self, batch: Sequence[list[Message]], task: Task | None = None) -> bool:
        """By the same estimate that limits batches."""
        if len(batch) < 2 or self._too_much == math.inf:
            return False
        return self._load_at_once(self._worst(batch, task), len(batch)) >= self._too_much

    def remember_too_much(self, batch: Sequence[list[Message]], task: Task | None = None) -> None:
        """Until blocks are moved: then there may be room."""
        worst = self._worst(batch, task)
        load = self._load_at_once(worst, len(batch))
        if len(batch) < 2 or load >= self._too_much:
            return
        self._too_much = load
        self._limits.clear()
        self.note_placement(
            f"out of memory with {len(batch)} prompts of up to {worst.tokens:,} tokens ({self._told(load)}): from now "
            "on batches as large are cut before they are answered"
        )

    def relaid(self, replica: Replica) -> None:
        """Other limits hold."""
        super().relaid(replica)
        self._too_much = math.inf
        self._limits.clear()

    def _worst(self, batch: Sequence[list[Message]], task: Task | None) -> PromptSize:
        worst = PromptSize()
        for message in batch:
            worst = worst.or_larger(self.prompt_size(message, task))
        return _rounded(worst)

    def _load_at_once(self, worst: PromptSize, count: int) -> float:
        """How much so many prompts take in one call: how full the fullest card is (1: full), without a plan bytes."""
        if self.planning_profile() is not None and self.plan() is not None:
            return self._load_in_parts(worst, count, 1)
        return float(count * host_bytes(self.size_config(), worst, self.most_new_tokens))

    def _told(self, load: float) -> str:
        has_plan = self.planning_profile() is not None and self.plan() is not None
        return f"reckoned to fill a card to {load:.0%}" if has_plan else f"reckoned as {load / 2**20:,.0f} MiB"

    def _limit_on_cards(self, worst: PromptSize) -> int:
        """By the plan. Without one (code that cannot be looked into) prompts are answered one by one."""
        if self.replica is None:
            return 1
        low, high = 1, MOST_ON_CARDS
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.batch_load(worst, middle) <= FILL else (low, middle - 1)
        return low

    def batch_load(self, worst: PromptSize, count: int) -> float:
        """How full so many prompts of this size make the fullest card of any replica; 1 is all it can hold. Where the
        model gains by several batches in flight, they are answered in so many parts."""
        plan = self.plan()
        return self._load_in_parts(worst, count, self._parts(plan) if plan else 1)

    def _load_in_parts(self, worst: PromptSize, count: int, parts: int) -> float:
        plan = self.plan()
        if plan is None:
            raise ValueError("there is no plan to ask")
        kept = self.most_kept_bytes()
        found = [one for own in plan.replicas for one in self._taken(own, worst, count, parts, kept)]
        return max(taken_bytes / share.capacity_bytes for share, taken_bytes in found)

    def most_kept_bytes(self) -> int:
        """What features of earlier images may take of the card they are made on."""
        return 0

    def kept_bytes(self) -> int:
        """What they take now."""
        return 0

    def _taken(
        self, replica: Replica, worst: PromptSize, count: int, parts: int, kept_bytes: int
    ) -> list[tuple[CardPlan, int]]:
        """What so many prompts of this size, answered in so many parts at once, take of each card of a replica, beside
        features of earlier images."""
        taken = self._taken_by_batch(replica, worst, count, parts)
        maker = _maker_of_features(self.planning_profile(), replica)
        return [(share, own + kept_bytes * (share.card.place == maker)) for share, own in taken]

    def _taken_by_batch(
        self, replica: Replica, worst: PromptSize, count: int, parts: int
    ) -> list[tuple[CardPlan, int]]:
        profile = self.planning_profile()
        if profile is None:
            raise ValueError("there is no plan to ask")
        parts = min(count, parts)
        work = batch_workload(self.placement.workload or self.planning_workload(), worst, -(-count // parts))
        if parts > 1:
            return [(need.share, need.bytes_of(parts)) for need in card_needs(profile, replica, work)]
        layout = Layout(profile, work, replica.cards[0].reserve_bytes)
        laid = layout.replica([share.card for share in replica.cards], replica.device_map)
        return [(share, share.peak_bytes) for share in laid.cards]

    # What was promised

    def reckon(self, batch: Sequence[list[Message]], task: Task | None, parts: int = 1) -> None:
        """This batch is about to be answered: what it is reckoned to take, with answers of the longest kind, is kept
        for those who compare."""
        if self.replica is None or self.planning_profile() is None:
            return
        taken = self._taken(self.replica, self._worst(batch, task), len(batch), parts, self.kept_bytes())
        before = self.batch_peaks
        self.batch_peaks = {share.card.place: max(peak, before.get(share.card.place, 0)) for share, peak in taken}

    def _parts(self, plan: Plan) -> int:
        """Parts a batch is answered in: those of the first replica, if the others are like it, since each decides for
        itself."""
        alike = len({tuple((share.card.name, share.blocks) for share in own.cards) for own in plan.replicas}) == 1
        return self.parts_of_a_batch() if alike else 1

    def _limit_on_cpu(self, worst: PromptSize) -> int:
        """As many as are quickest, if half of the free host memory holds them."""
        quick = min(MOST_ON_CPU, TOKENS_ON_CPU // max(1, worst.tokens, worst.images.vision_tokens // 4))
        room = int(host_card().free_bytes * CPU_SHARE) // cpu_cores()  # at most a replica on every core
        # The planning workload would know it too, but needs the model's blocks and with them torch.
        needed = host_bytes(self.size_config(), worst, self.most_new_tokens)
        return max(1, min(quick, room // max(1, needed)))


def _maker_of_features(profile: ModelProfile | None, replica: Replica) -> int | str | None:
    """The card on which the vision side ends; None where there is none."""
    last = [block for block in profile.blocks if block.is_vision][-1:] if profile is not None else []
    return replica.device_map[last[0].modules[0]] if last else None


def batch_workload(base: Workload, worst: PromptSize, count: int) -> Workload:
    """So many prompts of this size, else as `base`."""
    images = together([worst.images], count)
    return replace(
        base,
        batch=count,
        text_tokens=max(1, worst.text_tokens),
        image_tokens=images.image_tokens,
        vision_tokens=images.vision_tokens,
        cross_tokens=images.cross_tokens,
        largest_image_tokens=images.largest_image_tokens,
        pixel_values=images.pixel_values,
    )


def host_bytes(config: Mapping[str, Any], size: PromptSize, new_tokens: int) -> int:
    """About what one prompt of a batch needs beside the weights, in float32: keys and values of every layer, and the
    widest layer of each tower. Numbers the config does not have count as those of a model of 8 B."""
    text = config.get("text_config") or config.get("llm_config") or config
    hidden, layers = int(text.get("hidden_size", 4096)), int(text.get("num_hidden_layers", 32))
    heads = int(text.get("num_attention_heads", 32))
    kv = 2 * layers * int(text.get("num_key_value_heads") or heads) * (hidden // heads)
    inner = 3 * int(text.get("intermediate_size", 4 * hidden)) + 8 * hidden
    vision = config.get("vision_config") or {}
    wide = int(vision.get("embed_dim") or vision.get("hidden_size") or 1280)
    cached = kv * (size.tokens + size.images.cross_tokens + new_tokens)
    logits = 3 * int(text.get("vocab_size", 152_064))
    return 4 * (cached + inner * size.tokens + 16 * wide * size.images.vision_tokens + logits)


def _rounded(size: PromptSize) -> PromptSize:
    def up(number: int) -> int:
        return -(-number // SIZE_STEP) * SIZE_STEP

    images = size.images
    return PromptSize(
        text_tokens=up(size.text_tokens),
        images=ImageTokens(
            image_tokens=up(images.image_tokens),
            vision_tokens=up(images.vision_tokens),
            cross_tokens=up(images.cross_tokens),
            largest_image_tokens=up(images.largest_image_tokens),
            pixel_values=up(images.pixel_values),
            images=images.images,
            padded_to=up(images.padded_to),
        ),
    )
