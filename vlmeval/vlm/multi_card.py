"""MultiCardMixin: a model that lies over several cards by itself, or on one, whichever it is given.

    class MyVLM(MultiCardMixin, BaseModel):
        def load(self):
            self.model = self.load_on_cards(SomeForConditionalGeneration, self.folder, dtype="bfloat16")

Detection (which cards), policy (split or not), planning (which block where), loading and dispatch, in this order. A
family says in `_build_device_map` what is special about it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vlmeval.errors import OutOfMemorySampleError, PlacementError, UsageError
from vlmeval.hardware import (
    Card,
    LaunchEnvironment,
    auto_split_wanted,
    host_card,
    launch_environment,
    visible_cards,
)
from vlmeval.placement.advice import smallest_changes
from vlmeval.placement.cost_model import RESERVE_BYTES, Workload
from vlmeval.placement.device_map import DeviceMap, check_device_map
from vlmeval.placement.in_flight import InFlight, decide, most_fitting
from vlmeval.placement.layout import Layout, Replica, lay_over
from vlmeval.placement.policy import Overrides, Plan, make_plan, plan_of_map, process_cards
from vlmeval.placement.profile import ModelProfile
from vlmeval.vlm.balance import Balance, accelerator, compact
from vlmeval.vlm.card_memory import Held, held, held_by_process, measured_peaks, reset_peaks
from vlmeval.vlm.room import MakesRoom, Room, no_room

GIB = 2**30
Load = Callable[[Mapping[str, Any] | None], Any]
"""Loads the model with a device_map of transformers' from_pretrained(); None: without one, on the CPU."""

