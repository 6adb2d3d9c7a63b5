"""Progress of a run: a view that is drawn anew a few times a second on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TextIO, cast

from vlmeval.cli.live_state import LiveState
from vlmeval.errors import printable
from vlmeval.inference.queue import Piece, Waiting
from vlmeval.inference.roll import ReplicaState
from vlmeval.report.live import CardView, RunView, duration, unit_of

DRAW_INTERVAL_S = 0.25
FIRST_LINE_S, LONGEST_INTERVAL_S = 5.0, 60.0
"""In a log file: the first line after so long, each pause twice the one before, up to the longest."""
MOST_CARDS = 8
"""Cards named in one line of a log file."""


class Output(Protocol):
    """Where progress is shown. An output that cannot be written to is given up: the work goes on without it."""

    def show(self, view: RunView) -> None:
        """How things stand now."""

    def print(self, text: str) -> None:
        """Lines that shall stay."""

    def close(self, view: RunView) -> None:
        """The last word."""


class Progress:
    """What a run tells of itself goes in here; what the person watching sees comes out. Use as a context manager.

    May be told by one thread while another asks it to show.
    """

    def __init__(self, state: LiveState) -> None:
        self._state = state
        self._lock = threading.RLock()
        self._shown_at = 0.0
        self._output: Output | None = None

    def __enter__(self) -> Progress:
        self._output = _terminal() or PlainLines()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            if self._output is not None:
                self._output.close(self._state.view(time.monotonic()))
            self._output = None

    def start_clock(self) -> None:
        """Work begins: rates count from here."""
        with self._lock:
            self._state.start_clock(time.monotonic())

    def answered(self, benchmark: int, failure: str = "") -> None:
        """One more sample is finished; `failure` says why it failed."""
        with self._lock:
            self._state.answered(benchmark, failure)

    def finished(self, piece: Piece, seconds: float) -> None:
        """A replica took so long for a piece."""
        with self._lock:
            self._state.finished(piece, seconds)

    def moved(self, replica: str, moves: Sequence[Mapping[str, Any]]) -> None:
        """Every time so far that its blocks were laid otherwise."""
        with self._lock:
            self._state.moved(replica, moves)

    def watch(self, replicas: Sequence[ReplicaState], waiting: Mapping[int, Waiting]) -> None:
        """How things stand; shown if the last time is long enough ago."""
        with self._lock:
            now = time.monotonic()
            self._state.watch(replicas, waiting, now)
            if self._output is not None and now - self._shown_at >= DRAW_INTERVAL_S:
                self._shown_at = now
                self._output.show(self._state.view(now))

    def print(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            if self._output is not None:
                self._output.print(printable(text))


class PlainLines:
    """For a pipe, a file, or a terminal that cannot move its cursor."""

    def __init__(self) -> None:
        self._interval_s = FIRST_LINE_S
        self._next_s = FIRST_LINE_S
        self._file = sys.stderr

    def show(self, view: RunView) -> None:
        """A line, if it is time for one."""
        if view.elapsed_s is not None and view.elapsed_s >= self._next_s and view.done < view.total:
            self._interval_s = min(2 * self._interval_s, LONGEST_INTERVAL_S)
            self._next_s = view.elapsed_s + self._interval_s
            self.print(line(view))

    def print(self, text: str) -> None:
        """As it is."""
        with contextlib.suppress(OSError):
            print(text, file=self._file, flush=True)

    def close(self, view: RunView) -> None:
        """What was done, if anything was."""
        if view.done > view.first_done:
            self.print(line(view))


def line(view: RunView) -> str:
    """`ShapesBench  737/800 (92 %)  243.4 samples/s  12 s ± 1 s left  card 0 peak 1.2 of 1.3 GiB planned`."""
    is_over = view.done >= view.total
    rate = view.mean_per_s if is_over or view.per_s is None else view.per_s
    parts = [
        printable(view.label),
        f"{view.done}/{view.total} ({100 * view.done / max(view.total, 1):.0f} %)",
        f"{rate:.1f} samples/s" + (f", {view.failed} failed" if view.failed else ""),
    ]
    if is_over:
        parts.append(f"took {duration(view.elapsed_s or 0)}")
    elif view.eta is not None:
        parts.append(f"{view.eta} left")
    return "  ".join([*parts, *_peaks(view)])


def _peaks(view: RunView) -> list[str]:
    """The fullest cards' peaks against their plans; nothing where nothing was planned."""
    cards = [card for replica in view.replicas for card in replica.cards if card.planned_bytes and card.peak_bytes]
    if not cards:
        return []
    fullest = sorted(cards, key=lambda card: -card.fullness)[:MOST_CARDS]
    size, unit = unit_of(cards)
    told = ", ".join(f"{card.card}: {_of(card, size)}" for card in fullest)
    more = f" and {len(cards) - len(fullest)} less full" if len(cards) > len(fullest) else ""
    return [f"peak of card {told} {unit} planned{more}"]


def _of(card: CardView, size: int) -> str:
    return f"{(card.peak_bytes or 0) / size:.2f} of {(card.planned_bytes or 0) / size:.2f}"


def _terminal() -> Output | None:
    """The live view, where stderr is a terminal that can show it."""
    if not sys.stderr.isatty():
        return None
    from vlmeval.cli.live_screen import LiveScreen, can_draw
    from vlmeval.cli.patient_terminal import PatientTerminal
    from vlmeval.report.screen import console_for

    if not can_draw(console_for(sys.stderr)):
        return None
    terminal = PatientTerminal(sys.stderr)
    return LiveScreen(console_for(cast(TextIO, terminal)), line, terminal)
