"""Conversations with real checkpoints: answers do not depend on the batch, images of earlier turns are reused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vlmeval.config import resolve_model
from vlmeval.conversation import ANSWER, prompt_of_turn
from vlmeval.hardware import parse_cards
from vlmeval.inference.answering import Request, answer, answer_together
from vlmeval.inference.fingerprint import prompt_fingerprint
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.placement.simulate.machine import simulated_machine
from vlmeval.types import Message, Prediction, Sample, Task, TextPart
from vlmeval.vlm.auto import AutoVLM
from vlmeval.vlm.internvl2 import _in_place
from vlmeval.vlm.internvl2_templates import TEMPLATES
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel

from .internvl_folders import write_folder
from .test_contract import picture, prompt
from .test_internvl2_folders import loaded
from .test_pipelined import OVER_ALL

FAMILIES = ("qwen2_vl", "qwen3_vl", "llava_onevision", "mllama", "internvl")
MT = Task(name="m", type="MT", traits=frozenset({"multi_image"}))
A, B, C, D = (picture(60 + 20 * n, 90, n) for n in range(4))


def conversation(*turns: list[Any]) -> list[Message]:
    return [part for turn in turns for part in (*prompt(*turn), ANSWER)]


THREE = [
    conversation([A, "which shape is it?"], ["what colour?"], ["and again, in one word"]),
    conversation([B, "and", C, "which is larger?"], ["why?"]),
    conversation([D, "this?"]),
]
"""Three turns, two, and one."""


def requests(messages: Sequence[list[Message]]) -> list[Request]:
    return [
        Request(sample=Sample(index=n, question=""), message=message, fingerprint=prompt_fingerprint(message))
        for n, message in enumerate(messages)
    ]


def answers(model: TransformersModel, messages: Sequence[list[Message]], at_once: int) -> dict[Any, str]:
    asked = requests(messages)
    parts = [asked[start : start + at_once] for start in range(0, len(asked), at_once)]
    outcomes = [outcome for part in parts for outcome in answer_together(model, MT, part, 0)]
    found = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    assert [prediction.error for prediction in found if prediction.status == "failed"] == []
    return {prediction.index: prediction.prediction for prediction in found}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> TransformersModel:
    made = resolve_model(str(folder_of(request.param)))(max_new_tokens=5)
    assert isinstance(made, TransformersModel)
    made.load()
    return made


def test_three_conversations_at_once_are_answered_as_each_alone_and_see_their_history(model: TransformersModel) -> None:
    alone = answers(model, THREE, 1)
    assert answers(model, THREE, 3) == alone
    assert len(set(alone.values())) == 3, "all alike: the test would not see a mistake"
    first, second, _ = json.loads(alone[0])
    assert model.generate_batch([prompt_of_turn(THREE[0], [first])])[0].text == second


def test_images_of_earlier_turns_are_encoded_once(model: TransformersModel) -> None:
    model.store_images()
    answers(model, THREE, 3)
    assert (model.stamp()["images"], model.stamp()["images_reused"]) == (3 * 1 + 2 * 2 + 1, 4)
    # More images than are kept of prompts that stand alone.
    model.store_images()
    assert model._store is not None
    many = [conversation([picture(40, 40, 10 * n + m), picture(50, 40, 10 * n + m), "?"], ["??"])
            for n in range(6) for m in range(3)]  # fmt: skip
    answers(model, many, 18)
    assert (model._store.used, model._store.encoded) == (72, 36)


def test_an_image_that_gets_company_later_is_reused_unless_it_is_then_cut_otherwise(model: TransformersModel) -> None:
    """LLaVA-OneVision cuts an image that is alone in its prompt into tiles, and one of several not."""
    model.store_images()
    answers(model, [conversation([A, "this?"], [B, "and that?"])], 1)
    assert model._store is not None
    encoded = 3 if type(model).__name__ == "LLaVA_OneVision_HF" else 2
    assert (model._store.used, model._store.encoded) == (3, encoded)


def test_every_template_takes_the_models_own_turns_in_order(model: TransformersModel) -> None:
    history = [*prompt(A, "first?"), TextPart(type="text", value="OWN", role="assistant"), *prompt("second?")]
    rendered = model.render(history)
    places = [rendered.index(text) for text in ("first?", "OWN", "second?")]
    assert places == sorted(places)
    # LLaVA-OneVision's has a line break after the role only where the model goes on.
    assert rendered.startswith(model.render(history[:2]).rstrip("\n")), "turn 1 stays as it was"


def test_the_size_of_a_conversation_counts_the_longest_answers_to_its_earlier_turns(model: TransformersModel) -> None:
    sizes = [model.prompt_size(message, MT) for message in THREE]
    flat = model.prompt_size([part for part in THREE[0] if part["type"] != "answer"], MT)
    assert sizes[0].text_tokens - flat.text_tokens >= 2 * model.most_new_tokens
    assert sizes[1].images.images == 2
    assert model.prompt_size(THREE[2], MT) == model.prompt_size(THREE[2][:-1], MT)
    assert not model.use_custom_prompt(MT), "conversations are worded by the benchmark"


def test_split_over_simulated_cards_and_in_flight_answers_are_the_same(tmp_path: Path) -> None:
    def make(placement: Placement | None = None) -> TransformersModel:
        made = resolve_model("Qwen2-VL-Tiny")(max_new_tokens=2)
        assert isinstance(made, TransformersModel)
        if placement is not None:
            made.place(placement)
        made.load()
        return made

    whole = answers(make(), THREE[:2], 1)
    with simulated_machine(parse_cards("2x0.03")):
        split = make(OVER_ALL)
        assert split.replica is not None and len(split.replica.cards) == 2
        assert answers(split, THREE[:2], 2) == whole, "the first answers: watched, one batch at a time"
        assert split.pipeline() is not None
        assert answers(split, THREE[:2], 2) == whole, "in flight"
        split.most_in_flight = 1  # then the next batch is prepared while this one is at its later turns
        with Journal(tmp_path / "j.jsonl") as journal:
            answer(split, MT, requests(THREE[:2]), journal, batch_size=1, seed=0, on_finished=lambda _: None)
        assert {index: record.prediction for index, record in read_journal(journal.path).items()} == whole


def test_a_checkpoint_without_a_class_of_ours_encodes_again_and_answers_alike(folder_of: Callable[[str], Path]) -> None:
    auto = AutoVLM(str(folder_of("qwen2_vl")), max_new_tokens=5)
    auto.load()
    alone = answers(auto, THREE, 1)
    assert answers(auto, THREE, 3) == alone
    assert auto.image_parts is None and "images" not in auto.stamp()


def test_original_internvl_folders_close_the_models_turns_and_leave_images_where_they_stand() -> None:
    turn = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert _in_place(turn) == "a<IMG_CONTEXT>\nb"
    for template in TEMPLATES.values():
        text = template.prompt([("user", "q1"), ("assistant", "a1"), ("user", "q2")])
        own = f"{template.assistant}a1{template.separator}{template.user}q2{template.separator}{template.assistant}"
        assert text.endswith(f"{template.user}q1{template.separator}{own}")


def test_an_original_internvl_folder_words_a_turn_the_same_when_later_ones_bring_images(tmp_path: Path) -> None:
    write_folder(tmp_path, "qwen2")
    model = loaded(tmp_path, max_new_tokens=5)
    message = conversation(["see", A, "this?"], ["and", B, C, "these?"])
    first = prompt_of_turn(message, [])
    second = prompt_of_turn(message, ["OWN"])
    short, long = (model.render(part, in_place=True) for part in (first, second))
    assert long.startswith(f"{short}OWN<|im_end|>") and "see<IMG_CONTEXT>\nthis?" in short and "Image-" not in long
    assert "Image-1" in model.render(second), "other tasks number them"
    alone = answers(model, [message, THREE[0], THREE[2]], 1)
    assert answers(model, [message, THREE[0], THREE[2]], 3) == alone


@pytest.mark.gpu
def test_on_a_card_a_batch_of_conversations_is_answered_as_each_alone_in_fp32() -> None:
    made = resolve_model("Qwen2-VL-Tiny")(max_new_tokens=8, dtype="float32")
    assert isinstance(made, TransformersModel)
    made.load()
    assert made.replica_cards()
    assert answers(made, THREE, 3) == answers(made, THREE, 1)
