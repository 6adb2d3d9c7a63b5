"""Split or not, how many cards a replica, how many replicas.

The rule: alone (world_size 1) with a visible card under 40 GB in all, a model is split over the fewest cards, at least
two, that hold it with its worst sample at no more than 80 % of any card; cards left over carry further replicas.
Cards of 40 GB and more: one card where model and sample fit, else split. Under torchrun: one process, one card.
AUTO_SPLIT=1 and =0 and the flags overrule this. `total_bytes` of a card decides the rule, `free_bytes` the plan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vlmeval.errors import UsageError
from vlmeval.hardware import Card, LaunchEnvironment
from vlmeval.placement.cost_model import RESERVE_BYTES, Workload
from vlmeval.placement.layout import BuildDeviceMap, Layout, Replica, lay_over
from vlmeval.placement.profile import ModelProfile

Lay = Callable[[Sequence[Card]], Replica]
"""One replica over these cards."""

SMALL_CARD_BYTES = 40 * 10**9
"""Under this a card is small. In decimal GB, so that an "A100 40GB" (42.3e9 bytes, 39.4 GiB) is none."""
COMFORTABLE = 0.8
FULL = 1.0
MOST_CARDS_A_REPLICA = 16


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the user asked for; None leaves it to the rule. `max_memory` caps a card's free bytes, by its index."""

    auto_split: bool | None = None
    cards_per_replica: int | None = None
    replicas: int | None = None
    max_memory: Mapping[int, int] = field(default_factory=dict)
    reserve_bytes: int = RESERVE_BYTES

    def __post_init__(self) -> None:
        for name in ("cards_per_replica", "replicas"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least 1")
        if self.reserve_bytes < 0:
            raise UsageError(f"--reserve of {self.reserve_bytes / 2**30:g} GiB is negative")
        if self.auto_split is False and (self.cards_per_replica or 1) > 1:
            raise UsageError(
                f"AUTO_SPLIT=0 forbids --cards-per-replica {self.cards_per_replica}; take one of them away"
            )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done, and why. `fits` is False where even the best stages overflow a card."""

    replicas: tuple[Replica, ...]
    unused: tuple[Card, ...]
    split: bool
    reason: str
    notes: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        """Load of the fullest card of all."""
        return max(replica.worst for replica in self.replicas)

    @property
    def fits(self) -> bool:
        """Whether nothing overflows."""
        return self.worst <= FULL


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the rule decides before any bytes are counted: cards one replica may have at least and at most."""

    least: int
    most: int
    reason: str


def split_rule(cards: Sequence[Card], launch: LaunchEnvironment, overrides: Overrides) -> Rule:
    """Decide for one process alone, or for one of torchrun's that has its slice of cards already."""
    count = len(cards)
    if overrides.cards_per_replica is not None:
        wanted = overrides.cards_per_replica
        if wanted > count:
            raise UsageError(f"--cards-per-replica {wanted}: {_visible(count)}")
        return Rule(least=wanted, most=wanted, reason=f"--cards-per-replica {wanted}")
    if overrides.auto_split is False:
        return Rule(least=1, most=1, reason="AUTO_SPLIT=0 forbids to split")
    if overrides.auto_split:
        if overrides.replicas is not None:
            each = max(1, count // overrides.replicas)
            return Rule(least=each, most=each, reason=f"AUTO_SPLIT=1, --replicas {overrides.replicas}")
        return Rule(least=count, most=count, reason="AUTO_SPLIT=1 splits over all visible cards")
    if launch.world_size > 1:
        return Rule(least=1, most=1, reason=f"torchrun with {launch.world_size} processes: one card each")
    small = [card for card in cards if card.total_bytes < SMALL_CARD_BYTES]
    if not small:
        return Rule(least=1, most=count, reason="cards of 40 GB and more: split only what one cannot hold")
    if count == 1:
        return Rule(least=1, most=1, reason="only one card is visible")
    named = f"card {small[0].index} ({small[0].name}) has {small[0].total_bytes / 10**9:.1f} GB"
    return Rule(least=2, most=count, reason=f"{named}, under 40 GB: split over at least two cards")


def process_cards(
    cards: Sequence[Card], launch: LaunchEnvironment, overrides: Overrides
) -> tuple[tuple[Card, ...], tuple[Card, ...]]:
    """The cards of this process, and those no process of this machine uses. Raises UsageError if they are too few."""
    if not cards:
        raise UsageError("no card is visible here; describe some with --cards, e.g. --cards 2x24")
    if launch.world_size == 1:
        return tuple(cards), ()
    processes = launch.local_world_size
    each = overrides.cards_per_replica or (max(1, len(cards) // processes) if overrides.auto_split else 1)
    if each * processes > len(cards):
        raise UsageError(
            f"{processes} processes of torchrun with {each} {'card' if each == 1 else 'cards'} each need "
            f"{each * processes}; {_visible(len(cards))}; try --nproc-per-node {len(cards) // each or 1}"
        )
    first = launch.local_rank * each
    return tuple(cards[first : first + each]), tuple(cards[processes * each :])


def make_plan(
    profile: ModelProfile,
    workload: Workload,
    cards: Sequence[Card],
    launch: LaunchEnvironment | None = None,
    overrides: Overrides | None = None,
    build: BuildDeviceMap | None = None,
) -> Plan:
    """Lay the model over the cards. `build` is how this model lies on the cards of one replica (a model class's
    `_build_device_map`). Raises UsageError for what cannot be done at all; look at `fits` for the rest.
    """
    launch, overrides = launch or LaunchEnvironment(), overrides or Overrides()
    own, left_over = process_cards(_capped(cards, overrides), launch, overrides)
    if launch.world_size > 1:
        overrides = replace(overrides, cards_per_replica=None, auto_split=len(own) > 1)
    rule = split_rule(own, launch, overrides)
    if overrides.replicas is not None and overrides.replicas * rule.least > len(own):
        each, hint = "", ""
        if rule.least > 1:
            each = f" of {rule.least} cards"
            hint = (
                f" ({rule.reason}); --cards-per-replica 1 gives each one card" if overrides.replicas <= len(own) else ""
            )
        raise UsageError(f"--replicas {overrides.replicas}{each}: {_visible(len(own))}{hint}")
    layout = Layout(profile, workload, overrides.reserve_bytes)
    lay = functools.partial(_lay, layout, build or lay_over)
    replicas = _replicas(lay, own, rule, overrides)
    used = {share.card.index for replica in replicas for share in replica.cards}
    plan = Plan(
        replicas=replicas,
        unused=(*(card for card in own if card.index not in used), *left_over),
        split=any(len(replica.cards) > 1 for replica in replicas),
        reason=rule.reason,
    )
    return replace(plan, notes=tuple(_notes(plan, lay, own, rule, overrides)))


def _lay(layout: Layout, build: BuildDeviceMap, cards: Sequence[Card]) -> Replica:
    return layout.replica(cards, build(layout, cards))


def plan_of_map(
    profile: ModelProfile,
    workload: Workload,
    cards: Sequence[Card],
    given: Mapping[str, int | str],
    overrides: Overrides,
) -> Plan:
    """The plan a map written by hand amounts to; blocks need not be in order on it."""
    layout = Layout(profile, workload, overrides.reserve_bytes)
    replica = layout.replica(_capped(cards, overrides), given)
    used = {share.card.index for share in replica.cards}
    unused = tuple(card for card in cards if card.index not in used)
    return Plan(replicas=(replica,), unused=unused, split=len(used) > 1, reason="--device-map, as given")


def _capped(cards: Sequence[Card], overrides: Overrides) -> tuple[Card, ...]:
    known = {card.index for card in cards}
    for index in overrides.max_memory:
        if index not in known:
            raise UsageError(f"--max-memory names card {index}; the cards are {sorted(known)}")
    return tuple(
        replace(card, free_bytes=min(card.free_bytes, overrides.max_memory.get(card.index, card.free_bytes)))
        for card in cards
    )


def _replicas(lay: Lay, cards: Sequence[Card], rule: Rule, overrides: Overrides) -> tuple[Replica, ...]:
    """One replica after the other from the largest cards left, each on the fewest that will do."""
    left = sorted(cards, key=lambda card: (-card.free_bytes, card.index))
    most = rule.most
    if overrides.replicas is not None:
        most = min(most, max(rule.least, len(left) // overrides.replicas))
    replicas: list[Replica] = []
    while len(left) >= rule.least and len(replicas) != overrides.replicas:
        made = _fewest_cards(lay, left, rule.least, most)
        if replicas and not (overrides.replicas or overrides.cards_per_replica) and made.worst > FULL:
            break
        replicas.append(made)
        if made.worst > FULL and not overrides.replicas:
            break
        used = {share.card.index for share in made.cards}
        left = [card for card in left if card.index not in used]
        if rule.least == rule.most == len(cards):
            break
    return tuple(replicas)


def _fewest_cards(lay: Lay, left: Sequence[Card], least: int, most: int) -> Replica:
    """On the fewest of the largest cards that stay comfortable; where none do, the one whose fullest card is best."""
    best: Replica | None = None
    for count in range(least, min(most, len(left), max(least, MOST_CARDS_A_REPLICA)) + 1):
        replica = lay(sorted(left[:count], key=lambda card: card.index))
        if replica.worst <= (COMFORTABLE if count > 1 else FULL):
            return replica
        if best is None or replica.worst < best.worst:
            best = replica
    if best is None:
        raise UsageError(f"no replica can be formed of {len(left)} cards with {least} to {most} each")
    return best


def _notes(plan: Plan, lay: Lay, cards: Sequence[Card], rule: Rule, overrides: Overrides) -> Iterator[str]:
    fewest = min(len(replica.cards) for replica in plan.replicas)
    if fewest < rule.least:
        counted = "1 card" if fewest == 1 else f"{fewest} cards"
        yield f"on {counted} all the same: a block on any other card would only make the fullest card fuller"
    if plan.split and overrides.auto_split is None:
        alone = {card.index: lay([card]).worst for card in cards}
        yield from _gain_of_not_splitting({index: worst for index, worst in alone.items() if worst <= FULL}, plan)
    if plan.fits and plan.split and plan.worst > COMFORTABLE:
        yield f"the fullest card is {plan.worst:.0%} full, over the {COMFORTABLE:.0%} wished for"
    if plan.unused:
        names = ", ".join(str(card.index) for card in plan.unused)
        yield f"left over: card{'s' if len(plan.unused) > 1 else ''} {names}"


def _gain_of_not_splitting(alone: Mapping[int, float], plan: Plan) -> Iterator[str]:
    """`alone`: load of each card that would hold a whole replica."""
    if not alone:
        return
    index, worst = next(iter(alone.items()))
    more = len(alone) > len(plan.replicas)
    gain = f"{len(alone)} replicas instead of {len(plan.replicas)}" if more else "as many replicas"
    yield (
        f"card {index} alone would hold a whole replica ({worst:.0%} full): AUTO_SPLIT=0 gives {gain}, without copies "
        "between cards"
    )


def _visible(count: int) -> str:
    return f"only {count} {'card is' if count == 1 else 'cards are'} visible"
