"""Frames out of video files, with PyAV: only those asked for, found by seeking.

A frame is found by its time, number / rate: the one that a player shows then. In videos of a constant rate that is the
frame of this number. Where the rate varies, it is the one at the place of the mean rate (decord, which upstream uses,
counts frames there).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmeval.errors import MissingPackageError, VideoError
from vlmeval.images import file_source, image_size, open_image
from vlmeval.videos import MOST_FRAME_PIXELS, VideoInfo

if TYPE_CHECKING:
    import numpy as np

SEEK_S = 4.0
"""A gap longer than this is jumped over: what lies between would be decoded for nothing."""
LACKING_S = 1.0
"""How much earlier a video may end than its header says. Beyond that it is cut off."""
LISTS_OF_FILES = frozenset({"hls", "dash", "concat", "sdp", "imf", "webm_dash_manifest"})
"""FFmpeg's names for files that only name others, wherever those are: a table's paths must not leave its folder so."""


def probe(path: Path, folder_fps: float) -> VideoInfo:
    """What the header says; where it has no number of frames, duration x rate or, failing that, a count of the packets.

    Raises VideoError.
    """
    if path.is_dir():
        files = _frame_files(path)
        width, height = image_size(file_source(files[0]))
        return VideoInfo(width=width, height=height, frames=len(files), fps=folder_fps)
    with _opened(path) as (container, stream):
        fps = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)
        frames = stream.frames or round(_seconds(container, stream) * fps) or _packets(container, stream)
        width, height = stream.codec_context.width, stream.codec_context.height
    if not frames or min(width, height) < 1 or fps <= 0:
        raise VideoError(
            f"video {path}: {frames} frames of {width} x {height} pixels, {fps:g} a second: nothing to see"
        )
    return VideoInfo(width=width, height=height, frames=frames, fps=fps)


def decoded(path: Path, info: VideoInfo, positions: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames of these numbers, which ascend: each uint8 [height, width, 3], RGB. Raises VideoError."""
    import numpy as np

    if path.is_dir():
        files = _frame_files(path)
        for position in positions:
            # a copy: torch warns of arrays it must not write to
            yield np.array(open_image(file_source(files[position]), MOST_FRAME_PIXELS))
        return
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        reader = _Reader(path, container, stream, info)
        last, array = -1, None
        for position in positions:
            if array is None or position != last:
                frame = reader.at(position)
                array = frame.to_ndarray(format="rgb24", width=info.width, height=info.height)
                last = position
            yield array


class _Reader:
    """Goes forward through a video."""

    def __init__(self, path: Path, container: Any, stream: Any, info: VideoInfo) -> None:
        self._path, self._container, self._stream, self._info = path, container, stream, info
        self._start_s = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
        self._frames = container.decode(stream)
        self._shown: Any = None
        self._ahead: Any = None

    def at(self, position: int) -> Any:
        """The frame shown at position / rate. Positions must not descend."""
        wanted_s = position / self._info.fps
        reached_s = 0.0 if self._shown is None else self._time(self._shown)
        if wanted_s - reached_s > SEEK_S:
            self._seek(wanted_s)
        found = self._forward(wanted_s)
        if found is None:  # the index of the file led past it
            self._seek(0.0)
            found = self._forward(wanted_s) or self._ahead
        if found is None:
            raise VideoError(f"video {self._path}: no frame can be decoded; it is broken or truncated")
        if wanted_s - self._time(found) > max(LACKING_S, 2 / self._info.fps) and self._ahead is None:
            raise VideoError(
                f"video {self._path}: the last frame is at {self._time(found):.2f} s, its header says "
                f"{self._info.seconds:.2f} s; it is broken or truncated"
            )
        return found

    def _seek(self, to_s: float) -> None:
        self._container.seek(
            int((to_s + self._start_s) / self._stream.time_base), stream=self._stream, backward=True, any_frame=False
        )
        self._frames = self._container.decode(self._stream)
        self._shown = self._ahead = None

    def _forward(self, wanted_s: float) -> Any:
        """The last frame that begins no later, half a frame allowed for rounding; None if there is none."""
        latest_s = wanted_s + 0.5 / self._info.fps
        if self._ahead is not None:
            if self._time(self._ahead) > latest_s:
                return self._shown
            self._shown, self._ahead = self._ahead, None
        for frame in self._frames:
            if frame.pts is None:
                continue
            if self._time(frame) > latest_s:
                self._ahead = frame
                break
            self._shown = frame
        return self._shown

    def _time(self, frame: Any) -> float:
        return float(frame.pts * frame.time_base) - self._start_s


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and first video stream. Raises VideoError for whatever PyAV finds wrong with them while it is open."""
    try:
        import av
    except ImportError as error:
        raise MissingPackageError("av", "reading videos") from error
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if LISTS_OF_FILES & {*container.format.name.split(",")}:
                raise VideoError(
                    f"video {path}: the file is a list of other files ({container.format.name}), which are not followed"
                )
            if not container.streams.video:
                raise VideoError(f"video {path}: the file has no video stream")
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        # FFmpegError and its kinds for what cannot be read; the others for sizes and times beyond all bounds.
        told = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise VideoError(f"video {path} is broken, truncated or no video ({told})") from error


def _seconds(container: Any, stream: Any) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else 0.0


def _packets(container: Any, stream: Any) -> int:
    return sum(packet.size > 0 for packet in container.demux(stream))


def _frame_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise VideoError(f"video {folder}: the folder has no JPEG files, which would be its frames")
    return files
