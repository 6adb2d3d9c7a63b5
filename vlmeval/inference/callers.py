"""Who calls the coordinator: lets replicas in under their numbers, and hears what each of them says."""

from __future__ import annotations

import selectors
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmeval.inference.protocol import Connection, Listener, Words
from vlmeval.types import Prediction

TICK_S = 0.2
"""The longest that is listened before anything else is seen to."""


@dataclass(eq=False)
class Member:
    """A replica that called. It is nobody's yet while it is `greeting`."""

    connection: Connection
    since: float
    """When it came, or began what it is at."""
    heard_at: float
    number: int = -1
    pid: int = 0
    state: Literal["greeting", "loading", "ready"] = "greeting"
    ahead: int = 0
    """How many pieces it wants in hand."""
    is_asked_back: bool = False
    """Whether it was asked for what it has in hand, and has not replied yet."""
    bug: str = ""
    doubtful: list[tuple[int, int, Prediction]] = field(default_factory=list)
    """Answers that its model may yet take back: dataset, row and what is recorded once it does not."""
    is_settling: bool = False
    not_counted: int = 0
    """Pieces that it has answered to the last row, and not said yet that its counts are of them too."""
    is_deaf: bool = False
    """Whether a piece could not be handed to it: it is to be lost."""
    is_gone: bool = False

    def say(self, words: Words) -> bool:
        """Whether it could be sent."""
        try:
            self.connection.send(words)
        except OSError:
            return False
        return True


class Callers:
    """The replicas that called and have not left, by number; and strangers, until they say who they are.

    Only the numbers of `names` are let in, with the listener's token, for this `job`.
    """

    def __init__(self, listener: Listener, names: Mapping[int, str], job: int) -> None:
        self._listener = listener
        self._names = names
        self._job = job
        self._strangers: list[Member] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self.members: dict[int, Member] = {}
        self.parents: dict[int, int] = {}
        """Who started each replica that called, by process id."""
        self.is_over = False
        """Whether all is done: who calls now is told so and not let in."""
        self.turned_away: set[int] = set()
        """Who called when all was done."""

    def hear(self) -> Iterator[tuple[Member, Words | None]]:
        """What members say within a tick, one by one; None for one that left, or whose place another takes."""
        for key, _ in self._selector.select(TICK_S):
            if key.data is None:
                self._welcome()
            elif not key.data.is_gone:
                yield from self._heard(key.data)

    def everyone(self) -> list[Member]:
        """Strangers too."""
        return [*self.members.values(), *self._strangers]

    def name(self, member: Member) -> str:
        """`replica 3`."""
        return self._names[member.number]

    def part_with(self, member: Member) -> bool:
        """End the conversation. Whether it was a member until now."""
        member.is_gone = True
        self._selector.unregister(member.connection)
        member.connection.close()
        if member in self._strangers:
            self._strangers.remove(member)
        if self.members.get(member.number) is not member:
            return False
        del self.members[member.number]
        return True

    def close(self) -> None:
        """End all conversations."""
        for member in self.everyone():
            member.connection.close()
        self._selector.close()

    def _welcome(self) -> None:
        connection = self._listener.accept()
        if connection is not None:
            now = time.monotonic()
            member = Member(connection=connection, since=now, heard_at=now)
            self._strangers.append(member)
            self._selector.register(connection, selectors.EVENT_READ, member)

    def _heard(self, member: Member) -> Iterator[tuple[Member, Words | None]]:
        try:
            messages = member.connection.receive()
        except (OSError, ValueError):
            messages = None
        if messages is None:
            yield member, None
            return
        member.heard_at = time.monotonic()
        for message in messages:
            if member in self._strangers:
                yield from self._greet(member, message)
            elif self.members.get(member.number) is member:
                yield member, message

    def _greet(self, member: Member, message: Mapping[str, Any]) -> Iterator[tuple[Member, None]]:
        number, job = message.get("number"), message.get("job")
        known = message["type"] == "hello" and self._listener.knows(message.get("token"))
        if not known or number not in self._names or not isinstance(number, int):
            self.part_with(member)
            return
        if job != self._job or self.is_over:
            # Its model is done with; it has only not heard so yet.
            if job == self._job:
                self.turned_away.add(number)
            member.say({"type": "stop"})
            self.part_with(member)
            return
        if number in self.members:
            yield self.members[number], None
        self._strangers.remove(member)
        self.members[number] = member
        member.number, member.pid, member.state = number, int(message.get("pid", 0)), "loading"
        self.parents[number] = int(message.get("parent", 0))
