"""How many batches a replica works on at once: memory first, then what it gains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlmeval.hardware import host_card, parse_cards
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.in_flight import card_needs, decide, most_fitting
from vlmeval.placement.known import known_config
from vlmeval.placement.layout import Layout, Replica
from vlmeval.placement.policy import Overrides, make_plan
from vlmeval.placement.profile import ModelProfile
from vlmeval.placement.simulate.block_time import Assumed, job

IMAGE = Workload(
    text_tokens=100, image_tokens=1280, vision_tokens=5120, largest_image_tokens=5120, pixel_values=5120 * 1176
)


def over(name: str, cards: str, work: Workload) -> tuple[ModelProfile, Replica]:
    found = known_config(name).profile()
    assert found is not None
    return found, make_plan(found, work, parse_cards(cards), None, Overrides(auto_split=True)).replicas[0]


def test_what_is_in_flight_fits_every_card_and_one_more_would_not() -> None:
    work = replace(IMAGE, batch=4)
    found, replica = over("Qwen2-VL-72B", "8x24", work)
    needs, count = card_needs(found, replica, work), most_fitting(found, replica, work)
    assert count > 1
    assert all(need.bytes_of(count) <= need.share.capacity_bytes for need in needs)
    assert any(need.bytes_of(count + 1) > need.share.capacity_bytes for need in needs)
    assert decide(found, replica, work).count <= count


@pytest.mark.parametrize("name", ["Qwen2-VL-72B", "Llama-3.2-90B-Vision", "InternVL2-76B", "llava-onevision-qwen2-72b"])
def test_one_batch_in_flight_needs_what_the_plan_says_and_little_more(name: str) -> None:
    work = replace(IMAGE, cross_tokens=6404, image_tokens=1) if name.startswith("Llama") else IMAGE
    found, replica = over(name, "8x24", work)
    for need in card_needs(found, replica, work):
        assert need.share.peak_bytes <= need.bytes_of(1) <= need.share.peak_bytes * 1.05
        assert need.each_bytes >= need.share.kv_bytes


def test_a_72b_model_over_eight_cards_gains_four_times_by_the_estimate() -> None:
    found, replica = over("Qwen2-VL-72B", "8x24", replace(IMAGE, new_tokens=16))
    decided = decide(found, replica, replace(IMAGE, new_tokens=16))
    assert 4 <= decided.gain <= 8
    assert decided.count <= decided.fitting


def test_slow_python_leaves_little_to_gain() -> None:
    found, replica = over("Qwen2-VL-7B", "2x24", replace(IMAGE, text_tokens=10, image_tokens=0, vision_tokens=0))
    text = replace(IMAGE, text_tokens=10, image_tokens=0, vision_tokens=0)
    assert decide(found, replica, text, Assumed(layer_host_s=5e-3)).count == 1
    assert decide(found, replica, text, Assumed(layer_host_s=0)).count > 1


def test_where_no_second_batch_fits_there_is_one_and_the_reason() -> None:
    big = replace(IMAGE, text_tokens=60_000)
    found, replica = over("Qwen2-VL-72B", "8x24", big)
    decided = decide(found, replica, big)
    assert decided.count == 1
    assert "memory" in decided.reason


@pytest.mark.parametrize("cards", [parse_cards("1x24"), (*parse_cards("1x24"), host_card())])
def test_one_card_or_the_cpu_has_nothing_to_overlap(cards: tuple) -> None:
    found = known_config("Qwen2-VL-2B").profile()
    assert found is not None
    layout = Layout(found, IMAGE, 0)
    replica = layout.replica(cards, layout.over(cards))
    if len(replica.cards) == 1 or any(share.card.kind == "cpu" for share in replica.cards):
        assert decide(found, replica, IMAGE).count == 1


def test_no_number_in_flight_gains_more_than_all_work_over_the_slowest_stage() -> None:
    found, replica = over("Qwen2-VL-72B", "8x24", replace(IMAGE, new_tokens=16))
    one = job(found, replica, replace(IMAGE, new_tokens=16), Assumed(layer_host_s=0))
    stages = [sum(v.card_s for p in one.passes for v in p if v.card == card) for card in range(8)]
    gain = decide(found, replica, replace(IMAGE, new_tokens=16), Assumed(layer_host_s=0)).gain
    assert 5 < gain <= sum(stages) / max(stages) * 1.05  # copies are no work, and are overlapped
