"""The worst sample of a benchmark, as the families' processors would cut it: how many tokens, tiles and patches.

Where nothing is known of the images, the largest the settings let through is meant: Qwen's `max_pixels`, LLaVA-
OneVision's nine tiles' worth, Llama's four tiles, InternVL's tile limit. A size given ("the largest image is 1280x960")
is cut as the processor would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmeval.errors import UsageError

QWEN_MOST_PIXELS: Mapping[str, int] = {
    "qwen2_vl": 16384 * 28 * 28, "qwen2_5_vl": 16384 * 28 * 28, "qwen3_vl": 16384 * 32 * 32,
    "qwen3_vl_moe": 16384 * 32 * 32,
}  # fmt: skip
"""The checkpoints' own limits, where none is given."""
LLAVA_TILES, LLAVA_GRID, LLAVA_SIDE = 9, 6, 384
"""anyres_max_9: an image is cut into at most 6 x 6 tiles of 384 pixels, and shrunk to about nine tiles' tokens."""
MLLAMA_STATES_PER_TILE, MLLAMA_PADDED = 1601, 1608
OTHER_TILES = 5
"""Assumed for an architecture nothing is known of."""


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What is known of the images of one prompt. `size` is that of the largest, width and height in pixels."""

    images: int = 1
    size: tuple[int, int] | None = None
    max_pixels: int | None = None
    min_pixels: int | None = None
    max_tiles: int = 6

    def __post_init__(self) -> None:
        if self.images < 0:
            raise UsageError(f"{self.images} images a prompt cannot be planned for")
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"an image of {self.size[0]}x{self.size[1]} pixels cannot be planned for")


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """All images of one prompt. See `Workload` for the names; `assumed` says what was not known."""

    vision_tokens: int = 0
    image_tokens: int = 0
    cross_tokens: int = 0
    largest_image_tokens: int = 0
    pixel_values: int = 0
    assumed: str = ""


def image_tokens(config: Mapping[str, Any], limits: ImageLimits) -> ImageTokens:
    """What the images of the worst prompt become, by the config's model_type."""
    if not limits.images:
        return ImageTokens()
    model_type = str(config.get("model_type", ""))
    vision = _section(config, "vision_config")
    if model_type in QWEN_MOST_PIXELS:
        return _qwen(model_type, vision, limits)
    if model_type == "llava_onevision":
        return _llava_onevision(vision, limits)
    if model_type == "mllama":
        return _mllama(vision, limits)
    if model_type in ("internvl", "internvl_chat"):
        return _internvl(config, vision, limits)
    return _other(config, vision, limits)


def _qwen(model_type: str, vision: Mapping[str, Any], limits: ImageLimits) -> ImageTokens:
    patch = int(vision.get("patch_size", 16 if model_type.startswith("qwen3") else 14))
    merge = int(vision.get("spatial_merge_size", 2))
    unit = patch * merge
    most = limits.max_pixels or QWEN_MOST_PIXELS[model_type]
    if limits.size is None:
        units = max(1, most // unit**2)
    else:
        width, height = limits.size
        scale = min(1.0, math.sqrt(most / (width * height)))
        if limits.min_pixels and width * height < limits.min_pixels:
            scale = math.sqrt(limits.min_pixels / (width * height))
        units = max(1, round(width * scale / unit)) * max(1, round(height * scale / unit))
    patches = units * merge**2
    channels = 3 * int(vision.get("temporal_patch_size", 2)) * patch**2
    return ImageTokens(
        vision_tokens=patches * limits.images,
        image_tokens=units * limits.images,
        largest_image_tokens=patches,
        pixel_values=patches * channels * limits.images,
    )


def _llava_onevision(vision: Mapping[str, Any], limits: ImageLimits) -> ImageTokens:
    side = int(vision.get("image_size", LLAVA_SIDE))
    across = side // int(vision.get("patch_size", 14))
    tile = across**2
    if limits.images > 1:
        # Of several images each is one tile.
        tiles, tokens = limits.images, limits.images * (tile + 1)
    else:
        wide, high = (LLAVA_GRID, LLAVA_GRID) if limits.size is None else _grid(limits.size, side)
        tiles = wide * high + 1
        shown = min(wide * high, math.ceil(LLAVA_TILES * 1.21))
        tokens = tile + shown * tile + math.ceil(math.sqrt(shown)) * across
    return ImageTokens(
        vision_tokens=tiles * tile,
        image_tokens=tokens,
        largest_image_tokens=tile,
        pixel_values=tiles * 3 * side**2,
    )


def _grid(size: tuple[int, int], side: int) -> tuple[int, int]:
    wide, high = (min(LLAVA_GRID, max(1, math.ceil(length / side))) for length in size)
    return wide, high


def _mllama(vision: Mapping[str, Any], limits: ImageLimits) -> ImageTokens:
    tiles, side = int(vision.get("max_num_tiles", 4)), int(vision.get("image_size", 560))
    return ImageTokens(
        vision_tokens=limits.images * tiles * MLLAMA_PADDED,
        image_tokens=limits.images,
        cross_tokens=limits.images * tiles * MLLAMA_STATES_PER_TILE,
        largest_image_tokens=tiles * MLLAMA_PADDED,
        pixel_values=limits.images * tiles * 3 * side**2,
    )


def _internvl(config: Mapping[str, Any], vision: Mapping[str, Any], limits: ImageLimits) -> ImageTokens:
    side, patch = _number(vision.get("image_size", 448)), _number(vision.get("patch_size", 14))
    tiles = max(1, limits.max_tiles)
    if limits.size is not None:
        tiles = min(tiles, max(1, math.ceil(limits.size[0] / side) * math.ceil(limits.size[1] / side)))
    # The whole image follows its tiles if there are two.
    total = (tiles + 1 if tiles > 1 else 1) * limits.images
    per_tile = (side // patch) ** 2
    shown = round(per_tile * float(config.get("downsample_ratio", 0.5)) ** 2)
    return ImageTokens(
        vision_tokens=total * (per_tile + 1),
        image_tokens=total * shown,
        largest_image_tokens=per_tile + 1,
        pixel_values=total * 3 * side**2,
    )


def _other(config: Mapping[str, Any], vision: Mapping[str, Any], limits: ImageLimits) -> ImageTokens:
    side, patch = _number(vision.get("image_size", 448)), _number(vision.get("patch_size", 14))
    per_tile = max(1, side // max(1, patch)) ** 2
    shown = int(config.get("image_seq_length") or config.get("mm_tokens_per_image") or per_tile)
    total = OTHER_TILES * limits.images
    return ImageTokens(
        vision_tokens=total * per_tile,
        image_tokens=total * min(shown, per_tile),
        largest_image_tokens=per_tile,
        pixel_values=total * 3 * side**2,
        assumed=f"{OTHER_TILES} tiles of {side} pixels an image; how {config.get('model_type')!r} cuts is not known",
    )


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> int:
    """Some configs write a side as [448, 448]."""
    return int(value[0] if isinstance(value, (list, tuple)) else value)
