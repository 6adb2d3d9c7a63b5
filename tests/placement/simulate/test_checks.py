"""The campaign's checks (bench/placement_table.py) on two of its cases; the rest of it takes an hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.placement import full_size_models
from vlmeval.errors import UsageError
from vlmeval.hardware import parse_cards
from vlmeval.placement.blocks import config_of
from vlmeval.placement.cost_model import costs
from vlmeval.placement.known import known_config
from vlmeval.placement.partition import Load, partition
from vlmeval.placement.policy import Overrides, Plan, make_plan
from vlmeval.placement.simulate import checks, prompts
from vlmeval.placement.simulate.prompts import Question

CASES: Mapping[str, tuple[str, str, Question]] = {
    "a batch with a mask": ("llava-onevision-qwen2-0.5b", "2x24", Question(batch=8)),
    "sixty tiles on unequal cards": ("InternVL2_5-1B", "24,12,8", prompts.largest("internvl")),
}


def plan_for(name: str, cards: str, asked: Question) -> tuple[Plan, checks.ModelProfile, checks.Workload]:
    known = known_config(name)
    profile = known.profile()
    assert profile is not None
    _, work = prompts.prompt_inputs(config_of(known.config), asked)
    return make_plan(profile, work, parse_cards(cards), None, Overrides(auto_split=True)), profile, work


@pytest.mark.parametrize("case", CASES)
def test_a_plan_keeps_its_word_on_simulated_cards(case: str) -> None:
    name, cards, asked = CASES[case]
    plan, profile, work = plan_for(name, cards, asked)
    assert checks.plan_faults(profile, work, plan, parse_cards(cards)) == []
    replica = plan.replicas[0]
    layout = checks.layout_of(profile, replica.device_map)
    inputs, _ = prompts.prompt_inputs(config_of(known_config(name).config), asked)
    capacities = [share.capacity_bytes for share in replica.cards]
    measured = checks.run_layout(lambda: full_size_models.build(name), profile, layout, inputs, capacities)
    assert checks.run_faults(plan, measured) == []
    assert sum(measured.weight_bytes) == pytest.approx(
        sum(cost.weight_bytes for cost in costs(profile, work)), rel=1e-4
    )


def test_a_plan_that_breaks_its_word_is_told() -> None:
    plan, profile, work = plan_for("Qwen2-VL-2B", "2x24", Question())
    replica = plan.replicas[0]
    layout = checks.layout_of(profile, replica.device_map)
    kept = checks.Measured(layout=layout, peak_bytes=tuple(s.peak_bytes for s in replica.cards), token_copies=4)
    assert checks.run_faults(plan, kept) == []
    more = tuple(round(peak * 1.03) for peak in kept.peak_bytes)
    broken = replace(kept, peak_bytes=more, token_copies=5, map_faults=("x is named 2 times",))
    told = checks.run_faults(plan, broken)
    assert told[0] == "x is named 2 times"
    assert "-2.91%" in told[1]
    assert told[-1] == "5 copies a token over 1 hops"
    assert checks.run_faults(plan, replace(kept, failure="OutOfMemoryError: full"))[0].startswith("OutOfMemory")
    full = replace(replica, cards=tuple(replace(share, capacity_bytes=9) for share in replica.cards))
    assert "too many" in checks.run_faults(replace(plan, replicas=(full,)), kept)[0]
    half = replace(plan, replicas=(replace(replica, cards=replica.cards[:1]),))
    assert "card 1 is empty, and nothing says so" in checks.plan_faults(profile, work, half, parse_cards("2x24"))


def test_a_map_is_held_against_every_tensor_and_tie() -> None:
    model = full_size_models.build("Qwen2-VL-2B")
    whole = {"model.visual": 0, "model.language_model": 0, "lm_head": 0}
    assert checks.map_faults(model, whole) == []
    assert checks.map_faults(model, {**whole, "lm_head": 1}) == ["lm_head.weight is tied to a tensor of another card"]
    missing = checks.map_faults(model, {**whole, "model.visual.patch_embed": 0})
    assert missing == ["model.visual.patch_embed.proj.weight is named 2 times"]


def test_the_two_searches_agree() -> None:
    loads = [
        Load(keeps_bytes=100 + 37 * i % 61, grows_bytes=9 * (i > 3), shared_bytes=50 * (i > 3), is_early=i < 4,
             early_bytes=20 * (i == 0), transient_bytes=90 + 53 * i % 47)
        for i in range(14)
    ]  # fmt: skip
    for capacities in ([900, 900], [500, 900, 300], [400, 400, 400, 1000]):
        best = checks.least_worst(loads, capacities)
        assert best / 1.000001 <= partition(loads, capacities).worst <= best * 1.010001


def test_what_cannot_be_asked_is_told() -> None:
    with pytest.raises(UsageError, match="fuyu"):
        prompts.largest("fuyu")
    with pytest.raises(UsageError, match="shortest prompt"):
        Question(batch=20)
