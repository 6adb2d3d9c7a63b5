"""The worst sample of the benchmarks at hand, as a workload: what `vlmeval plan` and `vlmeval run` plan for.

Every sample is looked at: its images' sizes (kept beside the index), cut as the model's processor would, and its text
in the words the model would get. Of the texts only those that may be the longest are counted with the checkpoint's
tokenizer (`vlm/prompt_length.py` bounds the others). How samples become one workload: `placement/workload.py`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmeval.cli.samples_seen import Longest, SamplesSeen, Seen
from vlmeval.config import ModelSpec
from vlmeval.dataset.base import Dataset
from vlmeval.errors import UsageError
from vlmeval.images import DEFAULT_MAX_IMAGE_PIXELS
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.cutting import Cutting, ImageTokens
from vlmeval.placement.workload import ImageLimits, PromptTokens, cutting, worst_workload
from vlmeval.types import Sample, Task
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.prompt_length import PromptLength, image_settings, local_folder

DEFAULT_TEXT_TOKENS = 512
DEFAULT_NEW_TOKENS = 512
TURN_TOKENS = 24
"""What a chat template puts around a question and an earlier answer, at most some 12 in the families' own."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user says of the worst sample; it is taken in place of what the benchmarks hold.

    `image` is the largest image's width and height; with `images` alone, images are as large as the limits allow.
    """

    image: tuple[int, int] | None = None
    images: int | None = None
    text_tokens: int | None = None

    def __post_init__(self) -> None:
        ImageLimits(images=1 if self.images is None else self.images, size=self.image)
        if self.text_tokens is not None and self.text_tokens < 1:
            raise UsageError(f"text_tokens {self.text_tokens} must be at least 1")

    @property
    def has_images(self) -> bool:
        """Whether the sizes of the benchmarks' images do not matter."""
        return self.image is not None or self.images is not None

    def tokens(self, cut: Cutting, images: int = 1) -> ImageTokens:
        """Of the images that are given or, of what is not, the largest; `images` where their number is not given."""
        count = images if self.images is None else self.images
        found = cut.largest(count) if self.image is None else cut.of([self.image] * count)
        if found is None:
            width, height = self.image or (0, 0)
            raise UsageError(f"an image of {width}x{height} pixels is refused by this model's processor")
        return found


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A model before it is loaded, with what its files say, and what the user gave."""

    model: BaseModel
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    lengths: PromptLength
    given: Given

    def cutting(self, task: Task | None) -> Cutting:
        return cutting(self.config, self.model.image_limits(task), self.settings)

    def assumed(self, task: Task | None) -> PromptTokens:
        text = self.given.text_tokens or DEFAULT_TEXT_TOKENS
        return PromptTokens(images=self.given.tokens(self.cutting(task)), text_tokens=text)


def workload_of(
    model: BaseModel,
    config: Mapping[str, Any],
    datasets: Sequence[Dataset],
    *,
    absent: Sequence[Task] = (),
    batch: int = 1,
    dtype: str = "auto",
    quantisation: str = "",
    given: Given | None = None,
) -> tuple[Workload, tuple[str, ...]]:
    """The workload no batch of the datasets' samples exceeds, and lines for the user: which samples, what was assumed.

    `model` need not be loaded; `config` is its checkpoint's. `datasets` are open and cut by `--limit` already; for
    those `absent` from this machine, and where none is named, one image of the largest size allowed and 512 text
    tokens are assumed. `dtype` is the number type if it is known ("auto": the model's own, else bfloat16).
    """
    asked = _asked(model, config, given or Given())
    samples, notes = _of_data(asked, datasets)
    guessed: list[Task | None] = [*absent] if datasets or absent else [None]
    guessed += [dataset.task for dataset in datasets if not samples]
    samples += [asked.assumed(task) for task in guessed]
    notes += [note for task in guessed if (note := _assumption(task, asked.given))]
    if any(sample.images.images for sample in samples) and (unknown := asked.cutting(None).assumed):
        notes.append(f"assumed: {unknown}")
    beams = int(getattr(model, "generation", {}).get("num_beams") or 1)
    if beams > 1:
        notes.append(f"{beams} beams a prompt: each counts as a prompt of its own")
    tasks = [*guessed, *(dataset.task for dataset in datasets)]
    work = worst_workload(
        samples,
        batch=batch * beams,
        new_tokens=max(new_tokens(model, task) for task in tasks),
        dtype=_dtype(model, dtype),
        quantisation=quantisation,
    )
    return work, tuple(notes)


def _asked(model: BaseModel, config: Mapping[str, Any], given: Given) -> _Asked:
    folder: Path | None = local_folder(getattr(model, "model_path", ""), getattr(model, "revision", None))
    system_prompt = getattr(model, "system_prompt", None)
    return _Asked(
        model=model,
        config=config,
        settings=image_settings(folder),
        lengths=PromptLength(folder, str(config.get("model_type", "")), system_prompt),
        given=given,
    )


def _of_data(asked: _Asked, datasets: Sequence[Dataset]) -> tuple[list[PromptTokens], list[str]]:
    """What bounds the samples of open benchmarks; nothing where there is no sample that can be answered."""
    if asked.given.has_images and asked.given.text_tokens:
        return [asked.assumed(dataset.task) for dataset in datasets], []
    seen, notes = SamplesSeen(), []
    for dataset in datasets:
        before = seen.count
        refused = _add(seen, asked, dataset)
        if refused:
            notes.append(f"{dataset.name}: left out {refused} samples whose images are refused as too large or narrow")
        elif seen.count == before:
            notes.append(f"{dataset.name}: no sample has images that can be read")
    if not seen.count:
        return [], notes
    longest = seen.longest_prompt(asked.lengths)
    return [*seen.worst(longest)], [*_told(seen, longest, asked), *notes]


def _add(seen: SamplesSeen, asked: _Asked, dataset: Dataset) -> int:
    """Add the samples of a benchmark. Returns how many will fail, because model or processor refuses their images."""
    cut, given, refused = asked.cutting(dataset.task), asked.given, 0
    allowed = getattr(asked.model, "max_image_pixels", DEFAULT_MAX_IMAGE_PIXELS)
    longest_answer = new_tokens(asked.model, dataset.task)
    for size in dataset.prompt_sizes(_wording(asked.model, dataset)):
        sizes = size.images
        if given.has_images:
            images: ImageTokens | None = given.tokens(cut, len(sizes))
            sizes = (given.image or (0, 0),) * (len(sizes) if given.images is None else given.images)
        else:
            images = cut.of(sizes) if all(width * height <= allowed for width, height in sizes) else None
        if images is None:
            refused += 1
            continue
        text = size.text if given.text_tokens is None else None
        earlier = 0 if given.text_tokens else size.earlier_answers * (TURN_TOKENS + longest_answer)
        bound = given.text_tokens or asked.lengths.bound(size.text, len(sizes)) + earlier
        name = f"sample {size.index} of {dataset.name}"
        name += f" (turn {size.earlier_answers + 1})" if dataset.task.type == "MT" else ""
        seen.add(Seen(name=name, sizes=sizes, images=images, bound=bound, text=text, earlier_tokens=earlier))
    return refused


def _wording(model: BaseModel, dataset: Dataset) -> Callable[[Sample], str]:
    """The text a model gets for a sample, images left out: as `inference.answering` asks for it."""
    if model.use_custom_prompt(dataset.task):
        return lambda sample: _text(model.build_prompt(sample, dataset.task))
    return lambda sample: _text(dataset.build_prompt(sample))


def _text(message: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(str(part["value"]) for part in message if part["type"] == "text")


def _told(seen: SamplesSeen, longest: Longest, asked: _Asked) -> list[str]:
    """Which samples decide."""
    most = seen.largest["vision_tokens"]
    at_most = "" if longest.counted else "at most "
    text = f"{at_most}{longest.text_tokens} text tokens"
    if asked.given.has_images:
        lines = [f"{longest.sample.name}: {text}"]
    elif most.name == longest.sample.name or most.images.vision_tokens == longest.sample.images.vision_tokens:
        lines = [f"{longest.sample.name}: {longest.sample.pictures}, {text}"]
    else:
        lines = [
            f"most to see: {most.name}, {most.pictures}",
            f"longest prompt: {longest.sample.name}, {longest.sample.pictures}, {text}",
        ]
    if longest.sample.earlier_tokens:
        lines.append(
            f"{longest.sample.earlier_tokens} of these are room for the model's earlier answers at their longest; "
            "--max-tokens lowers that"
        )
    if not longest.counted and not asked.lengths.is_exact:
        lines.append("text is counted by its bytes, at most a token each: the checkpoint's tokenizer is not here")
    return lines


def _assumption(task: Task | None, given: Given) -> str:
    """What was taken for granted, and why. Empty if the user gave it all."""
    parts = [] if given.image else ["the largest image allowed"]
    parts += [] if given.text_tokens else [f"{DEFAULT_TEXT_TOKENS} text tokens"]
    if not parts:
        return ""
    parts += ["one turn"] if task and task.type == "MT" else []
    return f"{f'{task.name} is not here' if task else 'no benchmark is named'}: {', '.join(parts)} assumed"


def new_tokens(model: BaseModel, task: Task | None) -> int:
    """The most tokens a model answers with: what was asked for, else the family's limit for the task, else its own."""
    generation: Mapping[str, Any] = getattr(model, "generation", {})
    asked: frozenset[str] = getattr(model, "asked_generation", frozenset())
    of_task = getattr(model, "task_max_new_tokens", None)
    by_task = of_task(task) if of_task and task and not asked & {"max_new_tokens", "max_length"} else None
    return int(by_task or generation.get("max_new_tokens") or generation.get("max_length") or DEFAULT_NEW_TOKENS)


def _dtype(model: BaseModel, dtype: str) -> str:
    chosen = str(getattr(model, "dtype", "auto")) if dtype == "auto" else dtype
    return "bfloat16" if chosen == "auto" else chosen


def planned_workload(
    options: argparse.Namespace, spec: ModelSpec, config: Mapping[str, Any], quantisation: str
) -> tuple[Workload, tuple[str, ...]]:
    """The same for the flags of `vlmeval plan`: benchmarks whose files are here are read, nothing is fetched."""
    from vlmeval.dataset.registry import resolve_dataset

    given = Given(image=image_size(options.image), images=options.images, text_tokens=options.prompt_tokens)
    plans = [resolve_dataset(name) for name in options.data]
    here = [plan for plan in plans if plan.on_disk]
    kinds = [(plan, plan.dataset_class.type if plan.dataset_class else "VQA") for plan in plans if not plan.on_disk]
    return workload_of(
        spec(),
        config,
        [replace(plan, fetch=False).open() for plan in here],
        absent=[Task(name=plan.name, type=kind, traits=plan.traits) for plan, kind in kinds],
        batch=batch_size(options.batch_size),
        quantisation=quantisation,
        given=given,
    )


def batch_size(text: str) -> int:
    """A whole number from 1. Raises UsageError."""
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text!r} is no whole number from 1")
    return int(text)


def image_size(text: str | None) -> tuple[int, int] | None:
    """`1280x960` as (width, height). Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None:
        raise UsageError(f"--image {text!r} is not written WIDTHxHEIGHT in pixels, e.g. 1280x960")
    return int(match[1]), int(match[2])
