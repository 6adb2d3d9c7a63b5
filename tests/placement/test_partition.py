"""The partition is exact, whatever the cards; brute force says so on small ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmeval.errors import UsageError
from vlmeval.placement.partition import NEAR, Load, Partition, can_hold, partition, stage_peak

BLOCKS = st.lists(
    st.builds(
        Load,
        keeps_bytes=st.integers(0, 60),
        grows_bytes=st.sampled_from([0, 0, 7, 20]),
        transient_bytes=st.integers(0, 40),
        is_early=st.booleans(),
        cut_bytes=st.sampled_from([0, 8]),
    ),
    min_size=1,
    max_size=7,
)
CARDS = st.lists(st.integers(1, 90), min_size=1, max_size=4)


def _cuts(blocks: int, cards: int) -> Iterator[tuple[int, ...]]:
    for inner in itertools.combinations_with_replacement(range(blocks + 1), cards - 1):
        yield (0, *inner, blocks)


def _worst(loads: Sequence[Load], order: Sequence[int], cuts: Sequence[int]) -> float:
    return max(stage_peak(loads[a:b]) / size for size, (a, b) in zip(order, itertools.pairwise(cuts), strict=True))


def _brute_force(loads: Sequence[Load], capacities: Sequence[int]) -> float:
    return min(
        _worst(loads, order, cuts)
        for order in set(itertools.permutations(capacities))
        for cuts in _cuts(len(loads), len(capacities))
    )


def test_vision_and_the_kv_cache_do_not_need_their_memory_at_once() -> None:
    vision, layer = Load(keeps_bytes=10, transient_bytes=30, is_early=True), Load(keeps_bytes=10, grows_bytes=25)
    assert stage_peak([vision]) == 40
    assert stage_peak([layer]) == 35
    assert stage_peak([vision, layer]) == 50


def _check(found: Partition, loads: Sequence[Load], capacities: Sequence[int]) -> None:
    """Every block once and in order, no card twice, and the peaks add up."""
    ends = [0, *(stage.end for stage in found.stages)]
    assert [stage.first for stage in found.stages] == ends[:-1]
    assert ends[-1] == len(loads)
    assert len({stage.card for stage in found.stages}) == len(found.stages)
    for stage in found.stages:
        assert stage.peak_bytes == stage_peak(loads[stage.first : stage.end])
    assert found.worst == max(stage.peak_bytes / capacities[stage.card] for stage in found.stages)


@given(loads=BLOCKS, capacities=CARDS)
@settings(max_examples=300, deadline=None)
def test_the_fullest_card_is_within_the_slack_of_brute_force_over_every_order(
    loads: list[Load], capacities: list[int]
) -> None:
    found = partition(loads, capacities)
    _check(found, loads, capacities)
    best = _brute_force(loads, capacities)
    assert best <= found.worst * (1 + 1e-9)
    assert found.worst <= best * NEAR * (1 + 1e-9)


@given(loads=BLOCKS, capacities=CARDS)
@settings(max_examples=150, deadline=None)
def test_without_slack_the_fullest_card_equals_brute_force(loads: list[Load], capacities: list[int]) -> None:
    from vlmeval.placement.partition import _Costs, _Search

    best = _brute_force(loads, capacities)
    assert _Search(_Costs(loads), capacities, True).least_worst() == pytest.approx(best, rel=1e-12)


@given(loads=BLOCKS, capacities=CARDS)
@settings(max_examples=150, deadline=None)
def test_a_given_order_is_kept_and_solved_exactly(loads: list[Load], capacities: list[int]) -> None:
    found = partition(loads, capacities, any_order=False)
    _check(found, loads, capacities)
    assert [stage.card for stage in found.stages] == sorted(stage.card for stage in found.stages)
    best = min(_worst(loads, capacities, cuts) for cuts in _cuts(len(loads), len(capacities)))
    assert best <= found.worst * (1 + 1e-9)
    assert found.worst <= best * NEAR * (1 + 1e-9)


@given(loads=BLOCKS, capacities=CARDS, place=st.integers(0, 3), more=st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_a_larger_card_never_makes_the_fullest_card_fuller(
    loads: list[Load], capacities: list[int], place: int, more: int
) -> None:
    larger = list(capacities)
    larger[place % len(larger)] += more
    assert partition(loads, larger).worst <= partition(loads, capacities).worst * NEAR * (1 + 1e-9)


@given(loads=BLOCKS, capacities=CARDS)
@settings(max_examples=100, deadline=None)
def test_hops_are_the_fewest_of_all_partitions_this_good_in_a_given_order(
    loads: list[Load], capacities: list[int]
) -> None:
    found = partition(loads, capacities, any_order=False)
    best = min(_worst(loads, capacities, cuts) for cuts in _cuts(len(loads), len(capacities)))
    fewest = min(
        sum(a < b for a, b in itertools.pairwise(cuts)) - 1
        for cuts in _cuts(len(loads), len(capacities))
        if _worst(loads, capacities, cuts) <= best * NEAR
    )
    assert found.hops <= fewest


def test_of_equal_cuts_the_one_with_the_fewest_bytes_per_token_is_taken() -> None:
    loads = [
        Load(keeps_bytes=100, cut_bytes=7168),
        Load(keeps_bytes=0, cut_bytes=8),
        Load(keeps_bytes=100, cut_bytes=7168),
    ]
    assert partition(loads, [120, 120]).stages[1].first == 1


def test_a_large_card_among_small_ones_gets_the_large_part() -> None:
    loads = [Load(keeps_bytes=10) for _ in range(80)]
    found = partition(loads, [240, 120, 480])
    sizes = {stage.card: stage.end - stage.first for stage in found.stages}
    assert sizes[2] > sizes[0] > sizes[1]
    assert found.worst < 0.97


def test_160_blocks_over_eight_different_cards_are_cut() -> None:
    loads = [Load(keeps_bytes=800 + i % 7, transient_bytes=300 + i % 5, cut_bytes=16384) for i in range(160)]
    found = partition(loads, [24000, 12000, 8000, 40000, 48000, 16000, 32000, 11000])
    assert found.worst < 1


def test_what_fits_is_not_made_to_overflow_for_the_sake_of_a_hop() -> None:
    loads = [Load(keeps_bytes=99), Load(keeps_bytes=2), Load(keeps_bytes=99)]
    found = partition(loads, [100, 100, 100])
    assert found.worst <= 1.0
    assert can_hold(loads, [100, 100, 100])
    assert not can_hold(loads, [100, 98])
    assert not can_hold(loads, [])


@given(loads=BLOCKS, capacities=CARDS)
@settings(max_examples=150, deadline=None)
def test_can_hold_agrees_with_the_best_partition(loads: list[Load], capacities: list[int]) -> None:
    assert can_hold(loads, capacities) == (partition(loads, capacities).worst <= 1.0)


def test_no_cards_and_cards_without_memory_are_refused() -> None:
    for capacities in ([], [0], [10, -1]):
        with pytest.raises(UsageError, match="cannot be laid"):
            partition([Load(keeps_bytes=1)], capacities)


@given(loads=BLOCKS, capacities=CARDS, data=st.data())
@settings(max_examples=100, deadline=None)
def test_blocks_that_belong_together_stay_together_and_the_rest_is_still_the_best(
    loads: list[Load], capacities: list[int], data: st.DataObject
) -> None:
    uncut = data.draw(st.sets(st.integers(1, len(loads))))
    found = partition(loads, capacities, uncut=uncut)
    _check(found, loads, capacities)
    assert not {stage.first for stage in found.stages} & (uncut - {len(loads)})
    best = min(
        _worst(loads, order, cuts)
        for order in set(itertools.permutations(capacities))
        for cuts in _cuts(len(loads), len(capacities))
        if not set(cuts) & (uncut - {len(loads)})
    )
    assert best <= found.worst * (1 + 1e-9)
    assert found.worst <= best * NEAR * (1 + 1e-9)


@given(loads=BLOCKS, capacities=CARDS, data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_wish_to_stay_together_costs_the_fullest_card_no_more_than_the_slack(
    loads: list[Load], capacities: list[int], data: st.DataObject
) -> None:
    wished = data.draw(st.sets(st.integers(1, max(1, len(loads) - 1))))
    found = partition(loads, capacities, rather_uncut=wished)
    assert found.worst <= _brute_force(loads, capacities) * NEAR * (1 + 1e-9)
    together = partition(loads, capacities, uncut=wished)
    if together.worst <= _brute_force(loads, capacities):
        assert not {stage.first for stage in found.stages} & wished
