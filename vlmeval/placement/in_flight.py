"""How many batches one replica over several cards works on at once: what memory allows, and what it gains.

Each batch in flight holds on every card its own KV cache, its inputs, masks and image features. Activations of a layer
are there once a card, since a card works for one batch at a time (`vlm/pipelined.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlmeval.placement.cost_model import Workload, costs
from vlmeval.placement.layout import CardPlan, Replica
from vlmeval.placement.partition import Load
from vlmeval.placement.profile import ModelProfile
from vlmeval.placement.simulate.block_time import Assumed, job
from vlmeval.placement.simulate.timeline import timeline

MOST = 32
"""More batches than this are never in flight."""
NEAR_BEST = 0.95
"""The fewest in flight that come so near to the best number: each one more holds memory and finishes later."""
WORTH = 1.1
"""Below this gain one batch in flight is taken: the estimate is not that good."""
LANE_BYTES = 64 * 2**20
"""Of a card, for each batch in flight: the workspace that cuBLAS keeps for every stream (8 MiB, on Hopper 32), and what
torch's allocator rounds up in each stream's pool."""
ESTIMATED_TOKENS = 16
"""New tokens for each answer in the estimate; benchmarks mostly ask for a letter, a word or a sentence."""


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """What was decided, and why. `fitting` is what memory allows; `gain` is the estimate against one batch."""

    count: int
    fitting: int
    gain: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class CardNeed:
    """Bytes of one card: `once` however many batches are in flight, `each` for every one of them."""

    share: CardPlan
    once_bytes: int
    each_bytes: int

    def bytes_of(self, count: int) -> int:
        """What so many batches need, without the reserve."""
        return self.once_bytes + count * self.each_bytes

    @property
    def fitting(self) -> int:
        """Batches that fit; 0 where not even one does."""
        left = self.share.capacity_bytes - self.once_bytes
        return max(0, min(MOST, left // self.each_bytes if self.each_bytes else MOST))


def card_needs(profile: ModelProfile, replica: Replica, work: Workload) -> tuple[CardNeed, ...]:
    """What batches of this size need of each card of a replica.

    What is held while vision runs and what grows afterwards are both counted, since one batch may be at the one and
    another at the other.
    """
    own: dict[int | str, list[Load]] = {share.card.place: [] for share in replica.cards}
    for block, cost in zip(profile.blocks, costs(profile, work), strict=True):
        own[replica.device_map[block.modules[0]]].append(cost.load)
    return tuple(_need(share, own[share.card.place]) for share in replica.cards)


def _need(share: CardPlan, loads: Sequence[Load]) -> CardNeed:
    kept = sum(load.keeps_bytes + load.early_bytes + load.grows_bytes for load in loads) - share.weight_bytes
    return CardNeed(
        share=share,
        once_bytes=share.weight_bytes + max(load.transient_bytes for load in loads),
        each_bytes=kept + max(load.shared_bytes for load in loads) + LANE_BYTES,
    )


def most_fitting(profile: ModelProfile, replica: Replica, work: Workload) -> int:
    """Batches of this size that fit at once on every card; 0 where not even one does."""
    return min(need.fitting for need in card_needs(profile, replica, work))


def decide(profile: ModelProfile, replica: Replica, work: Workload, assumed: Assumed | None = None) -> InFlight:
    """The batches in flight of a replica whose plan is made for `work`, each of that size."""
    stages = len(replica.cards)
    if stages < 2 or any(share.card.kind == "cpu" for share in replica.cards):
        return InFlight(count=1, fitting=1, gain=1.0, reason="there is nothing to overlap on one card, or with the CPU")
    fitting = most_fitting(profile, replica, work)
    if fitting < 2:
        return InFlight(count=1, fitting=fitting, gain=1.0, reason="the memory left holds no second batch of this size")
    usual = replace(work, new_tokens=min(work.new_tokens, ESTIMATED_TOKENS))
    speeds = speeds_in_flight(profile, replica, usual, range(1, min(fitting, 3 * stages) + 1), assumed)
    best = max(speeds)
    count = 1 + next(place for place, speed in enumerate(speeds) if speed >= best * NEAR_BEST)
    gain = speeds[count - 1] / speeds[0]
    if gain < WORTH:
        return InFlight(
            count=1, fitting=fitting, gain=1.0, reason=f"{count} in flight would gain {gain:.2f} times only"
        )
    limit = f"memory holds {fitting}" + ("" if count == fitting else "; more would gain little")
    reason = f"estimated {gain:.1f} times one batch in flight; {limit}"
    return InFlight(count=count, fitting=fitting, gain=gain, reason=reason)


def speeds_in_flight(
    profile: ModelProfile, replica: Replica, work: Workload, counts: Sequence[int], assumed: Assumed | None = None
) -> list[float]:
    """Estimated samples a second with so many batches in flight each: of two waves."""
    one = job(profile, replica, work, assumed)
    return [timeline([[one] * (2 * count)], in_flight=count).samples_per_s for count in counts]
