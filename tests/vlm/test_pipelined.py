"""Several batches in flight over simulated cards, with real numbers: the answers of one at a time, and no mixing up."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from vlmeval.config import supported_VLM
from vlmeval.errors import SampleError, UsageError
from vlmeval.hardware import parse_cards
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.in_flight import LANE_BYTES
from vlmeval.placement.policy import Overrides
from vlmeval.placement.simulate.ledger import CardLedger
from vlmeval.placement.simulate.machine import simulated_machine
from vlmeval.placement.turns import StoppedError, Turn, Turns, twin
from vlmeval.types import Answer, Message
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel

DEMOS = ("Qwen2-VL-Tiny", "InternVL-Tiny", "LLaVA-OneVision-Tiny", "Llama-Vision-Tiny")
WORK = Workload(
    text_tokens=64, image_tokens=64, vision_tokens=256, pixel_values=256 * 1176, new_tokens=4, dtype="float32"
)
OVER_ALL = Placement(overrides=Overrides(auto_split=True, reserve_bytes=0), workload=WORK, batches_in_flight=3)
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="cards are simulated only where none are")


def prompt(number: int) -> list[Message]:
    """Pictures of different sizes and colours, texts of different lengths."""
    colour = ("red", "green", "blue", "yellow")[number % 4]
    picture = Image.new("RGB", (56 + 28 * (number % 3), 84), colour)
    text = "What colour is the circle?" + " Look closely." * (number % 3) + "\nA. red\nB. blue\n"
    return [{"type": "image", "value": picture}, {"type": "text", "value": text}]


BATCHES = [[prompt(0)], [prompt(1)], [prompt(2), prompt(3)]]


def make(name: str, placement: Placement = OVER_ALL, **settings: Any) -> TransformersModel:
    model = supported_VLM[name](**{"dtype": "float32", "max_new_tokens": 3, **settings})
    assert isinstance(model, TransformersModel)
    model.place(placement)
    return model


def settled(model: TransformersModel) -> list[list[Answer]]:
    """The answers of BATCHES, one batch at a time; with them the model is past its first ones, which are watched."""
    alone = [model.generate_batch(batch) for batch in BATCHES]
    assert model.pipeline() is not None
    return alone


def evenly(name: str, cards: int) -> Placement:
    """As many blocks of the language model on each card; vision on the first."""
    profile = make(name).planning_profile()
    assert profile is not None
    first = profile.index("embeddings")
    places = {
        module: max(0, number - first) * cards // (len(profile.blocks) - first)
        for number, block in enumerate(profile.blocks)
        for module in block.modules
    }
    return replace(OVER_ALL, device_map=places)


@pytest.fixture
def three_cards() -> Iterator[CardLedger]:
    with simulated_machine(parse_cards("3x0.03")) as ledger:
        yield ledger


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many cards were held each time that one was taken; fails where one is held twice."""
    counts: list[int] = []
    now: dict[torch.device, int] = {}
    lock = threading.Lock()
    enter, leave = Turn.enter, Turn.leave

    def entering(turn: Turn, card: torch.device) -> None:
        before = turn.card
        enter(turn, card)
        if before != card:
            with lock:
                now[card] = now.get(card, 0) + 1
                assert now[card] == 1
                counts.append(sum(now.values()))
            time.sleep(0.001)  # so that others get to run on two busy cores

    def leaving(turn: Turn, going_to: torch.device | None = None) -> None:
        if turn.card is not None and turn.card != going_to:
            with lock:
                now[turn.card] -= 1
        leave(turn, going_to)

    monkeypatch.setattr(Turn, "enter", entering)
    monkeypatch.setattr(Turn, "leave", leaving)
    return counts


@pytest.mark.parametrize("cards", [2, 3])
@pytest.mark.parametrize("name", DEMOS)
def test_three_batches_in_flight_answer_token_for_token_as_one_at_a_time(
    name: str, cards: int, held: list[int]
) -> None:
    with simulated_machine(parse_cards(f"{cards}x0.03")):
        model = make(name, evenly(name, cards))
        alone = model.generate_batches(BATCHES)  # the first answers are watched, and written one batch at a time
        assert len({parameter.device for parameter in model.model.parameters()}) == cards
        assert not held
        model.forget_features()  # so that lanes encode images too
        assert model.generate_batches(BATCHES) == alone
        assert max(held) > 1  # cards worked at the same time
        assert model.placement_notes == ()


def test_one_batch_that_cannot_be_answered_leaves_the_others_alone(three_cards: CardLedger) -> None:
    model = make("Qwen2-VL-Tiny")
    alone = settled(model)
    bad: list[Message] = [{"type": "image", "value": Image.new("RGB", (3000, 4))}, {"type": "text", "value": "?"}]
    first, wrong, second = model.generate_batches([BATCHES[0], [bad], BATCHES[1]])
    assert [first, second] == alone[:2]
    assert isinstance(wrong, SampleError)
    assert "refuses this prompt" in str(wrong)


