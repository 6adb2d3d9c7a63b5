"""One batch in flight against several on real cards: `python -m bench.pipelined --model Qwen2-VL-72B-Instruct`.

Needs at least two cards; nothing of it has been run on one yet. Splits the model over all visible cards, answers the
same prompts with each number in flight, and prints samples a second, whether all answers are the same, the peak of the
fullest card, and what the timeline had estimated. `--host` needs no card: the time that Python takes for a layer.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vlmeval.config import supported_VLM
from vlmeval.placement.in_flight import speeds_in_flight
from vlmeval.placement.policy import Overrides
from vlmeval.types import Answer, ImagePart, Message, TextPart
from vlmeval.vlm.card_memory import measured_peaks
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel

GIB = 2**30


def prompts(count: int, side: int) -> list[list[list[Message]]]:
    """Batches of one, with noise of slightly different sizes to look at."""
    made = []
    for number in range(count):
        size = (side + 28 * (number % 5), side)
        picture = Image.effect_noise(size, 80).convert("RGB")
        text = f"Picture {number}. Describe what you see, and what you do not see, in as many words as you like."
        message: list[Message] = [ImagePart(type="image", value=picture), TextPart(type="text", value=text)]
        made.append([message])
    return made


def answers(model: TransformersModel, batches: Sequence[Any], count: int) -> tuple[list[Any], float]:
    """What the model says with so many in flight, and seconds."""
    started = time.perf_counter()
    found: list[Any] = []
    for first in range(0, len(batches), count):
        wave = batches[first : first + count]
        found += model.generate_batches(wave) if count > 1 else [model.generate_batch(wave[0])]
    return found, time.perf_counter() - started


def measure(name: str, counts: Sequence[int], samples: int, side: int, new_tokens: int, dtype: str) -> None:
    """Print a row for each number in flight."""
    model = supported_VLM[name](max_new_tokens=new_tokens, min_new_tokens=new_tokens, dtype=dtype)
    if not isinstance(model, TransformersModel):
        raise SystemExit(f"{name} does not run in transformers")
    model.place(Placement(overrides=Overrides(auto_split=True), batches_in_flight=max(counts)))
    model.load()
    replica, profile = model.replica, model.planning_profile()
    if replica is None or profile is None or len(replica.cards) < 2:
        raise SystemExit("this needs two cards that torch can see")
    batches = prompts(samples, side)
    answers(model, batches[:8], 1)  # the first answers are watched, and all is warmed up
    estimated = speeds_in_flight(profile, replica, model.planning_workload(), counts)
    print("| in flight | samples/s | times one | same answers | peak GiB | estimated times one |\n" + "|---" * 6 + "|")
    one: tuple[list[Any], float] | None = None
    for count, estimate in zip(counts, estimated, strict=True):
        model.wave_peaks = {}
        found, seconds = answers(model, batches, count)
        one = one or (found, seconds)
        same = sum(_text(a) == _text(b) for a, b in zip(found, one[0], strict=True))
        peak = max((model.wave_peaks or measured_peaks(replica)).values()) / GIB
        print(
            f"| {count} | {samples / seconds:.3f} | {one[1] / seconds:.2f} | {same} of {samples} | {peak:.1f} | "
            f"{estimate / estimated[0]:.2f} |",
            flush=True,
        )


def _text(outcome: list[Answer] | Exception) -> str:
    return str(outcome) if isinstance(outcome, Exception) else outcome[0].text


def host_time(name: str = "Qwen2-VL-Tiny", new_tokens: int = 64) -> None:
    """CPU time of one more language layer for a decoded token: of a model so small that it is nearly all Python."""
    import torch

    model: Any = supported_VLM[name](dtype="float32", max_new_tokens=new_tokens)
    model.load()
    inputs = {"input_ids": torch.arange(5, 37)[None], "attention_mask": torch.ones(1, 32, dtype=torch.long)}
    seconds = {layers: _token_s(_with_layers(model.model, layers), inputs, new_tokens) for layers in (2, 22)}
    each = (seconds[22] - seconds[2]) / 20
    print(
        f"{type(model.model).__name__}: {each * 1e3:.2f} ms of CPU a layer, {seconds[2] * 1e3 - 2e3 * each:.1f} besides"
    )


def _with_layers(model: Any, layers: int) -> Any:
    config = copy.deepcopy(model.config)
    config.text_config.num_hidden_layers = layers
    config.text_config.layer_types = ["full_attention"] * layers
    return type(model)(config).eval()


def _token_s(model: Any, inputs: dict[str, Any], new_tokens: int) -> float:
    """CPU seconds of a decoded token, the best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        model.generate(**inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False)
        best = min(best, (time.process_time() - started) / new_tokens)
    return best


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Qwen2-VL-7B-Instruct")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4, 8, 12])
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--side", type=int, default=1008, help="of the pictures, in pixels")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--host", action="store_true")
    args = parser.parse_args()
    if args.host:
        host_time()
    else:
        measure(args.model, args.in_flight, args.samples, args.side, args.new_tokens, args.dtype)


if __name__ == "__main__":
    main()
