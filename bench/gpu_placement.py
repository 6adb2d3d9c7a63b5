"""Planned against measured peak on a real card, at real sizes with random weights. Needs a GPU.

    python -m bench.gpu_placement --models Qwen2-VL-2B Qwen2-VL-7B             # whole, on the first card
    python -m bench.gpu_placement --models Qwen2-VL-7B --cap 24                # no more of the card than 24 GiB
    python -m bench.gpu_placement --models Qwen2-VL-7B --host 8                # the last blocks on the CPU, both real

One picture of 1120 x 896 and 100 tokens of text; some tokens are written. Prints a row of Markdown a model. Unrun so
far: no card was lent. `--simulate-cards 2x1 --models Qwen2-VL-Tiny` tries the script on cards that are not there.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import torch

from vlmeval.hardware import host_card, parse_cards, visible_cards
from vlmeval.placement.blocks import config_of, derive_profile, meta_model
from vlmeval.placement.device_map import DeviceMap
from vlmeval.placement.dispatch import dispatch
from vlmeval.placement.homes import as_device
from vlmeval.placement.known import known_config
from vlmeval.placement.layout import Layout, lay_over
from vlmeval.placement.simulate.machine import simulated_machine
from vlmeval.placement.simulate.placing import card_of
from vlmeval.placement.simulate.prompts import Question, prompt_inputs
from vlmeval.placement.simulate.trial import DECODED_TOKENS

GIB = 2**30


def materialised(model: Any, device_map: Mapping[str, Any]) -> Any:
    """The meta model with random weights where the map says; buffers are computed anew by their modules."""
    generator = torch.Generator().manual_seed(0)
    tied: dict[int, torch.nn.Parameter] = {}
    for module_name, module in model.named_modules():
        for own_name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in tied:
                device = as_device(card_of(device_map, f"{module_name}.{own_name}".lstrip(".")))
                values = torch.empty(parameter.shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
                tied[id(parameter)] = torch.nn.Parameter(values.to(device), requires_grad=False)
            module._parameters[own_name] = tied[id(parameter)]
        for own_name, buffer in module._buffers.items():
            if buffer is not None:
                device = as_device(card_of(device_map, f"{module_name}.{own_name}".lstrip(".")))
                module._buffers[own_name] = torch.rand(buffer.shape).to(buffer.dtype).to(device)
    return model


def row(name: str, cap_gib: float | None, host_blocks: int) -> str:
    """One model: planned and measured bytes beside each other."""
    known = known_config(name)
    config = config_of(known.config)
    model: Any = meta_model(config, known.class_name).to(torch.bfloat16)
    profile = derive_profile(model)
    inputs, work = prompt_inputs(config, Question())
    cards = visible_cards()[:1]
    if cap_gib:
        torch.cuda.set_per_process_memory_fraction(cap_gib * GIB / cards[0].total_bytes)
    layout = Layout(profile, work, 0)
    device_map: DeviceMap = lay_over(layout, cards)
    for block in profile.blocks[len(profile.blocks) - host_blocks :]:
        device_map |= dict.fromkeys(block.modules, "cpu")
    replica = layout.replica([*cards, host_card()], device_map)
    model = dispatch(materialised(model, device_map), device_map, device_type=cards[0].kind)
    torch.cuda.reset_peak_memory_stats(0)
    pixels = {key: torch.rand(value.shape, dtype=torch.bfloat16) for key, value in inputs.items() if value.is_meta}
    started = time.perf_counter()
    with torch.inference_mode():
        model.generate(**{**inputs, **pixels}, max_new_tokens=DECODED_TOKENS, min_new_tokens=DECODED_TOKENS)
    measured, planned = torch.cuda.max_memory_allocated(0), replica.cards[0].peak_bytes
    reserved = torch.cuda.max_memory_reserved(0) if hasattr(torch.cuda, "max_memory_reserved") else 0
    return (
        f"| {name} | {cards[0].name} | {cap_gib or ''} | {host_blocks} | {planned / GIB:.3f} | {measured / GIB:.3f} | "
        f"{planned / measured - 1:+.2%} | {reserved / GIB:.3f} | {time.perf_counter() - started:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Planned against measured peak on a real card.")
    parser.add_argument("--models", nargs="+", default=["Qwen2-VL-2B", "Qwen2-VL-7B"], help="packaged configs")
    parser.add_argument("--cap", type=float, metavar="GIB", help="of the card, for this process")
    parser.add_argument("--host", type=int, default=0, metavar="N", help="blocks that the CPU computes, from the last")
    parser.add_argument("--simulate-cards", metavar="CARDS")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if asked.simulate_cards:
            stack.enter_context(simulated_machine(parse_cards(asked.simulate_cards)))
        if not visible_cards():
            raise SystemExit("no card is visible here")
        print("| model | card | cap GiB | blocks on the host | planned GiB | measured GiB | off | reserved GiB | s |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name in asked.models:
            print(row(name, asked.cap, asked.host), flush=True)


if __name__ == "__main__":
    main()
