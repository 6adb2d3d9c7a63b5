"""Qwen2-VL and its relatives: the wording of each kind of task, pixel limits, and which class runs which checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.prompt_parts import text_of
from vlmeval.config import MODEL_TYPE_CLASSES, load_model_class, resolve_model, supported_VLM
from vlmeval.errors import SampleError, UsageError
from vlmeval.images import ImageSource
from vlmeval.types import ImagePart, Message, Sample, Task, TextPart
from vlmeval.vlm.qwen2_vl import CLASS_NAMES, Qwen2_5_VLChat, Qwen2VLChat, Qwen3VLChat

MCQ = Task(name="any", type="MCQ", traits=frozenset({"circular"}))
IMAGE = ImageSource(digest="1", name="one", read=lambda: b"")
OTHER = ImageSource(digest="2", name="two", read=lambda: b"")
CLOSING = "Please select the correct answer from the options above."


def task(kind: Any, *traits: str) -> Task:
    return Task(name="any", type=kind, traits=frozenset(traits))


def sample(question: str, hint: str = "", images: tuple[ImageSource, ...] = (IMAGE,), **options: str) -> Sample:
    return Sample(index=1, question=question, hint=hint, options=options, images=images)


def worded(asked: Sample, kind: Task) -> str:
    model = Qwen2VLChat("/nowhere")
    assert model.use_custom_prompt(kind)
    message = model.build_prompt(asked, kind)
    assert [part["type"] for part in message] == ["image"] * len(asked.images) + ["text"]
    assert [part["value"] for part in message[:-1] if part["type"] == "image"] == list(asked.images)
    return text_of(message[-1])


@pytest.mark.parametrize(
    ("kind", "asked", "text"),
    [
        (MCQ, sample("Which?", A="red", B="blue"), f"Question: Which?\nOptions:\nA. red\nB. blue\n{CLOSING}"),
        (
            MCQ,
            sample("Which?", hint="Look.", A="red"),
            f"Hint: Look.\nQuestion: Which?\nOptions:\nA. red\n{CLOSING}",
        ),
        (MCQ, sample("Which? "), "Question: Which?"),
        (MCQ, sample("哪个?", A="red"), "Question: 哪个?\nOptions:\nA. red\n请直接回答选项字母。"),
        (MCQ, sample("Which?", A="红"), "Question: Which?\nOptions:\nA. 红\n请直接回答选项字母。"),
        (
            MCQ,
            sample("Which?", hint="看。", A="1"),
            "Hint: 看。\nQuestion: Which?\nOptions:\nA. 1\n请直接回答选项字母。",
        ),
        # Not in the block U+4E00-9FFF: kana, full-width letters.
        (MCQ, sample("これ?", A="Ａ"), f"Question: これ?\nOptions:\nA. Ａ\n{CLOSING}"),
        (
            task("MCQ", "image_markers", "multi_image"),
            sample("In <image 1>, 看?", images=(IMAGE, OTHER), A="<image 2>", B="none"),
            f"Question: In <image 1>, 看?\nOptions:\nA. <image 2>\nB. none\n{CLOSING}",
        ),
        (task("Y/N", "yes_no_suffix"), sample("A dog?"), "A dog? Please answer yes or no."),
        (
            task("VQA", "short_answer", "fine_print"),
            sample("What is the total?"),
            "What is the total?\nPlease try to answer the question with short words or phrases if possible.",
        ),
        (
            task("VQA", "judge", "reasoning"),
            sample("Solve."),
            "Solve.\nPlease try to answer the question with short words or phrases if possible.",
        ),
    ],
)
def test_the_wording_by_type_and_traits(kind: Task, asked: Sample, text: str) -> None:
    assert worded(asked, kind) == text


@pytest.mark.parametrize("kind", [task("Y/N"), task("VQA", "own_wording", "judge")])
def test_some_questions_are_left_to_the_benchmark(kind: Task) -> None:
    assert not Qwen2VLChat("/nowhere").use_custom_prompt(kind)


def test_use_custom_prompt_false_leaves_all_to_the_benchmark() -> None:
    assert not Qwen2VLChat("/nowhere", use_custom_prompt=False).use_custom_prompt(MCQ)


def test_the_relatives_use_the_benchmarks_prompts_unless_told() -> None:
    assert not Qwen2_5_VLChat("/nowhere").use_custom_prompt(MCQ)
    assert not Qwen3VLChat("/nowhere").use_custom_prompt(MCQ)
    assert Qwen2_5_VLChat("/nowhere", use_custom_prompt=True).use_custom_prompt(MCQ)


@pytest.mark.parametrize("family", list(CLASS_NAMES))
def test_upstreams_class_name_runs_every_relative(family: str, folder_of: Callable[[str], Path]) -> None:
    model = Qwen2VLChat(str(folder_of(family)), max_new_tokens=2)
    model.load()
    assert type(model.model).__name__ == CLASS_NAMES[family]
    assert load_model_class(MODEL_TYPE_CLASSES[family]).model_types.count(family) == 1  # type: ignore[attr-defined]


def grid(model: Qwen2VLChat, width: int, height: int, kind: Task | None = None) -> list[int]:
    message: list[Message] = [
        ImagePart(type="image", value=Image.new("RGB", (width, height), "red")),
        TextPart(type="text", value="?"),
    ]
    prepared: list[int] = model.prepare([message], kind)["image_grid_thw"][0].tolist()
    return prepared


@pytest.fixture
def bounded(folder_of: Callable[[str], Path]) -> Qwen2VLChat:
    model = Qwen2VLChat(str(folder_of("qwen2_vl")), min_pixels=400 * 28 * 28, max_pixels=900 * 28 * 28)
    model.load()
    return model


def test_pixel_limits_bound_each_image(bounded: Qwen2VLChat) -> None:
    assert grid(bounded, 28, 28) == [1, 40, 40]
    assert grid(bounded, 700, 700) == [1, 50, 50]
    assert grid(bounded, 2800, 2800) == [1, 60, 60]


def test_small_images_have_a_lower_bound_of_their_own(bounded: Qwen2VLChat) -> None:
    assert grid(bounded, 28, 28, task("VQA", "small_images")) == [1, 20, 20]
    assert grid(bounded, 28, 28, task("VQA", "fine_print")) == [1, 40, 40]
    assert grid(bounded, 2800, 2800, task("VQA", "small_images")) == [1, 60, 60]
    assert grid(bounded, 28, 28) == [1, 40, 40], "one task's bound stayed for the next"


def test_a_lower_min_pixels_wins_over_that_of_small_images(folder_of: Callable[[str], Path]) -> None:
    model = Qwen2VLChat(str(folder_of("qwen2_vl")), min_pixels=4 * 28 * 28, max_pixels=900 * 28 * 28)
    model.load()
    assert grid(model, 28, 28, task("VQA", "small_images")) == [1, 4, 4]


def test_limits_that_are_not_given_are_the_checkpoints(folder_of: Callable[[str], Path]) -> None:
    model = Qwen2VLChat(str(folder_of("qwen2_vl")))
    model.load()
    assert grid(model, 500, 500) == [1, 8, 8]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"min_pixels": 0}, "min_pixels=0 is no number of pixels"),
        ({"max_pixels": "1M"}, "max_pixels='1M' is no number of pixels"),
        ({"min_pixels": True}, "min_pixels=True is no number of pixels"),
        ({"min_pixels": 2000, "max_pixels": 1000}, "min_pixels=2000 is more than max_pixels=1000"),
    ],
)
def test_impossible_limits_are_told(limits: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Qwen2VLChat("/nowhere", **limits)


def test_an_image_too_narrow_for_the_family_is_a_failed_sample(bounded: Qwen2VLChat) -> None:
    with pytest.raises(SampleError, match="aspect ratio"):
        grid(bounded, 3000, 10)


def test_registered_relatives() -> None:
    for size in ("3B", "7B", "32B", "72B"):
        for name in (f"Qwen2.5-VL-{size}-Instruct", f"Qwen2.5-VL-{size}-Instruct-AWQ"):
            model = supported_VLM[name]()
            assert isinstance(model, Qwen2_5_VLChat) and model.model_path == f"Qwen/{name}"
            assert (model.min_pixels, model.max_pixels) == (1280 * 28 * 28, 16384 * 28 * 28)
    for size in ("2B", "4B", "8B", "32B", "30B-A3B", "235B-A22B"):
        for kind in ("Instruct", "Thinking"):
            assert isinstance(supported_VLM[f"Qwen3-VL-{size}-{kind}"](), Qwen3VLChat)


def test_qvq_thinks_step_by_step_in_qwen2_vl() -> None:
    model = supported_VLM["QVQ-72B-Preview"]()
    assert isinstance(model, Qwen2VLChat) and not isinstance(model, Qwen2_5_VLChat)
    assert model.system_prompt is not None and model.system_prompt.endswith("You should think step-by-step.")
    assert model.generation["max_new_tokens"] == 8192


def test_a_hub_id_that_is_registered_has_the_registered_settings() -> None:
    assert resolve_model("Qwen/Qwen2.5-VL-7B-Instruct") is supported_VLM["Qwen2.5-VL-7B-Instruct"]
