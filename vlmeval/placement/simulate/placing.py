"""Put a model's parameters and buffers on simulated cards, as loading with a device_map does on real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from vlmeval.errors import ModelError


def place(
    model: nn.Module,
    device_map: Mapping[str, int],
    on_card: Callable[[torch.Tensor, int], torch.Tensor],
) -> None:
    """Replace every tensor of the model, in place, by `on_card(tensor, card)`. Tied tensors of one card stay one."""
    placed: dict[tuple[int, int], torch.Tensor] = {}
    originals = []
    for module_name, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for own_name, tensor in tensors.items():
                if tensor is None:
                    continue
                card = card_of(device_map, f"{module_name}.{own_name}".lstrip("."))
                key = (id(tensor), card)
                if key not in placed:
                    originals.append(tensor)  # or another tensor might get its id
                    placed[key] = _as_was(tensor, on_card(tensor.detach(), card))
                tensors[own_name] = placed[key]  # type: ignore[assignment]


def _as_was(tensor: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(moved, requires_grad=False)
    return moved


def card_of(device_map: Mapping[str, Any], name: str) -> Any:
    """The entry of a device_map that a parameter, buffer or module falls under. Raises ModelError if none does."""
    prefix = name
    while prefix not in device_map:
        if not prefix:
            raise ModelError(f"the device_map says nothing about {name}; its keys begin with {list(device_map)[:4]}")
        prefix = prefix.rpartition(".")[0]
    return device_map[prefix]
