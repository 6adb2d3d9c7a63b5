"""How a model will lie over the cards of this process: which cards, split or not, which block where."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vlmeval.errors import PlacementError
from vlmeval.hardware import (
    Card,
    LaunchEnvironment,
    auto_split_wanted,
    host_card,
    launch_environment,
    visible_cards,
)
from vlmeval.placement.advice import smallest_changes
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.device_map import DeviceMap, check_device_map
from vlmeval.placement.in_flight import InFlight, decide, most_fitting
from vlmeval.placement.layout import Layout, Replica, lay_over
from vlmeval.placement.policy import Overrides, Plan, make_plan, plan_of_map, process_cards
from vlmeval.placement.profile import ModelProfile
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.room import MakesRoom

GIB = 2**30

_log = logging.getLogger("vlmeval")


class CardPlanning(MakesRoom):
    """Detection, policy and planning, in this order."""

    placement: Placement = Placement()
    placement_notes: tuple[str, ...] = ()
    """What did not go as planned; printed once each and stamped into the result."""
    _plan: Plan | None = None
    _is_planned: bool = False

    def _build_device_map(self, layout: Layout, cards: Sequence[Card]) -> DeviceMap:
        """Module -> card for one replica over these cards. A model class says here what must stay together."""
        return lay_over(layout, cards)

    def place(self, placement: Placement) -> None:
        """Say how it shall be placed, before `load()`."""
        self.placement = placement
        self._plan, self._is_planned = None, False

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
        return process_cards(cards, self._launch(), self.plan_overrides())[0][:1] if cards else ()

    def run_cards(self) -> tuple[Card, ...]:
        """The cards of all replicas of the plan, which share number type and attention."""
        plan = self.plan()
        if plan is None:
            return self.replica_cards()
        return tuple(share.card for replica in plan.replicas for share in replica.cards)

    def plan_overrides(self) -> Overrides:
        """What the run says instead of the rule: asked for, or following from cards that are given."""
        given = self.placement.overrides
        if self.placement.cards is not None:
            given = given or Overrides()
            is_split = len(self.placement.cards) > 1
            return Overrides(auto_split=is_split, reserve_bytes=given.reserve_bytes, max_memory=given.max_memory)
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
            own = process_cards(cards, launch, self.plan_overrides())[0] if cards else ()
            return visible_cards(measured={card.index for card in own})
        cards = visible_cards(measured=wanted)
        found = tuple(card for card in cards if card.index in wanted)
        if len(found) < len(wanted):
            gone = sorted(set(wanted) - {card.index for card in found})
            raise PlacementError(f"card {gone[0]} of the plan is not there any more; visible: {_named(cards)}")
        return found

    def _make_plan(self, cards: Sequence[Card]) -> Plan | None:
        overrides, profile = self.plan_overrides(), self.planning_profile()
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
        overrides = self.plan_overrides()
        told = "; ".join(misfits(plan))
        weights_fit = all(share.weight_bytes <= share.capacity_bytes for share in plan.replicas[0].cards)
        if weights_fit and overrides.auto_split is not False:
            self.note_placement(f"the worst prompt does not fit, and will fail with out of memory: {told}")
            return plan
        changes = smallest_changes(profile, workload, cards, overrides, plan, self._launch())
        raise PlacementError(
            f"the model does not fit: {told} ({plan.reason}). Any one of these is enough: {'; '.join(changes)}"
        )

    def _offloaded(self, profile: ModelProfile, workload: Workload, cards: Sequence[Card]) -> Plan:
        """The first blocks on the cards, as many as fit; the rest in host memory, where the CPU computes it."""
        overrides = self.plan_overrides()
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

    def check_still_there(self) -> None:
        """Between plan and load a card may have gone, or another program may have taken memory: plan once more."""
        own = {share.card.index for share in self.replica.cards} if self.replica else set()
        now = {card.place: card for card in visible_cards(measured=own)}
        for share in self.replica.cards if self.replica else ():
            card = share.card
            if card.kind == "cpu":
                continue
            if card.place not in now:
                self.plan_again(f"card {card.index} ({card.name}) is gone since the plan was made")
                return
            taken = card.free_bytes - now[card.place].free_bytes
            if taken > 0 and share.peak_bytes + share.reserve_bytes > now[card.place].free_bytes:
                self.plan_again(
                    f"{taken / GIB:.2f} GiB of card {card.index} ({card.name}) were taken since the plan was made"
                )
                return

    def plan_again(self, why: str) -> None:
        """With the cards as they are now."""
        # What was seen is not so any more, and a map made for it neither.
        self.placement = replace(self.placement, seen=None, device_map=None, is_planned=False)
        if self.placement.cards is not None:
            present = {card.index for card in visible_cards(measured=self.placement.cards)}
            self.placement = replace(
                self.placement, cards=tuple(index for index in self.placement.cards if index in present)
            )
        self._plan = self._make_plan(self._cards_at_hand())
        self.note_placement(f"{why}: planned anew, {placement_line(self.replica)}")

    def note_placement(self, text: str) -> None:
        """Announce something once, and keep it for the stamp."""
        if text not in self.placement_notes:
            self.placement_notes = (*self.placement_notes, text)
            _log.warning("%s", text)


def misfits(plan: Plan) -> Iterator[str]:
    """Each card that is too small, with its numbers."""
    for share in (share for replica in plan.replicas for share in replica.cards if share.load > 1):
        span = share.blocks[0] if len(share.blocks) == 1 else f"{share.blocks[0]} to {share.blocks[-1]}"
        size, unit = (GIB, "GiB") if share.card.total_bytes >= GIB else (2**20, "MiB")
        yield (
            f"card {share.card.index} ({share.card.name}) needs {share.peak_bytes / size:.2f} {unit} for {span}, and "
            f"has {share.capacity_bytes / size:.2f} {unit} after the reserve"
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
