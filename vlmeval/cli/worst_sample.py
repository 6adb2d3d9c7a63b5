"""The worst sample of the benchmarks at hand, as a workload: what `vlmeval plan` and `vlmeval run` plan for.

Every sample is looked at: its images' sizes (kept beside the index), cut as the model's processor would, and its text
in the words the model would get. Of the texts only those that may be the longest are counted with the checkpoint's
tokenizer (`vlm/prompt_length.py` bounds the others). How samples become one workload: `placement/workload.py`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmeval.cli.sample_tokens import DEFAULT_TEXT_TOKENS, VIDEO_SIZE, Asked, Given, new_tokens
from vlmeval.cli.samples_seen import Longest, SamplesSeen
from vlmeval.config import ModelSpec
from vlmeval.dataset.base import Dataset
from vlmeval.errors import UsageError
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.workload import PromptTokens, worst_workload
from vlmeval.types import Message, Sample, Task
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.prompt_length import PromptLength, image_settings, local_folder


def workload_of(
    model: BaseModel,
    config: Mapping[str, Any],
    datasets: Sequence[Dataset],
    *,
    absent: Sequence[Task] = (),
    absent_frames: Mapping[str, int] | None = None,
    batch: int = 1,
    dtype: str = "auto",
    quantisation: str = "",
    given: Given | None = None,
) -> tuple[Workload, tuple[str, ...]]:
    """The workload no batch of the datasets' samples exceeds, and lines for the user: which samples, what was assumed.

    `model` need not be loaded; `config` is its checkpoint's. `datasets` are open and cut by `--limit` already; for
    those `absent` from this machine, and where none is named, one image of the largest size allowed and 512 text
    tokens are assumed; for those that are named in `absent_frames`, a video of so many. `dtype` is the number type if
    it is known ("auto": the model's own, else bfloat16).
    """
    asked = _asked(model, config, given or Given())
    samples, notes = _of_data(asked, datasets)
    guessed: list[Task | None] = [*absent] if datasets or absent else [None]
    guessed += [dataset.task for dataset in datasets if not samples]
    frames = {task: (absent_frames or {}).get(task.name, 0) if task else 0 for task in guessed}
    samples += [asked.assumed(task, frames[task]) for task in guessed]
    notes += [note for task in guessed if (note := _assumption(task, asked.given, frames[task]))]
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


def _asked(model: BaseModel, config: Mapping[str, Any], given: Given) -> Asked:
    folder: Path | None = local_folder(getattr(model, "model_path", ""), getattr(model, "revision", None))
    system_prompt = getattr(model, "system_prompt", None)
    return Asked(
        model=model,
        config=config,
        settings=image_settings(folder),
        lengths=PromptLength(folder, str(config.get("model_type", "")), system_prompt),
        given=given,
    )


def _of_data(asked: Asked, datasets: Sequence[Dataset]) -> tuple[list[PromptTokens], list[str]]:
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


def _add(seen: SamplesSeen, asked: Asked, dataset: Dataset) -> int:
    """Add the samples of a benchmark. Returns how many will fail, because model or processor refuses their images."""
    cut, refused = asked.cutting(dataset.task), 0
    for size in dataset.prompt_sizes(_wording(asked.model, dataset)):
        seen_now = asked.seen(size, cut, dataset.task)
        if seen_now is None:
            refused += 1
            continue
        turn = f" (turn {size.earlier_answers + 1})" if dataset.task.type == "MT" else ""
        seen.add(replace(seen_now, name=f"sample {size.index} of {dataset.name}{turn}"))
    return refused


def _wording(model: BaseModel, dataset: Dataset) -> Callable[[Sample], str]:
    """The text a model gets for a sample, images left out: as `inference.answering` asks for it."""
    if model.use_custom_prompt(dataset.task):
        return lambda sample: _text(model.build_prompt(sample, dataset.task))
    return lambda sample: _text(dataset.build_prompt(sample))


def _text(message: Sequence[Message]) -> str:
    return "\n".join(part["value"] for part in message if part["type"] == "text")


def _told(seen: SamplesSeen, longest: Longest, asked: Asked) -> list[str]:
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


def _assumption(task: Task | None, given: Given, frames: int) -> str:
    """What was taken for granted, and why. Empty if the user gave it all."""
    parts = [] if given.image else ["the largest image allowed"]
    if frames and not given.has_images:
        parts = [f"a video of {frames} frames of {VIDEO_SIZE[0]}x{VIDEO_SIZE[1]}"]
    parts += [] if given.text_tokens else [f"{DEFAULT_TEXT_TOKENS} text tokens"]
    if not parts:
        return ""
    parts += ["one turn"] if task and task.type == "MT" else []
    return f"{f'{task.name} is not here' if task else 'no benchmark is named'}: {', '.join(parts)} assumed"


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
        absent_frames={plan.name: plan.video.most_frames for plan, _ in kinds if plan.video is not None},
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
