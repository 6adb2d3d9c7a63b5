"""What is brought from card to card while a model runs: each tensor once, small ones together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

PARCEL_BYTES = 2**20
"""Arguments up to this size each travel as one copy; larger ones alone, so that none lies on a card twice."""
PARCEL_STEP = 16
"""Every tensor of a parcel begins at a multiple of this, as vectorised kernels want it."""


class Carrier:
    """Brings arguments to a card, each at most once between two calls of `forget`.

    Containers of the plain kinds (tuple, list, dict) are looked into; caches of keys and values are not, their layers
    lie on the cards that fill them.
    """

    def __init__(self) -> None:
        # Both hold for a tensor its copies by device, and for a copy what it was made of. The small ones are kept with
        # their keys until the forward ends, which is quick to look up; no large copy outlives what it was made of.
        self._small: dict[tuple[int, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}
        self._copies = WeakTensorKeyDictionary()
        self._origins = WeakTensorKeyDictionary()

    def forget(self) -> None:
        """A new forward: arguments may have been changed in place since."""
        self._small.clear()
        self._copies.clear()
        self._origins.clear()

    def bring(self, value: Any, device: torch.device) -> Any:
        """The same structure with every tensor on the device; the very same if all are there."""
        missing: dict[int, torch.Tensor] = {}
        brought = self._look(value, device, missing)
        if not missing:
            return brought
        tensors = list(missing.values())
        for tensor, copy in zip(tensors, _carry(tensors, device), strict=True):
            self._remember(tensor, copy)
        return self._look(value, device, {})

    def _look(self, value: Any, device: torch.device, missing: dict[int, torch.Tensor]) -> Any:
        """The structure with the copies that there are; tensors without one are noted."""
        if isinstance(value, torch.Tensor):
            if value.device == device:
                return value
            copy = self._known(value, device)
            if copy is None:
                missing[id(value)] = value
            return copy
        kind = type(value)
        if kind is dict:
            items = {key: self._look(item, device, missing) for key, item in value.items()}
            return items if any(items[key] is not item for key, item in value.items()) else value
        if kind is tuple or kind is list:
            there = [self._look(item, device, missing) for item in value]
            return kind(there) if any(new is not old for new, old in zip(there, value, strict=True)) else value
        return value

    def _known(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor | None:
        kept = self._small.get((id(tensor), device))
        if kept is not None:
            return kept[1]
        if tensor.nbytes <= PARCEL_BYTES:
            return None
        origin = self._origin(tensor)
        return origin if origin.device == device else self._copies.get(origin, {}).get(device)

    def _remember(self, tensor: torch.Tensor, copy: torch.Tensor) -> None:
        if tensor.nbytes <= PARCEL_BYTES:
            self._small[id(tensor), copy.device] = (tensor, copy)
            self._small[id(copy), tensor.device] = (copy, tensor)
            return
        origin = self._origin(tensor)
        self._copies.setdefault(origin, {})[copy.device] = copy
        self._origins[copy] = TensorWeakRef(origin)

    def _origin(self, tensor: torch.Tensor) -> torch.Tensor:
        """What this is a copy of, so that a tensor brought back is the one that left; else the tensor itself."""
        reference = self._origins.get(tensor)
        origin = reference() if reference is not None else None
        return tensor if origin is None else origin


def _carry(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Copies on a device, in order; the small ones that lie together travel together."""
    parcels: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        if 0 < tensor.nbytes <= PARCEL_BYTES:
            parcels.setdefault(tensor.device, []).append(place)
    copies: dict[int, torch.Tensor] = {}
    for places in parcels.values():
        if len(places) > 1:
            copies |= zip(places, _parcel([tensors[place] for place in places], device), strict=True)
    return [copies[place] if place in copies else tensor.to(device) for place, tensor in enumerate(tensors)]


def _parcel(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Their bytes one after the other, copied at once, and cut up again there."""
    padding = tensors[0].new_zeros(PARCEL_STEP, dtype=torch.uint8)
    pieces = []
    for tensor in tensors:
        pieces += [tensor.reshape(-1).view(torch.uint8), padding[: -tensor.nbytes % PARCEL_STEP]]
    parts = torch.cat(pieces).to(device).split([piece.numel() for piece in pieces])[::2]
    return [part.view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
