"""Runs a model that lies on several cards: tensors move where the model was cut, and nowhere else.

    dispatch(model, {"model.visual": 0, "model.language_model.layers.0": 0, ...})
    model.generate(**inputs)

accelerate hooks every layer and copies every argument to every one of them. Here a module has a hook only if it lies
on another card than the code that calls it, or runs after one that does. What a hook brings over is remembered for the
rest of the forward, so rotary tables, masks and cross-attention states reach each card once; small arguments travel
together: a hop costs one decoded token two copies, and the logits come back in one.
What the whole model is given is moved to where the component that takes it lives, whichever card it came on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from vlmeval.placement.carrier import Carrier
from vlmeval.placement.detour import HostDetour
from vlmeval.placement.homes import Device, Homes, as_device, border_modules, check_placed
from vlmeval.placement.mismatch import explained
from vlmeval.placement.turns import Turn, twin

WRAPPED = ("forward", "generate", "get_image_features")
PIXELS = "pixel_"
"""How transformers' models name images and their masks; these go straight to the vision tower."""


def dispatch(
    model: nn.Module,
    device_map: Mapping[str, Device],
    *,
    device_type: str | None = None,
    through_host: Collection[tuple[Device, Device]] = frozenset(),
    turn: Turn | None = None,
) -> nn.Module:
    """Make a model run whose tensors already lie as `device_map` says (transformers' form: names to cards).

    Copies from card to card that `through_host` names take the way over host memory while the model's forward or
    generate runs, whoever makes them. With `turn` the model works on a card only when it is its turn there (turns.py).
    Raises PlacementError if the map misses a tensor or a tensor lies elsewhere. A model that was dispatched before, by
    this or by accelerate, is dispatched anew.
    """
    undispatch(model)
    devices = {name: as_device(card, device_type) for name, card in device_map.items()}
    check_placed(model, devices)
    carrier = Carrier()
    homes = Homes(model)
    handles = [
        module.register_forward_pre_hook(functools.partial(_bring, carrier, turn, homes.of[name]), with_kwargs=True)
        for name, module in border_modules(model, homes)
    ]
    entry = homes.of[""]
    model.hf_device_map = dict(device_map)  # type: ignore[assignment]  # transformers asks it before it allots a static cache
    detour = HostDetour([(as_device(a, device_type), as_device(b, device_type)) for a, b in through_host])
    _wrap(model, carrier, detour, turn, devices, entry, homes.vision)
    model._vlmeval_dispatch = handles  # type: ignore[assignment]
    model._vlmeval_arguments = {  # type: ignore[assignment]
        "device_map": dict(device_map), "device_type": device_type, "through_host": through_host,
    }  # fmt: skip
    return model


def undispatch(model: nn.Module) -> None:
    """Take off the hooks of `dispatch` and of accelerate, if there are any. The tensors stay where they are."""
    handles = model.__dict__.pop("_vlmeval_dispatch", None)
    if handles is not None:
        for handle in handles:
            handle.remove()
        for name in (*WRAPPED, "hf_device_map", "_vlmeval_arguments"):
            model.__dict__.pop(name, None)
    if any(hasattr(module, "_hf_hook") for module in model.modules()):
        from accelerate.hooks import remove_hook_from_module

        remove_hook_from_module(model, recurse=True)
        for name in ("to", "cuda", "npu", "xpu"):  # accelerate's, which refuse to move a dispatched model
            model.__dict__.pop(name, None)


def dispatched_twin(model: nn.Module, turn: Turn) -> nn.Module:
    """The weights of a dispatched model under module objects of their own, dispatched for one more batch in flight.

    The model stays as it is; where it is dispatched anew or its blocks move, the twin is of no use any more.
    """
    other = twin(model)
    arguments = other.__dict__.pop("_vlmeval_arguments")
    ours = {handle.id for handle in model.__dict__.get("_vlmeval_dispatch", ())}
    for module in other.modules():
        for hooks in (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs):
            for number in ours & set(hooks):
                del hooks[number]  # type: ignore[attr-defined]
    # What is wrapped is bound to the model.
    for name in (*WRAPPED, "prepare_inputs_for_generation", "hf_device_map", "_vlmeval_dispatch"):
        other.__dict__.pop(name, None)
    return dispatch(other, turn=turn, **arguments)


def _bring(
    carrier: Carrier, turn: Turn | None, home: torch.device, module: nn.Module, args: Any, kwargs: Any
) -> tuple[Any, Any]:
    """The pre-hook of a border module: its arguments, on its card."""
    if turn is not None:
        turn.leave(going_to=home)
    # Tensors given by position are hidden states, new at every layer: not worth remembering.
    moved = tuple(_moved(arg, home) if isinstance(arg, torch.Tensor) else carrier.bring(arg, home) for arg in args)
    named = carrier.bring(kwargs, home)
    if turn is not None:
        turn.enter(home)
    return moved, named


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor if tensor.device == device else tensor.to(device)


def _wrap(
    model: Any,
    carrier: Carrier,
    detour: HostDetour,
    turn: Turn | None,
    devices: Mapping[str, torch.device],
    entry: torch.device,
    vision: torch.device | None,
) -> None:
    """Inputs are moved before `forward`, `generate` and `get_image_features`; a mismatch within is explained."""

    def wrapped(inner: Callable[..., Any], text: torch.device, images: torch.device) -> Callable[..., Any]:
        is_forward = inner == model.forward

        @functools.wraps(inner)
        def run(*args: Any, **kwargs: Any) -> Any:
            carrier.forget()
            try:
                with explained(model, devices), detour.taken():
                    args, kwargs = carrier.bring(args, text), _entered(carrier, kwargs, text, images)
                    if turn is not None and is_forward:
                        turn.enter(text)
                    return inner(*args, **kwargs)
            finally:
                carrier.forget()
                if turn is not None:
                    turn.leave()

        return run

    model.forward = wrapped(model.forward, entry, vision or entry)
    if hasattr(model, "get_image_features"):
        model.get_image_features = wrapped(model.get_image_features, vision or entry, vision or entry)
    if hasattr(model, "generate"):
        # transformers moves what it prepares for each token to the card of the first parameter, one tensor at a time.
        first = next(model.parameters()).device
        model.generate = wrapped(model.generate, first, vision or first)


def _entered(carrier: Carrier, kwargs: Mapping[str, Any], text: torch.device, images: torch.device) -> dict[str, Any]:
    """Arguments of the whole model where the components that take them live."""
    pixels = {name: value for name, value in kwargs.items() if name.startswith(PIXELS)}
    others = {name: value for name, value in kwargs.items() if name not in pixels}
    return {**carrier.bring(pixels, images), **carrier.bring(others, text)}
