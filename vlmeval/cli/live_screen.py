"""The live view's place at the bottom of a terminal: drawn over itself, with lines that stay above it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from vlmeval.cli.live_drawing import lines, plain
from vlmeval.cli.patient_terminal import PatientTerminal
from vlmeval.report.live import RunView


def can_draw(console: Console) -> bool:
    """Whether this terminal can have its lines drawn over."""
    return console.is_terminal and console.is_interactive and not console.is_dumb_terminal


class LiveScreen:
    """Draws when told to, in the thread that tells it. A terminal that is gone is given up.

    What others print to stderr, and to stdout if that is the terminal too, goes above the view.
    """

    def __init__(
        self, console: Console, last_line: Callable[[RunView], str], terminal: PatientTerminal | None = None
    ) -> None:
        """`terminal` is what the console writes to, where that may have to be waited for."""
        self._console = console
        self._terminal = terminal
        self._last_line = last_line
        self._live: Live | None = Live(
            console=console,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
            vertical_overflow="crop",
        )
        self._width = console.size.width
        self._drawn: Sequence[Text] = ()
        self._unsaid: list[str] = []
        self._guarded(self._start)

    def show(self, view: RunView) -> None:
        """The view as it is now, in the size the terminal has now. One that has not taken the last one
        yet is not waited for: it gets the next that it can take."""
        if self._terminal is None or not self._terminal.is_behind:
            self._guarded(lambda: self._draw(view))

    def print(self, text: str) -> None:
        """Above the view, the next time it is drawn: a thousand lines cost one drawing."""
        self._unsaid.append(text)

    def close(self, view: RunView) -> None:
        """In place of the view one line stays, if anything was done."""
        self._guarded(lambda: self._stop(view))
        self._live = None
        if self._terminal is not None:
            self._terminal.close()

    def _guarded(self, write: Callable[[], None]) -> None:
        if self._live is None:
            return
        try:
            write()
        except OSError:
            # Its terminal was closed: stdout and stderr are given back, and nothing is drawn any more.
            live, self._live = self._live, None
            with contextlib.suppress(OSError):
                live.stop()

    def _start(self) -> None:
        if self._live is not None:
            self._live.start()
            # A run that is killed (out of memory) could not give the cursor back, so it is not taken away.
            self._console.show_cursor(True)

    def _draw(self, view: RunView) -> None:
        if self._live is None:
            return
        width, height = self._console.size
        with self._console:  # one write
            self._forget_wrapped(width)
            self._say()
            self._drawn = lines(view, width, height, ascii_only=self._console.options.ascii_only)
            self._live.update(Group(*self._drawn), refresh=True)

    def _say(self) -> None:
        """The terminal wraps what is long, so that it can be copied whole."""
        if self._unsaid:
            text = plain("\n".join(self._unsaid), self._console.options.ascii_only)
            self._unsaid = []
            self._console.print(Text(text), soft_wrap=True)

    def _forget_wrapped(self, width: int) -> None:
        """A terminal that became narrower has wrapped what is drawn: the further rows are erased first."""
        if width < self._width:
            rows = sum(max(0, -(-line.cell_len // max(width, 1)) - 1) for line in self._drawn)
            up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up * rows))
            self._drawn = ()
        self._width = width

    def _stop(self, view: RunView) -> None:
        if self._live is None:
            return
        with self._console:
            self._forget_wrapped(self._console.size.width)
            self._say()
            is_worth_it = view.done > view.first_done
            last = plain(self._last_line(view), self._console.options.ascii_only)
            self._live.update(Text(last) if is_worth_it else "")
            self._live.stop()
