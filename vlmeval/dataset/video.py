"""Benchmarks of videos with choices: Video-MME, MVBench, MLVU, in the tables VLMEvalKit makes of them.

Columns, wording and which frames are taken: VLMEvalKit (vlmeval/dataset/videomme.py, mvbench.py, mlvu.py, August 2026),
after https://arxiv.org/abs/2405.21075, https://arxiv.org/abs/2311.17005 and https://arxiv.org/abs/2406.04264.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from vlmeval.dataset.base import Dataset
from vlmeval.dataset.image_cells import elements, path_inside
from vlmeval.dataset.mcq import ImageMCQDataset
from vlmeval.dataset.subtitles import spoken_at
from vlmeval.dataset.tsv_index import IndexedRow
from vlmeval.errors import ConfigError, ImageError, VideoError
from vlmeval.types import Index, Message, PromptSize, Sample, TaskType
from vlmeval.videos import MOST_FRAMES, Placing, Sampling, VideoSource

FRAMES_UNLESS_SAID = 8


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """Which frames of each video are shown: `nframe` of them or `fps` a second. `use_subtitle`: what is spoken at these
    frames is told too. The names are upstream's."""

    nframe: int = 0
    fps: float = 0.0
    use_subtitle: bool = False

    def __post_init__(self) -> None:
        Sampling(nframe=self.nframe, fps=self.fps)

    @property
    def most_frames(self) -> int:
        """Shown of any video."""
        return self.nframe or MOST_FRAMES


def video_tsv(data_root: Path, stem: str) -> Path:
    """The TSV in the data root, or else in the folder of that name there, beside its videos."""
    beside = data_root / stem / f"{stem}.tsv"
    at_root = data_root / f"{stem}.tsv"
    return beside if beside.is_file() and not at_root.is_file() else at_root


def video_folder(path: Path) -> Path:
    """What the paths in the TSV at `path` start from: the folder called like the TSV beside it, else its own."""
    named = path.parent / path.stem
    return named if named.is_dir() else path.parent


