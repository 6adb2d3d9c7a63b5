"""A run while it goes on, as plain values, and the arithmetic of its rates and of the time that is left.

The screen draws a `RunView`; whatever else shows a running run reads the same. Pure: no clock, no screen, no files.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "loading", "answering", "waiting", "restarting", "ended"]
"""starting: its process has not called yet; waiting: ready, and there is nothing for it; ended: never started again."""

GIB, MIB = 2**30, 2**20
WINDOW_S = 30.0
"""Rates are of so long a time."""
LEAST_S = 1.0
"""A rate over less would be nonsense."""
BURST_S = 0.25
"""Samples that finish this close together, as those of a batch, are one event of a rate."""
FORGET = 0.98
"""Each finished piece makes those before it count so much less: the longest come first, and machines change."""
TWO_SIDED = (12.7, 4.3, 3.2, 2.8, 2.6, 2.4, 2.4, 2.3, 2.3)
"""Student's t for 95 % with 1, 2, ... degrees of freedom; from 10 on LARGE_SAMPLE."""
LARGE_SAMPLE = 2.1


@dataclass(frozen=True, kw_only=True)
class CardView:
    """One card of a replica, in bytes, None where it is not known; `card` "cpu" is memory of the process itself."""

    card: str
    planned_bytes: int | None = None
    now_bytes: int | None = None
    peak_bytes: int | None = None

    @property
    def fullness(self) -> float:
        """Peak over plan; 0 where there is none."""
        return (self.peak_bytes or 0) / self.planned_bytes if self.planned_bytes else 0.0


