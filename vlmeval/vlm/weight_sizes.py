"""What the registered models weigh, so that `vlmeval list models` can say so without a network.

Billions of parameters are those of the model cards (those of Qwen2-VL-72B and Llama-3.2-11B were counted from the
configuration); bytes are worked out from them, so every size is an approximation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

_BILLIONS: Mapping[str, Mapping[str, float]] = {
    "Qwen/Qwen2-VL-{}-Instruct": {"2B": 2.21, "7B": 8.29, "72B": 73.4},
    "Qwen/Qwen2.5-VL-{}-Instruct": {"3B": 3.75, "7B": 8.29, "32B": 33.5, "72B": 73.4},
    "Qwen/QVQ-{}-Preview": {"72B": 73.4},
    "Qwen/Qwen3-VL-{}": {
        f"{size}-{kind}": billions
        for kind in ("Instruct", "Thinking")
        for size, billions in
        {"2B": 2.13, "4B": 4.44, "8B": 8.77, "32B": 33.4, "30B-A3B": 31.1, "235B-A22B": 236.0}.items()
    },
    "llava-hf/llava-onevision-qwen2-{}-hf": {
        f"{size}-{kind}": billions
        for kind in ("ov", "si")
        for size, billions in {"0.5b": 0.89, "7b": 8.03, "72b": 73.2}.items()
    },
    "meta-llama/Llama-3.2-{}-Vision-Instruct": {"11B": 10.6, "90B": 88.6},
    "OpenGVLab/InternVL2-{}": {
        "1B": 0.94, "2B": 2.21, "4B": 4.15, "8B": 8.08, "8B-MPO": 8.08, "26B": 25.5, "40B": 40.1, "Llama3-76B": 76.3,
    },
    "OpenGVLab/InternVL2_5-{}": {
        f"{size}{kind}": billions
        for kind in ("", "-MPO", "-MPO-hf")
        for size, billions in
        {"1B": 0.94, "2B": 2.21, "4B": 3.71, "8B": 8.08, "26B": 25.5, "38B": 38.4, "78B": 78.4}.items()
    },
    "OpenGVLab/InternVL3-{}": {
        f"{size}{kind}": billions
        for kind in ("", "-hf")
        for size, billions in
        {"1B": 0.94, "2B": 2.09, "8B": 7.94, "9B": 9.14, "14B": 15.1, "38B": 38.4, "78B": 78.4}.items()
    },
    "OpenGVLab/InternVL3_5-{}-HF": {
        "1B": 1.06, "2B": 2.35, "4B": 4.73, "8B": 8.53, "14B": 15.1, "38B": 38.4, "30B-A3B": 30.8, "241B-A28B": 241.0,
    },
}  # fmt: skip
"""Hub id with a gap -> what stands in the gap -> billions of parameters, two bytes each."""

_QUANTISED: Mapping[str, tuple[float, float]] = {
    # Vision tower and embeddings stay at two bytes; a four-bit weight with its scales takes 0.52, an eight-bit 1.02.
    "Qwen/Qwen2-VL-2B-Instruct": (0.90, 1.31),
    "Qwen/Qwen2-VL-7B-Instruct": (1.77, 6.53),
    "Qwen/Qwen2-VL-72B-Instruct": (3.19, 70.2),
    "Qwen/Qwen2.5-VL-3B-Instruct": (0.98, 2.77),
    "Qwen/Qwen2.5-VL-7B-Instruct": (1.77, 6.53),
    "Qwen/Qwen2.5-VL-32B-Instruct": (2.25, 31.2),
    "Qwen/Qwen2.5-VL-72B-Instruct": (3.19, 70.2),
}
"""Billions of parameters left as they are, and quantised."""

_WEIGHT_BYTES = {"-AWQ": 0.52, "-GPTQ-Int4": 0.52, "-GPTQ-Int8": 1.02}


def _approximations() -> Iterator[tuple[str, int]]:
    for pattern, sizes in _BILLIONS.items():
        for gap, billions in sizes.items():
            yield pattern.format(gap), round(billions * 2e9)
    for repo, (kept, quantised) in _QUANTISED.items():
        for suffix, weight_bytes in _WEIGHT_BYTES.items():
            yield repo + suffix, round(kept * 2e9 + quantised * weight_bytes * 1e9)


APPROXIMATE_BYTES: Mapping[str, int] = dict(_approximations())
"""Hub id -> bytes of its weight files, roughly."""


def weight_size(source: str) -> tuple[int | None, bool]:
    """(bytes, exact) of a folder's weight files or, roughly, of a hub id; None where it is not known."""
    folder = Path(source)
    if folder.is_dir():
        return sum(path.stat().st_size for path in folder.glob("*.safetensors")), True
    return APPROXIMATE_BYTES.get(source), False
