"""Small videos and benchmarks of videos, written by PyAV for tests."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np


def picture(number: int, frames: int, size: tuple[int, int], shift: int = 0) -> np.ndarray:
    """Frame `number` [height, width, 3]: one channel tells the number, a white square moves."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., shift % 3] = number * 240 // max(1, frames - 1)
    left = (number * 5 + 7 * shift) % (width - 12)
    pixels[height // 2 : height // 2 + 12, left : left + 12] = 255
    return pixels


def write_video(
    path: Path,
    *,
    frames: int = 8,
    size: tuple[int, int] = (64, 48),
    fps: int = 4,
    shift: int = 0,
    codec: str = "mpeg4",
    gop: int = 4,
    options: Mapping[str, str] | None = None,
) -> Path:
    """A video of `frames` frames at a constant rate; another `shift` shows something else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(options or {})) as container:
        stream: Any = container.add_stream(codec, rate=fps, options={"g": str(gop)})
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, frames, size, shift), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def number_of(frame: np.ndarray, frames: int, shift: int = 0) -> int:
    """Which frame it is, told by its upper part."""
    level = float(frame[: frame.shape[0] // 3, :, shift % 3].mean())
    return round(level * max(1, frames - 1) / 240)


def write_tsv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def video_mme_row(index: int, video: str, **other: object) -> dict[str, object]:
    """A row as upstream's table has it."""
    return {
        "index": index,
        "video": video,
        "video_path": f"./video/{video}.mp4",
        "duration": ("short", "medium", "long")[index % 3],
        "domain": "Knowledge",
        "candidates": "['A. Red.', 'B. Green.', 'C. Blue.', 'D. White.']",
        "sub_category": "Technology",
        "task_type": "Object Recognition",
        "subtitle_path": f"./subtitle/{video}.srt",
        "question": f"Which colour is the square in question {index}?",
        "answer": "D",
        **other,
    }
