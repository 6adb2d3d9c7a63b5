"""Asking a judge many questions: replies from the cache first, several at once, everything counted, nothing guessed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from vlmeval.errors import JudgeError, NoReplyError, RefusedError
from vlmeval.judging.replies import ReplyCache, reply_key
from vlmeval.types import Index

T = TypeVar("T")
FAILED_LEADS = 2
FAILURES_IN_A_ROW = 5
"""Questions without any reply, at the start and later on, after which the judge counts as down."""
REMINDER = "\n\nYour last reply could not be read. Reply in exactly the form that is asked for, with nothing around it."


class Asker(Protocol):
    """Whoever can be asked: an endpoint, or a model in this process."""

    name: str
    identity: str
    """Everything that may change a reply, as text."""

    def get_ready(self) -> bool:
        """Do before the first question what takes long; whether there was something to do."""

    def ask(self, prompt: str) -> str:
        """The reply. Raises NoReplyError for this question, JudgeError for good."""

    def stop(self) -> None:
        """Give up what is under way."""


@dataclass(frozen=True, kw_only=True)
class Question(Generic[T]):
    """One thing to be judged. `read` takes it out of a reply, None for a reply that does not say it."""

    index: Index
    prompt: str
    version: str
    read: Callable[[str], T | None]


@dataclass(frozen=True, kw_only=True)
class Judged(Generic[T]):
    """What the judge said, and whom it said nothing usable about: replies that could not be read, and no reply."""

    found: Mapping[Index, T]
    asked: int
    from_cache: int
    unread: tuple[Index, ...]
    unanswered: Mapping[Index, str]

    def notes(self, judge: str, rows: int, fate: str, what: str = "rows") -> tuple[str, ...]:
        """The counts in words; `fate` is what becomes of rows (or `what` is judged) without a verdict."""
        lines = [
            f"judge {judge}: asked about {self.asked} of {rows} {what}, {self.from_cache} replies were there already"
        ]
        if self.unread:
            lines.append(f"judge {judge}: {len(self.unread)} replies could not be read ({_few(self.unread)}): {fate}")
        if self.unanswered:
            why = next(iter(self.unanswered.values()))
            about = f"{len(self.unanswered)} {what} ({_few(tuple(self.unanswered))})"
            lines.append(
                f"judge {judge}: no reply about {about}: {fate}; "
                f"the same command asks again about these; the first failed because: {why}"
            )
        return tuple(lines)


class Judge:
    """An asker with its cache."""

    def __init__(self, asker: Asker, cache: ReplyCache, *, parallel: int = 8) -> None:
        self.asker = asker
        self.name = asker.name
        self._cache = cache
        self._parallel = parallel
        self._asking: dict[str, threading.Lock] = {}

    def get_ready_for(self, questions: Sequence[Question[T]]) -> bool:
        """Let a judge in this process load its weights if one of these has to be asked; whether it did."""
        return any(self._remembered(question) is None for question in questions) and self.asker.get_ready()

    def ask_all(
        self, questions: Sequence[Question[T]], on_done: Callable[[int], None] = lambda done: None
    ) -> Judged[T]:
        """Put every question; one whose reply cannot be read is put once more with a reminder.

        Raises JudgeError if the judge cannot be asked at all, or stops replying. What it replied is kept in the cache.
        """
        tally: _Tally[T] = _Tally()
        fresh = []
        for question in questions:
            said = self._remembered(question)
            if said is None:
                fresh.append(question)
            else:
                tally.cached += 1
                tally.take(question, said[0])
        on_done(len(questions) - len(fresh))
        if fresh:
            self._ask_fresh(fresh, tally, lambda: on_done(tally.done))
        return tally.judged(len(questions))

    def _remembered(self, question: Question[T]) -> tuple[T | None] | None:
        """What the replies in the cache say, as far as they go: None if the judge has to be asked."""
        first = self._cache.get(self._key(question, question.prompt))
        if first is None:
            return None
        found = question.read(first)
        if found is not None:
            return (found,)
        second = self._cache.get(self._key(question, question.prompt + REMINDER))
        return None if second is None else (question.read(second),)

    def _ask_fresh(self, questions: Sequence[Question[T]], tally: _Tally[T], on_done: Callable[[], None]) -> None:
        remaining = iter(questions)
        self._ask_leads(remaining, tally, on_done)
        pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="judge")
        waiting: dict[Future[T | None], Question[T]] = {}
        failed_in_a_row, finished = 0, False
        try:
            while not finished:
                while len(waiting) < self._parallel and (question := next(remaining, None)) is not None:
                    waiting[pool.submit(self._ask, question)] = question
                finished = not waiting
                for future in wait(waiting, return_when=FIRST_COMPLETED).done if waiting else ():
                    question = waiting.pop(future)
                    is_well = self._settle(future, question, tally)
                    failed_in_a_row = 0 if is_well else failed_in_a_row + 1
                    on_done()
                    if failed_in_a_row >= FAILURES_IN_A_ROW:
                        why = tally.unanswered[question.index]
                        raise JudgeError(
                            f"{why}; {failed_in_a_row} questions in a row went without a reply, so the judge is taken "
                            "for down; its replies so far are kept: the same command goes on from there"
                        )
        finally:
            if not finished:
                self.asker.stop()
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask_leads(self, remaining: Iterator[Question[T]], tally: _Tally[T], on_done: Callable[[], None]) -> None:
        """One at a time until one has a reply: a wrong key, address or model is told after one request.

        A judge that has replied before is not down for refusing what it refused then: no other question may be left.
        """
        for question in remaining:
            try:
                tally.take(question, self._ask(question))
            except NoReplyError as error:
                tally.unanswered[question.index] = str(error)
                if not tally.shows_life(error) and len(tally.unanswered) >= FAILED_LEADS:
                    raise JudgeError(
                        f"{error}; the first {FAILED_LEADS} questions went without a reply, so the judge is taken "
                        "for down; what is answered is kept: try again when it is up"
                    ) from error
            else:
                return
            finally:
                on_done()

    def _settle(self, future: Future[T | None], question: Question[T], tally: _Tally[T]) -> bool:
        """Whether the judge is there, as far as this question tells."""
        try:
            tally.take(question, future.result())
        except NoReplyError as error:
            tally.unanswered[question.index] = str(error)
            return tally.shows_life(error)
        return True

    def _ask(self, question: Question[T]) -> T | None:
        for prompt in (question.prompt, question.prompt + REMINDER):
            key = self._key(question, prompt)
            # Equal questions have one reply: a second one waits for the first, or a protocol would read another.
            with self._asking.setdefault(key, threading.Lock()):
                reply = self._cache.get(key)
                if reply is None:
                    reply = self.asker.ask(prompt)
                    self._cache.add(key, self.name, question.version, reply)
            found = question.read(reply)
            if found is not None:
                return found
        return None

    def _key(self, question: Question[T], prompt: str) -> str:
        return reply_key(self.asker.identity, question.version, prompt)


class _Tally(Generic[T]):
    """What has come in so far."""

    def __init__(self) -> None:
        self.found: dict[Index, T] = {}
        self.unread: list[Index] = []
        self.unanswered: dict[Index, str] = {}
        self.cached = 0

    @property
    def done(self) -> int:
        return len(self.found) + len(self.unread) + len(self.unanswered)

    def shows_life(self, error: NoReplyError) -> bool:
        """Whether it is only this question that has no reply: the judge refused it, and has answered others."""
        return isinstance(error, RefusedError) and bool(self.found or self.unread)

    def take(self, question: Question[T], found: T | None) -> None:
        if found is None:
            self.unread.append(question.index)
        else:
            self.found[question.index] = found

    def judged(self, asked: int) -> Judged[T]:
        return Judged(
            found=self.found,
            asked=asked,
            from_cache=self.cached,
            unread=tuple(self.unread),
            unanswered=dict(self.unanswered),
        )


def _few(indices: Sequence[Index]) -> str:
    return f"index {', '.join(map(str, indices[:5]))}{', ...' if len(indices) > 5 else ''}"
