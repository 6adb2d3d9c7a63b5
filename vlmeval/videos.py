"""Videos: where they are, which of their frames are shown, and the frames as pictures.

Nothing is written to disk. Of a video only the frames that are shown are made into pictures, and of its file only the
header is read where its size or length is asked for.

A file over 1 MiB is identified by its size and 16 pieces of it, the first and last among them: a benchmark may have
100 GB of videos, and containers keep tables of sizes that no edit leaves as they are.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vlmeval.errors import UsageError, VideoError
from vlmeval.images import ImageSource

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PILImage

    from vlmeval.types import VideoValue

Placing = Literal["between", "segments", "ends", "ends_down"]
"""Where frames by number are taken: "between" the ends at equal steps (upstream's Video-MME, MLVU); from the middle of
equal "segments" (MVBench); "ends" included, at the nearest frame (qwen-vl-utils) or that before (LLaVA-OneVision)."""

MOST_FRAMES = 768
"""Taken at most by rate; further apart in longer videos. qwen-vl-utils' limit."""
MOST_FRAMES_BY_NUMBER = 4096
MOST_FRAME_PIXELS = 2**26
"""A frame of more is refused: 8192 x 8192."""
PIXELS_AT_ONCE = 2**27
"""Of frames that are shown as images, so many pixels are decoded together and kept: 0.4 GB as RGB."""
WHOLE_BYTES, PIECES, PIECE_BYTES = 2**20, 16, 2**16


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video's header says: pixels of a frame, number of frames, frames a second."""

    width: int
    height: int
    frames: int
    fps: float

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames are shown: `nframe` of them or `fps` a second, between `start_s` and `end_s` where those are given.

    By rate there are at least `least` and at most `most_frames`, and a multiple of `multiple`; by number too, unless
    the video has fewer.
    """

    nframe: int = 0
    fps: float = 0.0
    most_frames: int = MOST_FRAMES
    placing: Placing = "between"
    least: int = 1
    multiple: int = 1
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        if (self.nframe > 0) == (self.fps > 0):
            raise UsageError(f"nframe={self.nframe} and fps={self.fps:g}: give one of them, over 0")
        if self.nframe > MOST_FRAMES_BY_NUMBER:
            raise UsageError(f"nframe={self.nframe} is over the limit of {MOST_FRAMES_BY_NUMBER} frames a video")

    def positions(self, info: VideoInfo) -> tuple[int, ...]:
        """The numbers of the frames that are shown, ascending. A frame is taken twice where there are too few."""
        first, there = self.span(info)
        found = self._by_number(there) if self.nframe else self._by_rate(there, info.fps)
        return tuple(first + min(position, there - 1) for position in found)

    def span(self, info: VideoInfo) -> tuple[int, int]:
        """The first frame that may be taken, and how many there are from it."""
        first = 0 if self.start_s is None else min(max(0, round(self.start_s * info.fps)), info.frames - 1)
        last = info.frames - 1 if self.end_s is None else min(round(self.end_s * info.fps), info.frames - 1)
        return first, max(first, last) - first + 1

    def _by_number(self, there: int) -> list[int]:
        if self.placing == "between":
            step = there / (self.nframe + 1)
            return [int(number * step) for number in range(1, self.nframe + 1)]
        if self.placing == "segments":
            wide = (there - 1) / self.nframe
            return [int(wide / 2 + round(wide * number)) for number in range(self.nframe)]
        count = self.nframe if there >= self.nframe else there
        rounded = round(count / self.multiple) if there >= self.nframe else count // self.multiple
        return self._spread(max(1, rounded) * self.multiple, there)

    def _by_rate(self, there: int, video_fps: float) -> list[int]:
        wanted = there / video_fps * self.fps
        if self.placing in ("between", "segments"):
            count = max(1, int(wanted))
            if count > self.most_frames:
                return [int(number * there / self.most_frames) for number in range(self.most_frames)]
            return [int(number * video_fps / self.fps) for number in range(count)]
        most = min(self.most_frames, there)
        count = int(min(max(wanted, self.least), most) // self.multiple) * self.multiple
        return self._spread(max(self.multiple, count), there)

    def _spread(self, count: int, there: int) -> list[int]:
        """So many, the first and the last among them."""
        if count == 1:
            return [0]
        step = (there - 1) / (count - 1)
        inner = [number * step for number in range(count - 1)]
        return [*(int(place) if self.placing == "ends_down" else round(place) for place in inner), there - 1]


class Shown(NamedTuple):
    """Of one video: pixels of a frame as they are in the file, frames shown, and when the last of them is (seconds)."""

    width: int
    height: int
    frames: int
    last_s: float


@dataclass(frozen=True)
class VideoSource:
    """A video in a file, or a folder of JPEG files that are its frames, `folder_fps` a second."""

    path: Path
    sampling: Sampling
    folder_fps: float = 3.0

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return str(self.path)

    @functools.cached_property
    def digest(self) -> str:
        """Identifies the content, or its absence: a missing file fails when it is looked into."""
        try:
            status = self.path.stat()
        except OSError:
            return f"missing:{self.path.name}"
        return _digest(str(self.path), status.st_size, status.st_mtime_ns)

    @property
    def key(self) -> str:
        """Names what is shown: equal ones are decoded once."""
        return f"{self.digest} {self.sampling}"

    def info(self) -> VideoInfo:
        """From the header. Raises VideoError."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise VideoError(f"video {self.path} cannot be read: {error.strerror}") from error
        return _info(str(self.path), status.st_size, status.st_mtime_ns, self.folder_fps)

    def positions(self) -> tuple[int, ...]:
        """The numbers of the frames that are shown. Raises VideoError."""
        return self.sampling.positions(self.info())

    def timestamps(self) -> tuple[float, ...]:
        """When each of them is, in seconds."""
        fps = self.info().fps
        return tuple(position / fps for position in self.positions())

    def shown(self) -> Shown:
        """The size of what is shown. Raises VideoError."""
        info, positions = self.info(), self.positions()
        return Shown(info.width, info.height, len(positions), positions[-1] / info.fps)

    def frames(self, positions: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """The frames at these numbers, those shown for None: each uint8 [height, width, 3], RGB. Raises VideoError."""
        from vlmeval.video_decoding import decoded

        return decoded(self.path, self.info(), self.positions() if positions is None else positions)


DEFAULT_SAMPLING = Sampling(fps=1.0, most_frames=64)
"""Of a video that is named by its path alone."""


def video_source(value: VideoValue) -> VideoSource:
    """The source of a video in a prompt."""
    if isinstance(value, VideoSource):
        return value
    return VideoSource(Path(value.removeprefix("file://")), DEFAULT_SAMPLING)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    """Of a file; of a folder the names and sizes of its files."""
    digest = hashlib.sha256(str(size).encode() if os.path.isfile(path) else b"folder")
    if not os.path.isfile(path):
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            digest.update(f"{entry.name} {entry.stat().st_size}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        for number in range(PIECES):
            file.seek((size - PIECE_BYTES) * number // (PIECES - 1))
            digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _info(path: str, size: int, mtime_ns: int, folder_fps: float) -> VideoInfo:
    from vlmeval.video_decoding import probe

    info = probe(Path(path), folder_fps)
    if info.width * info.height > MOST_FRAME_PIXELS:
        raise VideoError(
            f"video {path}: frames of {info.width} x {info.height} pixels are over the limit of {MOST_FRAME_PIXELS:,}"
        )
    return info


@dataclass(frozen=True)
class FrameSource(ImageSource):
    """One frame of a video as an image. Neighbours are decoded together."""

    video: VideoSource = field(kw_only=True)
    number: int = field(kw_only=True)
    """Which of the frames that are shown, from 0."""

    def size(self) -> tuple[int, int]:
        """Width and height, from the video's header. Raises VideoError."""
        info = self.video.info()
        return info.width, info.height

    def picture(self) -> PILImage:
        """The frame, RGB. Raises VideoError."""
        from PIL import Image

        info = self.video.info()
        at_once = max(1, PIXELS_AT_ONCE // (info.width * info.height))
        frames = _decoded(self.video, self.number // at_once, at_once)
        return Image.fromarray(frames[self.number % at_once])


@functools.lru_cache(maxsize=2)
def _decoded(video: VideoSource, part: int, at_once: int) -> list[np.ndarray]:
    return list(video.frames(video.positions()[part * at_once : (part + 1) * at_once]))


@functools.lru_cache(maxsize=1024)
def frame_images(video: VideoSource) -> tuple[FrameSource, ...]:
    """The frames that are shown as images, in order; the questions on one video share them. Raises VideoError."""
    times = video.timestamps()
    return tuple(
        FrameSource(
            f"{video.key} {number}", f"{video.name} at {at:.2f} s", partial(_png, video, number), 0,
            video=video, number=number,
        )
        for number, at in enumerate(times)
    )  # fmt: skip


def _png(video: VideoSource, number: int) -> bytes:
    import io

    stream = io.BytesIO()
    frame_images(video)[number].picture().save(stream, "PNG")
    return stream.getvalue()
