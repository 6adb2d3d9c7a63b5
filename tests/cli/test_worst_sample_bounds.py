"""The planned worst sample against what the four families' real processors make of the samples."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.dataset.tsv_files import write_tsv
from tests.one_thread import one_thread as one_thread
from vlmeval.cli.worst_sample import workload_of
from vlmeval.config import supported_VLM
from vlmeval.dataset import Dataset, open_dataset
from vlmeval.errors import SampleError
from vlmeval.inference.answering import requests
from vlmeval.placement.workload import cutting
from vlmeval.types import ImagePart, Message, Task, TextPart
from vlmeval.vlm.prompt_length import PromptLength, image_settings
from vlmeval.vlm.transformers_model import TransformersModel

from .pictures import picture_cell, varied_rows

MODELS = ("Qwen2-VL-Tiny", "InternVL-Tiny", "LLaVA-OneVision-Tiny", "Llama-Vision-Tiny")
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "Qwen2-VL-Tiny": {"min_pixels": 56 * 56, "max_pixels": 64 * 28 * 28},
    "InternVL-Tiny": {"max_tiles": 5},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Iterator[TransformersModel]:
    made = supported_VLM[request.param](**ARGUMENTS.get(request.param, {}))
    assert isinstance(made, TransformersModel)
    made.load()
    yield made


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))


def rule(model: TransformersModel, task: Task | None = None) -> Any:
    settings = image_settings(model.checkpoint.folder)
    return cutting(model.checkpoint.config, model.image_limits(task), settings)


def images_of(sizes: list[tuple[int, int]]) -> list[Message]:
    return [ImagePart(type="image", value=Image.new("RGB", size, "red")) for size in sizes]


def seen_by(model: TransformersModel, inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Image tokens of a batch's prompts, and numbers of its pixels."""
    token = model.processor.tokenizer.convert_tokens_to_ids(
        "<IMG_CONTEXT>" if "InternVL" in model.model_path else model.processor.image_token
    )
    return int((inputs["input_ids"] == token).sum()), inputs["pixel_values"].numel()


def random_sizes(rng: random.Random, most: int) -> list[tuple[int, int]]:
    return [(rng.randint(8, 500), rng.randint(8, 500)) for _ in range(rng.randint(1, most))]


@pytest.mark.parametrize(
    "traits", [frozenset[str](), frozenset({"small_images", "image_markers"})], ids=["plain", "mmmu"]
)
def test_counts_equal_those_of_the_processor(model: TransformersModel, traits: frozenset[str]) -> None:
    rng, task = random.Random(3), Task(name="x", type="VQA", traits=traits)
    cut = rule(model, task)
    for _ in range(25):
        sizes = random_sizes(rng, 1 if rng.random() < 0.6 else 4)
        inputs = model.prepare([[*images_of(sizes), TextPart(type="text", value="What is this?")]], task)
        found = cut.of(sizes)
        assert (found.image_tokens, found.pixel_values) == seen_by(model, inputs), sizes
        assert found.pixel_values <= cut.largest(len(sizes)).pixel_values
        assert found.image_tokens <= cut.largest(len(sizes)).image_tokens


def test_extreme_shapes_are_counted_or_refused_as_by_the_processor(model: TransformersModel) -> None:
    cut = rule(model)
    for size in ((30_000, 20), (20, 30_000), (1, 1), (1, 199), (201, 1)):
        message = [*images_of([size]), TextPart(type="text", value="?")]
        found = cut.of([size])
        if found is None:
            with pytest.raises(SampleError, match="refuses"):
                model.prepare([message])
        else:
            assert (found.image_tokens, found.pixel_values) == seen_by(model, model.prepare([message])), size


@pytest.mark.parametrize("system_prompt", [None, "Be brief and never lie."])
def test_text_tokens_are_counted_as_the_model_will_have_them(
    model: TransformersModel, system_prompt: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "system_prompt", system_prompt)
    lengths = PromptLength(model.checkpoint.folder, model.checkpoint.model_type, system_prompt)
    cut = rule(model)
    for text in ("What is this?", "这张图里有什么？\nA. 红色", "x" * 400, "é" * 50 + "\n\n 12345 <|im_end|>", ""):
        for sizes in ([(60, 60)], [(300, 90), (8, 8), (100, 100)]):
            inputs = model.prepare([[*images_of(sizes), TextPart(type="text", value=text)]])
            length = inputs["input_ids"].shape[1]
            counted = lengths.count(text, len(sizes))
            assert counted is not None
            assert 0 <= counted + cut.of(sizes).image_tokens - length <= 3, (text, sizes)
            assert lengths.bound(text, len(sizes)) >= counted
            assert PromptLength(None, model.checkpoint.model_type, system_prompt).bound(text, len(sizes)) >= counted


@pytest.fixture
def varied(tmp_path: Path) -> Dataset:
    return open_dataset(write_tsv(tmp_path / "Varied.tsv", varied_rows(24)))


@pytest.mark.parametrize("batch", [1, 3])
def test_no_batch_exceeds_the_workload_in_any_component(model: TransformersModel, varied: Dataset, batch: int) -> None:
    work, _ = workload_of(model, model.checkpoint.config, [varied], batch=batch)
    rng, cut = random.Random(batch), rule(model, varied.task)
    asked = list(requests(model, varied, (sample for sample in varied if not sample.image_error)))
    longest = 0
    for _ in range(30):
        chosen = rng.sample(asked, batch)
        counts = {len(request.sample.images) for request in chosen}
        if "Llama" in model.model_path and len(counts) > 1:
            continue  # the family never puts these together
        inputs = model.prepare([request.message for request in chosen], varied.task)
        image_tokens, pixels = seen_by(model, inputs)
        longest = max(longest, inputs["input_ids"].shape[1])
        assert image_tokens <= batch * work.image_tokens
        assert pixels <= batch * work.pixel_values
    assert longest <= work.prompt_tokens
    assert cut.of([(1, 1)]).largest_image_tokens <= work.largest_image_tokens


def test_the_bound_of_a_single_prompt_is_met(model: TransformersModel, tmp_path: Path) -> None:
    cells = varied_rows(1)[0] | {"index": "7", "image": picture_cell(321, 200)}
    dataset = open_dataset(write_tsv(tmp_path / "One.tsv", [cells]))
    work, notes = workload_of(model, model.checkpoint.config, [dataset])
    (request,) = requests(model, dataset, dataset)
    inputs = model.prepare([request.message], dataset.task)
    image_tokens, pixels = seen_by(model, inputs)
    assert (work.image_tokens, work.pixel_values) == (image_tokens, pixels)
    assert 0 <= work.prompt_tokens - inputs["input_ids"].shape[1] <= 3
    assert notes[0].startswith("sample 7 of One: 321x200, ")
