"""Who gets what: every row answered once, longest first, and nobody blamed for another's death but the guilty row."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmeval.inference.queue import Piece, Waiting, WorkQueue


def piece(*rows: int, cost: float = 1.0, dataset: int = 0) -> Piece:
    return Piece(dataset=dataset, rows=rows, cost=cost)


def finish(queue: WorkQueue, holder: int) -> None:
    for row in queue.open_rows(holder):
        assert queue.answered(holder, row)


def test_the_longest_is_taken_first_and_benchmarks_keep_their_order() -> None:
    queue = WorkQueue([piece(0, cost=1), piece(1, cost=9), piece(0, cost=50, dataset=1), piece(2, cost=9)])
    taken = []
    while (found := queue.take(0)) is not None:
        taken.append((found.dataset, found.rows))
        finish(queue, 0)
    assert taken == [(0, (1,)), (0, (2,)), (0, (0,)), (1, (0,))]


def test_what_waits_is_known_by_benchmark_through_takes_deaths_and_second_tries() -> None:
    queue = WorkQueue([piece(0, 1, cost=8), piece(2, cost=3), piece(0, cost=50, dataset=1)])
    assert queue.waiting_of == {0: Waiting(pieces=2, cost=11), 1: Waiting(pieces=1, cost=50)}
    queue.take(7)
    assert queue.waiting_of[0] == Waiting(pieces=1, cost=3)
    queue.lost(7, "was killed")
    assert queue.waiting_of[0] == Waiting(pieces=3, cost=11)
    for holder in range(3):
        queue.take(holder)
    assert list(queue.waiting_of) == [1]
    assert sum(one.pieces for one in queue.waiting_of.values()) == queue.waiting == 1


def test_nobody_waits_between_two_benchmarks() -> None:
    queue = WorkQueue([piece(0), piece(0, dataset=1)])
    queue.take(0)
    second = queue.take(1)
    assert second is not None and second.dataset == 1


def test_an_answer_counts_once_and_only_from_the_holder() -> None:
    queue = WorkQueue([piece(3, 4)])
    queue.take(7)
    assert not queue.answered(8, 3), "not its holder"
    assert not queue.answered(7, 5), "not in its piece"
    assert queue.answered(7, 3)
    assert not queue.answered(7, 3), "twice"
    assert not queue.is_done
    assert queue.answered(7, 4)
    assert queue.is_done


def test_a_holder_takes_no_second_piece_before_it_finished_the_first() -> None:
    queue = WorkQueue([piece(0), piece(1)])
    queue.take(0)
    with pytest.raises(ValueError, match="has not finished"):
        queue.take(0)


def test_rows_of_the_dead_are_given_to_others_one_by_one_without_those_that_were_answered() -> None:
    queue = WorkQueue([piece(0, 1, 2, cost=3)])
    queue.take(0)
    queue.answered(0, 1)
    assert queue.lost(0, "died") == ()
    rows = []
    while (found := queue.take(1)) is not None:
        rows.append(found.rows)
        finish(queue, 1)
    assert rows == [(0,), (2,)]
    assert queue.is_done


def test_a_row_that_ends_two_replicas_is_given_up_with_what_happened() -> None:
    queue = WorkQueue([piece(0, 1)])
    queue.take(0)
    queue.lost(0, "was killed by SIGKILL")
    guilty = queue.take(1)
    assert guilty is not None and guilty.rows == (0,)
    (given_up,) = queue.lost(1, "was killed by SIGSEGV")
    assert (given_up.row, given_up.deaths) == (0, ("was killed by SIGKILL", "was killed by SIGSEGV"))
    assert queue.take(1) is not None
    finish(queue, 1)
    assert queue.is_done


def test_a_holder_may_have_pieces_in_hand_which_it_can_give_back() -> None:
    queue = WorkQueue([piece(0, cost=3), piece(1, cost=2), piece(2, cost=1)])
    assert queue.take_ahead(0) is None, "nothing to be ahead of"
    queue.take(0)
    ahead = queue.take_ahead(0)
    assert ahead is not None and queue.in_hand(0) == (ahead,)
    assert queue.held(0) != ahead and queue.open_rows(0) == (0,)
    assert not queue.answered(0, 1), "its turn has not come"
    assert queue.give_back(0, 0, [1]) and not queue.give_back(0, 0, [1])
    again = queue.take(1)
    assert again == ahead, "the costliest that waits"
    finish(queue, 0)
    assert queue.held(0) is None


def test_what_was_in_hand_begins_when_the_piece_before_it_is_answered() -> None:
    queue = WorkQueue([piece(0, cost=3), piece(1, cost=2)])
    queue.take(0)
    ahead = queue.take_ahead(0)
    finish(queue, 0)
    assert queue.held(0) == ahead and queue.in_hand(0) == ()
    assert queue.give_back(0, 0, [1]), "the holder knows better whether it began"
    assert queue.held(0) is None and queue.waiting == 1


def test_nothing_is_held_against_what_was_in_hand_of_the_dead_and_it_is_alone_from_then_on() -> None:
    queue = WorkQueue([piece(0, cost=9), piece(1, 2, cost=8), piece(3, cost=1)])
    for _ in range(2):  # what is to be alone comes first, then nothing is ahead
        queue.take(0)
        queue.take_ahead(0)
        died = queue.lost(0, "died")
    assert [given_up.row for given_up in died] == [0]
    now = queue.take(1)
    assert now is not None and (now.rows, now.alone) == ((1, 2), True), "whole"
    assert queue.take_ahead(1) is None
    assert queue.lost(1, "died") == (), "its first death"


def test_who_held_nothing_loses_nothing() -> None:
    queue = WorkQueue([piece(0)])
    assert queue.lost(5, "died") == ()
    assert queue.waiting == 1


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(min_value=1, max_value=4), min_size=1, max_size=12),
    seed=st.integers(min_value=0, max_value=2**32),
)
def test_whoever_dies_when_every_row_is_answered_or_given_up_exactly_once(sizes: list[int], seed: int) -> None:
    chance, start, work = random.Random(seed), 0, []
    for size in sizes:
        work.append(piece(*range(start, start + size), cost=chance.random()))
        start += size
    queue, ended = WorkQueue(work), []
    while not queue.is_done:
        holder = chance.randrange(3)
        if queue.held(holder) is None:
            queue.take(holder)
        elif chance.random() < 0.3:
            queue.take_ahead(holder)
        elif queue.in_hand(holder) and chance.random() < 0.3:
            queue.give_back(holder, 0, queue.in_hand(holder)[-1].rows)
        elif chance.random() < 0.3:
            ended += [given_up.row for given_up in queue.lost(holder, "died")]
        else:
            row = chance.choice(queue.open_rows(holder))
            queue.answered(holder, row)
            ended.append(row)
    assert sorted(ended) == list(range(start))


def makespan(costs: list[float], replicas: int, ahead: int) -> float:
    """When the last of `replicas` is done that take from the queue, have pieces in hand and give them back."""
    queue = WorkQueue(piece(row, cost=cost) for row, cost in enumerate(costs))
    free, now = [(0.0, holder) for holder in range(replicas)], 0.0
    while free:
        now, holder = heapq.heappop(free)
        finish(queue, holder)
        if queue.held(holder) is None and not queue.waiting:
            busy = [(queue.in_hand(other)[-1].cost, other) for _, other in free if queue.in_hand(other)]
            if busy:
                queue.give_back(max(busy)[1], 0, queue.in_hand(max(busy)[1])[-1].rows)
        begun = queue.held(holder) or queue.take(holder)
        if begun is not None:
            heapq.heappush(free, (now + begun.cost, holder))
            while len(queue.in_hand(holder)) < ahead and queue.take_ahead(holder) is not None:
                pass
    assert queue.is_done
    return now


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize(("samples", "replicas"), [(200, 2), (800, 4), (1000, 8), (10_000, 64)])
def test_skewed_lengths_end_within_a_twentieth_of_the_bound_where_fixed_shares_do_not(
    samples: int, replicas: int, ahead: int
) -> None:
    chance = random.Random(samples)
    costs = [50.0 if chance.randrange(50) == 0 else 1.0 for _ in range(samples)]
    bound = max(sum(costs) / replicas, max(costs))
    fixed = max(sum(costs[rank::replicas]) for rank in range(replicas))
    assert makespan(costs, replicas, ahead) <= 1.05 * bound
    assert fixed > 1.05 * bound
