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
            ended += [given_up.row for given_up in queue.lost(holder, "died")]
        else:
            row = chance.choice(queue.open_rows(holder))
            queue.answered(holder, row)
            ended.append(row)
    assert sorted(ended) == list(range(start))


def makespan(costs: list[float], replicas: int) -> float:
    """When the last of `replicas` that take from the queue is done."""
    queue = WorkQueue(piece(row, cost=cost) for row, cost in enumerate(costs))
    free = [(0.0, holder) for holder in range(replicas)]
    while queue.waiting:
        now, holder = heapq.heappop(free)
        taken = queue.take(holder)
        assert taken is not None
        finish(queue, holder)
        heapq.heappush(free, (now + taken.cost, holder))
    return max(now for now, _ in free)


@pytest.mark.parametrize(("samples", "replicas"), [(200, 2), (800, 4), (1000, 8), (10_000, 64)])
def test_skewed_lengths_end_within_a_twentieth_of_the_bound_where_fixed_shares_do_not(
    samples: int, replicas: int
) -> None:
    chance = random.Random(samples)
    costs = [50.0 if chance.randrange(50) == 0 else 1.0 for _ in range(samples)]
    bound = max(sum(costs) / replicas, max(costs))
    fixed = max(sum(costs[rank::replicas]) for rank in range(replicas))
    assert makespan(costs, replicas) <= 1.05 * bound
    assert fixed > 1.05 * bound
