"""Generation settings, stop strings, thinking, limits by task, seeds, and what fails one sample only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmeval.errors import SampleError, UnknownNameError, UsageError
from vlmeval.types import ImagePart, Message, Task, TextPart
from vlmeval.vlm.auto import AutoVLM
from vlmeval.vlm.generation import GENERATION_ARGUMENTS, cut_at_stop, generation_settings
from vlmeval.vlm.limits import length_note
from vlmeval.vlm.thinking import split_thinking, splitting_wanted

from . import auto_architectures as tiny

MCQ = Task(name="any", type="MCQ")


def test_greedy_by_default_and_the_caller_wins() -> None:
    assert generation_settings({"max_new_tokens": 9}, {}) == {"do_sample": False, "max_new_tokens": 9}
    assert generation_settings({"max_new_tokens": 9}, {"max_new_tokens": 3})["max_new_tokens"] == 3
    assert generation_settings({"max_new_tokens": 9}, {"max_new_tokens": None})["max_new_tokens"] == 9


def test_a_temperature_turns_sampling_on_and_zero_keeps_it_off() -> None:
    assert generation_settings({}, {"temperature": 0.7, "top_p": 0.9}) == {
        "do_sample": True, "temperature": 0.7, "top_p": 0.9,
    }  # fmt: skip
    assert generation_settings({}, {"temperature": 0, "top_p": 0.9}) == {"do_sample": False}
    assert generation_settings({}, {"temperature": 0.7, "do_sample": False}) == {"do_sample": False}
    assert generation_settings({"do_sample": True, "temperature": 0.6}, {"temperature": 0}) == {"do_sample": False}


def test_sampling_numbers_are_dropped_where_nothing_is_drawn() -> None:
    assert generation_settings({"top_k": 5, "top_p": 0.5, "min_p": 0.1}, {}) == {"do_sample": False}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0 is out of range; it takes 1 to any"),
        ({"temperature": -1}, "temperature=-1 is out of range"),
        ({"top_p": 1.5}, "it takes 0 to 1"),
        ({"top_k": "many"}, "top_k='many' is no number"),
        ({"num_beams": True}, "num_beams=True is no number"),
    ],
)
def test_values_generate_cannot_take(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        generation_settings({}, asked)


def test_unknown_argument_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'max_new_token'; nearest: max_new_tokens"):
        generation_settings({}, {"max_new_token": 3})


def test_argument_names_are_those_of_transformers() -> None:
    from transformers import GenerationConfig

    known = set(vars(GenerationConfig()))
    later_or_dropped = {"num_beam_groups", "diversity_penalty", "penalty_alpha", "dola_layers", "prefill_chunk_size"}
    assert set(GENERATION_ARGUMENTS) - known <= later_or_dropped


@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("B\n\nQuestion: next", ["\n\n", "Question"], "B"),
        ("B and more", None, "B and more"),
        ("B and more", [], "B and more"),
        ("B###", "###", "B"),
        ("###", ["###"], ""),
        ("B", [""], "B"),
    ],
)
def test_text_ends_before_the_first_stop_string(text: str, stops: Any, left: str) -> None:
    assert cut_at_stop(text, stops) == left


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_no_stop_string_is_left_in_a_cut_text(text: str, stops: list[str]) -> None:
    cut = cut_at_stop(text, stops)
    assert text.startswith(cut)
    assert not any(stop in cut for stop in stops)


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>two reds</think>\n\nB", False, ("two reds", "B")),
        ("two reds</think>\nB", True, ("two reds", "B")),
        ("two reds</think>\nB", False, ("two reds", "B")),
        ("<think>never done", False, ("never done", "")),
        ("never done", True, ("never done", "")),
        ("<think>a</think>b</think>C", False, ("a</think>b", "C")),
        ("<think></think>C", False, ("", "C")),
        ("The tag <think> opens", False, ("", "The tag <think> opens")),
        (" B ", False, ("", " B ")),
        ("", True, ("", "")),
    ],
)
def test_thinking_is_split_off(text: str, opened: bool, expected: tuple[str, str]) -> None:
    assert split_thinking(text, opened) == expected


@given(st.text(), st.booleans())
def test_without_the_mark_nothing_is_lost(text: str, opened: bool) -> None:
    thinking, answer = split_thinking(text, opened)
    if "think>" not in text:
        assert (thinking, answer) == ((text.strip(), "") if opened else ("", text))


def test_splitting_is_asked_for_by_argument_then_environment_then_on() -> None:
    assert splitting_wanted(None, {})
    assert not splitting_wanted(None, {"SPLIT_THINK": "0"})
    assert splitting_wanted(None, {"SPLIT_THINK": "True"})
    assert splitting_wanted(True, {"SPLIT_THINK": "0"})
    with pytest.raises(UsageError, match="neither 0 nor 1"):
        splitting_wanted(None, {"SPLIT_THINK": "maybe"})
    with pytest.raises(UsageError, match="neither true nor false"):
        splitting_wanted(1, {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generation") / "llava"
    tiny.build("LLaVA 1.5", path)
    return path


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generation") / "qwen"
    tiny.build("Qwen2.5-VL", path)
    return path


def model(folder: Path, **arguments: Any) -> AutoVLM:
    return AutoVLM(str(folder), **{"max_new_tokens": 8, "min_new_tokens": 8, "attention": "sdpa", **arguments})


QUESTION = tiny.question(1, "What is this?")


def says(monkeypatch: pytest.MonkeyPatch, asked: AutoVLM, text: str) -> None:
    """Let the model say this, whatever it is asked."""
    asked.load()
    new = asked.processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    monkeypatch.setattr(
        asked.model, "generate", lambda input_ids, **_: torch.cat([input_ids, new.repeat(len(input_ids), 1)], dim=1)
    )


def test_thinking_goes_to_its_own_field(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model(folder)
    says(monkeypatch, asked, "<think>hm</think> B")
    answer = asked.generate_batch([QUESTION])[0]
    assert (answer.thinking, answer.text) == ("hm", "B")
    kept = model(folder, split_thinking=False)
    says(monkeypatch, kept, "<think>hm</think> B")
    assert kept.generate_batch([QUESTION])[0].text == "<think>hm</think> B"


def test_tag_opened_by_the_template_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model(folder)
    asked.load()
    asked.processor.chat_template += "<think>\n"
    says(monkeypatch, asked, "still thinking")
    answer = asked.generate_batch([QUESTION])[0]
    assert (answer.thinking, answer.text) == ("still thinking", "")


def test_marks_of_thinking_survive_where_they_are_special_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model(folder)
    asked.load()
    asked.processor.tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    says(monkeypatch, asked, "<think>hm</think>B</s>")
    answer = asked.generate_batch([QUESTION])[0]
    assert (answer.thinking, answer.text) == ("hm", "B")


def test_thinking_changes_the_settings_of_a_run(folder: Path) -> None:
    assert model(folder).settings()["split_thinking"] is True
    assert model(folder, split_thinking=False).settings() != model(folder).settings()


def test_stop_string_ends_the_answer_and_is_cut_off(folder: Path) -> None:
    whole = model(folder, max_new_tokens=16, min_new_tokens=16).generate(QUESTION)
    stop = whole[2:3]
    stopped = model(folder, max_new_tokens=16, min_new_tokens=None, stop_strings=[stop]).generate_batch([QUESTION])[0]
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.new_tokens is not None and stopped.new_tokens < 16


class ByTask(AutoVLM):
    def task_max_new_tokens(self, task: Task) -> int | None:
        return 3 if task.type == "MCQ" else None


def test_new_tokens_by_task_unless_the_user_says(folder: Path) -> None:
    def tokens(task: Task | None, **arguments: Any) -> int | None:
        return ByTask(str(folder), **arguments).generate_batch([QUESTION], task)[0].new_tokens

    asked = ByTask(str(folder))
    asked.load()
    assert asked.call_arguments(MCQ) == {"max_new_tokens": 3}
    assert asked.call_arguments(Task(name="any", type="VQA")) == {}
    assert tokens(MCQ, min_new_tokens=3) == 3
    assert tokens(MCQ, max_new_tokens=5, min_new_tokens=5) == 5


def test_a_seed_repeats_a_sampled_answer(folder: Path) -> None:
    asked = model(folder, temperature=2.0)
    answers = []
    for seed in (1, 2, 1):
        asked.seed(seed)
        answers.append(asked.generate(QUESTION))
    assert answers[0] == answers[2] != answers[1]


def test_shipped_sampling_settings_do_not_leak_in(folder: Path) -> None:
    asked = model(folder)
    asked.load()
    asked.model.generation_config.temperature = 0.3
    ours = asked._generation_config(asked.model.generation_config)
    assert ours.do_sample is False
    assert ours.temperature in (None, 1.0)
    assert ours.eos_token_id == [2]


def test_image_the_processor_refuses_fails_that_sample_only(qwen: Path) -> None:
    asked = model(qwen)
    strip: list[Message] = [
        ImagePart(type="image", value=Image.new("RGB", (2100, 10))), TextPart(type="text", value="What?"),
    ]  # fmt: skip
    with pytest.raises(SampleError, match=r"refuses this prompt \(images of 2100 x 10\): .*aspect ratio"):
        asked.generate_batch([strip])
    assert asked.generate(QUESTION)


def test_inputs_that_do_not_fit_together_fail_that_sample_only(folder: Path) -> None:
    asked = model(folder)
    with pytest.raises(SampleError):
        asked.generate_batch([[*QUESTION, TextPart(type="text", value="<image>")]])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. If reserved but unallocated"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_told_with_numbers_and_advice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked = model(folder)
    asked.load()

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(asked.model, "generate", fail)
    told = r"2 prompts of 34 tokens with up to 8 new ones.*try --batch-size 1, --max-pixels"
    with pytest.raises(SampleError, match=told) as caught:
        asked.generate_batch([QUESTION, QUESTION])
    assert caught.value.__context__ is None


def test_other_runtime_errors_are_not_taken_for_a_samples_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model(folder)
    asked.load()

    def fail(**_: Any) -> None:
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(asked.model, "generate", fail)
    with pytest.raises(RuntimeError, match="device-side"):
        asked.generate_batch([QUESTION])


def positions(limit: int | None, **more: Any) -> Any:
    """A config whose language model has so many positions."""
    return SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(max_position_embeddings=limit, **more))


def test_prompt_longer_than_the_positions() -> None:
    rope = {"rope_parameters": {"rope_type": "default"}}
    assert length_note(positions(100, **rope), 100) == ""
    assert length_note(positions(100, **rope), 101) == "the prompt has 101 tokens, the model 100 positions"
    assert length_note(positions(100, rope_parameters={"mrope_section": [1, 1, 1]}), 101) == ""
    assert length_note(positions(None), 10**6) == ""
    with pytest.raises(SampleError, match=r"1,001 tokens, the model 1,000 positions; try fewer pixels"):
        length_note(positions(1000), 1001)


def test_answer_to_a_prompt_that_is_too_long_has_a_note(folder: Path) -> None:
    asked = model(folder)
    asked.load()
    asked.model.config.get_text_config(decoder=True).max_position_embeddings = 20
    answer = asked.generate_batch([QUESTION])[0]
    assert answer.notes == ("the prompt has 34 tokens, the model 20 positions",)
    assert answer.new_tokens == 8
