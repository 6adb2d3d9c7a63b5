"""Pieces of prompts that several families share."""

from __future__ import annotations

import re

from vlmeval.types import ImagePart, Message, Sample, TextPart, VideoPart

CHINESE_LETTER_ONLY = "请直接回答选项字母。"
_CHINESE = re.compile("[\u4e00-\u9fff]")


def has_chinese(text: str) -> bool:
    """Whether the text has a character of the CJK block U+4E00-9FFF."""
    return _CHINESE.search(text) is not None


def option_lines(sample: Sample) -> str:
    """`A. text` and so on, a line each."""
    return "".join(f"{label}. {text}\n" for label, text in sample.options.items())


def choice_text(sample: Sample) -> str:
    """Hint, question and options as the benchmark words them, without the closing sentence."""
    hint = f"Hint: {sample.hint}\n" if sample.hint else ""
    options = "Options:\n" + option_lines(sample) if sample.options else ""
    return f"{hint}Question: {sample.question}\n{options}"


def with_images(sample: Sample, text: str) -> list[Message]:
    """The sample's images and videos in order, then the text."""
    images = [ImagePart(type="image", value=image) for image in sample.images]
    videos = [VideoPart(type="video", value=video) for video in sample.videos]
    return [*images, *videos, TextPart(type="text", value=text)]
