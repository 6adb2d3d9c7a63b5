"""Keeps the blocks of a loaded model where its cards have room for them.

After the first batches, when a card comes close to full, and when memory disappears, what was measured corrects what
was predicted, the partition is solved again, and blocks move in place if that helps. Looking costs a few questions to
the driver, and nothing moves while a batch is being answered.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmeval.errors import OutOfMemorySampleError, PlacementError
from vlmeval.hardware import Card, host_card, launch_environment, visible_cards
from vlmeval.placement.layout import CardPlan, Layout, Replica
from vlmeval.placement.policy import FULL
from vlmeval.placement.rebalance import Measured, Move, Place, Rebalanced, as_measured, learned, rebalance
from vlmeval.vlm import card_memory
from vlmeval.vlm.room import Room, no_room

if TYPE_CHECKING:
    from vlmeval.vlm.multi_card import MultiCardMixin

GIB = 2**30
FIRST_LOOK = 3
"""After so many batches the partition is solved again whatever they showed."""
NEARLY_FULL = 0.95
GONE = 0.02
"""Of a card's capacity: what may disappear without a new look."""
HIGHER = 1.01
"""A peak that was looked at is looked at again when it is so much higher."""
OOM_GAIN = 0.01

_log = logging.getLogger("vlmeval")


class Balance:
    """Of one loaded and dispatched model. `record` has every change of its layout, for the run's record."""

    def __init__(self, owner: MultiCardMixin, model: Any, through_host: frozenset[tuple[Any, Any]]) -> None:
        self.owner = owner
        self.model = weakref.ref(model)
        self.through_host = through_host
        self.factors: dict[str, float] = {}
        self.withheld: dict[Place, int] = {}
        """What a card turned out not to give, of what it says is free."""
        self.record: list[dict[str, Any]] = []
        self._batches = 0
        self._seen: Replica | None = None
        """The replica as it was when it was last looked at closely, with what was measured then."""

    # When to look

    def look(self) -> None:
        """After a batch: solve again and move blocks if there is a reason to."""
        self._batches += 1
        why = self._why()
        if not why:
            return
        obstacle = self._obstacle()
        found = None if obstacle else self._solved()
        if found is None:
            self._seen = self.replica
            return
        self._seen = found.before
        if found.is_worth_it:
            self._carry_out(found, why)

    def _why(self) -> str:
        measured = self.measured()
        seen = self._seen or self.replica
        for share in seen.cards if measured else ():
            place, now = share.card.place, measured.get(share.card.place)
            if now is None:
                continue
            capacity = as_measured(share, now, self._most(place)).free_bytes - share.reserve_bytes
            gone = share.capacity_bytes - capacity
            if gone > GONE * share.capacity_bytes:
                return f"{_size(gone)} of card {place} ({share.card.name}) are taken by another program"
            looked_at = share.peak_bytes if self._seen else 0
            if now.peak_bytes > max(NEARLY_FULL * capacity, HIGHER * looked_at):
                return f"card {place} ({share.card.name}) came to {now.peak_bytes / capacity:.0%} of what it can hold"
        return f"measured over the first {FIRST_LOOK} batches" if self._batches == FIRST_LOOK else ""

    def forget_peaks(self) -> None:
        """Keep what was measured so far as factors, and count peaks from now on."""
        if self._obstacle() == "":
            self.factors = learned(self._predicted(), self.measured(), self.factors)
        card_memory.reset_peaks(self.replica)

    @property
    def replica(self) -> Replica:
        """As planned, or as last laid out."""
        found = self.owner.replica
        if found is None:
            raise PlacementError("a model without a plan has no blocks to move")
        return found

    def measured(self) -> dict[Place, Measured]:
        """What each card of the replica shows, where torch's backend tells."""
        found = card_memory.measured(self.replica)
        for place in self.withheld.keys() & found.keys():
            found[place] = replace(found[place], room_bytes=found[place].room_bytes - self.withheld[place])
        return found

    def _most(self, place: Place) -> int | None:
        return self.owner.plan_overrides().max_memory.get(place) if isinstance(place, int) else None

    def _obstacle(self, *, more: bool = False) -> str:
        """Why blocks cannot be moved."""
        profile, overrides = self.owner.planning_profile(), self.owner.plan_overrides()
        if self.model() is None or profile is None:
            return "it is not loaded block by block"
        if self.owner.placement.device_map is not None and not self.owner.placement.is_planned:
            return "its device map was written by hand"
        if self.owner.cannot_be_split:
            return "split, it failed at its first forward"
        if (self.owner.placement.workload or self.owner.planning_workload()).quantisation:
            return "quantised weights cannot be moved in place"
        if not more and len(self.replica.cards) < 2 and not self.owner.placement.cpu_offload:
            return "it lies on one card alone"
        if more and overrides.auto_split is False:
            return "AUTO_SPLIT=0 forbids to split"
        if more and overrides.cards_per_replica is not None:
            return f"--cards-per-replica {overrides.cards_per_replica} was asked for"
        return ""

    # Out of memory

    def after_out_of_memory(self, failure: OutOfMemorySampleError) -> Room:
        """Move blocks so that the card that was full gets room."""
        obstacle = self._obstacle()
        if obstacle:
            return no_room(obstacle)
        return self._relaid(failure, ())

    def with_more_cards(self, failure: OutOfMemorySampleError) -> Room:
        """The same over cards that no replica uses as well."""
        obstacle = self._obstacle(more=True)
        if obstacle:
            return no_room(obstacle)
        free = self._unused()
        return self._relaid(failure, free) if free else no_room("no other card is free")

    def _relaid(self, failure: OutOfMemorySampleError, more: Sequence[Card]) -> Room:
        measured = self._note_limit(failure)
        found = self._solved(more, measured)
        if found is None:
            return no_room("torch does not tell what its cards hold")
        careful = self.factors
        if found.after.worst > FULL:
            # Perhaps the other cards need less than was predicted: what they showed is all there is to go by.
            found = self._solved(more, measured, lower=True) or found
        if not found.moves or found.gain < OOM_GAIN:
            self.factors = careful
            return no_room("no other stages would give it room")
        card = "memory" if failure.card is None else f"card {failure.card}"
        return self._carry_out(found, f"{card} was full")

    def _note_limit(self, failure: OutOfMemorySampleError) -> dict[Place, Measured]:
        """What the cards show, with what the full one was asked for as if it had been given."""
        card, needed = failure.card, failure.held_bytes + failure.asked_bytes
        measured = self.measured()
        if card is None or card not in measured or not needed:
            return measured
        seen = measured[card]
        if seen.room_bytes >= needed:
            self.withheld[card] = self.withheld.get(card, 0) + seen.room_bytes - needed + 1
        room, peak = min(seen.room_bytes, needed - 1), max(seen.peak_bytes, needed)
        return {**measured, card: Measured(peak_bytes=peak, room_bytes=room)}

    def _unused(self) -> list[Card]:
        """Cards of the plan that no replica lies on, no older than ours, as they are now."""
        plan = self.owner.plan()
        if plan is None or launch_environment().world_size > 1:
            return []  # other processes may reach for the same card
        wanted = {card.index for card in plan.unused if card.kind != "cpu"}
        oldest = min((share.card.capability or (99, 0) for share in self.replica.cards), default=(0, 0))
        cards = visible_cards(measured=wanted) if wanted else ()
        most = {card.index: self._most(card.index) or card.free_bytes for card in cards}
        return [
            replace(card, free_bytes=min(card.free_bytes, most[card.index]))
            for card in cards
            if card.index in wanted
            and (card.capability or (99, 0)) >= oldest
            and most[card.index] > self.owner.plan_overrides().reserve_bytes
        ]

    # Solving and moving

    def _solved(
        self, more: Sequence[Card] = (), measured: Mapping[Place, Measured] | None = None, *, lower: bool = False
    ) -> Rebalanced | None:
        """The stages as they are and as they could be, with all that was measured so far."""
        measured = self.measured() if measured is None else measured
        if not measured:
            return None
        self.factors = learned(self._predicted(), measured, self.factors, lower=lower)
        own = [share for share in self.replica.cards if share.card.kind != "cpu"]
        cards = [as_measured(share, measured.get(share.card.place), self._most(share.card.place)) for share in own]
        has_host = len(own) < len(self.replica.cards)
        host = host_card() if has_host or self.owner.placement.cpu_offload else None
        if host is not None and not has_host and host.free_bytes <= self.owner.plan_overrides().reserve_bytes:
            host = None
        return rebalance(self._layout(), self.owner._build_device_map, self.replica, [*cards, *more], host)

    def _layout(self) -> Layout:
        owner, profile = self.owner, self.owner.planning_profile()
        if profile is None:
            raise PlacementError("a model that cannot be looked into has no blocks to move")
        workload = owner.placement.workload or owner.planning_workload()
        return Layout(profile, workload, owner.plan_overrides().reserve_bytes, self.factors)

    def _predicted(self) -> Replica:
        """The present stages with the present factors, on the cards as they were planned."""
        return self._layout().replica([share.card for share in self.replica.cards], self.replica.device_map)

    def _carry_out(self, found: Rebalanced, why: str) -> Room:
        from vlmeval.placement.dispatch import dispatch
        from vlmeval.placement.moving import move_blocks

        model: Any = self.model()
        owner, kind = self.owner, accelerator(self.replica)
        before, new = self.replica, {share.card.place for share in found.after.cards} - set(_places(self.replica))
        shown = self.measured()
        if new:
            self.through_host |= owner.pairs_through_host(found.after)
        owner.clear_memory()
        try:
            moved = move_blocks(
                model,
                found.moves,
                before.device_map,
                lambda place: card_memory.free_bytes(kind, int(place)) - self.withheld.get(place, 0) if kind else None,
                device_type=kind,
                through_host=self.through_host,
            )
        except PlacementError as error:
            return no_room(str(error))
        after = self._layout().replica(_cards(found), moved.device_map)
        dispatch(model, compact(after), device_type=kind, through_host=self.through_host)
        owner.relaid(after)
        self._seen = None
        text = f"{why}: {_told(moved.steps)}{'; ' if moved.stopped else ''}{moved.stopped}"
        self.record.append(
            {
                "why": why,
                "after_batches": self._batches,
                "moves": [{"block": m.block, "from": m.source, "to": m.target} for m in moved.steps],
                "stopped": moved.stopped,
                "before": [_card_record(share, shown.get(share.card.place)) for share in before.cards],
                "after": [_card_record(share, None) for share in after.cards],
            }
        )
        owner.note_placement(text)
        return Room(is_made=bool(moved.steps), text=text)


