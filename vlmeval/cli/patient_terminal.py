"""A terminal that is written to by a thread of its own: one that takes nothing for a while holds up nobody else.

Ctrl-S stops a terminal, and a connection that hangs (a laptop that sleeps) fills it; whoever writes to it then waits.
A coordinator that waited would be left by its replicas.
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import TextIO

LAST_WAIT_S = 2.0


class PatientTerminal:
    """As a text file, as far as rich asks. Raises OSError from `write` once the terminal is gone."""

    def __init__(self, file: TextIO) -> None:
        self.encoding = file.encoding
        self._descriptor = file.fileno()
        self._texts: SimpleQueue[str | None] = SimpleQueue()
        self._given = self._written = 0
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def isatty(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The terminal's own."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Returns at once."""
        if self._error is not None:
            raise self._error
        self._given += 1
        self._texts.put(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    @property
    def is_behind(self) -> bool:
        """Whether it has not taken all yet."""
        return self._written < self._given

    def close(self) -> None:
        """Wait until all is written, but not long."""
        self._texts.put(None)
        self._thread.join(LAST_WAIT_S)

    def _work(self) -> None:
        # Not through the file: its lock, held by a write that never ends, would keep the interpreter from ending.
        while (text := self._texts.get()) is not None:
            data = text.encode(self.encoding, errors="backslashreplace")
            try:
                while data and self._error is None:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                self._error = error
            self._written += 1
