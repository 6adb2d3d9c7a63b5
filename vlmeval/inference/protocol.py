"""What coordinator and replicas say to each other: one JSON object a line, over a loopback connection.

| from a replica | says |
|---|---|
| hello | token, number, job, pid, parent: the first line; anything else ends the connection |
| facts | what has to agree with the coordinator's: versions, settings, benchmarks |
| ready | memory, ahead: the model is loaded, and so many pieces are wanted in hand |
| answer | dataset, row, prediction, in_doubt: one finished sample of the piece it answers |
| turn | dataset, row, said: the answers so far of a conversation that is not finished |
| given_back | pieces: those it had not begun, and does not have any more |
| done | stamp: all of a piece is answered and counted; where it lies and what its cards measured, if that has changed |
| settled | keep, stamp: whether its answers in doubt are to be recorded |
| alive | every few seconds, from a thread of its own; memory (`vlm.card_memory.Held` of each card) once it is loaded |
| error | text, exit_code: a mistake of the user's, which ends the run |
| bug | text: what went wrong in the code, before the process ends |

| from the coordinator | says |
|---|---|
| piece | dataset, rows, said: answer these, after what it was given before; `said` are turns answered earlier, by row |
| give_back | pieces that are not begun shall go to others |
| settle | all else is done: decide on answers in doubt |
| alive | every few seconds |
| stop | there is nothing more to do |
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Words = Mapping[str, Any]
LOOPBACK = "127.0.0.1"
SEND_TIMEOUT_S = 5.0
"""What is sent is small: who does not take it for so long has stopped."""
MAX_LINE_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the coordinator listens, what a replica has to know to be let in, and the coordinator's process (0: not
    known)."""

    port: int
    token: str
    host: str = LOOPBACK
    pid: int = 0


class Connection:
    """One end of a conversation. Raises OSError when the other end is gone, ValueError for what is no JSON object."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SEND_TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._partial = b""

    def fileno(self) -> int:
        """For selectors."""
        return self._sock.fileno()

    def send(self, words: Words) -> None:
        """Send one message."""
        self._sock.sendall(json.dumps(words, separators=(",", ":")).encode("ascii") + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that are complete by now; None at the end of the conversation. Call when there is something."""
        data = self._sock.recv(2**18)
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        return [_message(line) for line in lines]

    def messages(self) -> Iterator[dict[str, Any]]:
        """Every message until the other end is gone, waiting for each."""
        self._sock.settimeout(None)
        while (found := self.receive()) is not None:
            yield from found

    def close(self) -> None:
        """End the conversation."""
        self._sock.close()


def _message(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise ValueError(f"no message: {line[:80]!r}")
    return found


class Listener:
    """The coordinator's door: a loopback port of this machine, opened by a token that nobody else knows."""

    def __init__(self) -> None:
        self._sock = socket.create_server((LOOPBACK, 0), backlog=256)
        self._sock.setblocking(False)
        self.address = Address(port=self._sock.getsockname()[1], token=secrets.token_hex(16), pid=os.getpid())

    def fileno(self) -> int:
        """For selectors."""
        return self._sock.fileno()

    def accept(self) -> Connection | None:
        """The next caller, if there is one."""
        try:
            return Connection(self._sock.accept()[0])
        except (BlockingIOError, ConnectionError):
            return None

    def knows(self, token: object) -> bool:
        """Whether this is the token."""
        return isinstance(token, str) and secrets.compare_digest(token.encode(), self.address.token.encode())

    def close(self) -> None:
        """Let nobody in any more."""
        self._sock.close()


def connect(address: Address) -> Connection:
    """Call the coordinator. Raises OSError where it does not listen."""
    return Connection(socket.create_connection((address.host, address.port), timeout=SEND_TIMEOUT_S))
