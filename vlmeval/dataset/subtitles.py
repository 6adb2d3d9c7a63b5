"""Subtitles in SubRip files (.srt): what is spoken at given times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vlmeval.errors import VideoError

_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
_TAG = re.compile(r"<[^>]*>|\{[^}]*\}")
Line = tuple[float, float, str]
"""Begin and end in seconds, and the text."""


def spoken_at(path: Path, times: Sequence[float]) -> list[str]:
    """The first line that is up at each time, where there is one; one that stays comes again. Raises VideoError."""
    lines = read_srt(path)
    found = (next((text for begin, end, text in lines if begin < at < end), "") for at in times)
    return [text for text in found if text.strip()]


def read_srt(path: Path) -> list[Line]:
    """All lines, in the file's order. Raises VideoError."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise VideoError(f"subtitles {path} cannot be read: {error.strerror}") from error
    found: list[Line] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        times = _TIMES.search(block)
        if times:
            numbers = times.groups()
            spoken = " ".join(_TAG.sub("", block[times.end() :]).split("\n")).strip()
            found.append((_seconds(numbers[:4]), _seconds(numbers[4:]), spoken))
    return found


def _seconds(parts: Sequence[str]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000
