"""What a part of a prompt holds, where a test knows of which type it is."""

from __future__ import annotations

from PIL.Image import Image as PILImage

from vlmeval.images import ImageSource
from vlmeval.types import ImagePart, Message, TextPart
from vlmeval.videos import VideoSource


def text_of(part: Message) -> str:
    assert part["type"] == "text"
    return part["value"]


def name_of(part: Message) -> str:
    """Of an image that comes from a benchmark."""
    assert part["type"] == "image" and isinstance(part["value"], ImageSource)
    return part["value"].name


def video_of(part: Message) -> VideoSource:
    assert part["type"] == "video" and isinstance(part["value"], VideoSource)
    return part["value"]


def part_of(value: str | ImageSource | PILImage) -> Message:
    """A text, else an image."""
    return TextPart(type="text", value=value) if isinstance(value, str) else ImagePart(type="image", value=value)
