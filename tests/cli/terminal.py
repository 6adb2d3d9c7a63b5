"""A command in a pseudo-terminal, and what its screen shows: enough of a terminal for lines that are drawn over."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

CODE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


class Screen:
    """All rows since the beginning, as if the terminal were high enough never to scroll; rows do not wrap."""

    def __init__(self) -> None:
        self.rows = [""]
        self.row = self.column = 0
        self.is_cursor_visible = True

    def feed(self, text: str) -> None:
        """What was written to it. Raises ValueError for a code it does not know."""
        for found in CODE.finditer(text):
            arguments, code = found.groups()
            if code is None:
                self._write(found.group())
            elif code == "A":
                self.row = max(0, self.row - int(arguments or 1))
            elif code == "K":
                self.rows[self.row] = ""
            elif arguments == "?25":
                self.is_cursor_visible = code == "h"
            elif code != "m":
                raise ValueError(f"an unknown code: {found.group()!r}")

    def _write(self, text: str) -> None:
        if text == "\r":
            self.column = 0
        elif text == "\n":
            self.row += 1
            self.rows += [""] * (self.row + 1 - len(self.rows))
        else:
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + text + row[self.column + len(text) :]
            self.column += len(text)


def run_in_terminal(
    command: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    *,
    size: tuple[int, int] = (24, 100),
    watch: Callable[[Screen, subprocess.Popen[bytes]], None] = lambda screen, process: None,
) -> tuple[int, Screen, str]:
    """Exit code, the screen at the end, and all that was written. `watch` is called whenever something was.

    Raises AssertionError if the terminal's settings are not left as they were.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    before = termios.tcgetattr(theirs)
    screen, written = Screen(), b""
    process = subprocess.Popen(command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        while process.poll() is None or _is_waiting(ours):
            if not _is_waiting(ours, 0.1):
                continue
            data = os.read(ours, 65536)
            written += data
            # A character or a code may be cut at the end of what was read: the screen is made anew of all of it.
            screen = Screen()
            screen.feed(written.decode(errors="ignore"))
            watch(screen, process)
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    return process.returncode, screen, written.decode(errors="replace")


def _is_waiting(descriptor: int, seconds: float = 0.0) -> bool:
    import select

    return bool(select.select([descriptor], [], [], seconds)[0])
