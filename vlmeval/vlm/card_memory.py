"""What the cards of a replica hold, as torch's backend for their kind tells it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlmeval.hardware import Card, physical_name, process_memory, visible_names
from vlmeval.placement.layout import Replica
from vlmeval.placement.rebalance import Measured


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a process holds on one card, in bytes, None where that is not known; `card` is its number on this machine,
    "cpu" for resident memory of the process."""

    card: str
    planned_bytes: int | None = None
    now_bytes: int | None = None
    peak_bytes: int | None = None


def held(replica: Replica, batches: Mapping[int | str, int]) -> list[Held]:
    """On each card of a replica, beside its plan: that of the worst prompt, or of `batches` where these take more as
    reckoned. Cheap, and asked from a thread of its own."""
    return [
        _held(share.card, max(share.peak_bytes, batches.get(share.card.place, 0)))
        if share.card.kind != "cpu"
        else _resident()
        for share in replica.cards
    ]


def held_by_process() -> Sequence[Held]:
    """Of a model without a plan: on the cards this process has anything on, else its resident memory."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.accelerator.is_available():
        return [_resident()]
    names = visible_names()
    kind = torch.accelerator.current_accelerator().type
    cards = [
        Card(index=index, kind=kind, name="", total_bytes=0, free_bytes=0, physical=physical_name(index, names))
        for index in range(torch.accelerator.device_count())
    ]
    return [one for one in (_held(card, None) for card in cards) if one.peak_bytes] or [_resident()]


def _held(card: Card, planned_bytes: int | None) -> Held:
    import torch

    module = torch.get_device_module(card.kind)
    name = card.physical or str(card.index)
    try:
        now = module.memory_allocated(card.index) if hasattr(module, "memory_allocated") else None
        peak = module.max_memory_allocated(card.index) if hasattr(module, "max_memory_allocated") else None
    except RuntimeError:
        # The card is lost. The thread that computes on it finds out and says so; who only watches does not know.
        now = peak = None
    return Held(card=name, planned_bytes=planned_bytes, now_bytes=now, peak_bytes=peak)


def _resident() -> Held:
    # Of all the process has, so nothing to hold against what was planned for the blocks it computes on the CPU.
    now, peak = process_memory()
    return Held(card="cpu", now_bytes=now, peak_bytes=peak)


def measured_peaks(replica: Replica) -> dict[int | str, int]:
    """The most bytes torch had allocated on each card since the model was laid out, where torch's backend tells."""
    import torch

    found: dict[int | str, int] = {}
    for card in _cards(replica):
        module = torch.get_device_module(card.kind)
        if hasattr(module, "max_memory_allocated"):
            found[card.place] = int(module.max_memory_allocated(card.index))
    return found


def reset_peaks(replica: Replica) -> None:
    """Count peaks from now on."""
    import torch

    for card in _cards(replica):
        module = torch.get_device_module(card.kind)
        if hasattr(module, "reset_peak_memory_stats"):
            module.reset_peak_memory_stats(card.index)


def measured(replica: Replica) -> dict[int | str, Measured]:
    """Peak and room of each card: what this process holds or keeps for later, and what is free."""
    import torch

    found: dict[int | str, Measured] = {}
    for card in _cards(replica):
        module = torch.get_device_module(card.kind)
        if hasattr(module, "max_memory_allocated") and hasattr(module, "mem_get_info"):
            room = int(module.mem_get_info(card.index)[0]) + int(module.memory_reserved(card.index))
            found[card.place] = Measured(peak_bytes=int(module.max_memory_allocated(card.index)), room_bytes=room)
    return found


def free_bytes(kind: str, index: int) -> int:
    """What a card says it can give us now."""
    import torch

    return int(torch.get_device_module(kind).mem_get_info(index)[0])


def _cards(replica: Replica) -> list[Card]:
    return [share.card for share in replica.cards if share.card.kind != "cpu"]
