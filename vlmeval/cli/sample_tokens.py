"""A sample as a model would meet it before it is loaded: images and videos cut as its processor would, text bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlmeval.cli.samples_seen import Seen
from vlmeval.errors import UsageError
from vlmeval.images import DEFAULT_MAX_IMAGE_PIXELS
from vlmeval.placement.cutting import Cutting, ImageTokens
from vlmeval.placement.video_cutting import joined, video_cutting
from vlmeval.placement.workload import ImageLimits, PromptTokens, cutting
from vlmeval.types import PromptSize, Task
from vlmeval.videos import Shown, VideoSource
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.prompt_length import PromptLength

Sizes = tuple[tuple[int, int], ...]
DEFAULT_TEXT_TOKENS = 512
DEFAULT_NEW_TOKENS = 512
TURN_TOKENS = 24
"""What a chat template puts around a question and an earlier answer, at most some 12 in the families' own."""
VIDEO_SIZE = (1280, 720)
"""Assumed of videos that are not here."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user says of the worst sample; it is taken in place of what the benchmarks hold.

    `image` is the largest image's width and height; with `images` alone, images are as large as the limits allow.
    """

    image: tuple[int, int] | None = None
    images: int | None = None
    text_tokens: int | None = None

    def __post_init__(self) -> None:
        ImageLimits(images=1 if self.images is None else self.images, size=self.image)
        if self.text_tokens is not None and self.text_tokens < 1:
            raise UsageError(f"text_tokens {self.text_tokens} must be at least 1")

    @property
    def has_images(self) -> bool:
        """Whether the sizes of the benchmarks' images do not matter."""
        return self.image is not None or self.images is not None

    def tokens(self, cut: Cutting, images: int = 1) -> ImageTokens:
        """Of the images that are given or, of what is not, the largest; `images` where their number is not given."""
        count = images if self.images is None else self.images
        found = cut.largest(count) if self.image is None else cut.of([self.image] * count)
        if found is None:
            width, height = self.image or (0, 0)
            raise UsageError(f"an image of {width}x{height} pixels is refused by this model's processor")
        return found


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model before it is loaded, with what its files say, and what the user gave."""

    model: BaseModel
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    lengths: PromptLength
    given: Given

    def cutting(self, task: Task | None) -> Cutting:
        return cutting(self.config, self.model.image_limits(task), self.settings)

    def seen(self, size: PromptSize, cut: Cutting, task: Task) -> Seen | None:
        """A sample as the model would meet it, but for its name; None if it is refused."""
        shown = [self._video(video).shown() for video in size.videos]
        sizes, marks, videos = size.images, 0, ImageTokens()
        if not self.model.takes_video:
            sizes += tuple((video.width, video.height) for video in shown for _ in range(video.frames))
        elif shown:
            rule = video_cutting(self.config, self.model.image_limits(task), self.settings)
            found = rule.of(shown) if rule is not None else None
            if rule is None or found is None:
                return None
            videos, marks = found, rule.mark_tokens(shown)
        return self._with_images(size, sizes, videos, marks, tuple(shown), cut, task)

    def _video(self, video: VideoSource) -> VideoSource:
        if not self.model.takes_video:
            return video
        return replace(video, sampling=self.model.video_sampling(video.sampling))

    def _with_images(
        self, size: PromptSize, sizes: Sizes, videos: ImageTokens, marks: int, shown: tuple[Shown, ...], cut: Cutting,
        task: Task,
    ) -> Seen | None:  # fmt: skip
        given = self.given
        allowed = getattr(self.model, "max_image_pixels", DEFAULT_MAX_IMAGE_PIXELS)
        if given.has_images:
            images: ImageTokens | None = given.tokens(cut, len(sizes))
            sizes = (given.image or (0, 0),) * (len(sizes) if given.images is None else given.images)
        elif sizes:
            images = cut.of(sizes) if all(width * height <= allowed for width, height in sizes) else None
        else:
            images = ImageTokens() if shown else cut.of(sizes)
        if images is None:
            return None
        text = size.text if given.text_tokens is None else None
        around = len(sizes) + (len(shown) if self.model.takes_video else 0)
        earlier = 0 if given.text_tokens else size.earlier_answers * (TURN_TOKENS + new_tokens(self.model, task))
        bound = given.text_tokens or self.lengths.bound(size.text, around) + marks + earlier
        return Seen(
            name=str(size.index),
            sizes=sizes,
            images=joined(images, videos),
            bound=bound,
            text=text,
            videos=shown,
            marks=marks,
            around=around,
            earlier_tokens=earlier,
        )

    def assumed(self, task: Task | None, frames: int = 0) -> PromptTokens:
        """`frames`: of a video of usual size, else one image."""
        text = self.given.text_tokens or DEFAULT_TEXT_TOKENS
        if frames and task is not None and not self.given.has_images:
            shown = Shown(*VIDEO_SIZE, frames, float(frames))
            rule = video_cutting(self.config, self.model.image_limits(task), self.settings)
            if not self.model.takes_video or rule is None:
                found = self.cutting(task).of([VIDEO_SIZE] * frames)
            else:
                found, text = rule.of([shown]), text + rule.mark_tokens([shown])
            if found is not None:
                return PromptTokens(images=found, text_tokens=text)
        return PromptTokens(images=self.given.tokens(self.cutting(task)), text_tokens=text)


def new_tokens(model: BaseModel, task: Task | None) -> int:
    """The most tokens a model answers with: what was asked for, else the family's limit for the task, else its own."""
    generation: Mapping[str, Any] = getattr(model, "generation", {})
    asked: frozenset[str] = getattr(model, "asked_generation", frozenset())
    of_task = getattr(model, "task_max_new_tokens", None)
    by_task = of_task(task) if of_task and task and not asked & {"max_new_tokens", "max_length"} else None
    return int(by_task or generation.get("max_new_tokens") or generation.get("max_length") or DEFAULT_NEW_TOKENS)