_log = logging.getLogger("vlmeval")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a run asks for; the defaults leave everything to the rule and to the largest prompt the settings allow.

    `cards` are those of this replica, by number: its slice is cut already. `seen` are the visible cards as they were
    found, so that this process need not ask. `device_map` is one written by hand, or by whoever planned for this
    replica. `cpu_offload` permits to compute on the CPU, from host memory, what no card can hold. `dtype` and
    `attention` are what all replicas of a run share, where their cards differ. `allow_fewer_pixels` permits to shrink
    the images of a sample that nothing else makes fit. `batches_in_flight` over the stages of a replica that lies on
    several cards: one after the other unless asked for, since no real card has shown yet what it gains; None: as many
    as memory and the estimate of time say.
    """

    overrides: Overrides | None = None
    workload: Workload | None = None
    cards: tuple[int, ...] | None = None
    seen: tuple[Card, ...] | None = None
    device_map: Mapping[str, int | str] | None = None
    cpu_offload: bool = False
    allow_fewer_pixels: bool = False
    dtype: str = ""
    attention: str = ""
    batches_in_flight: int | None = 1

    def __post_init__(self) -> None:
        if self.batches_in_flight is not None and self.batches_in_flight < 1:
            raise UsageError(f"batches_in_flight {self.batches_in_flight} must be at least 1")

    def words(self) -> dict[str, Any]:
        """What a replica in a process of its own has to be told, as plain values."""
        return {
            "workload": asdict(self.workload) if self.workload else None,
            "reserve_bytes": self.overrides.reserve_bytes if self.overrides else None,
            "cards": list(self.cards) if self.cards is not None else None,
            "device_map": dict(self.device_map) if self.device_map else None,
            "cpu_offload": self.cpu_offload,
            "allow_fewer_pixels": self.allow_fewer_pixels,
            "dtype": self.dtype,
            "attention": self.attention,
            "batches_in_flight": self.batches_in_flight,
        }

    @classmethod
    def of_words(cls, words: Mapping[str, Any]) -> Placement:
        """The other way round."""
        reserve = words["reserve_bytes"]
        return cls(
            overrides=None if reserve is None else Overrides(reserve_bytes=reserve),
            workload=Workload(**words["workload"]) if words["workload"] else None,
            cards=None if words["cards"] is None else tuple(words["cards"]),
            device_map=words["device_map"],
            cpu_offload=words["cpu_offload"],
            allow_fewer_pixels=words["allow_fewer_pixels"],
            dtype=words["dtype"],
            attention=words["attention"],
            batches_in_flight=words["batches_in_flight"],
        )


class MultiCardMixin(MakesRoom):
    """Lays a model over the cards of this process. Inherit it before `BaseModel`."""

    placement: Placement = Placement()
    placement_notes: tuple[str, ...] = ()
    """What did not go as planned; printed once each and stamped into the result."""
    _plan: Plan | None = None
    _is_planned: bool = False
    _copies_checked: str = ""
    _is_proved: bool = False
    """Whether a forward has gone through with this placement."""
    cannot_be_split: bool = False
    """Whether a split plan has failed at a forward; then it stays where it is."""
    _balance: Balance | None = None
    wave_peaks: dict[int | str, int]
    """The most bytes on each card while several batches were in flight."""

    def _build_device_map(self, layout: Layout, cards: Sequence[Card]) -> DeviceMap:
        """Module -> card for one replica over these cards. A model class says here what must stay together."""
        return lay_over(layout, cards)

    def place(self, placement: Placement) -> None:
        """Say how it shall be placed, before `load()`."""
        self.placement = placement
        self._plan, self._is_planned = None, False

    # Detection, policy, planning

    def planning_profile(self) -> ModelProfile | None:
        """The model's blocks; None for one that cannot be looked into: it runs on one card."""
        return getattr(self, "_profile", None)

    def planning_workload(self) -> Workload:
        """The worst prompt to plan for, where the run names none."""
        return Workload()

    def plan(self) -> Plan | None:
        """How it will lie over the cards this process sees; None where there is no card to lie on. Made once."""
        if not self._is_planned:
            self._plan = self._make_plan(self._cards_at_hand())
            self._is_planned = True
        return self._plan

    @property
    def replica(self) -> Replica | None:
        """The copy of the model that this process runs."""
        plan = self.plan()
        return plan.replicas[0] if plan else None

    def planned_in_flight(self) -> InFlight:
        """How many batches memory and the estimated gain allow over the replica's stages, or what was asked for."""
        wanted, replica, profile = self.placement.batches_in_flight, self.replica, self.planning_profile()
        if replica is None or profile is None or len(replica.cards) < 2:
            return InFlight(count=1, fitting=1, gain=1.0, reason="it does not lie on several cards")
        workload = self.placement.workload or self.planning_workload()
        if wanted is not None:
            fitting = most_fitting(profile, replica, workload)
            return InFlight(count=wanted, fitting=fitting, gain=1.0, reason="as asked for")
        return decide(profile, replica, workload)

    def replica_cards(self) -> tuple[Card, ...]:
        """The cards it lies on, the entry card first; none on a machine without."""
        if self.replica is not None:
            return tuple(share.card for share in self.replica.cards)
        cards = self._cards_at_hand()
        return process_cards(cards, self._launch(), self._overrides())[0][:1] if cards else ()

    def run_cards(self) -> tuple[Card, ...]:
        """The cards of all replicas of the plan, which share number type and attention."""
        plan = self.plan()
        if plan is None:
            return self.replica_cards()
        return tuple(share.card for replica in plan.replicas for share in replica.cards)

    def _overrides(self) -> Overrides:
        given = self.placement.overrides
        if self.placement.cards is not None:
            reserve = given.reserve_bytes if given else RESERVE_BYTES
            return Overrides(auto_split=len(self.placement.cards) > 1, reserve_bytes=reserve)
        return given or Overrides(auto_split=auto_split_wanted())

    def _launch(self) -> LaunchEnvironment:
        return launch_environment() if self.placement.cards is None else LaunchEnvironment()

    def _cards_at_hand(self) -> tuple[Card, ...]:
        wanted, launch = self.placement.cards, self._launch()
        if self.placement.seen is not None:
            return self.placement.seen
        if wanted is None:
            if launch.world_size == 1:
                return visible_cards()
            # Each process of torchrun asks its own cards alone, or eight of them would take half a GiB of every card.
            cards = visible_cards(measured=())
            own = process_cards(cards, launch, self._overrides())[0] if cards else ()
            return visible_cards(measured={card.index for card in own})
        cards = visible_cards(measured=wanted)
        found = tuple(card for card in cards if card.index in wanted)
        if len(found) < len(wanted):
            gone = sorted(set(wanted) - {card.index for card in found})
            raise PlacementError(f"card {gone[0]} of the plan is not there any more; visible: {_named(cards)}")
        return found

    def _make_plan(self, cards: Sequence[Card]) -> Plan | None:
        overrides, profile = self._overrides(), self.planning_profile()
        if not cards:
            if overrides.auto_split or (overrides.cards_per_replica or 1) > 1:
                self.note_placement("no card is visible here: nothing is split, the CPU computes")
            return None
        if profile is None or not all(card.total_bytes for card in cards):
            why = "torch does not tell their memory" if profile is not None else "its code cannot be looked into"
            self.note_placement(f"no plan ({why}): it runs whole on card {cards[0].index}")
            return None
        workload = self.placement.workload or self.planning_workload()
        if self.placement.device_map is not None:
            host = (host_card(),) if self.placement.cpu_offload else ()
            places = {card.place for card in (*cards, *host)}
            given = check_device_map(self.placement.device_map, profile, places)
            plan = plan_of_map(profile, workload, (*cards, *host), given, overrides)
        else:
            plan = make_plan(profile, workload, cards, self._launch(), overrides, self._build_device_map)
        return self._checked(plan, profile, workload, cards)

    def _checked(self, plan: Plan, profile: ModelProfile, workload: Workload, cards: Sequence[Card]) -> Plan:
        """What does not fit is an error with the numbers. If it is only the worst prompt that does not, and nobody
        forbade to split, the run goes on and such a prompt fails by itself."""
        if plan.fits:
            return plan
        if self.placement.cpu_offload and self.placement.device_map is None:
            return self._offloaded(profile, workload, cards)
        overrides = self._overrides()
        told = "; ".join(misfits(plan))
        weights_fit = all(share.weight_bytes <= share.capacity_bytes for share in plan.replicas[0].cards)
        if weights_fit and overrides.auto_split is not False:
            self.note_placement(f"the worst prompt does not fit, and will fail with out of memory: {told}")
            return plan
        changes = smallest_changes(profile, workload, cards, overrides, plan)
        raise PlacementError(
            f"the model does not fit: {told} ({plan.reason}). Any one of these is enough: {'; '.join(changes)}"
        )

    def _offloaded(self, profile: ModelProfile, workload: Workload, cards: Sequence[Card]) -> Plan:
        """The first blocks on the cards, as many as fit; the rest in host memory, where the CPU computes it."""
        overrides = self._overrides()
        layout = Layout(profile, workload, overrides.reserve_bytes)
        replica = layout.offloaded(cards, host_card())
        if replica is None:
            raise PlacementError(f"the model fits neither the cards ({_named(cards)}) nor host memory beside them")
        held = replica.cards[-1]
        self.note_placement(
            f"CPU offload: {len(held.blocks)} blocks ({held.weight_bytes / GIB:.1f} GiB) stay in host memory, from "
            f"{held.blocks[0]} on; the CPU computes them, which is slow"
        )
        used = {share.card.index for share in replica.cards}
        unused = tuple(card for card in cards if card.index not in used)
        return Plan(replicas=(replica,), unused=unused, split=True, reason="--cpu-offload")

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
        self._check_still_there()
        from vlmeval.vlm.limits import is_out_of_memory

        try:
            return self._load_and_dispatch(load)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        self.clear_memory()
        self._plan_again(f"out of memory while loading ({reason})")
        return self._load_and_dispatch(load)

    def _check_still_there(self) -> None:
        """Between plan and load a card may have gone, or another program may have taken memory: plan once more."""
        own = {share.card.index for share in self.replica.cards} if self.replica else set()
        now = {card.place: card for card in visible_cards(measured=own)}
        for share in self.replica.cards if self.replica else ():
            card = share.card
            if card.kind == "cpu":
                continue
            if card.place not in now:
                self._plan_again(f"card {card.index} ({card.name}) is gone since the plan was made")
                return
            taken = card.free_bytes - now[card.place].free_bytes
            if taken > 0 and share.peak_bytes + share.reserve_bytes > now[card.place].free_bytes:
                self._plan_again(
                    f"{taken / GIB:.2f} GiB of card {card.index} ({card.name}) were taken since the plan was made"
                )
                return

    def _plan_again(self, why: str) -> None:
        # What was seen is not so any more, and a map made for it neither.
        self.placement = replace(self.placement, seen=None, device_map=None)
        if self.placement.cards is not None:
            present = {card.index for card in visible_cards(measured=self.placement.cards)}
            self.placement = replace(
                self.placement, cards=tuple(index for index in self.placement.cards if index in present)
            )
        self._plan = self._make_plan(self._cards_at_hand())
        self.note_placement(f"{why}: planned anew, {placement_line(self.replica)}")

    def _load_and_dispatch(self, load: Load) -> Any:
        from vlmeval.placement.dispatch import dispatch

        replica = self.replica
        if replica is None:
            return load(None)
        detour = self._copy_check(replica)
        device_map = compact(replica)
        reset_peaks(replica)
        with warnings.catch_warnings():
            # Bare parameters such as LLaVA-OneVision's image_newline are no submodules, and are placed all the same.
            warnings.filterwarnings("ignore", message="The following device_map keys do not match any submodules")
            model = load(device_map)
        dispatch(model, device_map, device_type=accelerator(replica), through_host=detour)
        self._balance = Balance(self, model, detour)
        return model

    def _copy_check(self, replica: Replica) -> frozenset[tuple[Any, Any]]:
        """Pairs of the replica's cards whose direct copies arrive changed, and so go through the host."""
        from vlmeval.placement.copy_check import card_pairs, check_copies
        from vlmeval.placement.dispatch import as_device

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
        layout = Layout(profile, workload, self._overrides().reserve_bytes)
        for card in sorted(cards, key=lambda card: -card.free_bytes):
            replica = layout.replica([card], layout.over([card]))
            if replica.worst <= 1:
                return Plan(replicas=(replica,), unused=(), split=False, reason="fall-back to one card")
        return None

    def _on_cpu(self, profile: ModelProfile | None, workload: Workload) -> Plan:
        if profile is None:
            raise UsageError("a model that cannot be looked into has no fall-back")
        layout = Layout(profile, workload, self._overrides().reserve_bytes)
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
            for place, peak_bytes in measured_peaks(self.replica).items():
                self.wave_peaks[place] = max(peak_bytes, self.wave_peaks.get(place, 0))
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
        reset_peaks(replica)

    # What a run records

    def note_placement(self, text: str) -> None:
        """Announce something once, and keep it for the stamp."""
        if text not in self.placement_notes:
            self.placement_notes = (*self.placement_notes, text)
            _log.warning("%s", text)

    def memory_held(self) -> Sequence[Held]:
        """What this process holds on each card of its replica. Plans nothing: that is not for another thread."""
        plan = self._plan
        return held(plan.replicas[0]) if plan is not None else held_by_process()

    def placement_stamp(self) -> dict[str, Any]:
        """The plan, its predicted and the measured peak bytes of each card, and what did not go as planned."""
        replica, plan = self.replica, self.plan()
        if replica is None or plan is None:
            return {"placement_notes": list(self.placement_notes)} if self.placement_notes else {}
        measured = measured_peaks(replica)
        cards = [
            {
                "card": share.card.place,
                "name": share.card.name,
                "blocks": [share.blocks[0], share.blocks[-1]],
                "weight_bytes": share.weight_bytes,
                "planned_peak_bytes": share.peak_bytes,
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


def misfits(plan: Plan) -> Iterator[str]:
    """Each card that is too small, with its numbers."""
    for share in (share for replica in plan.replicas for share in replica.cards if share.load > 1):
        span = share.blocks[0] if len(share.blocks) == 1 else f"{share.blocks[0]} to {share.blocks[-1]}"
        yield (
            f"card {share.card.index} ({share.card.name}) needs {share.peak_bytes / GIB:.2f} GiB for {span}, and has "
            f"{share.capacity_bytes / GIB:.2f} GiB after the reserve"
        )


def placement_line(replica: Replica | None) -> str:
    """A replica in a few words."""
    if replica is None:
        return "without a card"
    parts = [f"{_place_name(share.card)} {share.load:.0%} full" for share in replica.cards]
    return f"it lies on {', '.join(parts)}"


def _place_name(card: Card) -> str:
    return "the CPU" if card.kind == "cpu" else f"card {card.index} ({card.name})"


def _named(cards: Sequence[Card]) -> str:
    return ", ".join(f"{card.index} ({card.name})" for card in cards) or "none"