def test_out_of_memory_in_flight_goes_on_with_fewer_and_loses_nothing(
    three_cards: CardLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("LLaVA-OneVision-Tiny")
    alone = settled(model)
    pipeline = model.pipeline()
    assert pipeline is not None
    last = pipeline.lanes[2].model
    generate = last.generate

    def taken_meanwhile(*args: Any, **kwargs: Any) -> Any:
        # Another program takes what is left, and gives it back when this batch has failed.
        three_cards.take(1, 2**30)
        try:
            return generate(*args, **kwargs)
        finally:
            three_cards.take(1, 0)

    monkeypatch.setattr(last, "generate", taken_meanwhile)
    assert model.generate_batches(BATCHES) == alone
    assert model.batches_in_flight() == 2
    stamp = model.stamp()
    assert "out of memory with 3 batches in flight" in stamp["placement_notes"][0]
    assert (stamp["batches_in_flight"], stamp["batches_in_flight_reason"]) == (2, "as asked for")
    assert set(stamp["in_flight_peak_bytes"]) == {"0", "1", "2"}
    assert model.generate_batches(BATCHES) == alone


def test_a_fault_of_the_program_ends_the_wave_and_is_told(
    three_cards: CardLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("Qwen2-VL-Tiny")
    settled(model)
    pipeline = model.pipeline()
    assert pipeline is not None
    lane = pipeline.lanes[1].model

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a kernel is broken")

    with monkeypatch.context() as patch:
        patch.setattr(lane, "generate", broken)
        with pytest.raises(RuntimeError, match="a kernel is broken"):
            model.generate_batches(BATCHES)
    assert not any(lock.locked() for lock in pipeline.turns.cards.values())  # no card is still held


def test_an_interrupt_ends_all_lanes(three_cards: CardLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("Qwen2-VL-Tiny")
    alone = settled(model)
    pipeline = model.pipeline()
    assert pipeline is not None

    def interrupted(futures: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmeval.vlm.pipelined.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.wave(BATCHES, None)
    assert not any(lock.locked() for lock in pipeline.turns.cards.values())
    assert pipeline.wave(BATCHES, None) == alone


def test_sampled_answers_stop_strings_and_one_card_have_one_batch_in_flight() -> None:
    with simulated_machine(parse_cards("2x0.03")):
        assert make("Qwen2-VL-Tiny").batches_in_flight() == 3
        assert make("Qwen2-VL-Tiny", do_sample=True, temperature=0.5).batches_in_flight() == 1
        assert make("Qwen2-VL-Tiny", stop_strings=["."]).batches_in_flight() == 1
        one = replace(OVER_ALL, overrides=Overrides(auto_split=False, reserve_bytes=0))
        assert make("Qwen2-VL-Tiny", one).batches_in_flight() == 1
        # So small a model gains nothing: Python is what it waits for.
        assert make("Qwen2-VL-Tiny", replace(OVER_ALL, batches_in_flight=None)).batches_in_flight() == 1
    with pytest.raises(UsageError, match="at least 1"):
        Placement(batches_in_flight=0)


def test_more_prompts_fit_at_once_in_parts_than_as_one_batch() -> None:
    with simulated_machine(parse_cards("3x0.008")):
        one = make("Qwen2-VL-Tiny", replace(OVER_ALL, batches_in_flight=1))
        size = one.prompt_size(prompt(0))
        whole, parts = [
            make("Qwen2-VL-Tiny", replace(OVER_ALL, batches_in_flight=count)).batch_load(size, 12) for count in (1, 3)
        ]
        assert 0 < parts - 3 * LANE_BYTES / (0.008 * 2**30) < whole


def test_lanes_are_made_anew_after_memory_was_cleared_and_blocks_were_moved(three_cards: CardLedger) -> None:
    model = make("Qwen2-VL-Tiny")
    alone = settled(model)
    assert model.generate_batches(BATCHES) == alone
    before = model.replica
    model.clear_memory()
    gc.collect()
    held = dict(three_cards.live_bytes)
    assert model.generate_batches(BATCHES) == alone
    model.clear_memory()
    assert dict(three_cards.live_bytes) == held  # no lane keeps anything
    assert model.replica == before


def test_twins_share_tensors_and_no_state(three_cards: CardLedger) -> None:
    owner = make("Qwen2-VL-Tiny")
    owner.load()
    model = owner.model
    other: Any = twin(model)
    assert [id(p) for p in other.parameters()] == [id(p) for p in model.parameters()]
    before = model.model.rope_deltas
    other.model.rope_deltas = "mine"
    assert model.model.rope_deltas is before
    assert {name for name, _ in other.named_modules()} == {name for name, _ in model.named_modules()}
    assert not {id(module) for module in other.modules()} & {id(module) for module in model.modules()}


def test_a_lane_waits_for_a_card_and_ends_where_all_shall_end() -> None:
    turns, card, other = Turns(), torch.device("cpu"), torch.device("cpu", 0)
    first, second = turns.lane(), turns.lane()
    first.enter(card)
    waiting = threading.Thread(target=second.enter, args=(card,))
    waiting.start()
    first.enter(other)  # gives the first card back before it takes this one
    waiting.join(timeout=10)
    assert (first.card, second.card) == (other, card)
    first.leave(going_to=other)
    assert first.card == other
    second.leave()
    turns.stop()
    with pytest.raises(StoppedError):
        first.enter(card)
    first.leave()
    assert not any(lock.locked() for lock in turns.cards.values())
