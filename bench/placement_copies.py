"""Copies between cards, ours against accelerate's, on simulated cards: `python -m bench.placement_copies` (no GPU).

`balanced`: accelerate's hooks on the map of transformers' device_map="balanced". `even`: the model's parts in the order
in which they run, cut to even weights; once with accelerate's hooks, once with ours. Full-size models see one picture
and 100 tokens of text; the tiny ones one picture of ShapesBench. Prints a table in Markdown, a row as it is measured.
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from accelerate import dispatch_model
from transformers.integrations.accelerate import _get_device_map

from tests.placement import full_size_models, tiny_models
from vlmeval.placement.dispatch import dispatch
from vlmeval.placement.simulate.ledger import GIB
from vlmeval.placement.simulate.trial import Trial, try_out

FULL_SIZE: Mapping[str, tuple[int, int]] = {
    "Qwen2-VL-7B": (2, 24),
    "InternVL2-26B": (4, 24),
    "Llama-3.2-90B-Vision": (8, 24),
    "Qwen2-VL-72B": (8, 24),
}
"""Model -> cards, and GiB of one."""
USABLE = 0.6
"""GiB of a card taken by the CUDA context and the like."""
TINY_CARDS = 3
Dispatcher = Callable[[Any, Mapping[str, int]], object]


def accelerate_hooks(model: Any, device_map: Mapping[str, int]) -> None:
    """What from_pretrained does with a device_map."""
    dispatch_model(model, dict(device_map), skip_keys=list(model._skip_keys_device_placement) or None)


def even_map(model: Any, cards: int) -> dict[str, int]:
    """Parts in the order in which they run, cut so that every card holds about as many bytes."""
    parts = tiny_models.parts(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    sizes = [sum(t.nbytes for n, t in tensors.items() if any(f"{n}.".startswith(f"{k}.") for k in p)) for p in parts]
    before = [0, *itertools.accumulate(sizes)]
    middles = [(start + size / 2) / before[-1] for start, size in zip(before, sizes, strict=False)]
    return {name: int(place * cards) for place, names in zip(middles, parts, strict=True) for name in names}


def balanced_map(model: Any, cards: int, card_bytes: int) -> dict[str, int]:
    """The map that transformers makes for "balanced"."""
    made: dict[str, int] = _get_device_map(model, "balanced", dict.fromkeys(range(cards), card_bytes), None)
    return made


def row(name: str, cards: str, kind: str, hops: int, trial: Trial, seconds: float) -> str:
    """One row of the table."""
    prompt = f"{trial.prompt_copies} | {trial.prompt_copied_bytes / 2**20:.1f}"
    return f"| {name} | {cards} | {kind} | {hops} | {trial.token_copies} | {prompt} | {seconds:.0f} |"


def measure(
    name: str, build: Callable[[], Any], inputs: Callable[[Any], dict[str, torch.Tensor]], cards: int, card_bytes: int
) -> None:
    """Print the three rows of a model."""
    plain = build()
    even, balanced = even_map(plain, cards), balanced_map(build(), cards, card_bytes)
    runs: list[tuple[str, dict[str, int], Dispatcher]] = [
        ("accelerate, balanced", balanced, accelerate_hooks),
        ("accelerate, even", even, accelerate_hooks),
        ("ours, even", even, dispatch),
    ]
    for kind, device_map, dispatcher in runs:
        started = time.process_time()
        try:
            trial = try_out(build(), device_map, inputs(plain), dispatcher)
        except RuntimeError as error:
            print(f"| {name} | {cards} | {kind} | fails: {str(error).splitlines()[0]} |||||", flush=True)
            continue
        hops = len(set(device_map.values())) - 1
        size = f"{cards} x {card_bytes / GIB + USABLE:.0f}" if card_bytes >= GIB else str(cards)
        print(row(name, size, kind, hops, trial, time.process_time() - started), flush=True)


def tiny(family: str) -> None:
    """The same for a tiny model, on cards so small that it must be split."""
    model = tiny_models.loaded(family).model
    weight_bytes = sum(tensor.nbytes for tensor in model.parameters())

    def on_meta() -> Any:
        return copy.deepcopy(model).to("meta")

    real = tiny_models.inputs(family)
    measure(f"tiny {family}", on_meta, lambda _: real, TINY_CARDS, int(weight_bytes * 0.6))


def main(names: list[str]) -> None:
    """Measure the named models, all by default."""
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print("| model | cards (GiB) | hooks, map | hops | copies a token | copies a prompt | MiB | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for family in tiny_models.FAMILIES:
        if not names or family in names:
            tiny(family)
    for name, (cards, gib) in FULL_SIZE.items():
        if not names or name in names:
            usable = int((gib - USABLE) * GIB)
            measure(name, functools.partial(full_size_models.build, name), full_size_models.inputs, cards, usable)


if __name__ == "__main__":
    main(sys.argv[1:])
