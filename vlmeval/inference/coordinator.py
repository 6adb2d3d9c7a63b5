"""The coordinator: gives pieces of work to whichever replica is free, and is the only one that records answers.

One thread and one loop. Whoever stops speaking, takes too long or dies loses its pieces to the others; nobody is ever
waited for. A replica that gains by it has pieces in hand besides the one it answers, and prepares them meanwhile; when
none waits any more, one that is free is given what another has in hand.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from vlmeval.errors import ModelError, UsageError, VLMEvalError
from vlmeval.inference.executors import Executor
from vlmeval.inference.interrupts import Interrupts, signals_go_to
from vlmeval.inference.journal import from_record
from vlmeval.inference.limits import Limits, Patience
from vlmeval.inference.protocol import Connection, Listener
from vlmeval.inference.queue import GivenUp, Piece, Waiting, WorkQueue
from vlmeval.inference.roll import ReplicaState, Roll
from vlmeval.inference.versions import differences
from vlmeval.types import Prediction

TICK_S = 0.2


class Sink(Protocol):
    """What becomes of answers, and who is told what goes on."""

    def answered(self, dataset: int, row: int, prediction: Prediction) -> None:
        """Record it. Raises StorageError when that is impossible, which ends the run; ValueError if it answers
        another prompt than was asked."""

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


@dataclass(eq=False)
class _Member:
    """A replica that called."""

    connection: Connection
    since: float
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
    is_gone: bool = False


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
        self._listener = listener
        self._executor = executor
        self._facts = facts
        self._job = job
        self._limits = limits or Limits()
        self._patience = Patience(self._limits)
        self._members: dict[int, _Member] = {}
        self._strangers: list[_Member] = []
        self._names = {replica.number: replica.name for replica in executor.replicas}
        self._roll = Roll(self._names)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._interrupts = Interrupts()
        self.parents: dict[int, int] = {}
        """Who started each replica that called, by process id."""
        self._over = False
        self._gone: set[int] = set()
        self._killed: set[int] = set()
        self._tended_at = self._beaten_at = 0.0

    def serve(self, queue: WorkQueue, sink: Sink) -> None:
        """Until every row is answered or given up. Raises what ended the run before that, KeyboardInterrupt too."""
        self._queue, self._sink = queue, sink
        self._tended_at = time.monotonic()
        with signals_go_to(self._interrupts):
            while not queue.is_done or self._is_in_doubt():
                self._listen()
                if time.monotonic() - self._tended_at >= TICK_S:
                    self._tend()
                self._heed_interrupts()

    def dismiss(self, absent: Collection[int] = (), wait_s: float = 0.0) -> set[int]:
        """Tell every replica that there is nothing more to do, and wait until they and the `absent` have left.

        One that does not leave within a third of that time is killed. Returns who was not seen to leave.
        """
        self._over = True
        for member in self._members.values():
            self._say(member, {"type": "stop"})
        expected, started = {*absent, *self._members}, time.monotonic()
        while expected - self._gone and (waited_s := time.monotonic() - started) < wait_s:
            self._listen()
            for member in list(self._members.values()):
                if waited_s > wait_s / 3 and member.number not in self._killed:
                    self._killed.add(member.number)
                    self._executor.end(member.number, member.pid)
        return expected - self._gone

    def close(self) -> None:
        """End all conversations."""
        for member in [*self._members.values(), *self._strangers]:
            member.connection.close()
        self._selector.close()

    def _listen(self) -> None:
        for key, _ in self._selector.select(TICK_S):
            if key.data is None:
                self._welcome()
            elif not key.data.is_gone:
                self._hear(key.data)

    def _welcome(self) -> None:
        connection = self._listener.accept()
        if connection is not None:
            now = time.monotonic()
            member = _Member(connection=connection, since=now, heard_at=now)
            self._strangers.append(member)
            self._selector.register(connection, selectors.EVENT_READ, member)

    def _hear(self, member: _Member) -> None:
        try:
            messages = member.connection.receive()
        except (OSError, ValueError):
            messages = None
        if messages is None:
            self._lose(member)
            return
        member.heard_at = time.monotonic()
        for message in messages:
            if member in self._strangers:
                self._greet(member, message)
            elif self._members.get(member.number) is member:
                self._obey(member, message)

    def _greet(self, member: _Member, message: Mapping[str, Any]) -> None:
        number, job = message.get("number"), message.get("job")
        known = message["type"] == "hello" and self._listener.knows(message.get("token"))
        if not known or number not in self._names or not isinstance(number, int):
            self._forget(member)
            return
        if job != self._job or self._over:
            # Its model is done with; it has only not heard so yet.
            if job == self._job:
                self._gone.add(number)
            self._say(member, {"type": "stop"})
            self._forget(member)
            return
        if number in self._members:
            self._lose(self._members[number])
        self._strangers.remove(member)
        self._members[number] = member
        member.number, member.pid, member.state = number, int(message.get("pid", 0)), "loading"
        self.parents[number] = int(message.get("parent", 0))

    def _obey(self, member: _Member, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        self._roll.told(member.number, message)
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
            self._sink.ready(self._names[member.number])
            self._give(member)
        elif kind == "given_back":
            self._take_back(member, message["pieces"])
        elif kind == "settled":
            self._settle(member, keep=bool(message["keep"]))
        elif kind == "stamp":
            self._sink.stamped(self._names[member.number], message["stamp"])
        elif kind == "bug":
            member.bug = str(message["text"])
        elif kind == "error":
            error = VLMEvalError(str(message["text"]))
            error.exit_code = int(message["exit_code"])
            raise error

    def _compare(self, member: _Member, facts: Mapping[str, Mapping[str, Any]]) -> None:
        if found := differences(self._facts, facts):
            raise UsageError(
                f"{self._names[member.number]} is refused, it would not answer as the others do: {'; '.join(found)} "
                "(what the run has -> what it has)"
            )

    def _take_answer(self, member: _Member, message: Mapping[str, Any]) -> None:
        piece, row = self._queue.held(member.number), message["row"]
        if piece is None or message["dataset"] != piece.dataset or not self._queue.answered(member.number, row):
            return
        member.doubtful.append((piece.dataset, row, from_record(message["prediction"])))
        if not message.get("in_doubt"):
            self._settle(member, keep=True)
        if self._queue.held(member.number) is not piece:
            seconds = time.monotonic() - member.since
            self._patience.learn(piece.cost, seconds)
            self._sink.finished(piece, seconds)
            self._executor.proved(member.number)
            self._give(member)

    def _settle(self, member: _Member, *, keep: bool) -> None:
        """Its model stands by its answers, which are recorded, or does not: then they stay unanswered."""
        doubtful, member.doubtful, member.is_settling = member.doubtful, [], False
        for dataset, row, prediction in doubtful if keep else ():
            self._sink.answered(dataset, row, prediction)
            self._roll.answered(member.number)

    def _is_in_doubt(self) -> bool:
        """Whether answers wait for a replica's judgement of itself. All else is done, so that it is asked for now."""
        waiting = [member for member in self._members.values() if member.doubtful]
        for member in waiting:
            if self._queue.is_done and not member.is_settling:
                member.is_settling = self._say(member, {"type": "settle"})
        return bool(waiting)

    def _give(self, member: _Member) -> None:
        """It has just finished a piece, or had none: the next one, and those it wants in hand."""
        member.since = time.monotonic()
        if self._interrupts.first_at is not None:
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

    def _hand_over(self, member: _Member, piece: Piece) -> bool:
        said = self._sink.said(piece)
        words = {"type": "piece", "dataset": piece.dataset, "rows": piece.rows}
        is_said = self._say(member, {**words, "said": said} if said else words)
        if not is_said:
            self._lose(member)
        return is_said

    def _ask_back_for_idle(self) -> None:
        """Nothing waits and someone is free: the costliest piece that another has in hand is asked for."""
        in_hand = [
            (self._queue.in_hand(number)[-1].cost, number)
            for number, member in self._members.items()
            if not member.is_asked_back and self._queue.in_hand(number)
        ]
        if in_hand:
            self._ask_back(self._members[max(in_hand)[1]])

    def _ask_back(self, member: _Member) -> None:
        """Only it knows what it has not begun; it replies at once, whatever it is at."""
        member.is_asked_back = self._say(member, {"type": "give_back"})

    def _take_back(self, member: _Member, pieces: Sequence[Mapping[str, Any]]) -> None:
        member.is_asked_back = False
        for piece in pieces:
            self._queue.give_back(member.number, piece["dataset"], piece["rows"])
        self._feed_idle()

    def _say(self, member: _Member, words: Mapping[str, Any]) -> bool:
        try:
            member.connection.send(words)
        except OSError:
            return False
        return True

    def _forget(self, member: _Member) -> None:
        member.is_gone = True
        self._selector.unregister(member.connection)
        member.connection.close()
        if member in self._strangers:
            self._strangers.remove(member)

    def _lose(self, member: _Member, stuck: str = "") -> None:
        """This replica is gone, or as good as gone (`stuck` says how): its rows go to others."""
        self._forget(member)
        if self._members.get(member.number) is not member:
            return
        del self._members[member.number]
        if self._over:
            # One that was killed is started again by its rank, and told to stop when it calls.
            self._gone |= {member.number} - self._killed
            return
        if stuck:
            self._executor.end(member.number, member.pid)
        ended = self._executor.how_it_ended(member.number)
        how = stuck or (f"failed with {member.bug}" if member.bug else ended)
        self._roll.died(member.number)
        self._tell_loss(member, how)
        for dataset, lost_row, _ in member.doubtful:
            self._queue.again(dataset, lost_row)
        for row in self._queue.lost(member.number, how):
            self._sink.given_up(row)
        self._feed_idle()

    def _tell_loss(self, member: _Member, how: str) -> None:
        piece, rows = self._queue.held(member.number), self._queue.open_rows(member.number)
        name = f"{self._names[member.number]} (process {member.pid})"
        doing = "while loading the model" if member.state == "loading" else "while it had nothing to do"
        if piece is not None and rows:
            first = self._sink.name(piece.dataset, rows[0])
            doing = f"while answering {first}" + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")
        log = self._executor.log(member.number)
        self._sink.say(f"{name} {how} {doing}" + (f"; see {log}" if log else ""))

    def _feed_idle(self) -> None:
        for member in list(self._members.values()):
            if self._is_free(member):
                self._give(member)

    def _is_free(self, member: _Member) -> bool:
        return member.state == "ready" and not member.is_gone and self._queue.held(member.number) is None

    def _tend(self) -> None:
        now = time.monotonic()
        gap_s, self._tended_at = now - self._tended_at, now
        everyone = [*self._members.values(), *self._strangers]
        if gap_s > max(self._limits.silence_s / 2, 5 * TICK_S):
            # This process was stopped itself (Ctrl-Z, a laptop that slept): nobody else is to blame for the silence.
            for member in everyone:
                member.since += gap_s
                member.heard_at += gap_s
        for member in everyone:
            if not member.is_gone and (why := self._stuck(member, now)):
                self._lose(member, why)
        if now - self._beaten_at >= self._limits.heartbeat_s:
            self._beaten_at = now
            for member in list(self._members.values()):
                self._say(member, {"type": "alive"})
        for number, how in self._executor.tend():
            if number not in self._members:
                self._roll.died(number)
                self._sink.say(f"{self._names[number]} {how} before it was ready; see {self._executor.log(number)}")
        if not self._members and (why := self._executor.hopeless):
            raise ModelError(f"no replica is left and none can be started: {why}")
        self._sink.watch(list(self._states(now)), self._queue.waiting_of)

    def _states(self, now: float) -> Iterator[ReplicaState]:
        for number in self._names:
            member = self._members.get(number)
            if member is None:
                yield self._roll.absent(number, self._executor.pause_s(number))
            else:
                yield self._roll.living(
                    number, member.state == "ready", self._queue.held(number), max(0.0, now - member.since)
                )

    def _stuck(self, member: _Member, now: float) -> str:
        limits = self._limits
        silent_s, busy_s = now - member.heard_at, now - member.since
        allowed_s = limits.silence_s if member.state == "ready" else limits.loading_silence_s
        if silent_s > allowed_s:
            return f"gave no sign of life for {silent_s:.0f} s"
        if member.state != "ready":
            return f"did not get ready within {busy_s:.0f} s" if busy_s > limits.loading_s else ""
        piece = self._queue.held(member.number)
        if piece is None:
            return ""
        allowed_s = self._patience.allowed_s(piece.cost)
        return f"did not finish within {allowed_s:.0f} s" if busy_s > allowed_s else ""

    def _heed_interrupts(self) -> None:
        first_at = self._interrupts.first_at
        if first_at is None:
            return
        busy = sum(not self._is_free(m) for m in self._members.values() if m.state == "ready")
        waited_s = time.monotonic() - first_at
        if not busy or self._interrupts.at_once or waited_s > self._limits.interrupt_s:
            raise KeyboardInterrupt
        if len(self._interrupts.names) == 1:
            self._interrupts.names.append("")
            self._sink.say(
                f"{self._interrupts.names[0]}: finishing what {busy} replicas are at, for at most "
                f"{self._limits.interrupt_s:.0f} s; once more stops at once"
            )
            for member in self._members.values():
                if self._queue.in_hand(member.number):
                    self._ask_back(member)
