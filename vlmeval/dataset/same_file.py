"""Which known benchmarks a file is the table of, told by what it is called or by its MD5.

A benchmark's name and its file's often differ (`Video-MME.tsv` is shown as `Video-MME_8frame`, `hr_bench_4k.tsv` is
`HRBench4K`), and one file may serve several benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from vlmeval.dataset.known import DatasetSpec, supported_datasets
from vlmeval.dataset.video import VideoSettings

BY_NAME = "its file is called like a known benchmark's"
BY_CONTENT = "its MD5 is that of a known benchmark's file"


def benchmarks_of_stem(stem: str) -> tuple[DatasetSpec, ...]:
    """The known benchmarks whose published file has this name without `.tsv`, in the table's order."""
    return tuple(spec for spec in supported_datasets.values() if stem in _stems(spec))


def benchmarks_of_content(md5: str) -> tuple[DatasetSpec, ...]:
    """The known benchmarks whose published file has this MD5, in the table's order."""
    return tuple(spec for spec in supported_datasets.values() if spec.md5 and spec.md5 == md5)


def taken_as(name: str, why: str, specs: tuple[DatasetSpec, ...], video: VideoSettings | None) -> str:
    """The line that says so: `specs[0]` is what the file called `name` is taken as, `video` the frames in force."""
    first, *others = specs
    frames = f", {_frames(video)}" if video else ""
    line = f"{name}: taken as {first.name} (rule {first.scoring}{frames}) because {why}"
    if others:
        line += f"; of the same file: {', '.join(spec.name for spec in others)} (give --data one of these names)"
    return line


def _stems(spec: DatasetSpec) -> Iterator[str]:
    if spec.stem:
        yield spec.stem
    if spec.url_path:
        yield PurePosixPath(spec.url_path).stem


def _frames(video: VideoSettings) -> str:
    shown = f"{video.nframe} frames a video" if video.nframe else f"{video.fps:g} frames a second"
    return f"{shown}, with subtitles" if video.use_subtitle else shown
