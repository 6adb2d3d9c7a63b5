"""Where the parts of a dispatched model live, and at which of its modules tensors have to move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from vlmeval.errors import PlacementError

Device = int | str | torch.device


def as_device(card: Device, device_type: str | None = None) -> torch.device:
    """A card's number, or torch's name of a device, as a device. Numbers count the machine's accelerators."""
    if isinstance(card, int):
        accelerator = torch.accelerator.current_accelerator() if device_type is None else None
        return torch.device(device_type or (accelerator.type if accelerator else "cuda"), card)
    if card == "disk":
        raise PlacementError(
            'the device_map puts a part on "disk"; this kit runs models from cards and host memory only'
        )
    return torch.device(card)


def check_placed(model: nn.Module, devices: Mapping[str, torch.device]) -> None:
    """Every parameter and buffer must be named by the map, itself or a module above it, and lie where it says."""
    unmapped, strays = [], []
    for name, tensor in _named_tensors(model):
        wanted = _mapped(devices, name)
        if wanted is None:
            unmapped.append(name)
        elif tensor.device != wanted:
            strays.append(f"{name} on {tensor.device} instead of {wanted}")
    if unmapped:
        raise PlacementError(f"the device_map says nothing about {_some(unmapped)}")
    if strays:
        raise PlacementError(f"the model does not lie as its device_map says: {_some(strays)}")


def border_modules(model: nn.Module, homes: Homes) -> Iterator[tuple[str, nn.Module]]:
    """The modules before which tensors may have to move, by name, in the order in which they are registered."""
    if len(homes.span.get("", ())) > 1:
        yield from _borders(model, "", homes, homes.of[""], {homes.of[""]})


def _borders(
    parent: nn.Module, parent_name: str, homes: Homes, calling: torch.device, seen: set[torch.device]
) -> Iterator[tuple[str, nn.Module]]:
    """`calling` is where the code lives that calls the children, `seen` where the modules before one of them lie."""
    for own_name, child in parent.named_children():
        name = f"{parent_name}.{own_name}" if parent_name else own_name
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):  # runs nothing itself: its children are called from above
            yield from _borders(child, name, homes, calling, seen)
        elif name in homes.of:  # others hold no tensor: they compute wherever their arguments are
            home = homes.of[name]
            if home != calling or seen != {home}:
                yield name, child
            seen |= homes.span[name]
            if len(homes.span[name]) > 1:  # else all within is on one card
                yield from _borders(child, name, homes, home, {home})


class Homes:
    """Where modules live: `of` where a module's code computes, `span` all devices that hold a part of it.

    A module computes on the card of the embeddings if it holds them, else on that of its first tensor.
    """

    def __init__(self, model: Any) -> None:
        self.of: dict[str, torch.device] = {}
        self.span: dict[str, set[torch.device]] = {}
        for name, tensor in _named_tensors(model):
            for above in _prefixes(name):
                self.of.setdefault(above, tensor.device)
                self.span.setdefault(above, set()).add(tensor.device)
        names = {module: name for name, module in model.named_modules()}
        embeddings = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
        if embeddings is not None and names.get(embeddings) in self.of:
            home = self.of[names[embeddings]]
            self.of |= dict.fromkeys(_prefixes(names[embeddings]), home)
        encoder = model.get_encoder(modality="image") if hasattr(model, "get_encoder") else None
        self.vision = self.of.get(names[encoder]) if encoder in names else None


def _prefixes(name: str) -> list[str]:
    """ "a.b.c" -> "a.b", "a" and "": the modules that hold something of this name."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]


def held_tensors(model: nn.Module, *, attributes: bool = False) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every parameter and buffer in the order of the modules, tied ones under each of their names: its name, the dict
    that holds it, and its key there. With `attributes` also tensors that a module keeps as neither."""
    for module_name, module in model.named_modules(remove_duplicate=False):
        held: list[dict[str, Any]] = [module._parameters, module._buffers]
        for own in [*held, module.__dict__] if attributes else held:
            for key, value in own.items():
                if isinstance(value, torch.Tensor):
                    yield f"{module_name}.{key}" if module_name else key, own, key


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, own[key]) for name, own, key in held_tensors(model))


def _mapped(devices: Mapping[str, torch.device], name: str) -> torch.device | None:
    return next((devices[above] for above in (name, *_prefixes(name)) if above in devices), None)


def _some(items: list[str], limit: int = 3) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
