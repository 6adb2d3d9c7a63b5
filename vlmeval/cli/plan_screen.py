"""A plan for people and for programs: a table, a bar for each card, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from vlmeval.placement.cost_model import Workload
from vlmeval.placement.layout import CardPlan, Replica
from vlmeval.placement.policy import Plan

GIB = 2**30
BAR_WIDTH = 32
NAME_WIDTH = 30
NUMBER_WIDTHS = (9, 8, 8, 9, 8)
"""A line has at most 79 letters."""
KINDS = (("weights", "#"), ("KV cache", "k"), ("activations", "a"), ("reserve", "r"), ("free", "."))


def print_plan(
    model: str, data: Sequence[str], work: Workload, plan: Plan, changes: Sequence[str], notes: Sequence[str]
) -> None:
    """Print it to stdout."""
    for line in plan_lines(model, data, work, plan, changes, notes):
        print(line)


def plan_lines(
    model: str, data: Sequence[str], work: Workload, plan: Plan, changes: Sequence[str], notes: Sequence[str]
) -> Iterator[str]:
    """The lines of the screen."""
    yield f"model    {model}" + (f" for {', '.join(data)}" if data else "")
    yield f"sample   worst: {_sample(work)}"
    for note in notes:
        yield f"         {note}"
    kinds = {len(replica.cards) for replica in plan.replicas}
    each = f"{min(kinds)}" if len(kinds) == 1 else f"{min(kinds)} to {max(kinds)}"
    count = len(plan.replicas)
    yield f"plan     {count} replica{'s' * (count > 1)} of {each} card{'s' * (max(kinds) > 1)}; {plan.reason}"
    for note in plan.notes:
        yield f"         {note}"
    yield ""
    names = ("weights", "KV", "activ.", "reserve", "free")
    yield f"{'card':<{NAME_WIDTH}}{_cells(names)}{'full':>7}"
    unit_bytes, unit = _unit(plan)
    for number, replica in enumerate(plan.replicas):
        yield from _replica_lines(number, replica, count, unit_bytes)
    yield ""
    yield "  " + "  ".join(f"{mark} {name}" for name, mark in KINDS) + f"  ! does not fit ({unit})"
    if not plan.fits:
        yield from _misfit_lines(plan, changes)


def _unit(plan: Plan) -> tuple[int, str]:
    """GiB, or MiB for cards of less (simulated ones)."""
    shares = [share for replica in plan.replicas for share in replica.cards]
    largest = max((share.card.total_bytes for share in shares if share.card.kind != "cpu"), default=GIB)
    return (GIB, "GiB") if largest >= GIB else (2**20, "MiB")


def _replica_lines(number: int, replica: Replica, count: int, unit_bytes: int) -> Iterator[str]:
    if count > 1:
        yield f"replica {number}"
    for share in replica.cards:
        physical = f" [{share.card.physical}]" if share.card.physical else ""
        place = "" if share.card.kind == "cpu" else f"{share.card.index}{physical} "
        name = f"{place}{share.card.name}"[: NAME_WIDTH - 1]
        numbers = (share.weight_bytes, share.kv_bytes, share.activation_bytes, share.reserve_bytes, _free(share))
        cells = _cells([f"{value / unit_bytes:.2f}" for value in numbers])
        yield f"{name:<{NAME_WIDTH}}{cells}{share.load:>7.0%}"
        yield f"  {bar(share)}  {_span(share)}"
    hops = f"{replica.hops} hop{'s' * (replica.hops != 1)}"
    size = f"{replica.token_bytes / 1024:.1f} KiB" if replica.token_bytes >= 1024 else f"{replica.token_bytes} bytes"
    copies = f"{replica.token_copies} copies of {size} in all" if replica.token_copies else "no copies"
    yield f"  {hops}, {copies} between cards for each new token"


def _cells(texts: Sequence[str]) -> str:
    return "".join(f" {text}".rjust(width) for text, width in zip(texts, NUMBER_WIDTHS, strict=True))


def _span(share: CardPlan) -> str:
    first, last = share.blocks[0], share.blocks[-1]
    return first if first == last else f"{first} .. {last}"


def _free(share: CardPlan) -> int:
    return share.capacity_bytes - share.peak_bytes


def bar(share: CardPlan) -> str:
    """One card as a line of marks; what is over its end is marked by `!`."""
    total = share.capacity_bytes + share.reserve_bytes
    parts = (share.weight_bytes, share.kv_bytes, share.activation_bytes, share.reserve_bytes)
    text, done = "", 0
    for value, (_, mark) in zip(parts, KINDS, strict=False):
        done += value
        text += mark * (round(BAR_WIDTH * done / total) - len(text))
    if len(text) > BAR_WIDTH:
        return f"[{text[:BAR_WIDTH]}]{'!' * min(12, len(text) - BAR_WIDTH)}"
    return f"[{text}{'.' * (BAR_WIDTH - len(text))}]"


def _misfit_lines(plan: Plan, changes: Sequence[str]) -> Iterator[str]:
    unit_bytes, unit = _unit(plan)
    yield ""
    for replica in plan.replicas:
        for share in replica.cards:
            if share.load > 1:
                yield (
                    f"does not fit: card {share.card.index} ({share.card.name}) needs "
                    f"{share.peak_bytes / unit_bytes:.1f} {unit} for {_span(share)}, and has "
                    f"{share.capacity_bytes / unit_bytes:.1f} {unit} after the reserve"
                )
    if changes:
        yield "any one of these is enough:" if len(changes) > 1 else "what is left:"
    for change in changes:
        yield f"  - {change}"


def _sample(work: Workload) -> str:
    seen = work.cross_tokens or work.image_tokens
    parts = [
        f"batch {work.batch}", f"prompt of {work.prompt_tokens} tokens",
        f"{seen} image tokens ({work.vision_tokens} patches)",
        f"{work.new_tokens} new tokens", work.quantisation or work.dtype,
    ]  # fmt: skip
    return ", ".join(parts)


def plan_json(
    model: str, data: Sequence[str], work: Workload, plan: Plan, changes: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """The plan for programs; bytes are whole numbers."""
    return {
        "model": model,
        "data": list(data),
        "workload": asdict(work),
        "worst_sample": list(notes),
        "fits": plan.fits,
        "split": plan.split,
        "reason": plan.reason,
        "notes": list(plan.notes),
        "changes_that_would_fit": list(changes),
        "replicas": [_replica_json(replica) for replica in plan.replicas],
        "unused_cards": [card.index for card in plan.unused],
    }


def _replica_json(replica: Replica) -> dict[str, Any]:
    return {
        "hops": replica.hops,
        "copies_per_token": replica.token_copies,
        "bytes_per_token": replica.token_bytes,
        "cards": [_card_json(share) for share in replica.cards],
        "device_map": replica.device_map,
    }


def _card_json(share: CardPlan) -> dict[str, Any]:
    return {
        "index": share.card.index,
        "name": share.card.name,
        "physical": share.card.physical,
        "total_bytes": share.card.total_bytes,
        "free_bytes_before": share.card.free_bytes,
        "blocks": list(share.blocks),
        "weight_bytes": share.weight_bytes,
        "kv_bytes": share.kv_bytes,
        "activation_bytes": share.activation_bytes,
        "reserve_bytes": share.reserve_bytes,
        "free_bytes_after": _free(share),
        "load": round(share.load, 4),
    }
