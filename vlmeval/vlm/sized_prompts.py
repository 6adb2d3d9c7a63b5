"""How large the prompts of a model of transformers are: from lengths of texts and headers of images, undecoded."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from vlmeval.conversation import is_conversation, prompts_of
from vlmeval.errors import ImageError, VideoError
from vlmeval.images import image_key, image_size
from vlmeval.placement.cutting import Cutting, ImageTokens
from vlmeval.placement.video_cutting import VideoCutting, joined, video_cutting
from vlmeval.placement.workload import ImageLimits, cutting
from vlmeval.types import ImageValue, Message, Task
from vlmeval.videos import VideoSource, video_source
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.multi_card import MultiCardMixin
from vlmeval.vlm.prompt_size import PromptSize

LETTERS_PER_TOKEN, TEMPLATE_TOKENS = 3.0, 24
"""English letters to a token, and what a chat template adds."""


class SizedPrompts(MultiCardMixin, BaseModel):
    """Sizes of prompts, from the checkpoint's config and the settings of its processor."""

    @cached_property
    def _image_sizes(self) -> dict[str, tuple[int, int] | None]:
        return {}

    @cached_property
    def _cuttings(self) -> dict[ImageLimits, Cutting]:
        return {}

    def size_config(self) -> Mapping[str, Any]:
        """The checkpoint's config.json."""
        raise NotImplementedError

    @property
    def most_new_tokens(self) -> int:
        """The longest answer the settings allow."""
        return 512

    def prompt_size(self, message: Sequence[Message], task: Task | None = None) -> PromptSize:
        """From the lengths of the texts and the headers of the images. One that cannot be read counts as the largest
        the settings let through; it fails when its turn comes. A conversation counts by the largest of its turns, each
        with the longest answers to those before it."""
        if not is_conversation(message):
            return self._size_of(message, task)
        sizes = [self._size_of(prompt, task) for prompt in prompts_of(message)]
        return replace(functools.reduce(PromptSize.or_larger, sizes), image_keys=sizes[-1].image_keys)

    def _size_of(self, message: Sequence[Message], task: Task | None) -> PromptSize:
        """Of what the model is given in one call."""
        answers = sum(part["type"] == "answer" for part in message)
        images = [part["value"] for part in message if part["type"] == "image"]
        videos = [video_source(part["value"]) for part in message if part["type"] == "video"]
        text = "".join(part["value"] for part in message if part["type"] == "text")
        keys = [image_key(value) for value in images]
        tokens = self._cut(keys, images, self.image_limits(task)) if images else ImageTokens()
        marks = 0
        if videos:
            tokens, marks = self._with_videos(tokens, videos, task)
            keys += [video.key for video in videos]
        return PromptSize(
            text_tokens=TEMPLATE_TOKENS
            + _text_tokens(text)
            + marks
            + answers * (TEMPLATE_TOKENS + self.most_new_tokens),
            images=tokens,
            image_keys=tuple(keys) if all(keys) else (),
        )

    def video_cutting(self, task: Task | None) -> VideoCutting | None:
        """How the frames of videos are cut; None for a family that takes no videos."""
        return video_cutting(self.size_config(), self.image_limits(task), self.image_settings())

    def _with_videos(
        self, images: ImageTokens, videos: Sequence[VideoSource], task: Task | None
    ) -> tuple[ImageTokens, int]:
        """With the videos of the prompt, and the tokens written around them. One that cannot be read fails later."""
        cut = self.video_cutting(task)
        try:
            shown = [video.shown() for video in videos]
        except VideoError:
            return images, 0
        found = cut.of(shown) if cut is not None else None
        return (images, 0) if cut is None or found is None else (joined(images, found), cut.mark_tokens(shown))

    def _cut(self, keys: Sequence[str], images: Sequence[ImageValue], limits: ImageLimits) -> ImageTokens:
        if limits not in self._cuttings:
            self._cuttings[limits] = cutting(self.size_config(), limits, self.image_settings())
        cut = self._cuttings[limits]
        sizes = [self._image_size(key, value) for key, value in zip(keys, images, strict=True)]
        found = None if None in sizes else cut.of([size for size in sizes if size is not None])
        return cut.largest(len(images)) if found is None else found

    def _image_size(self, key: str, value: ImageValue) -> tuple[int, int] | None:
        """Circular copies have one header, which is read once."""
        if not key:
            return _size(value)
        if key not in self._image_sizes:
            self._image_sizes[key] = _size(value)
        return self._image_sizes[key]

    def image_settings(self) -> Mapping[str, Any]:
        """The settings of the checkpoint's image processor."""
        return {}


def _size(value: ImageValue) -> tuple[int, int] | None:
    try:
        return image_size(value)
    except ImageError:
        return None


def _text_tokens(text: str) -> int:
    """A little more than a tokenizer makes of it: one for three letters of English, one for each of other scripts."""
    others = 0 if text.isascii() else sum(not letter.isascii() for letter in text)
    return others + math.ceil((len(text) - others) / LETTERS_PER_TOKEN)
