"""About how long a request will take. An estimate that is only used to order: the longest work is begun first."""

from __future__ import annotations

from collections.abc import Sequence

from vlmeval.conversation import prompts_of
from vlmeval.images import ImageSource
from vlmeval.inference.answering import Request
from vlmeval.types import Message
from vlmeval.videos import VideoSource

CHARS_PER_TOKEN = 4.0
IMAGE_BYTES_PER_TOKEN = 250.0
"""A photo as JPEG takes about 0.3 bytes a pixel, and 28 x 28 pixels are one token of Qwen2-VL."""
UNKNOWN_IMAGE_TOKENS = 1000.0
FRAME_TOKENS = 200.0
LIKELY_ANSWER_TOKENS = 200.0
"""An answer of an earlier turn, which later turns read."""


def cost(request: Request) -> float:
    """About how many tokens its prompts have, without opening their images: every turn reads what was before it."""
    return sum(_cost(prompt) for prompt in prompts_of(request.message))


def _cost(message: Sequence[Message]) -> float:
    total = 1.0
    for part in message:
        if part["type"] == "answer":
            total += LIKELY_ANSWER_TOKENS
            continue
        value = part["value"]
        if part["type"] == "text":
            total += len(part["value"]) / CHARS_PER_TOKEN
        elif isinstance(value, VideoSource):
            total += value.shown().frames * FRAME_TOKENS
        elif isinstance(value, ImageSource) and value.encoded_bytes:
            total += value.encoded_bytes / IMAGE_BYTES_PER_TOKEN
        else:
            total += UNKNOWN_IMAGE_TOKENS
    return total
