"""What is given to whom: pieces of the queue to replicas that are free, and back again where another is free sooner."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmeval.inference.callers import Member
from vlmeval.inference.interrupts import Interrupts
from vlmeval.inference.queue import Piece, WorkQueue


class Dealer:
    """Deals a queue to `members`, who come and go, until there are `interrupts`. One that cannot be handed a piece is
    marked as deaf."""

    def __init__(
        self,
        queue: WorkQueue,
        members: Mapping[int, Member],
        interrupts: Interrupts,
        said: Callable[[Piece], Mapping[int, Any]],
    ) -> None:
        """`said` knows the turns of a piece's conversations that were answered earlier, by row."""
        self._queue = queue
        self._said = said
        self._members = members
        self._interrupts = interrupts

    def give(self, member: Member) -> None:
        """It has just finished a piece, or had none: the next one, and those it wants in hand."""
        member.since = time.monotonic()
        if self._interrupts.first_at is not None or member.is_deaf:
            return
        if self._queue.held(member.number) is None:
            piece = self._queue.take(member.number)
            if piece is None:
                self._ask_back_for_idle()
            elif not self._hand_over(member, piece):
                return
        while len(self._queue.in_hand(member.number)) < member.ahead and not member.is_asked_back:
            piece = self._queue.take_ahead(member.number)
            if piece is None or not self._hand_over(member, piece):
                return

    def feed_idle(self) -> None:
        """Something waits again."""
        for member in list(self._members.values()):
            if self.is_free(member):
                self.give(member)

    def is_free(self, member: Member) -> bool:
        """Whether it could begin a piece now."""
        is_there = member.state == "ready" and not member.is_gone and not member.is_deaf
        return is_there and self._queue.held(member.number) is None

    def take_back(self, member: Member, pieces: Sequence[Mapping[str, Any]]) -> None:
        """It gave back these."""
        member.is_asked_back = False
        for piece in pieces:
            self._queue.give_back(member.number, piece["dataset"], piece["rows"])
        self.feed_idle()

    def ask_back_all(self) -> None:
        """Nothing that is not begun shall be."""
        for member in self._members.values():
            if self._queue.in_hand(member.number):
                self._ask_back(member)

    def _hand_over(self, member: Member, piece: Piece) -> bool:
        said = self._said(piece)
        words = {"type": "piece", "dataset": piece.dataset, "rows": piece.rows}
        member.is_deaf = not member.say({**words, "said": said} if said else words)
        return not member.is_deaf

    def _ask_back_for_idle(self) -> None:
        """Nothing waits and someone is free: the costliest piece that another has in hand is asked for."""
        in_hand = [
            (self._queue.in_hand(number)[-1].cost, number)
            for number, member in self._members.items()
            if not member.is_asked_back and self._queue.in_hand(number)
        ]
        if in_hand:
            self._ask_back(self._members[max(in_hand)[1]])

    def _ask_back(self, member: Member) -> None:
        """Only it knows what it has not begun; it replies at once, whatever it is at."""
        member.is_asked_back = member.say({"type": "give_back"})