def _cards(found: Rebalanced) -> list[Card]:
    """Every card of the stages before and after, and host memory, where a block may have been left."""
    every = {share.card.place: share.card for replica in (found.before, found.after) for share in replica.cards}
    return [*every.values(), *([] if "cpu" in every else [host_card()])]


def _places(replica: Replica) -> list[Place]:
    return [share.card.place for share in replica.cards]


def accelerator(replica: Replica) -> str | None:
    """The kind of its cards."""
    return next((share.card.kind for share in replica.cards if share.card.kind != "cpu"), None)


def compact(replica: Replica) -> dict[str, Place]:
    """Its device_map; on one card it is one entry, which names whatever the checkpoint brings."""
    places = set(replica.device_map.values())
    return {"": places.pop()} if len(places) == 1 else dict(replica.device_map)


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def _told(steps: Sequence[Move], limit: int = 4) -> str:
    more = f" and {len(steps) - limit} more" if len(steps) > limit else ""
    return f"moved {'; '.join(map(str, steps[:limit]))}{more}" if steps else "nothing moved"


def _card_record(share: CardPlan, measured: Measured | None) -> dict[str, Any]:
    return {
        "card": share.card.place,
        "name": share.card.name,
        "blocks": [share.blocks[0], share.blocks[-1]],
        "capacity_bytes": share.capacity_bytes,
        "planned_peak_bytes": share.peak_bytes,
        "measured_peak_bytes": measured.peak_bytes if measured else None,
    }
