"""Replicas that are no processes: conversations in this process, for the coordinator's own cost and manners."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmeval.inference.executors import ReplicaSpec
from vlmeval.inference.protocol import Address, Connection, connect
from vlmeval.inference.queue import GivenUp, Piece, Waiting
from vlmeval.inference.roll import ReplicaState
from vlmeval.types import Prediction


class FakeExecutor:
    """Knows replicas by number and starts nothing."""

    def __init__(self, count: int) -> None:
        self.replicas: Sequence[ReplicaSpec] = [ReplicaSpec(number=n, name=f"replica {n}") for n in range(count)]
        self.ended: list[int] = []
        self.hopeless = ""

    def tell(self, words: Mapping[str, Any]) -> None: ...

    def tend(self) -> list[tuple[int, str]]:
        return []

    def how_it_ended(self, number: int) -> str:
        return "is gone"

    def end(self, number: int, pid: int) -> None:
        self.ended.append(number)

    def proved(self, number: int) -> None: ...

    def pause_s(self, number: int) -> float | None:
        return 0.0

    def log(self, number: int) -> str:
        return f"{number}.log"

    def stop(self) -> None: ...


class Notes:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.records: dict[int, Prediction] = {}
        self.twice: list[int] = []
        self.failed: dict[int, GivenUp] = {}
        self.turns: dict[int, Mapping[str, Any]] = {}
        self.lines: list[str] = []
        self.stamps: dict[str, Mapping[str, Any]] = {}
        self.finished_pieces: list[Piece] = []
        self.watched: list[tuple[Sequence[ReplicaState], Mapping[int, Waiting]]] = []

    def answered(self, dataset: int, row: int, prediction: Prediction) -> None:
        if row in self.records:
            self.twice.append(row)
        self.records[row] = prediction

    def turned(self, dataset: int, row: int, said: Mapping[str, Any]) -> None:
        self.turns[row] = said

    def said(self, piece: Piece) -> Mapping[int, Mapping[str, Any]]:
        return {row: self.turns[row] for row in piece.rows if row in self.turns}

    def given_up(self, row: GivenUp) -> None:
        self.failed[row.row] = row

    def name(self, dataset: int, row: int) -> str:
        return f"sample {row}"

    def ready(self, replica: str) -> None: ...

    def stamped(self, replica: str, stamp: Mapping[str, Any]) -> None:
        self.stamps[replica] = stamp

    def finished(self, piece: Piece, seconds: float) -> None:
        self.finished_pieces.append(piece)

    def watch(self, replicas: Sequence[ReplicaState], waiting: Mapping[int, Waiting]) -> None:
        self.watched.append((replicas, waiting))

    def say(self, line: str) -> None:
        self.lines.append(line)


def record(row: int) -> dict[str, Any]:
    return {"index": row, "status": "ok", "fingerprint": "f", "prediction": "A"}


def greet(
    address: Address, number: int, *, job: int = 0, facts: Mapping[str, Any] | None = None, ahead: int = 0
) -> Connection:
    """Call as a replica does, up to being ready."""
    connection = connect(address)
    hello = {"type": "hello", "number": number, "job": job, "pid": 0, "token": address.token}
    for words in (hello, {"type": "facts", "facts": facts or {}}, {"type": "ready", "ahead": ahead}):
        connection.send(words)
    return connection


def answer(connection: Connection, row: int, **more: Any) -> None:
    """Answer a piece of one row as a replica does."""
    connection.send({"type": "answer", "dataset": 0, "row": row, "prediction": record(row), **more})
    connection.send({"type": "done"})


class Crowd(threading.Thread):
    """Many replicas in one thread: each answers its pieces one after the other, each `seconds(rows)` after it began,
    and has so many more in hand, which it gives back when asked."""

    def __init__(
        self,
        address: Address,
        count: int,
        seconds: Callable[[Sequence[int]], float] | None = None,
        ahead: int = 0,
    ) -> None:
        super().__init__(daemon=True)
        self._seconds = seconds
        self._selector = selectors.DefaultSelector()
        self._pieces: dict[Connection, list[dict[str, Any]]] = {}
        """Of each replica: the first is what it answers."""
        for number in range(count):
            connection = greet(address, number, ahead=ahead)
            self._selector.register(connection, selectors.EVENT_READ, connection)
            self._pieces[connection] = []
        self._due: list[tuple[float, Connection]] = []
        self._left = count
        self.given_back = 0
        self.most_at_once = 0
        self.answered: dict[Connection, list[int]] = {connection: [] for connection in self._pieces}
        """The rows each has answered."""

    def run(self) -> None:
        while self._left:
            wait_s = max(0.0, min((due for due, _ in self._due), default=1.0) - time.monotonic())
            for key, _ in self._selector.select(wait_s if self._due else 1.0):
                self._hear(key.data)
            now = time.monotonic()
            for item in [item for item in self._due if item[0] <= now]:
                self._due.remove(item)
                self._finish(item[1])
        self._selector.close()

    def _hear(self, connection: Connection) -> None:
        messages = connection.receive()
        if messages is None or any(message["type"] == "stop" for message in messages):
            self._selector.unregister(connection)
            connection.close()
            self._left -= 1
            return
        pieces = self._pieces[connection]
        for message in messages:
            if message["type"] == "give_back":
                self.given_back += len(pieces[1:])
                connection.send({"type": "given_back", "pieces": pieces[1:]})
                del pieces[1:]
            if message["type"] == "piece" and self._seconds is None:
                self._answer(connection, message)
            elif message["type"] == "piece":
                pieces.append(message)
                self.most_at_once = max(self.most_at_once, len(pieces))
                if len(pieces) == 1:
                    self._begin(connection)

    def _begin(self, connection: Connection) -> None:
        if self._seconds is not None:
            self._due.append((time.monotonic() + self._seconds(self._pieces[connection][0]["rows"]), connection))

    def _finish(self, connection: Connection) -> None:
        pieces = self._pieces[connection]
        piece = pieces.pop(0)
        if pieces:
            self._begin(connection)
        self._answer(connection, piece)

    def _answer(self, connection: Connection, piece: Mapping[str, Any]) -> None:
        for row in piece["rows"]:
            words = {"type": "answer", "dataset": piece["dataset"], "row": row, "prediction": record(row)}
            connection.send(words)
            self.answered[connection].append(row)
        connection.send({"type": "done"})
