"""MultiCardMixin: a model that lies over several cards by itself, or on one, whichever it is given.

    class MyVLM(MultiCardMixin, BaseModel):
        def load(self):
            self.model = self.load_on_cards(SomeForConditionalGeneration, self.folder, dtype="bfloat16")

Detection (which cards), policy (split or not) and planning (which block where) are in `CardPlanning`; loading, dispatch
and moving blocks later are here. A family says in `_build_device_map` what is special about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from vlmeval.errors import OutOfMemorySampleError, PlacementError, UsageError
from vlmeval.hardware import Card, host_card
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.layout import Layout, Replica
from vlmeval.placement.policy import Plan
from vlmeval.placement.profile import ModelProfile
from vlmeval.vlm.balance import Balance, accelerator, compact
from vlmeval.vlm.card_memory import Held, held, held_by_process, measured_peaks, reset_peaks
from vlmeval.vlm.card_planning import CardPlanning, placement_line
from vlmeval.vlm.room import Room, no_room

Load = Callable[[Mapping[str, Any] | None], Any]
"""Loads the model with a device_map of transformers' from_pretrained(); None: without one, on the CPU."""


class MultiCardMixin(CardPlanning):
    """Lays a model over the cards of this process. Inherit it before `BaseModel`."""

    _copies_checked: str = ""
    _is_proved: bool = False
    """Whether a forward has gone through with this placement."""
    cannot_be_split: bool = False
    """Whether a split plan has failed at a forward; then it stays where it is."""
    _balance: Balance | None = None
    batch_peaks: Mapping[int | str, int] = MappingProxyType({})
    """The most bytes on each card that a batch answered with this placement was reckoned to take."""
    wave_peaks: Mapping[int | str, int] = MappingProxyType({})
    """The most bytes on each card while several batches were in flight."""

    # Loading and dispatch

    def load_on_cards(self, model_class: Any, folder: str, **arguments: Any) -> Any:
        """A model of transformers, laid over the cards and ready to run; `arguments` are from_pretrained()'s."""
        from pathlib import Path

        from vlmeval.placement.blocks import derive_profile, meta_model
        from vlmeval.vlm.checkpoint import read_config

        if self.planning_profile() is None:
            config = model_class.config_class.from_dict(read_config(Path(folder)))
            self._profile = derive_profile(meta_model(config, model_class.__name__))
            self._is_planned = False
        return self.load_laid_out(
            lambda device_map: model_class.from_pretrained(folder, device_map=device_map, **arguments).eval()
        )

    def load_laid_out(self, load: Load) -> Any:
        """The model by `load(device_map)`, dispatched over its cards. Plans once more if memory is gone since."""
        if self.plan() is None:
            cards = self.replica_cards()
            return load({"": cards[0].place} if cards else None)
        self.check_still_there()
        from vlmeval.vlm.limits import is_out_of_memory

        try:
            return self._load_and_dispatch(load)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        self.clear_memory()
        self.plan_again(f"out of memory while loading ({reason})")
        return self._load_and_dispatch(load)

    def _load_and_dispatch(self, load: Load) -> Any:
        from vlmeval.placement.dispatch import dispatch

        replica = self.replica
        if replica is None:
            return load(None)
        detour = self.pairs_through_host(replica)
        device_map = compact(replica)
        self.batch_peaks = {}
        reset_peaks(replica)
        with warnings.catch_warnings():
            # Bare parameters such as LLaVA-OneVision's image_newline are no submodules, and are placed all the same.
            warnings.filterwarnings("ignore", message="The following device_map keys do not match any submodules")
            model = load(device_map)
        dispatch(model, device_map, device_type=accelerator(replica), through_host=detour)
        self._balance = Balance(self, model, detour)
        return model

    def pairs_through_host(self, replica: Replica) -> frozenset[tuple[Any, Any]]:
        """Pairs of the replica's cards whose direct copies arrive changed, and so go through the host."""
        from vlmeval.placement.copy_check import card_pairs, check_copies
        from vlmeval.placement.homes import as_device

        devices = [as_device(share.card.place, share.card.kind) for share in replica.cards]
        pairs = card_pairs(devices)
        if not pairs:
            return frozenset()
        check = check_copies(pairs)
        self._copies_checked = check.summary()
        if check.warning():
            self.note_placement(check.warning())
        return check.through_host

    def fall_back(self, error: PlacementError, load: Load) -> Any:
        """After a split plan has failed at its first forward: the model on one card where it fits, else with the CPU
        if that is allowed; announced and stamped. Raises the error itself where there is no way."""
        plan = self.plan()
        if plan is None or not plan.split or self._is_proved:
            raise error
        profile, workload = self.planning_profile(), self.placement.workload or self.planning_workload()
        cards = self._cards_at_hand()
        alone = self._alone(profile, workload, cards) if profile is not None else None
        if alone is None and not self.placement.cpu_offload:
            raise PlacementError(f"{error}; no single card holds it either (--cpu-offload would let the CPU help)")
        self._plan = alone or self._on_cpu(profile, workload)
        self.cannot_be_split = True
        self.note_placement(f"the split plan failed at its first forward, so {placement_line(self.replica)}: {error}")
        self.clear_memory()
        return self._load_and_dispatch(load)

    def _alone(self, profile: ModelProfile, workload: Workload, cards: Sequence[Card]) -> Plan | None:
        layout = Layout(profile, workload, self.plan_overrides().reserve_bytes)
        for card in sorted(cards, key=lambda card: -card.free_bytes):
            replica = layout.replica([card], layout.over([card]))
            if replica.worst <= 1:
                return Plan(replicas=(replica,), unused=(), split=False, reason="fall-back to one card")
        return None

    def _on_cpu(self, profile: ModelProfile | None, workload: Workload) -> Plan:
        if profile is None:
            raise UsageError("a model that cannot be looked into has no fall-back")
        layout = Layout(profile, workload, self.plan_overrides().reserve_bytes)
        host = host_card()
        replica = layout.replica([host], layout.over([host]))
        return Plan(replicas=(replica,), unused=(), split=False, reason="fall-back to the CPU")

    # Making room

    def look_after_memory(self) -> None:
        """Move blocks where what was measured since the last look says so."""
        if self._balance is not None:
            self._balance.look()

    def move_blocks(self, failure: OutOfMemorySampleError) -> Room:
        """Lay the model otherwise over its cards, with what was measured up to this failure."""
        return self._balance.after_out_of_memory(failure) if self._balance else no_room("it has no plan")

    def take_more_cards(self, failure: OutOfMemorySampleError) -> Room:
        """Lay it over further cards that no replica lies on."""
        return self._balance.with_more_cards(failure) if self._balance else no_room("it has no plan")

    def clear_memory(self) -> None:
        """Let go of what failed attempts held (a dispatched model sits in a cycle of references); count peaks anew."""
        super().clear_memory()
        if self._balance is not None:
            self._balance.forget_peaks()

    def before_wave(self) -> None:
        """Several batches will be in flight: what one showed alone is kept, as peaks will be those of all."""
        if self._balance is not None:
            self._balance.forget_peaks()

    def after_wave(self) -> None:
        """They have ended. What cards showed meanwhile says nothing about one batch, and is recorded apart."""
        if self.replica is not None:
            found = measured_peaks(self.replica)
            higher = {place: max(peak_bytes, self.wave_peaks.get(place, 0)) for place, peak_bytes in found.items()}
            self.wave_peaks = {**self.wave_peaks, **higher}
            reset_peaks(self.replica)

    def relaid(self, replica: Replica) -> None:
        """Blocks have been moved: from now on it lies like this."""
        plan = self.plan()
        if plan is None:
            raise PlacementError("a model without a plan has no blocks to move")
        others = {share.card.place for one in plan.replicas[1:] for share in one.cards}
        used = others | {share.card.place for share in replica.cards}
        left = {share.card.place: share.card for share in plan.replicas[0].cards if share.card.kind != "cpu"}
        unused = {card.place: card for card in plan.unused} | left
        self._plan = replace(
            plan,
            replicas=(replica, *plan.replicas[1:]),
            unused=tuple(card for place, card in unused.items() if place not in used),
            split=len(replica.cards) > 1 or any(len(one.cards) > 1 for one in plan.replicas[1:]),
        )
        self._is_proved = False  # with these borders it has not run yet
        self.batch_peaks = {}
        reset_peaks(replica)

    # What a run records

    def memory_held(self) -> Sequence[Held]:
        """What this process holds on each card of its replica. Plans nothing: that is not for another thread."""
        plan = self._plan
        return held(plan.replicas[0], self.batch_peaks) if plan is not None else held_by_process()

    def placement_stamp(self) -> dict[str, Any]:
        """The plan, its predicted and the measured peak bytes of each card, and what did not go as planned."""
        replica, plan = self.replica, self.plan()
        if replica is None or plan is None:
            return {"placement_notes": list(self.placement_notes)} if self.placement_notes else {}
        measured = measured_peaks(replica)
        cards = [
            {
                "card": share.card.place,
                "physical": share.card.physical or str(share.card.place),
                "name": share.card.name,
                "blocks": [share.blocks[0], share.blocks[-1]],
                "weight_bytes": share.weight_bytes,
                "planned_peak_bytes": share.peak_bytes,
                "batch_peak_bytes": self.batch_peaks.get(share.card.place),
                "measured_peak_bytes": measured.get(share.card.place),
            }
            for share in replica.cards
        ]
        return {
            "plan_reason": plan.reason,
            "plan": cards,
            "copy_check": self._copies_checked,
            "placement_notes": list(self.placement_notes),
            "moves": list(self._balance.record) if self._balance else [],
            **self.in_flight_stamp(),
        }

    def in_flight_stamp(self) -> dict[str, Any]:
        """How many batches were in flight and why; nothing where it is one."""
        return {}