@dataclass(frozen=True, kw_only=True)
class ReplicaView:
    """One replica. `batch` samples are in its present piece, which is `age_s` old; `starts_in_s` is for one that died
    and pauses."""

    name: str
    state: State
    benchmark: str = ""
    answered: int = 0
    per_s: float | None = None
    batch: int = 0
    age_s: float | None = None
    starts_in_s: float | None = None
    deaths: int = 0
    cards: tuple[CardView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BenchmarkView:
    """One benchmark of a run. `pieces_left` wait to be taken; 0 before it is known how it is cut."""

    name: str
    total: int
    done: int
    failed: int = 0
    pieces_left: int = 0


@dataclass(frozen=True, kw_only=True)
class Eta:
    """Seconds left, and by how much that may be wrong in 19 of 20 cases."""

    seconds: float
    margin_s: float

    def __str__(self) -> str:
        """`3 min 20 s ± 15 s`, `12 s, at most 30 s` or, where next to nothing is known, `about 12 s`."""
        if self.margin_s > 3 * self.seconds:
            return f"about {duration(self.seconds)}"
        if self.margin_s > self.seconds:
            return f"{duration(self.seconds)}, at most {duration(self.seconds + self.margin_s)}"
        return f"{duration(self.seconds)} ± {duration(self.margin_s)}"


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One model's run at one moment. `elapsed_s` counts from when the first replica was ready, None before."""

    model: str
    replicas: tuple[ReplicaView, ...]
    benchmarks: tuple[BenchmarkView, ...]
    elapsed_s: float | None = None
    first_done: int = 0
    """Samples that had their answer before this run began."""
    per_s: float | None = None
    eta: Eta | None = None
    last_failure: str = ""
    moves: int = 0
    """How often blocks were laid otherwise over the cards."""
    last_move: str = ""

    @property
    def done(self) -> int:
        """Samples with an answer or a failure."""
        return sum(one.done for one in self.benchmarks)

    @property
    def total(self) -> int:
        """All samples."""
        return sum(one.total for one in self.benchmarks)

    @property
    def failed(self) -> int:
        """Samples that failed in this run."""
        return sum(one.failed for one in self.benchmarks)

    @property
    def deaths(self) -> int:
        """How often a replica died, all of them together."""
        return sum(one.deaths for one in self.replicas)

    @property
    def mean_per_s(self) -> float:
        """Samples a second since the first replica was ready."""
        return (self.done - self.first_done) / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def label(self) -> str:
        """What is being answered, in a word or two."""
        return self.benchmarks[0].name if len(self.benchmarks) == 1 else f"{len(self.benchmarks)} benchmarks"


class Rate:
    """Samples a second over the last WINDOW_S, from events that may come in bursts.

    >>> rate = Rate(0.0)
    >>> for second in (4, 8, 12):
    ...     rate.add(second, 8)
    >>> rate.per_s(13.0)
    2.0
    """

    def __init__(self, start_s: float) -> None:
        self._anchor_s = start_s
        """When the first event in the window began: the end of the one before it."""
        self._events: deque[tuple[float, float, int]] = deque()

    def add(self, now_s: float, count: int) -> None:
        """So many more have finished."""
        if self._events and now_s - self._events[-1][0] < BURST_S:
            first_s, _, before = self._events.pop()
            self._events.append((first_s, now_s, before + count))
        else:
            self._events.append((now_s, now_s, count))

    def per_s(self, now_s: float) -> float | None:
        """None as long as too little is known. Falls once the next event is later than they used to come."""
        while len(self._events) > 1 and self._events[0][1] < now_s - WINDOW_S:
            self._anchor_s = self._events.popleft()[1]
        if not self._events:
            return None
        gap_s = (self._events[-1][1] - self._anchor_s) / len(self._events)
        span_s = max(self._events[-1][1], now_s - gap_s) - self._anchor_s
        return sum(count for _, _, count in self._events) / span_s if span_s >= LEAST_S else None


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Pieces of one benchmark that wait, and their cost together."""

    benchmark: int
    pieces: int
    cost: float


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A piece that a replica has been at for `age_s`."""

    benchmark: int
    cost: float
    age_s: float


@dataclass
class _Sums:
    """Of finished pieces: how many, and sums of seconds s and costs c and of their products."""

    n: float = 0.0
    s: float = 0.0
    c: float = 0.0
    ss: float = 0.0
    sc: float = 0.0
    cc: float = 0.0

    def add(self, cost: float, seconds: float) -> None:
        more = (1.0, seconds, cost, seconds * seconds, seconds * cost, cost * cost)
        names = ("n", "s", "c", "ss", "sc", "cc")
        for name, value in zip(names, more, strict=True):
            setattr(self, name, FORGET * getattr(self, name) + value)

    @property
    def ratio(self) -> float:
        """Seconds for a cost of 1."""
        return self.s / self.c

    def spread(self, more: int) -> float:
        """By what share of itself the time of `more` pieces may be off (95 %): a ratio estimate's prediction error.

        Of one piece nothing is known but that it was one: as much as itself.
        """
        freedom = round(self.n) - 1
        if freedom < 1:
            return 1.0
        squares = max(0.0, self.ss - 2 * self.ratio * self.sc + self.ratio**2 * self.cc)
        one = math.sqrt(squares / (self.n - 1)) / (self.s / self.n) if self.s else 0.0
        factor = TWO_SIDED[freedom - 1] if freedom <= len(TWO_SIDED) else LARGE_SAMPLE
        return factor * one * math.sqrt(1 / self.n + 1 / max(more, 1))


class Pace:
    """How long a replica takes for what a piece costs, learned from finished pieces: of the benchmark itself, or of all
    while it has none."""

    def __init__(self) -> None:
        self._all = _Sums()
        self._of: dict[int, _Sums] = {}

    def learn(self, benchmark: int, cost: float, seconds: float) -> None:
        """A piece took so long, on one replica."""
        for sums in (self._all, self._of.setdefault(benchmark, _Sums())):
            sums.add(max(cost, 1e-9), seconds)

    def eta(self, ahead: Iterable[Ahead], under_way: Iterable[UnderWay], replicas: int, coming: int = 0) -> Eta | None:
        """When all will be done if so many replicas go on as before; None before anything was finished.

        Costs are about tokens of prompts, so how long the answers are is known from the finished pieces alone. Replicas
        that are still `coming` may help soon or never: what they would save is in the margin.
        """
        if not self._all.n:
            return None
        work_s: dict[int, float] = {}
        pieces: dict[int, int] = {}
        spent_s = longest_s = 0.0
        waiting = [(one.benchmark, one.cost, one.pieces, 0.0) for one in ahead]
        held = [(one.benchmark, one.cost, 1, one.age_s) for one in under_way]
        for benchmark, cost, count, age_s in (*waiting, *held):
            whole_s = self._sums(benchmark).ratio * cost
            work_s[benchmark] = work_s.get(benchmark, 0.0) + whole_s
            pieces[benchmark] = pieces.get(benchmark, 0) + count
            spent_s += min(age_s, whole_s)
            longest_s = max(longest_s, whole_s / max(count, 1) - age_s)
        share = 1 / max(replicas, 1)
        seconds = max(longest_s, share * (sum(work_s.values()) - spent_s))
        # Of a piece under way the whole is uncertain, however much of its time has passed.
        margins = [work_s[one] * self._spread(one, pieces[one]) for one in work_s]
        saved = 1 - max(replicas, 1) / (max(replicas, 1) + coming)
        return Eta(seconds=seconds, margin_s=share * math.hypot(*margins) + seconds * saved)

    def _sums(self, benchmark: int) -> _Sums:
        return self._of.get(benchmark, self._all)

    def _spread(self, benchmark: int, pieces: int) -> float:
        """Of a benchmark without a finished piece it is not known how it compares: at least as much as itself."""
        spread = self._sums(benchmark).spread(pieces)
        return spread if benchmark in self._of else max(1.0, spread)


def unit_of(cards: Sequence[CardView]) -> tuple[int, str]:
    """GiB, or MiB where all is small."""
    largest = max((max(c.planned_bytes or 0, c.now_bytes or 0, c.peak_bytes or 0) for c in cards), default=0)
    return (MIB, "MiB") if 0 < largest < GIB / 4 else (GIB, "GiB")


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{seconds:.1f} s" if round(seconds, 1) < 10 else f"{whole} s"
