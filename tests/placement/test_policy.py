"""When a model is split, over which cards, and how many copies of it there are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vlmeval.errors import UsageError
from vlmeval.hardware import Card, LaunchEnvironment, parse_cards
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.known import known_model
from vlmeval.placement.policy import COMFORTABLE, Overrides, Plan, make_plan
from vlmeval.placement.profile import ModelProfile

GIB = 2**30
WORK = Workload(image_tokens=1280, vision_tokens=5120, largest_image_tokens=5120, pixel_values=5120 * 1176)


def profile(hub_id: str = "Qwen/Qwen2-VL-7B-Instruct") -> ModelProfile:
    known = known_model(hub_id)
    assert known is not None
    found = known.profile()
    assert found is not None
    return found


QWEN_7B = profile()
QWEN_72B = profile("Qwen/Qwen2-VL-72B-Instruct")


def plan(cards: str | tuple[Card, ...], model: ModelProfile = QWEN_7B, launch: LaunchEnvironment | None = None,
         **overrides: object) -> Plan:  # fmt: skip
    found = parse_cards(cards) if isinstance(cards, str) else cards
    return make_plan(model, WORK, found, launch, Overrides(**overrides))  # type: ignore[arg-type]


def shape(found: Plan) -> list[list[int]]:
    return [sorted(share.card.index for share in replica.cards) for replica in found.replicas]


def test_two_small_cards_share_one_replica() -> None:
    found = plan("2x24")
    assert shape(found) == [[0, 1]]
    assert found.split
    assert found.worst < COMFORTABLE


def test_cards_left_over_carry_further_replicas() -> None:
    assert shape(plan("8x24")) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    found = plan("5x24")
    assert shape(found) == [[0, 1], [2, 3]]
    assert [card.index for card in found.unused] == [4]
    assert "left over: card 4" in found.notes


def test_the_fewest_cards_that_stay_comfortable_are_taken() -> None:
    assert shape(plan("8x24", QWEN_72B)) == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert shape(plan("4x12")) == [[0, 1], [2, 3]]


def test_a_large_card_holds_the_model_whole() -> None:
    found = plan("2x80")
    assert shape(found) == [[0], [1]]
    assert not found.split


def test_an_a100_of_40_gb_is_no_small_card() -> None:
    a100 = Card(index=0, kind="cuda", name="A100", total_bytes=42_298_834_944, free_bytes=42_298_834_944)
    v100 = replace(a100, name="V100", total_bytes=34_079_637_504, free_bytes=34_079_637_504)
    assert not plan((a100, replace(a100, index=1))).split
    assert plan((v100, replace(v100, index=1))).split


def test_a_large_card_is_split_only_where_it_must_be() -> None:
    assert shape(plan("4x80", QWEN_72B)) == [[0, 1, 2]]


def test_total_decides_the_rule_and_free_the_plan() -> None:
    busy = tuple(replace(card, free_bytes=10 * GIB) for card in parse_cards("2x80"))
    found = plan(busy)
    assert found.split, "neither card has room for the whole model now"
    assert "40 GB and more" in found.reason
    half_busy = (replace(parse_cards("2x24")[0], free_bytes=8 * GIB), parse_cards("2x24")[1])
    shares = {share.card.index: share.weight_bytes for share in plan(half_busy).replicas[0].cards}
    assert shares[0] < shares[1]


def test_one_small_card_alone_is_used_alone() -> None:
    found = plan("24")
    assert shape(found) == [[0]]
    assert found.reason == "only one card is visible"
    assert not plan("12").fits


def test_what_not_splitting_would_gain_is_said() -> None:
    notes = " ".join(plan("2x24").notes)
    assert "card 0 alone would hold a whole replica" in notes
    assert "2 replicas instead of 1" in notes
    assert not any("alone" in note for note in plan("2x12").notes)


def test_auto_split_forces_all_cards_and_forbids_any_split() -> None:
    assert shape(plan("4x80", auto_split=True)) == [[0, 1, 2, 3]]
    assert shape(plan("2x24", auto_split=False)) == [[0], [1]]
    forbidden = plan("4x24", QWEN_72B, auto_split=False)
    assert not forbidden.fits
    assert "AUTO_SPLIT=0" in forbidden.reason


def test_torchrun_gives_each_process_one_card_whatever_its_size() -> None:
    for local_rank in range(2):
        launch = LaunchEnvironment(rank=local_rank, world_size=2, local_rank=local_rank, local_world_size=2)
        found = plan("3x24", launch=launch)
        assert shape(found) == [[local_rank]]
        assert [card.index for card in found.unused] == [2]


def test_torchrun_with_a_split_gives_each_process_its_slice() -> None:
    launch = LaunchEnvironment(rank=1, world_size=2, local_rank=1, local_world_size=2)
    assert shape(plan("4x24", launch=launch, auto_split=True)) == [[2, 3]]
    found = plan("5x24", launch=launch, cards_per_replica=2)
    assert shape(found) == [[2, 3]]
    assert [card.index for card in found.unused] == [4]


def test_more_processes_than_cards_are_refused() -> None:
    launch = LaunchEnvironment(rank=0, world_size=4, local_rank=0, local_world_size=4)
    with pytest.raises(UsageError, match="need 4; only 2 cards are visible; try --nproc-per-node 2"):
        plan("2x24", launch=launch)


def test_flags_overrule_the_rule() -> None:
    assert shape(plan("8x24", cards_per_replica=4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert shape(plan("4x24", replicas=1)) == [[0, 1]]
    assert shape(plan("2x24", cards_per_replica=1)) == [[0], [1]]
    capped = plan("2x24", max_memory={0: 6 * GIB})
    shares = {share.card.index: share for share in capped.replicas[0].cards}
    assert shares[0].weight_bytes < 6 * GIB < shares[1].weight_bytes
    assert plan("2x24", reserve_bytes=4 * GIB).worst > plan("2x24").worst


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"replicas": 3}, "only 2 cards are visible"),
        ({"replicas": 3, "auto_split": True}, "only 2 cards are visible"),
        ({"cards_per_replica": 3}, "only 2 cards are visible"),
        ({"replicas": 0}, "at least 1"),
        ({"cards_per_replica": -1}, "at least 1"),
        ({"reserve_bytes": -1}, "negative"),
        ({"max_memory": {7: 1}}, "names card 7"),
        ({"auto_split": False, "cards_per_replica": 2}, "take one of them away"),
        ({"reserve_bytes": 30 * GIB}, "nothing is left"),
    ],
)
def test_what_cannot_be_asked_for_is_told(overrides: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        plan("2x24", **overrides)


def test_no_card_at_all_is_told() -> None:
    with pytest.raises(UsageError, match="no card is visible"):
        plan(())


def test_unequal_cards_carry_what_they_can() -> None:
    found = plan("24,12,8", max_memory={})
    assert found.fits
    assert all(share.load <= COMFORTABLE for replica in found.replicas for share in replica.cards)


def test_every_module_is_on_a_card_of_its_replica() -> None:
    for replica in plan("8x24").replicas:
        assert set(replica.device_map.values()) == {share.card.index for share in replica.cards}
        assert len(replica.device_map) == sum(len(block.modules) for block in QWEN_7B.blocks)


def test_a_model_larger_than_everything_does_not_fit_and_says_by_how_much() -> None:
    found = plan("2x24", QWEN_72B)
    assert not found.fits
    assert found.worst == pytest.approx(3.0, abs=0.2)
