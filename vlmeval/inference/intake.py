"""What becomes of answers: they count once, and are recorded as soon as their model stands by them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from vlmeval.inference.callers import Member
from vlmeval.inference.journal import from_record
from vlmeval.inference.processes import is_stopped
from vlmeval.inference.queue import Piece, WorkQueue
from vlmeval.inference.roll import Roll
from vlmeval.types import Prediction

COUNTS_S = 2.0
"""How long, once all is answered, replicas are given to say what they counted; it takes them milliseconds."""


class Recording(Protocol):
    """Where answers go."""

    def answered(self, dataset: int, row: int, prediction: Prediction) -> None:
        """Record it. Raises StorageError when that is impossible, which ends the run; ValueError if it answers
        another prompt than was asked."""


class Intake:
    """Takes the answers to a queue's pieces in."""

    def __init__(self, queue: WorkQueue, recording: Recording, roll: Roll, members: Mapping[int, Member]) -> None:
        self._queue = queue
        self._recording = recording
        self._roll = roll
        self._members = members
        self._done_at: float | None = None

    def take(self, member: Member, message: Mapping[str, Any]) -> tuple[Piece, float] | None:
        """One answer. The piece it ends and the seconds that took, if it is the last of one."""
        piece, row = self._queue.held(member.number), message["row"]
        if piece is None or message["dataset"] != piece.dataset or not self._queue.answered(member.number, row):
            return None
        member.doubtful.append((piece.dataset, row, from_record(message["prediction"])))
        if not message.get("in_doubt"):
            self.settle(member, keep=True)
        if self._queue.held(member.number) is piece:
            return None
        member.not_counted += 1
        return piece, time.monotonic() - member.since

    def settle(self, member: Member, *, keep: bool) -> None:
        """Its model stands by its answers, which are recorded, or does not: then they stay unanswered."""
        doubtful, member.doubtful, member.is_settling = member.doubtful, [], False
        for dataset, row, prediction in doubtful if keep else ():
            self._recording.answered(dataset, row, prediction)
            self._roll.answered(member.number)

    def is_in_doubt(self) -> bool:
        """Whether answers wait for a replica's judgement of itself. Once all else is done it is asked for."""
        waiting = [member for member in self._members.values() if member.doubtful]
        for member in waiting:
            if self._queue.is_done and not member.is_settling:
                member.is_settling = member.say({"type": "settle"})
        return bool(waiting)

    def is_uncounted(self) -> bool:
        """Whether a replica that lives has still to say what it counted while it answered its last piece.

        One that was stopped will not say, and after a moment nobody is waited for."""
        if not self._queue.is_done:
            return False
        self._done_at = self._done_at or time.monotonic()
        late = [member for member in self._members.values() if member.not_counted and not is_stopped(member.pid)]
        return bool(late) and time.monotonic() - self._done_at < COUNTS_S

    def forget(self, member: Member) -> None:
        """It is lost, and with it what it was in doubt about: those rows are answered again."""
        for dataset, row, _ in member.doubtful:
            self._queue.again(dataset, row)
