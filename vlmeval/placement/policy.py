"""Split or not, how many cards a replica, how many replicas.

The rule: alone (world_size 1) with a visible card under 40 GB in all, a model is split over the fewest cards, at least
two, that hold it with its worst sample at no more than 80 % of any card; cards left over carry further replicas.
Cards of 40 GB and more: one card where model and sample fit, else split. Under torchrun: one process, one card.
AUTO_SPLIT=1 and =0 and the flags overrule this. `total_bytes` of a card decides the rule, `free_bytes` the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vlmeval.errors import UsageError
from vlmeval.hardware import Card, LaunchEnvironment
from vlmeval.placement.cost_model import RESERVE_BYTES, Cost, Workload, costs
from vlmeval.placement.device_map import DeviceMap, device_map
from vlmeval.placement.partition import Partition, partition, stage_peak
from vlmeval.placement.profile import ModelProfile

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
class CardPlan:
    """One card's share of a replica, in bytes. `load` is its peak over what is free on it after the reserve.

    `activation_bytes` is what the peak takes beside weights and the whole KV cache.
    """

    card: Card
    blocks: tuple[str, ...]
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    reserve_bytes: int
    capacity_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most it will need at once, without the reserve."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def load(self) -> float:
        """Peak over capacity; above 1 it does not fit."""
        return self.peak_bytes / self.capacity_bytes if self.capacity_bytes > 0 else float("inf")


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One whole copy of the model. `token_bytes` cross cards for each decoded token."""

    cards: tuple[CardPlan, ...]
    device_map: DeviceMap
    hops: int
    token_bytes: int

    @property
    def worst(self) -> float:
        """Load of its fullest card."""
        return max(card.load for card in self.cards)


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
            each = count // overrides.replicas
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
) -> Plan:
    """Lay the model over the cards. Raises UsageError for what cannot be done at all; look at `fits` for the rest."""
    launch, overrides = launch or LaunchEnvironment(), overrides or Overrides()
    own, left_over = process_cards(_capped(cards, overrides), launch, overrides)
    if launch.world_size > 1:
        overrides = replace(overrides, cards_per_replica=None, auto_split=len(own) > 1)
    rule = split_rule(own, launch, overrides)
    if overrides.replicas is not None and overrides.replicas * rule.least > len(own):
        each = f" of {rule.least} cards" if rule.least > 1 else ""
        raise UsageError(f"--replicas {overrides.replicas}{each}: {_visible(len(own))}")
    layout = _Layout(profile, workload, overrides.reserve_bytes)
    replicas, unused = _replicas(layout, own, rule, overrides)
    plan = Plan(
        replicas=replicas,
        unused=(*unused, *left_over),
        split=any(len(replica.cards) > 1 for replica in replicas),
        reason=rule.reason,
    )
    return replace(plan, notes=tuple(_notes(plan, layout, own, overrides)))


def plan_of_map(
    profile: ModelProfile, workload: Workload, cards: Sequence[Card], given: DeviceMap, overrides: Overrides
) -> Plan:
    """The plan a map written by hand amounts to; blocks need not be in order on it."""
    block_costs = costs(profile, workload)
    by_index = {card.index: card for card in _capped(cards, overrides)}
    places = [given[block.modules[0]] for block in profile.blocks]
    shares = []
    for index in dict.fromkeys(places):
        own = [number for number, place in enumerate(places) if place == index]
        card = by_index[index]
        names = tuple(profile.blocks[number].name for number in own)
        shares.append(
            _share(card, names, [block_costs[number] for number in own], card.free_bytes - overrides.reserve_bytes,
                   overrides.reserve_bytes)
        )  # fmt: skip
    borders = [number for number in range(1, len(places)) if places[number] != places[number - 1]]
    replica = Replica(
        cards=tuple(shares),
        device_map=given,
        hops=len(borders),
        token_bytes=sum(block_costs[number].cut_bytes for number in borders),
    )
    unused = tuple(card for card in cards if card.index not in places)
    return Plan(replicas=(replica,), unused=unused, split=len(shares) > 1, reason="--device-map, as given")


def _share(
    card: Card, names: tuple[str, ...], part: Sequence[Cost], capacity_bytes: int, reserve_bytes: int
) -> CardPlan:
    weights, kv = sum(cost.weight_bytes for cost in part), sum(cost.kv_bytes for cost in part)
    return CardPlan(
        card=card,
        blocks=names,
        weight_bytes=weights,
        kv_bytes=kv,
        activation_bytes=stage_peak([cost.load for cost in part]) - weights - kv,
        reserve_bytes=reserve_bytes,
        capacity_bytes=capacity_bytes,
    )


