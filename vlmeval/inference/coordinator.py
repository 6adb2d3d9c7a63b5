"""The coordinator: gives pieces of work to whichever replica is free, and is the only one that records answers.

One thread and one loop. Whoever stops speaking, takes too long or dies loses its pieces to the others; nobody is ever
waited for. A replica that gains by it has pieces in hand besides the one it answers, and prepares them meanwhile; when
none waits any more, one that is free is given what another has in hand.

Who calls is the business of `callers`, who is given what of `dealing`, what becomes of answers of `intake`, and what
the clock says of `tending`; here they are put together, and here it is said what happens when a replica is lost.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from vlmeval.errors import ModelError, UsageError, VLMEvalError
from vlmeval.inference.callers import Callers, Member
from vlmeval.inference.dealing import Dealer
from vlmeval.inference.executors import Executor
from vlmeval.inference.intake import Intake, Recording
from vlmeval.inference.interrupts import Interrupts, signals_go_to
from vlmeval.inference.limits import Limits
from vlmeval.inference.protocol import Listener
from vlmeval.inference.queue import GivenUp, Piece, Waiting, WorkQueue
from vlmeval.inference.roll import ReplicaState, Roll
from vlmeval.inference.tending import Watchman, states
from vlmeval.inference.versions import differences


class Sink(Recording, Protocol):
    """What becomes of answers, and who is told what goes on."""

    def turned(self, dataset: int, row: int, said: Mapping[str, Any]) -> None:
        """Keep the turns of a conversation that is under way (`turns.Said.words`)."""

    def said(self, piece: Piece) -> Mapping[int, Mapping[str, Any]]:
        """The turns of its conversations that were answered earlier, by row; only of those that have any."""

    def given_up(self, row: GivenUp) -> None:
        """Record as failed a row that ended several replicas."""

    def name(self, dataset: int, row: int) -> str:
        """The sample in words."""

    def ready(self, replica: str) -> None:
        """This one begins to answer."""

    def stamped(self, replica: str, stamp: Mapping[str, Any]) -> None:
        """Where this one lies, and what its cards measured so far."""

    def finished(self, piece: Piece, seconds: float) -> None:
        """One replica has answered all of it in so many seconds."""

    def watch(self, replicas: Sequence[ReplicaState], waiting: Mapping[int, Waiting]) -> None:
        """How things stand, a few times a second: every replica, and what of each benchmark nobody has taken yet."""

    def say(self, line: str) -> None:
        """One line for the person watching."""


class Coordinator:
    """Serves one queue to the replicas of one executor.

    `facts` is what every replica has to agree with: versions, settings, benchmarks. A replica that does not is
    refused with the difference, which ends the run.
    """

    def __init__(
        self,
        listener: Listener,
        executor: Executor,
        facts: Mapping[str, Mapping[str, Any]],
        *,
        job: int = 0,
        limits: Limits | None = None,
    ) -> None:
        self._executor = executor
        self._facts = facts
        self._limits = limits or Limits()
        self._names = {replica.number: replica.name for replica in executor.replicas}
        self._callers = Callers(listener, self._names, job)
        self._roll = Roll(self._names)
        self._interrupts = Interrupts()
        self._gone: set[int] = set()
        self._killed: set[int] = set()

    @property
    def parents(self) -> Mapping[int, int]:
        """Who started each replica that called, by process id."""
        return self._callers.parents

    def serve(self, queue: WorkQueue, sink: Sink) -> None:
        """Until every row is answered or given up. Raises what ended the run before that, KeyboardInterrupt too."""
        self._queue, self._sink = queue, sink
        self._dealer = Dealer(queue, self._callers.members, self._interrupts, sink.said)
        self._intake = Intake(queue, sink, self._roll, self._callers.members)
        self._watchman = Watchman(self._callers, self._limits)
        with signals_go_to(self._interrupts):
            while not queue.is_done or self._intake.is_in_doubt() or self._intake.is_uncounted():
                self._listen()
                if self._watchman.is_due:
                    self._tend()
                self._heed_interrupts()

    def dismiss(self, absent: Collection[int] = (), wait_s: float = 0.0) -> set[int]:
        """Tell every replica that there is nothing more to do, and wait until they and the `absent` have left.

        One that does not leave within a third of that time is killed. Returns who was not seen to leave.
        """
        self._callers.is_over = True
        members = self._callers.members
        for member in members.values():
            member.say({"type": "stop"})
        expected, started = {*absent, *members}, time.monotonic()
        while self._missing(expected) and (waited_s := time.monotonic() - started) < wait_s:
            for member, message in self._callers.hear():
                if message is None and self._callers.part_with(member):
                    # One that was killed is started again by its rank, and told to stop when it calls.
                    self._gone |= {member.number} - self._killed
            for member in list(members.values()):
                if waited_s > wait_s / 3 and member.number not in self._killed:
                    self._killed.add(member.number)
                    self._executor.end(member.number, member.pid)
        return self._missing(expected)

    def close(self) -> None:
        """End all conversations."""
        self._callers.close()

    def _missing(self, expected: set[int]) -> set[int]:
        return expected - self._gone - self._callers.turned_away

    def _listen(self) -> None:
        for member, message in self._callers.hear():
            if message is None:
                self._lose(member)
            else:
                self._obey(member, message)
        self._lose_deaf()

    def _obey(self, member: Member, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        self._roll.told(member.number, message)
        if "stamp" in message:
            self._sink.stamped(self._callers.name(member), message["stamp"])
        if kind == "answer":
            self._take_answer(member, message)
        elif kind == "turn":
            piece = self._queue.held(member.number)
            if piece is not None and message["dataset"] == piece.dataset and message["row"] in piece.rows:
                self._sink.turned(piece.dataset, message["row"], message["said"])
        elif kind == "facts":
            self._compare(member, message["facts"])
        elif kind == "ready":
            member.state, member.ahead = "ready", int(message.get("ahead", 0))
            self._sink.ready(self._callers.name(member))
            self._dealer.give(member)
        elif kind == "given_back":
            self._dealer.take_back(member, message["pieces"])
        elif kind == "settled":
            self._intake.settle(member, keep=bool(message["keep"]))
        elif kind == "done":
            member.not_counted -= 1
        elif kind == "bug":
            member.bug = str(message["text"])
        elif kind == "error":
            error = VLMEvalError(str(message["text"]))
            error.exit_code = int(message["exit_code"])
            raise error

    def _compare(self, member: Member, facts: Mapping[str, Mapping[str, Any]]) -> None:
        if found := differences(self._facts, facts):
            raise UsageError(
                f"{self._callers.name(member)} is refused, it would not answer as the others do: {'; '.join(found)} "
                "(what the run has -> what it has)"
            )

    def _take_answer(self, member: Member, message: Mapping[str, Any]) -> None:
        if ended := self._intake.take(member, message):
            self._watchman.learn(*ended)
            self._sink.finished(*ended)
            self._executor.proved(member.number)
            self._dealer.give(member)

    def _lose_deaf(self) -> None:
        for member in list(self._callers.members.values()):
            if member.is_deaf and not member.is_gone:
                self._lose(member)

    def _lose(self, member: Member, stuck: str = "") -> None:
        """This replica is gone, or as good as gone (`stuck` says how): its rows go to others."""
        if not self._callers.part_with(member):
            return
        if stuck:
            self._executor.end(member.number, member.pid)
        ended = self._executor.how_it_ended(member.number)
        how = stuck or (f"failed with {member.bug}" if member.bug else ended)
        self._roll.died(member.number)
        self._tell_loss(member, how)
        self._intake.forget(member)
        for row in self._queue.lost(member.number, how):
            self._sink.given_up(row)
        self._dealer.feed_idle()

    def _tell_loss(self, member: Member, how: str) -> None:
        piece, rows = self._queue.held(member.number), self._queue.open_rows(member.number)
        name = f"{self._callers.name(member)} (process {member.pid})"
        doing = "while loading the model" if member.state == "loading" else "while it had nothing to do"
        if piece is not None and rows:
            first = self._sink.name(piece.dataset, rows[0])
            doing = f"while answering {first}" + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")
        log = self._executor.log(member.number)
        self._sink.say(f"{name} {how} {doing}" + (f"; see {log}" if log else ""))

    def _tend(self) -> None:
        for member, why in self._watchman.round(self._queue):
            self._lose(member, why)
        self._lose_deaf()
        self._watchman.beat()
        for number, how in self._executor.tend():
            if number not in self._callers.members:
                self._roll.died(number)
                self._sink.say(f"{self._names[number]} {how} before it was ready; see {self._executor.log(number)}")
        if not self._callers.members and (why := self._executor.hopeless):
            raise ModelError(f"no replica is left and none can be started: {why}")
        found = states(self._names, self._callers.members, self._executor, self._roll, self._queue)
        self._sink.watch(list(found), self._queue.waiting_of)

    def _heed_interrupts(self) -> None:
        first_at = self._interrupts.first_at
        if first_at is None:
            return
        busy = sum(not self._dealer.is_free(m) for m in self._callers.members.values() if m.state == "ready")
        waited_s = time.monotonic() - first_at
        if not busy or self._interrupts.at_once or waited_s > self._limits.interrupt_s:
            raise KeyboardInterrupt
        if not self._interrupts.is_heeded:
            self._interrupts.is_heeded = True
            self._sink.say(
                f"{self._interrupts.name}: finishing what {busy} replicas are at, for at most "
                f"{self._limits.interrupt_s:.0f} s; once more stops at once"
            )
            self._dealer.ask_back_all()
