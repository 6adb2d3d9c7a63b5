"""Videos as the processors of families that take them get them: frames of the size the model sees, and when they are.

A video is decoded and shrunk frame by frame, so that it never lies in memory at its full size, and is kept for the next
question on it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmeval.placement.cutting import Size
from vlmeval.videos import VideoSource

if TYPE_CHECKING:
    import torch

KEPT_BYTES = 512 * 2**20
"""Of frames on the host. The questions on one video lie next to each other."""


@dataclass(frozen=True, kw_only=True)
class ReadyVideo:
    """`frames` uint8 [frames, 3, height, width]; `positions` their numbers among the `total` frames of the video, or of
    the part of it that is asked about, which has `fps` a second."""

    frames: torch.Tensor
    positions: tuple[int, ...]
    fps: float
    total: int

    @property
    def metadata(self) -> dict[str, Any]:
        """As transformers' VideoMetadata has it."""
        return {
            "total_num_frames": self.total,
            "fps": self.fps,
            "frames_indices": list(self.positions),
            "duration": self.total / self.fps,
        }


def ready_video(source: VideoSource, size: Size) -> ReadyVideo:
    """The frames at a width and height, resized as qwen-vl-utils and transformers' processors do. Raises VideoError."""
    import torch
    from torchvision.transforms.v2 import functional

    width, height = size
    info, positions = source.info(), source.positions()
    frames = torch.empty((len(positions), 3, height, width), dtype=torch.uint8)
    for number, array in enumerate(source.frames()):
        frame = torch.from_numpy(array).permute(2, 0, 1)
        resized = functional.resize(
            frame, [height, width], interpolation=functional.InterpolationMode.BICUBIC, antialias=True
        )
        frames[number] = resized
    first, total = source.sampling.span(info)
    return ReadyVideo(
        frames=frames, positions=tuple(position - first for position in positions), fps=info.fps, total=total
    )


class VideoStore:
    """Videos by content and size, at most so many bytes, the least recently used thrown out first. Safe for the thread
    that prepares ahead."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self.most_bytes = most_bytes
        self.used = 0
        self.decoded = 0
        self._kept: OrderedDict[tuple[str, Size], ReadyVideo] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, source: VideoSource, size: Size, make: Callable[[VideoSource, Size], ReadyVideo]) -> ReadyVideo:
        """The video at this size. Raises VideoError."""
        key = (source.key, size)
        with self._lock:
            self.used += 1
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make(source, size)
        with self._lock:
            self.decoded += 1
            self._kept[key] = made
            while len(self._kept) > 1 and sum(video.frames.nbytes for video in self._kept.values()) > self.most_bytes:
                self._kept.popitem(last=False)
        return made


def processor_arguments(videos: Sequence[ReadyVideo]) -> dict[str, Any]:
    """What a processor is given for the videos of a batch, in order: they are sampled and resized already."""
    if not videos:
        return {}
    return {
        "videos": [video.frames for video in videos],
        "videos_kwargs": {
            "video_metadata": [video.metadata for video in videos],
            "do_sample_frames": False,
            "do_resize": False,
        },
    }
