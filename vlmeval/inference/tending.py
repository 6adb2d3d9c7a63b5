"""Looks after replicas a few times a second: who is stuck, who has to hear that we live, and how all of them stand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from vlmeval.inference.callers import TICK_S, Callers, Member
from vlmeval.inference.executors import Executor
from vlmeval.inference.limits import Limits, Patience
from vlmeval.inference.queue import Piece, WorkQueue
from vlmeval.inference.roll import ReplicaState, Roll


class Watchman:
    """Knows the time: it is the only one that judges a replica by the clock."""

    def __init__(self, callers: Callers, limits: Limits) -> None:
        self._callers = callers
        self._limits = limits
        self._patience = Patience(limits)
        self._tended_at = time.monotonic()
        self._beaten_at = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last round is a tick ago."""
        return time.monotonic() - self._tended_at >= TICK_S

    def learn(self, piece: Piece, seconds: float) -> None:
        """This piece took so long."""
        self._patience.learn(piece.cost, seconds)

    def round(self, queue: WorkQueue) -> Iterator[tuple[Member, str]]:
        """Who is stuck, and how. Where this process was stopped itself, everyone is excused for that time."""
        now = time.monotonic()
        gap_s, self._tended_at = now - self._tended_at, now
        everyone = self._callers.everyone()
        if gap_s > max(self._limits.silence_s / 2, 5 * TICK_S):
            # This process was stopped itself (Ctrl-Z, a laptop that slept): nobody else is to blame for the silence.
            for member in everyone:
                member.since += gap_s
                member.heard_at += gap_s
        for member in everyone:
            if not member.is_gone and (why := self._stuck(member, queue.held(member.number), now)):
                yield member, why

    def beat(self) -> None:
        """Say that we live, every few seconds."""
        if time.monotonic() - self._beaten_at >= self._limits.heartbeat_s:
            self._beaten_at = time.monotonic()
            for member in list(self._callers.members.values()):
                member.say({"type": "alive"})

    def _stuck(self, member: Member, piece: Piece | None, now: float) -> str:
        limits = self._limits
        silent_s, busy_s = now - member.heard_at, now - member.since
        allowed_s = limits.silence_s if member.state == "ready" else limits.loading_silence_s
        if silent_s > allowed_s:
            return f"gave no sign of life for {silent_s:.0f} s"
        if member.state != "ready":
            return f"did not get ready within {busy_s:.0f} s" if busy_s > limits.loading_s else ""
        if piece is None:
            return ""
        allowed_s = self._patience.allowed_s(piece.cost)
        return f"did not finish within {allowed_s:.0f} s" if busy_s > allowed_s else ""


def states(
    names: Mapping[int, str], members: Mapping[int, Member], executor: Executor, roll: Roll, queue: WorkQueue
) -> Iterator[ReplicaState]:
    """How every replica stands, whether it has called or not."""
    now = time.monotonic()
    for number in names:
        member = members.get(number)
        if member is None:
            yield roll.absent(number, executor.pause_s(number))
        else:
            age_s = max(0.0, now - member.since)
            yield roll.living(number, member.state == "ready", queue.held(number), age_s)
