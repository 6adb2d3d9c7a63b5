"""What the dataset doctor says of videos: which are missing or cannot be opened, how long and large they are."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import replace

from vlmeval.dataset.doctor import Examined, Finding, found
from vlmeval.dataset.video import VideoMCQDataset, choices
from vlmeval.errors import ImageError


def with_choices(examined: Examined) -> Examined:
    """The same with the candidates in columns of their own and the right one's letter, as in other benchmarks."""
    rows, most = [], 0
    for row in examined.rows:
        try:
            options, answer = choices(row.cells)
        except ImageError:
            options, answer = {}, row.cells.get("answer", "")
        most = max(most, len(options))
        rows.append((row, options, answer))
    labels = string.ascii_uppercase[:most]
    filled = tuple(
        replace(row, cells={**row.cells, **{label: options.get(label, "") for label in labels}, "answer": answer})
        for row, options, answer in rows
    )
    return replace(examined, columns=tuple(dict.fromkeys((*examined.columns, *labels))), rows=filled)


def video_findings(dataset: VideoMCQDataset) -> Iterator[Finding]:
    """Every video's header is read, once; nothing is decoded."""
    faults: dict[str, str] = {}
    broken, lengths, areas = [], [], []
    unspoken = []
    seen: set[str] = set()
    for sample in dataset:
        name = sample.videos[0].name if sample.videos else ""
        if sample.image_error:
            broken.append(f"{sample.index} ({sample.image_error})")
            continue
        if name not in seen:
            seen.add(name)
            try:
                info = sample.videos[0].info()
                lengths.append(info.seconds)
                areas.append((info.width * info.height, f"{info.width}x{info.height}"))
            except ImageError as error:
                faults[name] = str(error)
        if name in faults:
            broken.append(f"{sample.index} ({faults[name]})")
        if dataset.video.use_subtitle and not dataset.has_subtitles(sample.fields):
            unspoken.append(str(sample.index))
    yield from found("error", "rows have a video that cannot be had", broken)
    yield from found("note", "rows have no subtitles: their prompt says so by listing none", unspoken)
    if lengths:
        middle = sorted(lengths)[len(lengths) // 2]
        what = (
            f"videos: shortest {min(lengths):.1f} s, median {middle:.1f} s, longest {max(lengths):.1f} s; frames of "
            f"{min(areas)[1]} to {max(areas)[1]}"
        )
        yield Finding(severity="note", what=what, count=len(lengths))