def _capped(cards: Sequence[Card], overrides: Overrides) -> tuple[Card, ...]:
    known = {card.index for card in cards}
    for index in overrides.max_memory:
        if index not in known:
            raise UsageError(f"--max-memory names card {index}; the cards are {sorted(known)}")
    return tuple(
        replace(card, free_bytes=min(card.free_bytes, overrides.max_memory.get(card.index, card.free_bytes)))
        for card in cards
    )


def _replicas(
    layout: _Layout, cards: Sequence[Card], rule: Rule, overrides: Overrides
) -> tuple[tuple[Replica, ...], tuple[Card, ...]]:
    """One replica after the other from the largest cards left, each on the fewest that will do."""
    left = sorted(cards, key=lambda card: (-card.free_bytes, card.index))
    most = rule.most
    if overrides.replicas is not None:
        most = min(most, max(rule.least, len(left) // overrides.replicas))
    replicas: list[Replica] = []
    while len(left) >= rule.least and len(replicas) != overrides.replicas:
        made = _fewest_cards(layout, left, rule.least, most)
        if replicas and not (overrides.replicas or overrides.cards_per_replica) and made.worst > FULL:
            break
        replicas.append(made)
        used = {share.card.index for share in made.cards}
        if made.worst > FULL and not overrides.replicas:
            left = [card for card in left if card.index not in used]
            break
        left = [card for card in left if card.index not in used]
        if rule.least == rule.most == len(cards):
            break
    return tuple(replicas), tuple(sorted(left, key=lambda card: card.index))


def _fewest_cards(layout: _Layout, left: Sequence[Card], least: int, most: int) -> Replica:
    """On the fewest of the largest cards that stay comfortable; where none do, the one whose fullest card is best."""
    best: Replica | None = None
    for count in range(least, min(most, len(left), max(least, MOST_CARDS_A_REPLICA)) + 1):
        replica = layout.replica(sorted(left[:count], key=lambda card: card.index))
        if replica.worst <= (COMFORTABLE if count > 1 else FULL):
            return replica
        if best is None or replica.worst < best.worst:
            best = replica
    if best is None:
        raise UsageError(f"no replica can be formed of {len(left)} cards with {least} to {most} each")
    return best


class _Layout:
    """A model and its worst sample, ready to be laid over any cards."""

    def __init__(self, profile: ModelProfile, workload: Workload, reserve_bytes: int) -> None:
        self.profile = profile
        self.costs = costs(profile, workload)
        self.loads = [cost.load for cost in self.costs]
        self.reserve_bytes = reserve_bytes
        self._found: dict[tuple[int, ...], Partition] = {}

    def replica(self, cards: Sequence[Card]) -> Replica:
        capacities = [card.free_bytes - self.reserve_bytes for card in cards]
        for card, capacity in zip(cards, capacities, strict=True):
            if capacity <= 0:
                raise UsageError(
                    f"card {card.index} ({card.name}) has {card.free_bytes / 2**30:.2f} GiB free, of which the reserve "
                    f"takes {self.reserve_bytes / 2**30:.2f}: nothing is left; hide it with CUDA_VISIBLE_DEVICES or "
                    "lower --reserve"
                )
        # Equal sets of cards are asked for again and again.
        key = tuple(capacities)
        if key not in self._found:
            self._found[key] = partition(self.loads, capacities)
        return self._described(self._found[key], cards, capacities)

    def _described(self, found: Partition, cards: Sequence[Card], capacities: Sequence[int]) -> Replica:
        shares = []
        for stage in found.stages:
            names = tuple(block.name for block in self.profile.blocks[stage.first : stage.end])
            part = self.costs[stage.first : stage.end]
            shares.append(_share(cards[stage.card], names, part, capacities[stage.card], self.reserve_bytes))
        devices = {place: card.index for place, card in enumerate(cards)}
        return Replica(
            cards=tuple(shares),
            device_map=device_map(self.profile, found.stages, devices),
            hops=found.hops,
            token_bytes=sum(self.costs[stage.first].cut_bytes for stage in found.stages[1:]),
        )


def _notes(plan: Plan, layout: _Layout, cards: Sequence[Card], overrides: Overrides) -> Iterator[str]:
    if plan.split and overrides.auto_split is None:
        alone = {card.index: layout.replica([card]).worst for card in cards}
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
