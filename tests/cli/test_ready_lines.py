"""What is said of replicas that get ready."""

from __future__ import annotations

from collections.abc import Sequence

from vlmeval.cli.ready_lines import ReadyLines
from vlmeval.inference.roll import ReplicaState, State


def states(count: int, *ready: int, others: State = "loading") -> Sequence[ReplicaState]:
    return [
        ReplicaState(number=n, name=f"replica {n}", state="answering" if n in ready else others) for n in range(count)
    ]


def test_the_first_is_named_and_when_the_last_is_ready_that_is_said_once() -> None:
    lines = ReadyLines()
    assert lines.watch(states(8), 0.0) == ""
    assert lines.ready("replica 3", 1.0) == "replica 3 is ready"
    for n in (0, 1, 2, 4, 5, 6):
        assert lines.ready(f"replica {n}", 2.0) == ""
    assert lines.watch(states(8, *range(7)), 9.0) == ""
    assert lines.ready("replica 7", 13.0) == ""
    assert lines.watch(states(8, *range(8)), 13.0) == "all 8 replicas are ready, the last 12 s after the first"
    assert lines.watch(states(8, *range(8)), 14.0) == "" and lines.ready("replica 7", 20.0) == ""


def test_when_it_takes_long_it_is_said_how_many_are_ready_and_what_the_others_are_at() -> None:
    lines = ReadyLines()
    lines.ready("replica 0", 100.0)
    told = [(at, lines.watch(states(8, 0), 100.0 + at)) for at in range(0, 300)]
    others = ", ".join(f"replica {n} loading" for n in (1, 2, 3, 4))
    said = f"1 of 8 replicas is ready; {others} and 3 more"
    assert [(at, line) for at, line in told if line] == [(at, said) for at in (30, 60, 120, 240)]
    lines.ready("replica 1", 400.0)
    restarting = lines.watch(states(3, 0, 1, others="restarting"), 600.0)
    assert restarting == "2 of 3 replicas are ready; replica 2 restarting"


def test_two_are_both_and_one_alone_is_no_crowd() -> None:
    two, one = ReadyLines(), ReadyLines()
    two.ready("rank 0", 0.0), two.ready("rank 1", 0.2)
    ranks = [ReplicaState(number=n, name=f"rank {n}", state="waiting") for n in range(2)]
    assert two.watch(ranks, 0.3) == "both replicas are ready"
    assert one.ready("replica 0", 0.0) == "replica 0 is ready" and one.watch(states(1, 0), 0.1) == ""


def test_one_that_died_meanwhile_counts_as_having_been_ready() -> None:
    lines = ReadyLines()
    lines.ready("replica 0", 0.0)
    lines.ready("replica 1", 0.0)
    assert lines.watch(states(2, 0, others="restarting"), 0.5) == "both replicas are ready"
