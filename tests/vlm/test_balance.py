"""Models whose cards have less memory than was promised, or lose some: with real numbers on simulated machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.vlm.test_multi_card import DEMOS, FREELY, MIB, PROMPT, WORK, make, overriding
from vlmeval.cli.card_slices import replicas_of
from vlmeval.errors import OutOfMemorySampleError
from vlmeval.hardware import parse_cards
from vlmeval.inference import ladder
from vlmeval.placement.policy import Overrides
from vlmeval.placement.simulate.ledger import CardLedger
from vlmeval.placement.simulate.machine import simulated_machine
from vlmeval.types import Answer, Message, Task
from vlmeval.vlm.balance import FIRST_LOOK
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel

TASK = Task(name="t", type="MCQ")
QWEN = "Qwen2-VL-Tiny"
LARGE: list[Message] = [
    {"type": "image", "value": Image.linear_gradient("L").convert("RGB").resize((320, 240))},
    PROMPT[1],
]


WORDY: list[Message] = [{"type": "text", "value": "What colour is the circle, and which shape is it? " * 40}]
"""A prompt whose keys and values outweigh all else."""


def ask(model: TransformersModel, message: list[Message] = PROMPT) -> Answer:
    return ladder.generate(model, TASK, [message], 0, about="sample 1")[0]


@pytest.fixture(scope="module")
def whole() -> Mapping[str, str]:
    """What each model answers from the CPU."""
    return {name: make(name).generate_batch([PROMPT])[0].text for name in DEMOS}


def leave(ledger: CardLedger, card: int, left_bytes: int) -> None:
    """Another program takes a card but for so many bytes beside what we hold."""
    ledger.take(card, ledger.capacities[card] - ledger.live_bytes[card] - left_bytes)


def last_card(model: TransformersModel) -> int:
    assert model.replica is not None
    return model.replica.cards[-1].card.index


def places(model: TransformersModel) -> dict[str, Any]:
    return {name: str(tensor.device) for name, tensor in model.model.named_parameters()}


@pytest.mark.parametrize("name", DEMOS)
def test_a_card_that_holds_less_than_it_promised_is_planned_around_with_equal_answers(
    name: str, whole: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(name)
        model.load()
        card, promised = last_card(model), ledger.capacities[0]
        before = places(model)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (promised - ledger.live_bytes[card], promised))
        monkeypatch.setattr(model, "load_model", lambda **_: pytest.fail("the checkpoint was read again"))
        ledger.capacities[card] = ledger.live_bytes[card] + 100_000
        answer = ask(model)
        assert answer.text == whole[name]
        assert answer.notes == ("answered after: memory cleared, blocks moved",)
        assert places(model) != before
        (move,) = model.stamp()["moves"]
        assert move["why"] == f"card {card} was full"
        assert {step["from"] for step in move["moves"]} == {card}
        assert model.stamp()["placement_notes"][0].startswith(f"card {card} was full: moved ")
        # Later samples profit.
        assert ask(model).notes == ()
        assert len(model.stamp()["moves"]) == 1


def test_memory_that_another_program_takes_is_noticed_before_anything_fails(
    whole: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(QWEN)
        assert ask(model).text == whole[QWEN]
        card = last_card(model)
        leave(ledger, card, 600_000)  # enough for this prompt, not for the worst one
        for _ in range(2):
            answer = ask(model)
            assert (answer.text, answer.notes) == (whole[QWEN], ())
        (why,) = [record["why"] for record in model.stamp()["moves"]]
        assert why.endswith(f" MiB of card {card} (0.03 GiB card) are taken by another program")
        assert "out of memory" not in caplog.text
        after = model.stamp()["moves"][0]["after"]
        assert all(own["planned_peak_bytes"] <= own["capacity_bytes"] for own in after)


def test_a_card_that_comes_close_to_full_is_relieved(whole: Mapping[str, str]) -> None:
    small = replace(WORK, text_tokens=1, image_tokens=1, vision_tokens=1, pixel_values=1, new_tokens=1)
    with simulated_machine(parse_cards("0.0026,0.005")):
        model = make(QWEN, replace(FREELY, workload=small))
        for _ in range(2):
            answer = ask(model)
            assert (answer.text, answer.notes) == (whole[QWEN], ())
        moves = model.stamp()["moves"]
        assert "% of what it can hold" in moves[0]["why"]
        before, after = moves[0]["before"], moves[0]["after"]
        assert max(own["measured_peak_bytes"] / own["capacity_bytes"] for own in before) > 0.95
        assert max(own["planned_peak_bytes"] / own["capacity_bytes"] for own in after) < 0.85
        assert len(moves) == 1


def test_where_all_goes_as_predicted_the_first_look_moves_nothing(whole: Mapping[str, str]) -> None:
    with simulated_machine(parse_cards("2x0.03")):
        model = make(QWEN)
        for _ in range(FIRST_LOOK + 1):
            assert ask(model).text == whole[QWEN]
        assert model.stamp()["moves"] == []


def test_a_third_card_is_taken_where_two_do_not_do(whole: Mapping[str, str]) -> None:
    with simulated_machine(parse_cards("3x0.03")) as ledger:
        model = make(QWEN)
        model.load()
        plan = model.plan()
        assert plan is not None
        (unused,) = plan.unused
        for share in plan.replicas[0].cards:
            leave(ledger, share.card.index, 20_000)
        answer = ask(model)
        assert answer.text == whole[QWEN]
        assert "more cards" in answer.notes[0]
        assert f"cuda:{unused.index}" in places(model).values()
        assert unused not in model.plan().unused  # type: ignore[union-attr]
        assert "cuda:0 to cuda:" not in model.stamp()["copy_check"]


def test_a_card_that_was_full_is_used_again_when_its_memory_is_back(whole: Mapping[str, str]) -> None:
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(QWEN)
        model.load()
        last = last_card(model)
        for full, other in ((last, 1 - last), (1 - last, last)):
            leave(ledger, full, 20_000)
            assert ask(model).text == whole[QWEN]
            assert set(places(model).values()) == {f"cuda:{other}"}
            ledger.take(full, 0)


def test_one_card_is_left_for_two_where_another_is_free(whole: Mapping[str, str]) -> None:
    cards = tuple(replace(card, total_bytes=60 * 10**9, free_bytes=60 * 10**9) for card in parse_cards("2x60"))
    with simulated_machine(cards) as ledger:
        model = make(QWEN, overriding(replicas=1))
        assert ask(model).text == whole[QWEN]
        assert set(places(model).values()) == {"cuda:0"}
        leave(ledger, 0, 20_000)
        answer = ask(model)
        assert answer.text == whole[QWEN]
        assert "more cards" in answer.notes[0]
        assert "cuda:1" in places(model).values()


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"auto_split": False}, "blocks moved: it lies on one card alone; more cards: AUTO_SPLIT=0 forbids to split"),
        ({"cards_per_replica": 1}, "it lies on one card alone; more cards: --cards-per-replica 1 was asked for"),
    ],
)
def test_what_the_user_asked_for_is_not_overruled_and_the_sample_fails_alone(
    overrides: dict[str, Any], why: str, whole: Mapping[str, str]
) -> None:
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(QWEN, overriding(**overrides))
        model.load()
        leave(ledger, 0, 20_000)
        with pytest.raises(OutOfMemorySampleError) as caught:
            ask(model)
        assert why in str(caught.value)
        assert "fewer pixels: --allow-fewer-pixels is not given" in str(caught.value)
        ledger.take(0, 0)
        assert ask(model).text == whole[QWEN]


def test_a_map_written_by_hand_stays(whole: Mapping[str, str]) -> None:
    by_hand = {"model.visual": 1, "model.language_model": 0, "lm_head": 0}
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(QWEN, replace(FREELY, device_map=by_hand))
        model.load()
        leave(ledger, 0, 20_000)
        with pytest.raises(OutOfMemorySampleError, match="its device map was written by hand"):
            ask(model)


def test_what_a_replica_was_told_of_the_runs_plan_may_be_moved(whole: Mapping[str, str]) -> None:
    planned = {"model.visual": 1, "model.language_model": 0, "lm_head": 0}
    asked = replace(FREELY, cards=(0, 1), device_map=planned, is_planned=True)
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(QWEN, Placement.of_words(json.loads(json.dumps(asked.words()))))
        model.load()
        leave(ledger, 0, 20_000)
        assert ask(model).text == whole[QWEN]
        (move,) = model.stamp()["moves"]
        assert move["why"] == "card 0 was full"


def test_a_replicas_process_is_told_the_most_its_own_cards_may_hold() -> None:
    with simulated_machine(parse_cards("4x0.03")):
        most = Overrides(replicas=2, cards_per_replica=2, max_memory={1: 2**24, 3: 2**23}, reserve_bytes=0)
        model = make(QWEN, replace(FREELY, overrides=most))
        plan = model.plan()
        assert plan is not None
        told = [Placement.of_words(json.loads(json.dumps(spec.placement))) for spec in replicas_of(2, model, plan)]
    assert [one.overrides and dict(one.overrides.max_memory) for one in told] == [{}, {0: 2**24, 1: 2**23}]
    assert all(one.is_planned and one.cards == (0, 1) for one in told)


def peak_of(model: TransformersModel, ledger: CardLedger, message: list[Message], **sparing: Any) -> int:
    with model.sparing(**sparing) as room:
        assert room.is_made
        model.forget_features()  # encoded anew, as after a failure
        ledger.forget_peaks()
        model.generate_batch([message])
    return ledger.peak_bytes[0]


def test_keys_and_values_in_host_memory_are_the_last_rung_that_keeps_the_answer() -> None:
    expected = make("InternVL-Tiny").generate_batch([WORDY])[0].text
    with simulated_machine(parse_cards("1x0.03")) as ledger:
        model = make("InternVL-Tiny")
        model.load()
        on_card, on_host = (peak_of(model, ledger, WORDY, host_cache=host) for host in (False, True))
        small = 4096  # what failed attempts leave: flags of rows, a cache without layers
        assert on_host + small < on_card
        ledger.capacities[0] = on_host + small
        answer = ask(model, WORDY)
        assert answer.text == expected
        assert answer.notes == ("answered after: memory cleared, keys and values in host memory",)


@pytest.mark.parametrize("name", [QWEN, "Llama-Vision-Tiny"])
def test_with_keys_and_values_in_host_memory_answers_are_the_same_on_several_cards(
    name: str, whole: Mapping[str, str]
) -> None:
    with simulated_machine(parse_cards("2x0.03")):
        model = make(name)
        model.load()
        with model.sparing(host_cache=True) as room:
            assert room.is_made
            assert model.generate_batch([PROMPT])[0].text == whole[name]


@pytest.mark.parametrize("name", [QWEN, "InternVL-Tiny"])
def test_fewer_pixels_are_taken_only_where_allowed_and_for_that_sample_alone(name: str) -> None:
    with simulated_machine(parse_cards("1x0.03")) as ledger:
        model = make(name, replace(FREELY, allow_fewer_pixels=True))
        model.load()
        least = peak_of(model, ledger, LARGE, host_cache=True, pixel_share=0.125)
        full = model.generate_batch([LARGE])[0]
        ledger.capacities[0] = least + 512
        answer = ask(model, LARGE)
        assert "fewer pixels (1/" in answer.notes[0]
        assert answer.prompt_tokens is not None
        assert answer.prompt_tokens < (full.prompt_tokens or 0)
        model.placement = replace(model.placement, allow_fewer_pixels=False)
        with pytest.raises(OutOfMemorySampleError, match="fewer pixels: --allow-fewer-pixels is not given"):
            ask(model, LARGE)
        ledger.capacities[0] = 30 * MIB
        assert ask(model, LARGE) == full


def test_a_quantised_model_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(QWEN)
        model.load()
        model.placement = replace(FREELY, workload=replace(WORK, quantisation="awq"))
        leave(ledger, last_card(model), 20_000)
        with pytest.raises(OutOfMemorySampleError, match="quantised weights cannot be moved in place"):
            ask(model)


def test_memory_that_runs_out_while_pixels_are_brought_to_the_card_is_no_end_of_the_run(
    whole: Mapping[str, str],
) -> None:
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        model = make(QWEN)
        model.load()
        for card in (0, 1):
            leave(ledger, card, 1024)
        with pytest.raises(OutOfMemorySampleError, match="out of memory answering 1 prompt"):
            ask(model)
        for card in (0, 1):
            ledger.take(card, 0)
        assert ask(model).text == whole[QWEN]
