"""What is known of a run while it goes on: told what happens, it says at any time how things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmeval.inference.queue import Piece, Waiting
from vlmeval.inference.roll import ReplicaState
from vlmeval.report.live import (
    Ahead,
    BenchmarkView,
    CardView,
    Eta,
    Pace,
    Rate,
    ReplicaView,
    RunView,
    UnderWay,
)

READY = ("answering", "waiting")
COMING = ("starting", "loading", "restarting")


class LiveState:
    """Of one model on the benchmarks of a run that are not finished. Times are of one monotonic clock."""

    def __init__(self, model: str, benchmarks: Mapping[int, BenchmarkView]) -> None:
        self._model = model
        self._benchmarks = benchmarks
        self._done = {number: one.done for number, one in benchmarks.items()}
        self._failed = dict.fromkeys(benchmarks, 0)
        self._first_done = self._counted = sum(self._done.values())
        self._last_failure = ""
        self._pace = Pace()
        self._started_s: float | None = None
        self._rate = Rate(0.0)
        self._replicas: Sequence[ReplicaState] = ()
        self._waiting: Mapping[int, Waiting] = {}
        self._rates: dict[int, tuple[Rate, int]] = {}
        self._peaks: dict[tuple[int, str, int | None], int] = {}
        self._moves: dict[str, Sequence[Mapping[str, Any]]] = {}

    # What happens

    def start_clock(self, now_s: float) -> None:
        """Work begins: the first replica is ready."""
        if self._started_s is None:
            self._started_s, self._rate = now_s, Rate(now_s)

    def answered(self, benchmark: int, failure: str = "") -> None:
        """One more sample is finished; `failure` says why it failed."""
        self._done[benchmark] += 1
        if failure:
            self._failed[benchmark] += 1
            self._last_failure = failure

    def finished(self, piece: Piece, seconds: float) -> None:
        """One replica took so long for this."""
        self._pace.learn(piece.dataset, piece.cost, seconds)

    def moved(self, replica: str, moves: Sequence[Mapping[str, Any]]) -> None:
        """Every time so far that this replica's blocks were laid otherwise, as its stamp has them."""
        self._moves[replica] = moves

    def watch(self, replicas: Sequence[ReplicaState], waiting: Mapping[int, Waiting], now_s: float) -> None:
        """How replicas and queue stand."""
        self._replicas, self._waiting = replicas, waiting
        if any(one.state in READY for one in replicas):
            self.start_clock(now_s)
        done = sum(self._done.values())
        if done > self._counted:
            self._rate.add(now_s, done - self._counted)
            self._counted = done
        for one in replicas:
            self._count(one, now_s)
            for held in one.memory:
                key = (one.number, held["card"], held["planned_bytes"])
                self._peaks[key] = max(held["peak_bytes"] or 0, self._peaks.get(key, 0))

    def _count(self, one: ReplicaState, now_s: float) -> None:
        if one.state not in READY:
            self._rates.pop(one.number, None)
            if one.deaths:
                self._peaks = {key: peak for key, peak in self._peaks.items() if key[0] != one.number}
            return
        rate, before = self._rates.get(one.number) or (Rate(now_s), one.answered)
        if one.answered > before:
            rate.add(now_s, one.answered - before)
        self._rates[one.number] = (rate, one.answered)

    # How things stand

    def view(self, now_s: float) -> RunView:
        """All of it, as plain values."""
        moves = [move for each in self._moves.values() for move in each]
        return RunView(
            model=self._model,
            replicas=tuple(self._replica(one, now_s) for one in self._replicas),
            benchmarks=tuple(self._benchmark(number) for number in self._benchmarks),
            elapsed_s=None if self._started_s is None else now_s - self._started_s,
            first_done=self._first_done,
            per_s=self._rate.per_s(now_s) if self._started_s is not None else None,
            eta=self._eta(),
            last_failure=self._last_failure,
            moves=len(moves),
            last_move=str(moves[-1].get("why", "")) if moves else "",
        )

    def _replica(self, one: ReplicaState, now_s: float) -> ReplicaView:
        rate, _ = self._rates.get(one.number, (None, 0))
        return ReplicaView(
            name=one.name,
            state=one.state,
            benchmark=self._benchmarks[one.piece.dataset].name if one.piece else "",
            answered=one.answered,
            per_s=rate.per_s(now_s) if rate else None,
            batch=len(one.piece.rows) if one.piece else 0,
            age_s=one.age_s if one.state in ("answering", "loading") else None,
            starts_in_s=one.starts_in_s,
            deaths=one.deaths,
            cards=tuple(self._card(one.number, held) for held in one.memory),
        )

    def _card(self, number: int, held: Mapping[str, Any]) -> CardView:
        # A backend counts its peak anew whenever blocks are moved or memory is cleared; here it is that of the plan.
        peak = self._peaks.get((number, held["card"], held["planned_bytes"]), 0)
        return CardView(
            card=held["card"],
            planned_bytes=held["planned_bytes"],
            now_bytes=held["now_bytes"],
            peak_bytes=peak if held["peak_bytes"] is not None else None,
        )

    def _benchmark(self, number: int) -> BenchmarkView:
        of = self._benchmarks[number]
        waiting = self._waiting.get(number, Waiting())
        return BenchmarkView(
            name=of.name,
            total=of.total,
            done=self._done[number],
            failed=self._failed[number],
            pieces_left=waiting.pieces,
        )

    def _eta(self) -> Eta | None:
        ready = sum(one.state in READY for one in self._replicas)
        coming = sum(one.state in COMING for one in self._replicas)
        return self._pace.eta(self._ahead(), self._under_way(), ready, coming)

    def _ahead(self) -> list[Ahead]:
        return [Ahead(benchmark=n, pieces=one.pieces, cost=one.cost) for n, one in self._waiting.items()]

    def _under_way(self) -> list[UnderWay]:
        held = [(one.piece, one.age_s) for one in self._replicas]
        return [UnderWay(benchmark=p.dataset, cost=p.cost, age_s=age_s) for p, age_s in held if p is not None]
