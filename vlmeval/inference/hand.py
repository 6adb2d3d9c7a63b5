"""What a replica has in hand: pieces of work that it prepares while it answers another, until it begins them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from vlmeval.inference.protocol import Words

T = TypeVar("T")


@dataclass(frozen=True)
class Given(Generic[T]):
    """Something the coordinator said, and for a piece of work what has been made of it; its errors come then."""

    words: Words
    prepared: Future[T] | None = None


class Hand(Generic[T]):
    """What the coordinator said and is not attended to yet, in order. Safe for a thread that hears and one that works.

    A piece is prepared as soon as it comes, in a thread, so that it is ready when its turn comes.
    """

    def __init__(self) -> None:
        self._given: deque[Given[T]] = deque()
        self._changed = threading.Condition()
        self._prepare: Callable[[Words], T] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hand")

    def prepare_with(self, prepare: Callable[[Words], T]) -> None:
        """How a piece is prepared; before this is said none must come."""
        self._prepare = prepare

    def put(self, words: Words) -> None:
        """The coordinator says this."""
        is_piece = words["type"] == "piece" and self._prepare is not None
        prepared = self._thread.submit(self._prepare, words) if is_piece and self._prepare else None
        with self._changed:
            self._given.append(Given(words, prepared))
            self._changed.notify()

    def next(self) -> Given[T]:
        """What is to be attended to now. Waits for it; it is not in hand any more."""
        with self._changed:
            while not self._given:
                self._changed.wait()
            return self._given.popleft()

    def give_back(self) -> list[Words]:
        """The pieces that are not begun, and will not be."""
        with self._changed:
            pieces = [given for given in self._given if given.words["type"] == "piece"]
            self._given = deque(given for given in self._given if given.words["type"] != "piece")
        for given in pieces:
            if given.prepared is not None:
                given.prepared.cancel()
        return [given.words for given in pieces]
