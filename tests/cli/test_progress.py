"""What becomes of progress: lines at a growing pause, or a view on a terminal that may shrink or go away."""

from __future__ import annotations

import contextlib
import io
import pty
import sys
import termios
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console

from tests.cli.terminal import Screen
from vlmeval.cli.live_screen import LiveScreen
from vlmeval.cli.patient_terminal import PatientTerminal
from vlmeval.cli.progress import PlainLines, Progress, line
from vlmeval.report.live import BenchmarkView, CardView, Eta, ReplicaView, RunView

GIB = 2**30


def view(done: int = 40, total: int = 100, elapsed_s: float = 10.0, cards: int = 1) -> RunView:
    held = tuple(
        CardView(card=str(n), planned_bytes=20 * GIB, now_bytes=GIB, peak_bytes=(10 + n) * GIB) for n in range(cards)
    )
    return RunView(
        model="m",
        replicas=(ReplicaView(name="replica 0", state="answering", answered=done, cards=held),),
        benchmarks=(BenchmarkView(name="Mini", total=total, done=done, failed=1),),
        elapsed_s=elapsed_s,
        per_s=4.0,
        eta=Eta(seconds=15, margin_s=2),
        last_failure="sample 3 failed: no",
    )


def test_a_line_has_what_there_is_to_know_and_peaks_against_the_plan() -> None:
    assert line(view(cards=2)) == (
        "Mini  40/100 (40 %)  4.0 samples/s, 1 failed  15 s ± 2.0 s left  "
        "peak of card 1: 11.00 of 20.00, 0: 10.00 of 20.00 GiB planned"
    )
    assert "7: " in line(view(cards=8)) and line(view(cards=10)).endswith("GiB planned and 2 less full")
    assert line(view(done=100)).startswith("Mini  100/100 (100 %)  10.0 samples/s, 1 failed  took 10 s")
    unplanned = replace(view(), replicas=())
    assert "peak" not in line(unplanned)


def test_lines_in_a_file_come_soon_and_then_ever_more_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    lines, said = PlainLines(), []
    for second in range(400):
        lines.show(view(done=second // 10, elapsed_s=float(second)))
        if capsys.readouterr().err:
            said.append(second)
    assert said == [5, 15, 35, 75, 135, 195, 255, 315, 375]


class Terminal(io.StringIO):
    """A terminal in memory that may be closed by whoever looks at it."""

    is_closed = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_closed:
            raise OSError(5, "Input/output error")
        return super().write(text)


def screen_of(terminal: Terminal, width: int = 80) -> tuple[LiveScreen, Console]:
    console = Console(
        file=terminal, width=width, height=24, force_terminal=True, force_interactive=True, legacy_windows=False
    )
    return LiveScreen(console, line), console


def shown(terminal: Terminal) -> list[str]:
    screen = Screen()
    screen.feed(terminal.getvalue().replace("\n", "\r\n"))  # as the line discipline does
    assert screen.is_cursor_visible, "always: a run that is killed cannot bring it back"
    return [row for row in screen.rows if row.strip()]


def test_what_is_printed_stands_above_the_view_and_one_line_stays_in_its_place() -> None:
    terminal = Terminal()
    live, _ = screen_of(terminal)
    for done in range(1, 20):
        live.print(f"sample {done} failed: [bold]no[/bold]")
        live.show(view(done=done))
    print("from elsewhere", file=sys.stderr)
    rows = shown(terminal)
    assert rows[:20] == [*(f"sample {n} failed: [bold]no[/bold]" for n in range(1, 20)), "from elsewhere"]
    assert rows[20].startswith("m Mini") and len([row for row in rows if row.startswith("replica 0")]) == 1
    live.print("unsaid")
    live.close(view(done=100))
    rows = shown(terminal)
    assert rows[20] == "unsaid" and rows[21].startswith("Mini  100/100") and len(rows) <= 23
    assert not isinstance(sys.stderr, type(live)) and "rich" not in type(sys.stderr).__module__


def test_a_view_with_nothing_done_leaves_nothing() -> None:
    terminal = Terminal()
    live, _ = screen_of(terminal)
    nothing = RunView(model="m", replicas=(), benchmarks=(BenchmarkView(name="Mini", total=3, done=0),))
    live.show(nothing)
    live.close(nothing)
    assert shown(terminal) == []


def test_rows_that_a_narrower_terminal_wrapped_are_erased() -> None:
    terminal = Terminal()
    live, console = screen_of(terminal, width=120)
    live.print("stays")
    live.show(view())
    before = shown(terminal)
    wrapped = sum(-(-len(row) // 70) for row in before[1:])
    console.size = (70, 24)  # type: ignore[assignment]
    written = terminal.tell()
    live.show(view())
    assert terminal.getvalue()[written:].count("\x1b[1A") == wrapped - 1, "up to the first row of the view, not beyond"


@pytest.mark.filterwarnings("error")
def test_a_terminal_that_goes_away_ends_the_view_and_not_the_run() -> None:
    terminal, out, err = Terminal(), sys.stdout, sys.stderr
    live, _ = screen_of(terminal)
    live.show(view())
    terminal.is_closed = True
    for _ in range(3):
        live.print("lost")
        live.show(view())
    live.close(view())
    assert (sys.stdout, sys.stderr) == (out, err)


@pytest.mark.parametrize("how", ["ctrl-s", "nobody reads"])
def test_a_terminal_that_takes_nothing_does_not_hold_up_the_run(how: str) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as file, open(ours, "rb", buffering=0) as reader:
        terminal = PatientTerminal(file)
        console = Console(file=terminal, width=80, height=24, force_terminal=True, force_interactive=True)  # type: ignore[arg-type]
        live = LiveScreen(console, line, terminal)
        if how == "ctrl-s":
            termios.tcflow(theirs, termios.TCOOFF)
        for done in range(300):
            live.print(f"line {done}")
            live.show(view(done=done, total=1000))
            time.sleep(0.001)
        assert terminal.is_behind
        if how == "ctrl-s":
            termios.tcflow(theirs, termios.TCOON)
        read = bytearray()
        drain = threading.Thread(target=_read_all, args=[reader, read], daemon=True)
        drain.start()
        live.close(view(done=300, total=1000))
        assert not terminal.is_behind
        drain.join(0.2)
    screen = Screen()
    screen.feed(bytes(read).decode())
    assert [row for row in screen.rows if row.startswith("line ")] == [f"line {n}" for n in range(300)], "nothing lost"


def _read_all(reader: io.FileIO, into: bytearray) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := reader.read(65536):
            into += data


def test_a_pipe_that_nobody_reads_any_more_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Terminal()
    broken.is_closed = True
    monkeypatch.setattr(sys, "stderr", broken)
    lines = PlainLines()
    lines.print("lost")
    lines.close(view())


def test_what_is_said_before_and_after_is_not_lost_and_cannot_move_the_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from vlmeval.cli.live_state import LiveState

    with Progress(LiveState("m", {0: BenchmarkView(name="Mini", total=2, done=0)})) as progress:
        progress.print("one\x1b[2J")
        progress.start_clock()
        progress.answered(0)
        progress.answered(0, "sample 1 failed: no")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "one\\u001b[2J" and told[1].startswith("Mini  2/2 (100 %)") and "1 failed" in told[1]
