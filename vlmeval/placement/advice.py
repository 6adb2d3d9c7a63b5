"""What would make a model fit that does not: the smallest change of each kind, tried out and not guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from vlmeval.errors import UsageError
from vlmeval.hardware import Card, LaunchEnvironment
from vlmeval.placement.cost_model import Workload, costs
from vlmeval.placement.partition import can_hold
from vlmeval.placement.policy import Overrides, Plan, make_plan
from vlmeval.placement.profile import ModelProfile

CARD_SIZES_GIB = (8, 12, 16, 24, 32, 48, 80, 141)
FEWEST_IMAGE_SHARE = 1 / 64
HOST_BYTES_PER_S = 20e9
"""What a CPU with two channels of memory reads; a server with eight reads some 100 GB/s."""

Try = Callable[[Workload, Sequence[Card]], bool]


def smallest_changes(
    profile: ModelProfile,
    workload: Workload,
    cards: Sequence[Card],
    overrides: Overrides,
    plan: Plan,
    launch: LaunchEnvironment | None = None,
) -> list[str]:
    """One line for each kind of change that is enough by itself, as the same flags and launch would plan it."""

    def could(work: Workload, over: Sequence[Card]) -> bool:
        free = (min(card.free_bytes, overrides.max_memory.get(card.index, card.free_bytes)) for card in over)
        capacities = [own - overrides.reserve_bytes for own in free if own > overrides.reserve_bytes]
        return can_hold([cost.load for cost in costs(profile, work)], capacities)

    def fits(work: Workload, over: Sequence[Card]) -> bool:
        if not could(work, over):
            return False
        try:
            return make_plan(profile, work, over, launch, overrides).fits
        except UsageError:  # e.g. a small card more makes the rule ask for two a replica, and --replicas for too many
            return False

    if could(workload, cards):
        return [_of_rule(fits(workload, cards), launch), *_of_cards(workload, cards, fits), offload_line(plan)]
    return [*_of_workload(workload, cards, fits), *_of_cards(workload, cards, fits), offload_line(plan)]


def _of_rule(fits_unasked: bool, launch: LaunchEnvironment | None) -> str:
    """What to let go of where all cards together would hold the model as it is."""
    if fits_unasked:
        return "let it be planned: without --device-map"
    if launch is not None and launch.world_size > 1:
        return "let it be split over all cards: plain python instead of torchrun"
    return "let it be split over all cards: AUTO_SPLIT=1, without --cards-per-replica and --replicas"


def _of_workload(workload: Workload, cards: Sequence[Card], fits: Try) -> Iterator[str]:
    share = 0.5
    while workload.vision_tokens and share >= FEWEST_IMAGE_SHARE:
        if fits(_smaller_images(workload, share), cards):
            yield f"images with {share:.0%} of the tokens (--max-pixels or --max-tiles at {share:.0%} of what it is)"
            break
        share /= 2
    batch = workload.batch // 2
    while batch:
        if fits(replace(workload, batch=batch), cards):
            yield f"--batch-size {batch} instead of {workload.batch}"
            break
        batch //= 2
    if not workload.quantisation:
        for name, method in (("8 bit", "gptq-int8"), ("4 bit", "awq")):
            if fits(replace(workload, quantisation=method), cards):
                yield f"weights of the language model in {name} (a quantised checkpoint of this model)"
                break


def _smaller_images(workload: Workload, share: float) -> Workload:
    names = ("vision_tokens", "image_tokens", "cross_tokens", "largest_image_tokens", "pixel_values")
    return replace(workload, **{name: round(getattr(workload, name) * share) for name in names})


def _of_cards(workload: Workload, cards: Sequence[Card], fits: Try) -> Iterator[str]:
    if fits(workload, cards):
        return
    for gib in CARD_SIZES_GIB:
        one_more = Card(
            index=max(card.index for card in cards) + 1,
            kind=cards[0].kind,
            name=f"{gib} GiB card",
            total_bytes=gib * 2**30,
            free_bytes=gib * 2**30,
        )
        if fits(workload, [*cards, one_more]):
            yield f"one more card of {gib} GiB"
            return
    alike = max(cards, key=lambda card: card.free_bytes)
    for count in range(2, 17):
        more = [replace(alike, index=1000 + i, free_bytes=alike.total_bytes) for i in range(count)]
        if fits(workload, [*cards, *more]):
            yield f"{count} more cards like card {alike.index} ({alike.name})"
            return


def offload_line(plan: Plan) -> str:
    """What leaving in host memory the bytes that do not fit would cost."""
    first = plan.replicas[0]
    over = sum(max(0, share.peak_bytes - share.capacity_bytes) for share in first.cards)
    seconds = over / HOST_BYTES_PER_S
    size = f"{over / 2**30:.1f} GiB" if over >= 2**30 / 10 else f"{over / 2**20:.1f} MiB"
    return (
        f"--cpu-offload: {size} stay in host memory and the CPU computes them, at best {seconds:.1f} s "
        f"a token where it reads {HOST_BYTES_PER_S / 1e9:.0f} GB/s"
    )