class VideoMCQDataset(Dataset):
    """Choices about a video, and any TSV with the column `video`. Choices stand in `candidates`, as a list, or in the
    columns A, B, C, ...; `answer` is the letter or the text of one."""

    type: ClassVar[TaskType] = "MCQ"
    default_scoring = "choices"
    default_traits = frozenset({"video", "dataset_prompt"})
    placing: ClassVar[Placing] = "between"

    def __init__(self, name: str, path: str | Path, *, video: VideoSettings | None = None, **settings: Any) -> None:
        self.video = video or VideoSettings(nframe=FRAMES_UNLESS_SAID)
        super().__init__(name, path, **settings)
        lacking = [] if "video" in self.columns else ["no column video"]
        lacking += [] if {"candidates", "A"} & {*self.columns} else ["neither a column candidates nor A, B, C"]
        if lacking:
            raise ConfigError(f"{self.path} is taken as {type(self).__name__} and has {' and '.join(lacking)}")
        if video is None:
            self.notes = (*self.notes, f"{name}: {FRAMES_UNLESS_SAID} frames a video; give nframe or fps for others")

    @cached_property
    def folder(self) -> Path:
        """What the videos' paths start from."""
        return video_folder(self.path)

    def video_path(self, fields: Mapping[str, str]) -> Path:
        """The file of a row's video. Raises ImageError where the row names none, or one outside the folder."""
        names = [fields["video_path"]] if fields.get("video_path") else [fields.get("prefix", ""), fields["video"]]
        if not names[-1]:
            raise ImageError("it has no video: the cell is empty")
        path = self.folder
        for name in filter(None, names):
            path = path_inside(path, name)
        return path

    def sampling(self, fields: Mapping[str, str]) -> Sampling:
        """Which frames of a row's video are shown."""
        return Sampling(nframe=self.video.nframe, fps=self.video.fps, placing=self.placing)

    def source(self, fields: Mapping[str, str]) -> VideoSource:
        """A row's video. Raises ImageError."""
        return VideoSource(self.video_path(fields), self.sampling(fields))

    def read_options(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The candidates by letter; a letter that they begin with themselves is taken off."""
        try:
            return choices(fields)[0]
        except ImageError:
            return {}  # the row fails: see `_with_images`

    def build_prompt(self, sample: Sample) -> list[Message]:
        """The video, then the text."""
        if sample.image_error:
            raise VideoError(sample.image_error)
        videos: list[Message] = [{"type": "video", "value": video} for video in sample.videos]
        return [*videos, {"type": "text", "value": self.build_text(sample)}]

    def build_text(self, sample: Sample) -> str:
        options = "".join(f"{label}. {option}\n" for label, option in sample.options.items())
        return f"Question: {sample.question}\nOptions:\n{options}{ImageMCQDataset.closing}{self.prompt_suffix}"

    def prompt_sizes(self, text_of: Callable[[Sample], str] | None = None) -> Iterator[PromptSize]:
        """Video and text of every sample whose video's header can be read, in file order; the others fail anyway."""
        word = text_of or self.build_text
        for sample in self:
            if sample.image_error:
                continue
            try:
                sample.videos[0].shown()
                text = word(sample)
            except ImageError:
                continue
            yield PromptSize(index=sample.index, images=(), text=text, videos=sample.videos)

    def has_subtitles(self, fields: Mapping[str, str]) -> bool:
        """Whether there is a file of what is spoken in a row's video. Raises ImageError for one outside the folder."""
        name = fields.get("subtitle_path", "")
        return bool(name) and path_inside(self.folder, name).is_file()

    def image_clusters(self) -> dict[Index, str]:
        """Rows of one video belong together."""
        column = "video_path" if "video_path" in self.columns else "video"
        return {self._index_of(name): video for name, video in self._index.column(column).items() if video}

    def _sample(self, row: IndexedRow) -> Sample:
        sample = super()._sample(row)
        return replace(sample, category=sample.fields.get("task_type", ""), answer=_letter(sample))

    def _with_images(self, row: IndexedRow, sample: Sample) -> Sample:
        try:
            choices(sample.fields)
            return replace(sample, videos=(self.source(sample.fields),))
        except ImageError as error:
            return replace(sample, image_error=f"row {row.name} (line {row.line}): {error}")


class VideoMME(VideoMCQDataset):
    """Video-MME: three questions a video, short, medium and long ones, with subtitles if asked for."""

    default_scoring = "video_mme"
    closing: ClassVar[str] = (
        "Select the best answer to the following multiple-choice question based on the video. "
        "Respond with only the letter (A, B, C, or D) of the correct option.\n"
    )

    def build_text(self, sample: Sample) -> str:
        text = "\nThese are the frames of a video. "
        if self.video.use_subtitle:
            text += f"This video's subtitles are listed below:\n{self._subtitles(sample.fields)}\n"
        listed = "\n".join(_listed(sample.fields).values())
        return f"{text}{self.closing}Question: {sample.question}\n{listed}\nAnswer: {self.prompt_suffix}"

    def _subtitles(self, fields: Mapping[str, str]) -> str:
        """What is spoken at the frames that are shown, a line each; nothing where there is no file of it."""
        if not self.has_subtitles(fields):
            return ""
        path = path_inside(self.folder, fields["subtitle_path"])
        return "\n".join(spoken_at(path, self.source(fields).timestamps()))

    def _sample(self, row: IndexedRow) -> Sample:
        sample = super()._sample(row)
        return replace(sample, l2_category=sample.fields.get("domain", ""))


class MLVU_MCQ(VideoMCQDataset):
    """MLVU's seven tasks with choices."""

    default_scoring = "mlvu"
    opening: ClassVar[str] = (
        "Carefully watch this video and pay attention to every detail. "
        "Based on your observations, select the best option that accurately addresses the question."
    )
    ending: ClassVar[str] = "\nOnly give the best option."

    def build_prompt(self, sample: Sample) -> list[Message]:
        """Opening and question, the video, the ending."""
        video = super().build_prompt(sample)[0]
        return [
            {"type": "text", "value": self.opening + self._question(sample)},
            video,
            {"type": "text", "value": self.ending + self.prompt_suffix},
        ]

    def build_text(self, sample: Sample) -> str:
        return f"{self.opening}{self._question(sample)}{self.ending}{self.prompt_suffix}"

    def _question(self, sample: Sample) -> str:
        options = "\n".join(f"({label}) {text}" for label, text in sample.options.items())
        return f"Question: {sample.question}\nOptions:\n{options}"


class MVBench_MP4(MLVU_MCQ):
    """MVBench's twenty tasks, every video an MP4 file."""

    default_scoring = "mvbench"
    placing: ClassVar[Placing] = "segments"
    opening: ClassVar[str] = (
        "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
        "objects, and the action and pose of persons. Based on your observations, select the best option that "
        "accurately addresses the question.\n"
    )
    ending: ClassVar[str] = "\nOnly give the best option.Best option:("


class MVBench(MVBench_MP4):
    """MVBench as first published: files of several kinds, folders of frames, and parts of videos (`start`, `end`)."""

    def sampling(self, fields: Mapping[str, str]) -> Sampling:
        """Of the part between `start` and `end` where the row has one."""
        whole = super().sampling(fields)
        if fields.get("bound") != "True":
            return whole
        try:
            return replace(whole, start_s=float(fields["start"]), end_s=float(fields["end"]))
        except (KeyError, ValueError) as error:
            raise ImageError(f"its bound is True, and start and end are no numbers of seconds ({error})") from error


def _letter(sample: Sample) -> str:
    return choices(sample.fields)[1] if sample.options else sample.answer


def _listed(fields: Mapping[str, str]) -> dict[str, str]:
    """The choices as they are written. Raises ImageError."""
    if "candidates" in fields:
        return dict(zip(string.ascii_uppercase, elements(fields["candidates"]), strict=False))
    return {label: fields[label] for label in string.ascii_uppercase if fields.get(label)}


def choices(fields: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The candidates by letter, and the letter of the right one. A letter that a candidate begins with itself is taken
    off; an answer that is neither letter nor text of a candidate is left as it is. Raises ImageError for a cell that
    opens like a list and is none."""
    labelled = _listed(fields)
    options = {label: re.sub(rf"^{label}[.:)]\s*", "", text) for label, text in labelled.items()}
    answer = fields.get("answer", "")
    if answer in options:
        return options, answer
    return options, next((label for label, text in labelled.items() if text == answer), answer)
