"""Models that lay themselves over the cards of a (simulated) machine, with real numbers."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from vlmeval.config import supported_VLM
from vlmeval.errors import ModelError, PlacementError, UsageError
from vlmeval.hardware import Card, parse_cards
from vlmeval.images import ImageSource
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.policy import Overrides
from vlmeval.placement.simulate.ledger import CardLedger
from vlmeval.placement.simulate.machine import simulated_machine
from vlmeval.types import Message
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.multi_card import MultiCardMixin
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel

MIB = 2**20
DEMOS = ("Qwen2-VL-Tiny", "InternVL-Tiny", "LLaVA-OneVision-Tiny", "Llama-Vision-Tiny")
PROMPT: list[Message] = [
    {"type": "image", "value": Image.linear_gradient("L").convert("RGB").resize((80, 64))},
    {"type": "text", "value": "What colour is the circle?\nA. red\nB. blue\n"},
]
WORK = Workload(
    text_tokens=64, image_tokens=64, vision_tokens=256, pixel_values=256 * 1176, new_tokens=4, dtype="float32"
)
FREELY = Placement(overrides=Overrides(reserve_bytes=0), workload=WORK)


def make(name: str, placement: Placement = FREELY) -> TransformersModel:
    model = supported_VLM[name](dtype="float32", max_new_tokens=4)
    assert isinstance(model, TransformersModel)
    model.place(placement)
    return model


def overriding(placement: Placement = FREELY, **overrides: Any) -> Placement:
    return replace(placement, overrides=Overrides(**{"reserve_bytes": 0, **overrides}))


def answer(model: BaseModel) -> list[str]:
    return [reply.text for reply in model.generate_batch([PROMPT])]


def cards_of(model: TransformersModel) -> set[int | None]:
    return {parameter.device.index for parameter in model.model.parameters()}


@pytest.fixture(scope="module")
def whole() -> dict[str, list[str]]:
    """What each model answers from the CPU."""
    return {name: answer(make(name)) for name in DEMOS}


@pytest.fixture
def two_cards() -> Iterator[CardLedger]:
    with simulated_machine(parse_cards("2x0.03")) as ledger:
        yield ledger


@pytest.mark.parametrize("name", DEMOS)
def test_on_two_small_cards_every_family_splits_itself_and_answers_as_from_one(
    name: str, whole: dict[str, list[str]], two_cards: CardLedger
) -> None:
    model = make(name)
    assert answer(model) == whole[name]
    assert cards_of(model) == {0, 1}
    stamp = model.stamp()
    assert "under 40 GB" in stamp["plan_reason"]
    for card in stamp["plan"]:
        assert 0 < card["measured_peak_bytes"] <= card["planned_peak_bytes"] * 1.02
    assert stamp["placement_notes"] == []
    assert "copies of 1 MiB exact" in stamp["copy_check"] or "4,099 bytes exact" in stamp["copy_check"]


def test_what_each_card_holds_is_told_beside_its_plan_and_asking_plans_nothing(two_cards: CardLedger) -> None:
    model = make("Qwen2-VL-Tiny")
    (before,) = model.memory_held()
    assert (before.card, before.planned_bytes) == ("cpu", None) and before.now_bytes, "the process, until it is planned"
    answer(model)
    held = model.memory_held()
    assert [one.card for one in held] == ["0", "1"]
    assert [one.now_bytes for one in held] == [two_cards.live_bytes[0], two_cards.live_bytes[1]]
    for one, card in zip(held, model.stamp()["plan"], strict=True):
        assert (one.planned_bytes, one.peak_bytes) == (card["planned_peak_bytes"], card["measured_peak_bytes"])


@pytest.mark.parametrize("name", DEMOS)
def test_features_kept_from_earlier_images_are_reckoned_on_the_card_they_lie_on(
    name: str, two_cards: CardLedger
) -> None:
    model = make(name)

    def fullness() -> list[float]:
        return [card["measured_peak_bytes"] / card["batch_peak_bytes"] for card in model.stamp()["plan"]]

    upright = Image.linear_gradient("L").convert("RGB").resize((160, 128))
    turned = [upright.rotate(degrees) for degrees in range(12)]
    model.generate_batch([_about(turned[0])])
    first = fullness()
    for image in turned[1:]:
        model.generate_batch([_about(image)])
    assert model.kept_bytes() > 0.02 * min(card["batch_peak_bytes"] for card in model.stamp()["plan"])
    assert all(now <= max(1.0, before) + 0.01 for now, before in zip(fullness(), first, strict=True))


def _about(image: Image.Image) -> list[Message]:
    data = io.BytesIO()
    image.save(data, "PNG")
    source = ImageSource(digest=str(hash(data.getvalue())), name="turned", read=data.getvalue)
    return [{"type": "image", "value": source}, PROMPT[1]]


def test_a_batch_is_held_against_what_it_was_reckoned_to_take(two_cards: CardLedger) -> None:
    model = make("Qwen2-VL-Tiny")
    answer(model)
    alone = [card["batch_peak_bytes"] for card in model.stamp()["plan"]]
    sixteen = [Image.linear_gradient("L").convert("RGB").resize((80, 64)).rotate(degrees) for degrees in range(16)]
    model.generate_batch([[{"type": "image", "value": image}, PROMPT[1]] for image in sixteen])
    cards, held = model.stamp()["plan"], model.memory_held()
    for card, one, of_one in zip(cards, held, alone, strict=True):
        assert card["batch_peak_bytes"] > of_one and card["batch_peak_bytes"] > card["planned_peak_bytes"]
        assert one.planned_bytes == card["batch_peak_bytes"]
        assert 0.5 < card["measured_peak_bytes"] / card["batch_peak_bytes"] <= 1.1
    answer(model)
    assert model.stamp()["plan"] == cards, "a smaller one changes nothing"


def test_auto_split_0_takes_one_card_and_1_all_of_them(whole: dict[str, list[str]]) -> None:
    with simulated_machine(parse_cards("3x0.03")):
        for forced, cards in ((False, {0}), (True, {0, 1, 2})):
            model = make("Qwen2-VL-Tiny", overriding(auto_split=forced))
            assert answer(model) == whole["Qwen2-VL-Tiny"]
            assert cards_of(model) == cards


def test_a_replica_may_lie_on_one_card_that_is_not_the_first(
    whole: dict[str, list[str]], two_cards: CardLedger
) -> None:
    model = make("InternVL-Tiny", replace(FREELY, cards=(1,)))
    assert answer(model) == whole["InternVL-Tiny"]
    assert cards_of(model) == {1}
    assert two_cards.live_bytes[0] == 0


def test_under_torchrun_each_process_takes_its_own_card(
    whole: dict[str, list[str]], two_cards: CardLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    model = make("Qwen2-VL-Tiny")
    assert answer(model) == whole["Qwen2-VL-Tiny"]
    assert cards_of(model) == {1}
    assert os.environ["WORLD_SIZE"] == "2"


def test_a_map_by_hand_is_used_and_one_that_misses_a_module_refused(
    whole: dict[str, list[str]], two_cards: CardLedger
) -> None:
    by_hand = {"model.visual": 1, "model.language_model": 0, "lm_head": 0}
    model = make("Qwen2-VL-Tiny", replace(FREELY, device_map=by_hand))
    assert answer(model) == whole["Qwen2-VL-Tiny"]
    assert next(model.model.model.visual.parameters()).device.index == 1
    for wrong, told in (({"model.visual": 1}, "is missing"), ({**by_hand, "lm_head": 7}, "none of the cards")):
        with pytest.raises(UsageError, match=told):
            make("Qwen2-VL-Tiny", replace(FREELY, device_map=wrong)).load()


def test_memory_taken_between_plan_and_load_is_planned_around_once(
    whole: dict[str, list[str]], two_cards: CardLedger
) -> None:
    model = make("Qwen2-VL-Tiny")
    before = model.replica
    two_cards.take(1, 27 * MIB)
    assert answer(model) == whole["Qwen2-VL-Tiny"]
    assert model.replica != before
    (note,) = model.stamp()["placement_notes"]
    assert "0.03 GiB of card 1" in note
    assert "planned anew" in note


def test_a_card_that_is_gone_between_plan_and_load_is_planned_around_once(
    whole: dict[str, list[str]], two_cards: CardLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("Qwen2-VL-Tiny")
    model.plan()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert answer(model) == whole["Qwen2-VL-Tiny"]
    assert cards_of(model) == {0}
    assert "card 1 (0.03 GiB card) is gone" in model.stamp()["placement_notes"][0]


def test_a_full_card_found_only_while_loading_is_planned_around_once(
    whole: dict[str, list[str]], two_cards: CardLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("Qwen2-VL-Tiny")
    load_model = model.load_model

    def taken_meanwhile(**arguments: Any) -> Any:
        two_cards.take(1, 30 * MIB)
        return load_model(**arguments)

    monkeypatch.setattr(model, "load_model", taken_meanwhile)
    assert answer(model) == whole["Qwen2-VL-Tiny"]
    assert "out of memory while loading" in model.stamp()["placement_notes"][0]


def test_what_fits_no_card_is_an_error_with_the_numbers_and_ways_out() -> None:
    with simulated_machine(parse_cards("2x0.002")), pytest.raises(PlacementError) as caught:
        make("Qwen2-VL-Tiny").load()
    for told in ("does not fit", "card 0", "needs", "one more card of", "--cpu-offload"):
        assert told in str(caught.value)


def test_what_fits_no_card_runs_with_the_cpu_where_that_is_allowed(whole: dict[str, list[str]]) -> None:
    with simulated_machine(parse_cards("0.003")):
        model = make("Qwen2-VL-Tiny", replace(FREELY, cpu_offload=True))
        assert answer(model) == whole["Qwen2-VL-Tiny"]
        assert {parameter.device.type for parameter in model.model.parameters()} == {"cuda", "cpu"}
        assert "CPU offload" in model.stamp()["placement_notes"][0]


def test_with_only_the_worst_prompt_too_large_the_run_goes_on_unless_auto_split_is_0() -> None:
    huge = replace(FREELY, workload=replace(WORK, text_tokens=200_000))
    with simulated_machine(parse_cards("2x0.03")):
        model = make("Qwen2-VL-Tiny", huge)
        assert answer(model)
        assert "worst prompt does not fit" in model.stamp()["placement_notes"][0]
        with pytest.raises(PlacementError, match="AUTO_SPLIT=0"):
            make("Qwen2-VL-Tiny", overriding(huge, auto_split=False)).load()


@pytest.fixture
def code_that_cannot_be_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose own code puts a tensor on the first card, as some remote code does."""
    layer = transformers.models.qwen2_vl.modeling_qwen2_vl.Qwen2VLDecoderLayer
    forward = layer.forward

    def bound_to_the_first_card(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden_states.device.type == "cuda":
            hidden_states = hidden_states + torch.zeros(hidden_states.shape, device=torch.device("cuda", 0))
        return forward(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", bound_to_the_first_card)


@pytest.mark.usefixtures("code_that_cannot_be_split")
def test_a_split_that_fails_at_its_first_forward_falls_back_to_one_card_and_says_so(
    whole: dict[str, list[str]], two_cards: CardLedger, caplog: pytest.LogCaptureFixture
) -> None:
    model = make("Qwen2-VL-Tiny")
    assert answer(model) == whole["Qwen2-VL-Tiny"]
    assert cards_of(model) == {0}
    (note,) = model.stamp()["placement_notes"]
    assert "failed at its first forward" in note
    assert "Qwen2VLDecoderLayer" in note
    assert [record.message for record in caplog.records].count(note) == 1
    assert answer(model) == whole["Qwen2-VL-Tiny"]


@pytest.mark.usefixtures("code_that_cannot_be_split")
def test_where_no_card_holds_it_alone_the_fall_back_needs_leave_to_use_the_cpu(whole: dict[str, list[str]]) -> None:
    with simulated_machine(parse_cards("2x0.006")):
        with pytest.raises(PlacementError, match="no single card holds it either"):
            answer(make("Qwen2-VL-Tiny"))
        allowed = make("Qwen2-VL-Tiny", replace(FREELY, cpu_offload=True))
        assert answer(allowed) == whole["Qwen2-VL-Tiny"]
        assert "the CPU computes them" in allowed.stamp()["placement_notes"][0]


def test_corrupt_copies_between_two_cards_are_found_and_go_through_the_host(
    whole: dict[str, list[str]], two_cards: CardLedger
) -> None:
    two_cards.corrupt = {(torch.device("cuda", 0), torch.device("cuda", 1)): 1}
    model = make("Qwen2-VL-Tiny")
    assert answer(model) == whole["Qwen2-VL-Tiny"]
    assert "from cuda:0 to cuda:1" in model.stamp()["placement_notes"][0]


class OwnClass(MultiCardMixin, BaseModel):
    """As the README shows it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def load(self) -> None:
        self.processor = transformers.AutoProcessor.from_pretrained(self.folder)
        self.model = self.load_on_cards(transformers.Qwen2VLForConditionalGeneration, self.folder, dtype=torch.float32)

    def generate_inner(self, message: Sequence[Message], task: Any = None) -> str:
        inputs = self.processor(text=["What colour is a ripe tomato?"], return_tensors="pt")
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, max_new_tokens=4, do_sample=False)
        return str(self.processor.batch_decode(tokens)[0])


def test_a_class_of_ones_own_gets_several_cards_by_inheriting_the_mixin(two_cards: CardLedger) -> None:
    own = OwnClass(str(supported_VLM["Qwen2-VL-Tiny"].source))
    own.place(FREELY)
    assert own.plan() is None  # nothing is known of it before it is loaded
    split = own.generate("x")
    assert {parameter.device.index for parameter in own.model.parameters()} == {0, 1}
    assert split.startswith("What colour is a ripe tomato?")


def test_auto_split_1_without_a_card_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = make("Qwen2-VL-Tiny", overriding(auto_split=True))
    assert model.plan() is None
    assert "no card is visible" in caplog.text


def test_auto_split_banana_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_SPLIT", "banana")
    with pytest.raises(UsageError, match="banana"):
        make("Qwen2-VL-Tiny", Placement()).plan()


def test_an_old_card_beside_a_new_one_decides_the_number_type() -> None:
    new = Card(index=0, kind="cuda", name="L4", total_bytes=30 * MIB, free_bytes=30 * MIB, capability=(8, 9))
    old = Card(index=1, kind="cuda", name="T4", total_bytes=30 * MIB, free_bytes=30 * MIB, capability=(7, 5))
    with simulated_machine([new, old]):
        model = supported_VLM["Qwen2-VL-Tiny"]()
        assert isinstance(model, TransformersModel)
        model.place(FREELY)
        assert model.precision.dtype == "float16"
        assert "T4 is SM75" in model.precision.reason
        assert issubclass(PlacementError, ModelError)
