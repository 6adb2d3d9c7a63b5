"""Ctrl-C and SIGTERM while replicas work: the first lets them finish what they are at, the second stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SECOND_PRESS_S = 0.3
"""A second signal sooner than this is the same wish: launchers pass on what the terminal sends as well."""


@dataclass
class Interrupts:
    """Ctrl-C and SIGTERM: the first asks to finish what is in flight, the second to stop at once."""

    first_at: float | None = None
    last_at: float = 0.0
    at_once: bool = False
    name: str = ""
    """The first one's."""
    is_heeded: bool = False
    """Whether the first one was followed up yet; a second may come before."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first_at is None:
            self.name, self.first_at = signal.Signals(number).name, now
        elif now - self.last_at > SECOND_PRESS_S:
            self.at_once = True
        self.last_at = now


@contextmanager
def signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `handler` meanwhile; other threads than the main one cannot have them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
