"""Llama-3.2-Vision: tokens by task, the date in the prompt, one begin of text, no flash-attn."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmeval.config import MODEL_CLASSES, load_model_class, supported_VLM
from vlmeval.errors import UsageError
from vlmeval.hardware import Card
from vlmeval.types import ImagePart, Message, Task, TextPart
from vlmeval.vlm.llama_vision import LlamaVision
from vlmeval.vlm.qwen2_vl import Qwen2VLChat
from vlmeval.vlm.transformers_model import TransformersModel

DATED = """\
{{- bos_token -}}
{%- if not date_string is defined -%}
{%- if strftime_now is defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}
{%- else -%}{%- set date_string = '01 Jan 2000' -%}{%- endif -%}
{%- endif -%}
{%- if messages[0]['role'] == 'system' -%}
{%- set system_message = messages[0]['content'] | trim -%}{%- set messages = messages[1:] -%}
{%- else -%}{%- set system_message = '' -%}{%- endif -%}
{%- set seen = namespace(images=false) -%}
{%- for message in messages -%}{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{%- set seen.images = true -%}{%- endif -%}
{%- endfor -%}{%- endfor -%}
REFUSE
{%- if system_message or not seen.images -%}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' -}}
{{- system_message + '<|eot_id|>' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{%- for part in message['content'] -%}
{{- '<|image|>' if part['type'] == 'image' else part['text'] -}}
{%- endfor -%}
{{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
"""In the structure of the hub's template: a date wherever there is a system turn, which prompts without images have."""
REFUSE = """\
{%- if seen.images and system_message -%}
{{- raise_exception('Prompting with images is incompatible with system messages.') -}}
{%- endif -%}
"""


@pytest.fixture
def model(model_of: Callable[[str], TransformersModel]) -> TransformersModel:
    return model_of("mllama")


@pytest.fixture
def dated(folder_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., LlamaVision]:
    """A model whose folder has a template that writes the date."""

    def make(refuse: bool = False, **arguments: Any) -> LlamaVision:
        folder = Path(shutil.copytree(folder_of("mllama"), tmp_path / "dated"))
        template = DATED.replace("REFUSE\n", REFUSE if refuse else "")
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        made = LlamaVision(str(folder), max_new_tokens=4, **arguments)
        made.load()
        return made

    return make


def image() -> Message:
    return ImagePart(type="image", value=Image.new("RGB", (130, 70), "blue"))


def text(value: str) -> Message:
    return TextPart(type="text", value=value)


@pytest.mark.parametrize(
    ("kind", "traits", "limit"),
    [
        ("MCQ", (), 128),
        ("Y/N", ("yes_no_suffix",), 128),
        ("VQA", ("short_answer",), None),
        ("VQA", ("judge", "reasoning"), 2048),
        ("MCQ", ("image_markers", "multi_image"), 2048),
        ("MCQ", ("reasoning",), 2048),
    ],
)
def test_new_tokens_by_task(kind: Any, traits: tuple[str, ...], limit: int | None) -> None:
    model = LlamaVision("/nowhere")
    assert model.generation["max_new_tokens"] == 512
    assert model.task_max_new_tokens(Task(name="x", type=kind, traits=frozenset(traits))) == limit


def test_decoding_is_greedy_where_upstream_samples() -> None:
    assert LlamaVision("/nowhere").generation["do_sample"] is False


def test_the_prompt_begins_once(model: TransformersModel) -> None:
    tokens = model.prepare([[image(), text("what is it?")], [image(), text("?")]])["input_ids"]
    begin = model.processor.tokenizer.bos_token_id
    assert (tokens == begin).sum(dim=1).tolist() == [1, 1]
    assert tokens[0, 0] == begin, "left padding only"


def test_the_date_is_fixed(dated: Callable[..., LlamaVision]) -> None:
    model = dated()
    assert "Today Date: 26 Jul 2024\n" in model.render([text("hello")])
    assert "Today" not in model.render([image(), text("hello")])
    assert model.settings()["date_string"] == model.stamp()["date_string"] == "26 Jul 2024"


def test_the_date_can_be_given(dated: Callable[..., LlamaVision]) -> None:
    assert "Today Date: 23 Nov 2026\n" in dated(date_string="23 Nov 2026").render([text("hello")])
    with pytest.raises(UsageError, match="date_string='' is no date"):
        LlamaVision("/nowhere", date_string="")


def test_the_system_prompt_is_written_as_text(dated: Callable[..., LlamaVision]) -> None:
    rendered = dated(system_prompt="Be brief.").render([image(), text("hello")])
    assert "\n\nBe brief.<|eot_id|>" in rendered and "{" not in rendered


def test_a_template_that_takes_no_system_prompt_with_images_says_so(dated: Callable[..., LlamaVision]) -> None:
    model = dated(refuse=True, system_prompt="Be brief.")
    assert "Be brief." in model.render([text("hello")])
    with pytest.raises(UsageError, match=r"incompatible with system messages.*try without the system prompt"):
        model.generate_batch([[image(), text("hello")]])


def test_any_number_of_images_in_one_batch_keeps_the_order_of_answers(model: TransformersModel) -> None:
    batch = [
        [image(), text("one")],
        [text("none")],
        [image(), text("two"), image(), text("and a question about both")],
        [text("none either, but longer")],
        [image(), text("one again")],
    ]
    assert model.generate_batch(batch) == [model.generate_batch([message])[0] for message in batch]


def test_flash_attention_is_never_chosen(monkeypatch: pytest.MonkeyPatch, folder_of: Callable[[str], Path]) -> None:
    card = Card(index=0, kind="cuda", name="H100", total_bytes=80 * 2**30, free_bytes=79 * 2**30, capability=(9, 0))
    monkeypatch.setattr("vlmeval.vlm.card_planning.visible_cards", lambda measured=None: (card,))
    monkeypatch.setattr("vlmeval.vlm.precision.has_flash_attention", lambda: True)
    assert Qwen2VLChat(str(folder_of("qwen2_vl"))).precision.attention == "flash_attention_2"
    chosen = LlamaVision(str(folder_of("mllama"))).precision
    assert (chosen.attention, chosen.dtype) == ("sdpa", "bfloat16")


def test_flash_attention_that_is_asked_for_is_refused(folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(
        UsageError, match="MllamaForConditionalGeneration does not run with flash_attention_2; use sdpa"
    ):
        LlamaVision(str(folder_of("mllama")), attention="flash_attention_2").load()


def test_names() -> None:
    assert load_model_class("llama_vision") is load_model_class("LlamaVision") is LlamaVision
    assert MODEL_CLASSES["llama_vision"] == MODEL_CLASSES["LlamaVision"]
    for size in ("11B", "90B"):
        name = f"Llama-3.2-{size}-Vision-Instruct"
        assert supported_VLM[name].source == f"meta-llama/{name}"
