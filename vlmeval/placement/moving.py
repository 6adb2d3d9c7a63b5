"""Moves blocks of a loaded model from card to card, in place: nothing is read from the checkpoint again.

    now = move_blocks(model, moves, device_map, free_bytes)    # the model is not dispatched any more
    dispatch(model, now.device_map)

One tensor after the other is copied and its source let go, so that a card never holds more than before and what has
arrived. Tied tensors are one tensor, and stay one. What a module keeps besides parameters and buffers moves with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vlmeval.errors import PlacementError
from vlmeval.placement.detour import HostDetour
from vlmeval.placement.device_map import DeviceMap
from vlmeval.placement.dispatch import undispatch
from vlmeval.placement.homes import Device, as_device, held_tensors
from vlmeval.placement.rebalance import Move, Place, ordered


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Where the model lies now, the steps taken, and why it went no further ("": all arrived)."""

    device_map: DeviceMap
    steps: tuple[Move, ...]
    stopped: str = ""


def move_blocks(
    model: nn.Module,
    moves: Sequence[Move],
    device_map: Mapping[str, Place],
    free_bytes: Callable[[Place], int | None],
    *,
    device_type: str | None = None,
    through_host: Collection[tuple[Device, Device]] = frozenset(),
) -> Moved:
    """Take the hooks of `dispatch` off and move the blocks; `device_map` says where everything lies now.

    `free_bytes` tells what is free on a card now, None where nothing limits it. A card that turns out to be full stops
    the moving; every block then lies whole on one card all the same. Raises PlacementError, before anything has moved,
    for weights that do not fit or tensors no block has.
    """
    check_movable(model, moves, device_map)
    free = {place: free_bytes(place) for move in moves for place in (move.source, move.target) if place != "cpu"}
    steps = ordered(moves, {place: left for place, left in free.items() if left is not None})
    undispatch(model)
    now = dict(device_map)
    detour = HostDetour([(as_device(a, device_type), as_device(b, device_type)) for a, b in through_host])
    with detour.taken(), torch.no_grad():
        for number, step in enumerate(steps):
            place, stopped = _carried(model, step, device_type)
            now |= dict.fromkeys(step.modules, place)
            if stopped:
                return Moved(device_map=now, steps=steps[:number], stopped=stopped)
    return Moved(device_map=now, steps=steps)


def check_movable(model: nn.Module, moves: Sequence[Move], device_map: Mapping[str, Place]) -> None:
    """Raise PlacementError for a tensor that no module of the map stands for, or one of a type of its own.

    Quantisers keep pointers and states beside their tensors, which would stay behind.
    """
    moving = [module for move in moves for module in move.modules]
    for name, own, own_name in held_tensors(model):
        if not any(_is_under(name, module) for module in device_map):
            raise PlacementError(f"the plan says nothing about {name}, so blocks of this model cannot be moved")
        kind, plain = type(own[own_name]), type(own[own_name].data)
        if kind not in (nn.Parameter, plain) and any(_is_under(name, module) for module in moving):
            raise PlacementError(f"{name} is a {kind.__name__}, which cannot be moved in place")


def _carried(model: nn.Module, step: Move, device_type: str | None) -> tuple[Place, str]:
    """Move one block. Returns where it is then, and why it is not where it should be: it goes back if its target is
    full, or to the host if its source is full by now too."""
    stopped = ""
    for place in (step.target, step.source, "cpu"):
        try:
            _carry(model, step.modules, as_device(place, device_type))
        except torch.OutOfMemoryError as error:
            stopped = stopped or f"{step}: {str(error).splitlines()[0]}"
        else:
            break
        _let_go(as_device(place, device_type))
    _let_go(as_device(step.source, device_type))
    return place, stopped


def _carry(model: nn.Module, modules: Collection[str], device: torch.device) -> None:
    """Every tensor under these names, on the device. A tensor of several names is copied once and stays one."""
    holders: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for name, own, own_name in held_tensors(model, attributes=True):
        if any(_is_under(name, module) for module in modules):
            holders.setdefault(id(own[own_name]), []).append((own, own_name))
    for places in holders.values():
        own, own_name = places[0]
        moved = _copied(own[own_name], device)
        for own, own_name in places:
            own[own_name] = moved


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if tensor.device == device:
        return tensor
    moved = tensor.detach().to(device)
    return nn.Parameter(moved, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved


def _is_under(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(module + ".")


def _let_go(device: torch.device) -> None:
    """What was freed on a card goes back to it, where others may need it."""
    if device.type not in ("cpu", "meta"):
        torch.get_device_module(device.type).empty_cache()
