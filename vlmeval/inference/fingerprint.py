"""Fingerprints: when an answer that is already there may stand for one that is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmeval.images import image_key
from vlmeval.videos import VideoSource

if TYPE_CHECKING:
    from vlmeval.types import ImageValue, Message, VideoValue


def prompt_fingerprint(message: Sequence[Message]) -> str:
    """Identifies a prompt: its texts, roles and the content of its images and videos, in order."""
    digest = hashlib.sha256()
    for part in message:
        content = ""
        if part["type"] == "text":
            content = part["value"]
        elif part["type"] != "answer":
            content = _content_digest(part["value"])
        digest.update(json.dumps([part["type"], part.get("role", "user"), content], ensure_ascii=True).encode())
    return digest.hexdigest()[:24]


def _content_digest(value: ImageValue | VideoValue) -> str:
    if isinstance(value, VideoSource):
        return value.key
    return value if isinstance(value, str) and "://" in value else image_key(value)


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """Identifies the settings of a run."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`name: old -> new` for every setting that differs."""
    absent = "not set"
    return [
        f"{name}: {before.get(name, absent)} -> {after.get(name, absent)}"
        for name in sorted({*before, *after})
        if _plain(before.get(name, absent)) != _plain(after.get(name, absent))
    ]


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
