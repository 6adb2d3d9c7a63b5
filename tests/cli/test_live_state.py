"""What a live view is made of: counts of replicas that die, peaks that are counted anew, the clock's start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmeval.cli.live_state import LiveState
from vlmeval.inference.queue import Piece, Waiting
from vlmeval.inference.roll import ReplicaState, State
from vlmeval.report.live import BenchmarkView

PIECE = Piece(dataset=0, rows=(0, 1), cost=20.0)


def state_of(total: int = 10, done: int = 0) -> LiveState:
    return LiveState("m", {0: BenchmarkView(name="Mini", total=total, done=done)})


def replica(state: State = "answering", **more: Any) -> ReplicaState:
    return ReplicaState(number=0, name="replica 0", state=state, **more)


def memory(peak: int, planned: int = 100) -> tuple[Mapping[str, Any], ...]:
    return ({"card": "0", "planned_bytes": planned, "now_bytes": 5, "peak_bytes": peak},)


def test_the_clock_starts_when_the_first_replica_is_ready() -> None:
    live = state_of(done=3)
    live.watch([replica("loading")], {}, 10.0)
    assert live.view(40.0).elapsed_s is None
    live.watch([replica("waiting")], {}, 50.0)
    live.answered(0)
    live.watch([replica(answered=1)], {}, 52.0)
    view = live.view(52.0)
    assert (view.elapsed_s, view.done, view.mean_per_s, view.per_s) == (2.0, 4, 0.5, 0.5)


def test_a_replica_that_died_has_no_rate_and_keeps_its_count() -> None:
    live = state_of()
    live.watch([replica(piece=PIECE)], {}, 0.0)
    live.watch([replica(piece=PIECE, answered=4)], {}, 2.0)
    assert live.view(2.0).replicas[0].per_s == 2.0
    live.watch([replica("restarting", answered=4, deaths=1, starts_in_s=3.0)], {}, 3.0)
    view = live.view(3.0)
    (one,) = view.replicas
    assert (one.per_s, one.answered, one.starts_in_s, one.age_s, view.deaths) == (None, 4, 3.0, None, 1)


def test_a_peak_outlives_its_counter_until_the_plan_changes() -> None:
    live = state_of()
    for peak, planned, seen in ((90, 100, 90), (40, 100, 90), (30, 80, 30)):
        live.watch([replica(memory=memory(peak, planned))], {}, 0.0)
        assert live.view(0.0).replicas[0].cards[0].peak_bytes == seen
    live.watch([replica("loading", deaths=1)], {}, 1.0)
    live.watch([replica(deaths=1, memory=memory(7, 80))], {}, 2.0)
    assert live.view(2.0).replicas[0].cards[0].peak_bytes == 7, "another process"


def test_queue_failures_moves_and_time_left_come_from_what_was_told() -> None:
    live = state_of()
    live.finished(PIECE, 4.0)
    live.answered(0)
    live.answered(0, "sample 3 failed: will not")
    live.moved("replica 0", [{"why": "first"}, {"why": "card 1 was full"}])
    live.watch([replica(piece=PIECE, age_s=1.0)], {0: Waiting(pieces=3, cost=60.0)}, 5.0)
    view = live.view(5.0)
    assert (view.failed, view.last_failure, view.moves, view.last_move) == (
        1, "sample 3 failed: will not", 2, "card 1 was full",
    )  # fmt: skip
    assert view.benchmarks[0].pieces_left == 3 and view.replicas[0].benchmark == "Mini"
    assert view.eta is not None and view.eta.seconds == 4.0 * 4 - 1.0
