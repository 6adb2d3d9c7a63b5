"""Progress of a long read or download on stderr: one line rewritten on a terminal, few lines in a log file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

QUIET_S = 1.0
"""Nothing is printed about work that takes less than this."""


class BytesProgress:
    """Call it with the bytes done so far; what the first call says was there already (a resumed download)."""

    def __init__(self, label: str, total: int | None, stream: TextIO | None = None) -> None:
        self._label = label
        self._total = total
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._every_s = 0.2 if self._live else 10.0
        self._start = time.monotonic()
        self._next = self._start + QUIET_S
        self._first: int | None = None
        self._printed = False

    def __call__(self, done: int, total: int | None = None) -> None:
        if self._first is None:
            self._first = done
        self._total = total or self._total
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every_s
        self._printed = True
        self._write(self._line(done, now - self._start))

    def close(self) -> None:
        if self._printed and self._live:
            self._stream.write("\n")

    def _line(self, done: int, seconds: float) -> str:
        rate = (done - (self._first or 0)) / max(seconds, 1e-6)
        if not self._total:
            return f"{self._label}: {done / 2**20:,.0f} MiB, {rate / 2**20:.1f} MiB/s"
        left_s = (self._total - done) / max(rate, 1.0)
        return (
            f"{self._label}: {100 * done / self._total:.0f} % of {self._total / 2**20:,.0f} MiB, "
            f"{rate / 2**20:.1f} MiB/s, {left_s:.0f} s left"
        )

    def _write(self, line: str) -> None:
        self._stream.write(f"\r{line:<78}" if self._live else line + "\n")
        self._stream.flush()
