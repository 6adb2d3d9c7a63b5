"""LLaVA-OneVision: order of images, tiles only for an image alone in its prompt, names."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from vlmeval.config import MODEL_CLASSES, resolve_model, supported_VLM
from vlmeval.errors import ModelError, SampleError
from vlmeval.types import ImagePart, Message, Task, TextPart
from vlmeval.vlm.llava_onevision import LLaVA_OneVision_HF
from vlmeval.vlm.transformers_model import TransformersModel

TILE_TOKENS = 16
IMAGES_FIRST = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + ' ' -}}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}{{- '<image>' -}}{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}{{- '\\n' + part['text'] -}}{%- endfor -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""In the structure of the hub's template: all images of a turn, then its texts with a newline before each."""


@pytest.fixture
def model(model_of: Callable[[str], TransformersModel]) -> TransformersModel:
    return model_of("llava_onevision")


@pytest.fixture
def copy(folder_of: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_of("llava_onevision"), tmp_path / "copy"))


def image(width: int, height: int) -> Message:
    return ImagePart(type="image", value=Image.new("RGB", (width, height), "red"))


def text(value: str) -> Message:
    return TextPart(type="text", value=value)


def image_tokens(model: TransformersModel, message: list[Message]) -> int:
    """The image tokens of a prompt; the model raises if they are not as many as what its vision part gives."""
    inputs = model.prepare([message])
    model.model(**inputs)
    return int((inputs["input_ids"] == model.model.config.image_token_id).sum())


def test_the_hubs_template_does_not_change_the_order(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text(IMAGES_FIRST, encoding="utf-8")
    model = LLaVA_OneVision_HF(str(copy), system_prompt="Be brief.")
    model.load()
    message = [text("before"), image(9, 9), text("between"), image(9, 9), text("after")]
    assert model.render(message) == (
        "<|im_start|>system \nBe brief.<|im_end|><|im_start|>user \nbefore<image>\nbetween<image>\nafter<|im_end|>"
        "<|im_start|>assistant\n"
    )
    assert model.render([image(9, 9), text("What?")]).startswith(
        "<|im_start|>system \nBe brief.<|im_end|><|im_start|>user \n<image>\nWhat?<|im_end|>"
    )


def test_an_image_alone_is_cut_into_tiles_and_has_a_newline_a_row(model: TransformersModel) -> None:
    pixels = model.prepare([[image(200, 100), text("?")]])["pixel_values"]
    assert pixels.shape[:2] == (1, 3), "an overview and two tiles side by side"
    # Overview, 4 rows of 8, and an image_newline after each row.
    assert image_tokens(model, [image(224, 112), text("?")]) == TILE_TOKENS + 32 + 4
    assert image_tokens(model, [image(112, 112), text("?")]) == TILE_TOKENS + 16 + 4


def test_of_several_images_each_is_one_tile(model: TransformersModel) -> None:
    message = [image(200, 100), image(30, 300), image(112, 112), text("?")]
    assert model.prepare([message])["pixel_values"].shape[:2] == (3, 1)
    assert image_tokens(model, message) == 3 * (TILE_TOKENS + 1)


def test_a_batch_cuts_each_prompts_images_by_its_own_number(model: TransformersModel) -> None:
    batch = [[image(224, 112), text("a")], [image(224, 112), image(224, 112), text("b")], [text("c")]]
    inputs = model.prepare(batch)
    assert inputs["batch_num_images"].tolist() == [1, 2]
    counts = (inputs["input_ids"] == model.model.config.image_token_id).sum(dim=1).tolist()
    assert counts == [TILE_TOKENS + 32 + 4, 2 * (TILE_TOKENS + 1), 0]


def test_the_prompt_has_as_many_image_tokens_as_the_model_has_features_for_any_size(model: TransformersModel) -> None:
    rng = random.Random(0)
    sizes = [(rng.randint(1, 600), rng.randint(1, 600)) for _ in range(40)]
    sizes += [(1, 1), (1, 500), (500, 1), (2000, 30), (33, 1777), (113, 111), (1920, 1080)]
    for width, height in sizes:
        assert image_tokens(model, [image(width, height), text("?")]) >= TILE_TOKENS, (width, height)


def test_a_text_with_the_image_mark_is_told(model: TransformersModel) -> None:
    with pytest.raises(SampleError, match="holds the image mark '<image>'"):
        model.generate_batch([[image(1, 1), text("what is <image>?")]])


def test_prompts_are_the_benchmarks(model: TransformersModel) -> None:
    for kind in ("MCQ", "Y/N", "VQA"):
        assert not model.use_custom_prompt(Task(name="x", type=kind))  # type: ignore[arg-type]


def test_weights_are_found_under_the_hubs_names(copy: Path, model: TransformersModel) -> None:
    """The hub's files have a `vision_model` in the middle, which transformers 5.23 no longer writes."""
    weights = load_file(copy / "model.safetensors")
    assert "image_newline" in weights and "language_model.model.norm.weight" in weights
    renamed = {
        re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", k): v for k, v in weights.items()
    }
    save_file(renamed, copy / "model.safetensors", metadata={"format": "pt"})
    message = [image(200, 100), text("what is it?")]
    again = LLaVA_OneVision_HF(str(copy), max_new_tokens=8)
    assert again.generate_batch([message]) == model.generate_batch([message])


def test_a_checkpoint_without_its_image_newline_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["image_newline"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights of the model \(model.image_newline\)"):
        LLaVA_OneVision_HF(str(copy)).load()


@pytest.mark.parametrize("size", ["0.5b", "7b", "72b"])
@pytest.mark.parametrize("kind", ["ov", "si"])
def test_upstreams_names_are_the_same_weights(size: str, kind: str) -> None:
    ours, theirs = f"llava-onevision-qwen2-{size}-{kind}-hf", f"llava_onevision_qwen2_{size}_{kind}"
    assert supported_VLM[ours].source == supported_VLM[theirs].source == f"llava-hf/{ours}"
    original = f"lmms-lab/llava-onevision-qwen2-{size}-{kind}"
    assert LLaVA_OneVision_HF(original).model_path == f"llava-hf/{ours}"
    assert resolve_model(f"llava-hf/{ours}").name == ours


def test_upstreams_class_names_are_known() -> None:
    assert MODEL_CLASSES["LLaVA_OneVision"] == MODEL_CLASSES["LLaVA_OneVision_HF"]
