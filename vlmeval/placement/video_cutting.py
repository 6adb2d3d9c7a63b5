"""How the families that take videos cut them: the size of each frame, tokens and patches, exactly.

Qwen: the bounds of qwen-vl-utils (0.0.14), which upstream's frames go through: 128 to 768 tokens a pair of frames, and
90 % of 128,000 tokens over all frames. LLaVA-OneVision: a frame is one tile, its tokens pooled by two in both
directions, with one token after the video. Sources: transformers 5.23's processors; tests compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from vlmeval.placement.cutting import (
    QWEN_MOST_RATIO,
    ImageTokens,
    LlavaOnevisionCutting,
    QwenCutting,
    Size,
)
from vlmeval.placement.workload import ImageLimits, cutting
from vlmeval.videos import Shown

QWEN_LEAST_TOKENS, QWEN_MOST_TOKENS, QWEN_ALL_TOKENS = 128, 768, 128_000 * 0.9
TIMESTAMP_TOKENS = 12
"""Qwen3-VL writes `<12.5 seconds>`, a start and an end around each pair of frames: these at most, and the number's."""


class VideoCutting(Protocol):
    """A family's rule with a checkpoint's numbers and the limits of a run."""

    def frame_size(self, shown: Shown, share: float = 1.0) -> Size | None:
        """Width and height of each frame as the model sees it; None if it is refused. `share` is how many of its
        pixels it keeps, less than 1 only where memory has no room."""

    def of(self, videos: Sequence[Shown]) -> ImageTokens | None:
        """What the videos of one prompt become; None if one is refused."""

    def mark_tokens(self, videos: Sequence[Shown]) -> int:
        """At most so many tokens of text stand around and between the frames, which the template does not write."""


@dataclass(frozen=True, kw_only=True)
class QwenVideoCutting:
    """Qwen2-VL, 2.5 and 3. `temporal` frames are one patch; a last one alone stands for two."""

    patch: int
    merge: int
    temporal: int
    least_pixels: int
    most_pixels: int
    timestamps: bool = False

    def frame_size(self, shown: Shown, share: float = 1.0) -> Size | None:
        width, height = shown.width, shown.height
        if max(width, height) > QWEN_MOST_RATIO * min(width, height):
            return None
        unit = self.patch * self.merge
        least = min(self.least_pixels, self.most_pixels)
        fair = QWEN_ALL_TOKENS * unit**2 / shown.frames * self.temporal
        most = min(max(min(QWEN_MOST_TOKENS * unit**2, fair), int(least * 1.05)), self.most_pixels)
        across, down = _units(width, height, unit, least, most)
        if share < 1:
            across, down = _units(width, height, unit, 1, max(unit**2, across * down * unit**2 * share))
        return across * unit, down * unit

    def of(self, videos: Sequence[Shown]) -> ImageTokens | None:
        patches, largest = 0, 0
        for shown in videos:
            size = self.frame_size(shown)
            if size is None:
                return None
            a_pair = size[0] * size[1] // self.patch**2
            patches += math.ceil(shown.frames / self.temporal) * a_pair
            largest = max(largest, a_pair)
        return ImageTokens(
            images=len(videos),
            vision_tokens=patches,
            image_tokens=patches // self.merge**2,
            largest_image_tokens=largest,
            pixel_values=patches * 3 * self.temporal * self.patch**2,
        )

    def mark_tokens(self, videos: Sequence[Shown]) -> int:
        if not self.timestamps:
            return 0
        return sum(
            math.ceil(shown.frames / self.temporal) * (TIMESTAMP_TOKENS + len(f"{shown.last_s:.1f}"))
            for shown in videos
        )


def _units(width: int, height: int, unit: int, least: float, most: float) -> tuple[int, int]:
    """Across and down, of one frame: sides rounded to whole units, their product within limits."""
    across, down = max(1, round(width / unit)), max(1, round(height / unit))
    if across * down * unit**2 > most:
        shrink = math.sqrt(width * height / most)
        return max(1, math.floor(width / shrink / unit)), max(1, math.floor(height / shrink / unit))
    if across * down * unit**2 < least:
        grow = math.sqrt(least / (width * height))
        return math.ceil(width * grow / unit), math.ceil(height * grow / unit)
    return across, down


@dataclass(frozen=True, kw_only=True)
class LlavaOnevisionVideoCutting:
    """LLaVA-OneVision: every frame is squeezed into one tile of `across` x `across` patches."""

    side: int
    across: int

    def frame_size(self, shown: Shown, share: float = 1.0) -> Size:
        return self.side, self.side

    def of(self, videos: Sequence[Shown]) -> ImageTokens:
        frames = sum(shown.frames for shown in videos)
        return ImageTokens(
            images=len(videos),
            vision_tokens=frames * self.across**2,
            image_tokens=frames * math.ceil(self.across / 2) ** 2 + len(videos),
            largest_image_tokens=self.across**2 if videos else 0,
            pixel_values=frames * 3 * self.side**2,
        )

    def mark_tokens(self, videos: Sequence[Shown]) -> int:
        return 0


def video_cutting(
    config: Mapping[str, Any], limits: ImageLimits, settings: Mapping[str, Any] | None = None
) -> VideoCutting | None:
    """The rule for a checkpoint; None for a family that is shown frames as images. Arguments as `cutting`'s."""
    settings = settings or {}
    images = cutting(config, limits, settings)
    model_type = str(config.get("model_type", ""))
    if isinstance(images, LlavaOnevisionCutting):
        return LlavaOnevisionVideoCutting(side=images.side, across=images.across)
    if not isinstance(images, QwenCutting) or not model_type.startswith("qwen"):
        return None
    unit = images.patch * images.merge
    size = (settings.get("video_processor") or {}).get("size") or {}
    longest = int(size.get("longest_edge") or QWEN_MOST_TOKENS * unit**2)
    return QwenVideoCutting(
        patch=images.patch,
        merge=images.merge,
        temporal=images.temporal,
        least_pixels=limits.min_pixels or QWEN_LEAST_TOKENS * unit**2,
        most_pixels=limits.max_pixels or max(longest, unit**2),
        timestamps=model_type.startswith("qwen3"),
    )


def joined(images: ImageTokens, videos: ImageTokens) -> ImageTokens:
    """Images and videos of one prompt."""
    return replace(
        images,
        images=images.images + videos.images,
        vision_tokens=images.vision_tokens + videos.vision_tokens,
        image_tokens=images.image_tokens + videos.image_tokens,
        cross_tokens=images.cross_tokens + videos.cross_tokens,
        largest_image_tokens=max(images.largest_image_tokens, videos.largest_image_tokens),
        pixel_values=images.pixel_values + videos.pixel_values,
        padded_to=max(images.padded_to, videos.padded_to),
    )
