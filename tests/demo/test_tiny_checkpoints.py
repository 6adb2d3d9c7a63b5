"""The shipped checkpoint folders: complete, small, loadable, and saying how they were made."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import transformers
from safetensors import safe_open

from vlmeval.demo import checkpoints, evaluate, prompts

families = pytest.mark.parametrize("family", prompts.FAMILIES)
Tiny = Callable[[str], evaluate.Loaded]


@families
def test_folder_is_small_and_holds_fp16_weights(family: str) -> None:
    folder = evaluate.SHIPPED_FOLDER[family]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118


@families
def test_auto_classes_load_the_stock_classes(family: str) -> None:
    processor = transformers.AutoProcessor.from_pretrained(evaluate.SHIPPED_FOLDER[family])
    model = transformers.AutoModelForImageTextToText.from_pretrained(evaluate.SHIPPED_FOLDER[family])
    assert type(model).__name__ == evaluate.MODEL_CLASS[family]
    assert model.dtype == torch.float16
    assert processor.tokenizer.padding_side == "left"


@families
def test_generation_is_greedy_and_ends(family: str, tiny: Tiny) -> None:
    loaded = tiny(family)
    generation = loaded.model.generation_config
    assert generation.do_sample is False
    assert generation.eos_token_id == loaded.processor.tokenizer.eos_token_id
    assert generation.pad_token_id == loaded.processor.tokenizer.pad_token_id


@families
def test_special_tokens_are_single(family: str, tiny: Tiny) -> None:
    tokenizer = tiny(family).processor.tokenizer
    for token in checkpoints.SPECIAL_TOKENS[family]:
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]


@families
def test_batch_of_one_and_of_sixteen_answer_alike(family: str, tiny: Tiny, some_rows: list[evaluate.BenchRow]) -> None:
    rows = some_rows[:32]
    assert evaluate.answer_rows(tiny(family), rows, 16) == evaluate.answer_rows(tiny(family), rows, 1)


@families
def test_training_record_has_what_repeats_the_run(family: str) -> None:
    record = json.loads((evaluate.SHIPPED_FOLDER[family] / "TRAINING.json").read_text(encoding="utf-8"))
    assert record["recipe"]["family"] == family
    assert {"command", "steps", "cpu_seconds", "parameters", "versions", "held_out"} <= set(record)
    assert record["held_out"]["rows"] == 800


def test_llama_tokenizer_puts_its_begin_token_like_the_real_one(tiny: Tiny) -> None:
    """A rendered prompt has it already: encoding it with special tokens would double it."""
    tokenizer = tiny("mllama").processor.tokenizer
    assert tokenizer("one")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer("<|begin_of_text|>one")["input_ids"][:2] == [tokenizer.bos_token_id] * 2
