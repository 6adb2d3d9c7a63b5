"""A split model answers as the whole one does, with few copies, and says what went wrong if it does not."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from tests.placement import tiny_models
from vlmeval.errors import PlacementError
from vlmeval.placement.carrier import Carrier
from vlmeval.placement.dispatch import dispatch, undispatch
from vlmeval.placement.homes import Homes, as_device, border_modules
from vlmeval.placement.simulate import real_cards
from vlmeval.placement.simulate.ledger import CardLedger
from vlmeval.vlm.image_parts import CrossParts, ImageParts, PaddedTileParts, TileParts
from vlmeval.vlm.leaving import greedy_leaving

families = pytest.mark.parametrize("family", tiny_models.FAMILIES)
CARDS = 3
COPIES_PER_HOP = 2
WAY_BACK = 1


def on_cards(family: str, device_map: Mapping[str, int], ledger: CardLedger, card: int, rows: int = 1) -> Any:
    """The model on its cards, dispatched, and its inputs on one of them."""
    model = tiny_models.fresh(family)
    real_cards.place(model, device_map, ledger)
    dispatch(model, device_map)
    return model, real_cards.to_card(tiny_models.inputs(family, rows), card, ledger)


def cut_map(family: str, *cuts: int) -> dict[str, int]:
    return tiny_models.device_map(tiny_models.loaded(family).model, cuts)


def logits_are_equal(family: str, device_map: Mapping[str, int], card: int) -> bool:
    with real_cards.real_cards(CARDS) as ledger:
        model, inputs = on_cards(family, device_map, ledger, card)
        return torch.equal(model(**inputs).logits.numbers, tiny_models.whole_logits(family))


def answers_are_equal(family: str, device_map: Mapping[str, int], card: int, rows: int = 1) -> bool:
    with real_cards.real_cards(CARDS) as ledger:
        model, inputs = on_cards(family, device_map, ledger, card, rows)
        tokens = model.generate(**inputs, **tiny_models.generation())
        return torch.equal(tokens.numbers, tiny_models.whole_answer(family, rows))


@families
@pytest.mark.parametrize("cards", [2, 3])
def test_logits_are_the_whole_models_bit_for_bit_at_every_border(family: str, cards: int) -> None:
    all_cuts = tiny_models.all_cuts(tiny_models.loaded(family).model, cards)
    wrong = [cuts for i, cuts in enumerate(all_cuts) if not logits_are_equal(family, cut_map(family, *cuts), i % CARDS)]
    assert wrong == []


@families
def test_answers_are_the_whole_models_token_for_token_at_every_border(family: str) -> None:
    all_cuts = tiny_models.all_cuts(tiny_models.loaded(family).model, 2)
    wrong = [
        cuts for i, cuts in enumerate(all_cuts) if not answers_are_equal(family, cut_map(family, *cuts), i % CARDS)
    ]
    assert wrong == []


@families
@pytest.mark.parametrize("card", range(CARDS))
def test_padded_batches_arrive_on_any_card(family: str, card: int) -> None:
    parts = len(tiny_models.parts(tiny_models.loaded(family).model))
    assert answers_are_equal(family, cut_map(family, parts - 4, parts - 2), card, rows=3)


@families
def test_a_model_whole_on_another_card_takes_inputs_from_the_first(family: str) -> None:
    assert answers_are_equal(family, {"": 2}, 0)


@families
def test_the_vision_side_may_lie_behind_the_language_side(family: str) -> None:
    parts = tiny_models.parts(tiny_models.loaded(family).model)
    vision = next(place for place, names in enumerate(parts) if "model.language_model.embed_tokens" in names)
    backwards = {name: int(place < vision) for place, names in enumerate(parts) for name in names}
    assert answers_are_equal(family, backwards, 0)


@families
@pytest.mark.parametrize("rows", [1, 3])
def test_a_decoded_token_costs_two_copies_a_hop_and_one_back(family: str, rows: int) -> None:
    parts = len(tiny_models.parts(tiny_models.loaded(family).model))
    with real_cards.real_cards(CARDS) as ledger:
        model, inputs = on_cards(family, cut_map(family, parts - 3, parts - 2), ledger, 0, rows)
        marks: list[int] = []
        model.get_input_embeddings().register_forward_pre_hook(lambda *_: marks.append(ledger.card_copies()))
        model.generate(**inputs, **tiny_models.generation())
        per_token = {after - before for before, after in itertools.pairwise(marks[1:])}
    assert per_token == {2 * COPIES_PER_HOP + WAY_BACK}


@families
def test_modules_of_the_first_stage_have_no_hook(family: str) -> None:
    parts = len(tiny_models.parts(tiny_models.loaded(family).model))
    device_map = cut_map(family, parts - 2)
    with real_cards.real_cards(CARDS) as ledger:
        model, _ = on_cards(family, device_map, ledger, 0)
        hooked = {name for name, _ in border_modules(model, Homes(model))}
        last = max(name for name in device_map if ".layers." in name and device_map[name])
        side = {"model.language_model.rotary_emb", "lm_head", "model.multi_modal_projector"}  # registered after the cut
        assert hooked - side == {last, "model.language_model.norm"}
        undispatch(model)
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert "forward" not in vars(model)
        assert "generate" not in vars(model)


def test_a_device_mismatch_names_module_tensors_devices_plan_and_remedy() -> None:
    with real_cards.real_cards(CARDS) as ledger:
        model, inputs = on_cards("qwen2vl", cut_map("qwen2vl", 7), ledger, 0)
        layer = model.model.language_model.layers[0].mlp.up_proj
        layer.weight = nn.Parameter(real_cards.CardTensor(layer.weight.numbers, 2, ledger), requires_grad=False)
        with pytest.raises(PlacementError) as caught:
            model.generate(**inputs, **tiny_models.generation())
    told = str(caught.value)
    for part in (
        "model.language_model.layers.0.mlp.up_proj (Linear.forward, linear.py line",
        "weight [256, 128] on cuda:2, input [1, 72, 128] on cuda:0",
        "the plan: cuda:0 has model.visual.patch_embed to",
        "AUTO_SPLIT=0",
    ):
        assert part in told


def test_running_out_of_memory_stays_torchs_own_error() -> None:
    with real_cards.real_cards(CARDS) as ledger:
        model, inputs = on_cards("qwen2vl", cut_map("qwen2vl", 7), ledger, 0)
        ledger.capacities[1] = ledger.live_bytes[1] + 1000
        with pytest.raises(torch.OutOfMemoryError, match="GPU 1"):
            model.generate(**inputs, **tiny_models.generation())


def test_a_map_must_name_every_tensor_and_be_true() -> None:
    device_map = cut_map("qwen2vl", 7)
    with real_cards.real_cards(CARDS) as ledger:
        model, _ = on_cards("qwen2vl", device_map, ledger, 0)
        lacking = {name: card for name, card in device_map.items() if "rotary_emb" not in name}
        with pytest.raises(PlacementError, match=r"says nothing about model\.language_model\.rotary_emb\.inv_freq"):
            dispatch(model, lacking)
        with pytest.raises(PlacementError, match=r"norm\.weight on cuda:1 instead of cuda:0"):
            dispatch(model, {**device_map, "model.language_model.norm": 0})
        with pytest.raises(PlacementError, match="disk"):
            dispatch(model, {**device_map, "lm_head": "disk"})


def test_a_host_device_is_a_device_like_any() -> None:
    model = tiny_models.fresh("internvl")
    dispatch(model, {"": "cpu"})
    with torch.inference_mode():
        assert torch.equal(model(**tiny_models.inputs("internvl")).logits, tiny_models.whole_logits("internvl"))
    assert as_device(1) == torch.device("cuda", 1)


def test_accelerates_hooks_are_taken_off() -> None:
    from accelerate import dispatch_model

    device_map = cut_map("qwen2vl", 7)
    with real_cards.real_cards(CARDS) as ledger:
        model = tiny_models.fresh("qwen2vl")
        real_cards.place(model, device_map, ledger)
        dispatch_model(model, device_map)
        dispatch(model, device_map)
        assert not any(hasattr(module, "_hf_hook") for module in model.modules())
        inputs = real_cards.to_card(tiny_models.inputs("qwen2vl"), 0, ledger)
        assert torch.equal(model(**inputs).logits.numbers, tiny_models.whole_logits("qwen2vl"))


def test_an_argument_travels_once_and_small_ones_together() -> None:
    mask, table, large = torch.ones(3, 5, dtype=torch.bool), torch.rand(2, 7), torch.rand(2**19)
    with real_cards.real_cards(CARDS) as ledger:
        own = real_cards.to_card({"mask": mask, "table": table, "large": large}, 0, ledger)
        target = torch.device("cuda", 1)
        carrier = Carrier()
        first = carrier.bring({"masks": (own["mask"], None), "table": own["table"], "large": own["large"]}, target)
        assert ledger.card_copies() == 2
        again = carrier.bring([own["table"]], target)
        assert again[0] is first["table"]
        assert carrier.bring(first["table"], torch.device("cuda", 0)) is own["table"]
        assert ledger.card_copies() == 2
        assert torch.equal(first["masks"][0].numbers, mask)
        assert torch.equal(first["table"].numbers, table)
        assert torch.equal(first["large"].numbers, large)
        carrier.forget()
        carrier.bring(own["table"], target)
        assert ledger.card_copies() == 3


def test_copies_do_not_outlive_what_they_were_made_of() -> None:
    with real_cards.real_cards(CARDS) as ledger:
        own = real_cards.to_card({"large": torch.rand(2**19)}, 0, ledger)
        carrier = Carrier()
        carrier.bring(own, torch.device("cuda", 1))
        assert ledger.live_bytes[1] == 2**21
        own.clear()
        assert ledger.live_bytes[1] == 0


PARTS: Mapping[str, ImageParts] = {
    "qwen2vl": ImageParts(),
    "llava_onevision": PaddedTileParts(),
    "mllama": CrossParts(),
    "internvl": TileParts(),
}


@families
def test_features_made_before_the_prompt_give_the_whole_models_answer(family: str) -> None:
    """The kit encodes images by themselves; then features, not pixels, are what enters the split model."""
    own = PARTS[family]
    count = len(tiny_models.parts(tiny_models.loaded(family).model))
    for cuts in ((1, count - 2), (count - 4, count - 2)):
        with real_cards.real_cards(CARDS) as ledger:
            model, inputs = on_cards(family, cut_map(family, *cuts), ledger, 1)
            assert own.can_reuse(model)
            part = {name: inputs.pop(name) for name in own.vision_only if name in inputs}
            part |= {"image_grid_thw": inputs["image_grid_thw"]} if "image_grid_thw" in inputs else {}
            if family == "llava_onevision":
                part = {"pixel_values": part["pixel_values"][0], "image_sizes": part["image_sizes"], "alone": True}
            if family == "mllama":
                part["num_tiles"] = [[int(part["aspect_ratio_mask"].numbers.sum())]]
            with torch.no_grad():
                given = own.arguments(own.encode(model, [part]))
                answer = model.generate(**inputs, **given, **tiny_models.generation())
        assert torch.equal(answer.numbers, tiny_models.whole_answer(family))


@families
def test_rows_leave_a_split_batch_with_equal_answers(family: str) -> None:
    with real_cards.real_cards(CARDS) as ledger:
        parts = len(tiny_models.parts(tiny_models.loaded(family).model))
        model, inputs = on_cards(family, cut_map(family, parts - 4, parts - 2), ledger, 0, 3)
        answer = model.generate(**inputs, **tiny_models.generation(), custom_generate=greedy_leaving)
    assert torch.equal(answer.numbers, tiny_models.whole_answer(family, 3))
