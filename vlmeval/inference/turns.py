"""Turns of conversations that are not finished: a file beside the journal, so that a run that ends in the middle of one
goes on at the turn it was at.

`{model}_{benchmark}.turns` has one line of JSON for each turn, appended as it is answered:

    {"index": 3, "fingerprint": "5f0c...", "turn": 2, "text": "Yes.", "new_tokens": 4, "seconds": 1.5}

`fingerprint` is that of the whole conversation, `seconds` what its turns took so far; empty values are left out. The
last turn has no line: the conversation's record is in the journal then. Without this file (older runs have none)
conversations without a record begin again. Once all of a benchmark is answered the file is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from vlmeval.inference.answering import Request
from vlmeval.inference.journal import Lines
from vlmeval.storage import storage_error
from vlmeval.types import Answer, Index


@dataclass(frozen=True, kw_only=True)
class Said:
    """The first answers of a conversation, and the seconds they took together."""

    fingerprint: str
    answers: tuple[Answer, ...] = ()
    seconds: float = 0.0

    @classmethod
    def of(cls, request: Request) -> Said:
        return cls(fingerprint=request.fingerprint, answers=request.said, seconds=round(request.seconds, 6))

    @classmethod
    def of_words(cls, words: Mapping[str, Any]) -> Said:
        """Back from `words`."""
        answers = tuple(_answer(one) for one in words["answers"])
        return cls(fingerprint=words["fingerprint"], answers=answers, seconds=words["seconds"])

    @property
    def words(self) -> dict[str, Any]:
        """As plain values, for another process."""
        answers = [_as_values(answer) for answer in self.answers]
        return {"fingerprint": self.fingerprint, "answers": answers, "seconds": self.seconds}

    def resume(self, request: Request) -> Request:
        """The request with these answers given, if they are to its prompt; its last turn is left to do."""
        if self.fingerprint != request.fingerprint or not self.answers:
            return request
        return replace(request, said=self.answers[: request.turns - 1], seconds=self.seconds)


class TurnJournal:
    """The turns of one benchmark. Use as a context manager. The file is made with the first turn that is recorded."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError if the file is there and cannot be read."""
        self.path = path
        self._said = _read(path)
        self._on_disk: Lines | None = None

    def __enter__(self) -> TurnJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._on_disk is not None:
            self._on_disk.__exit__(kind, error, traceback)

    def said(self, request: Request) -> Said:
        """What is there of this conversation; nothing of one that was worded otherwise."""
        found = self._said.get(request.sample.index)
        is_its = found is not None and found.fingerprint == request.fingerprint
        return found if found is not None and is_its else Said(fingerprint=request.fingerprint)

    def resumed(self, requests: Sequence[Request]) -> list[Request]:
        """Each with the turns that were answered before."""
        return [self.said(request).resume(request) for request in requests]

    def add(self, index: Index, said: Said) -> None:
        """Record the turns of it that are new. Raises StorageError."""
        before = self._said.get(index)
        known = len(before.answers) if before is not None and before.fingerprint == said.fingerprint else 0
        if len(said.answers) <= known:
            return
        if self._on_disk is None:
            self._on_disk = Lines(self.path).__enter__()
        for turn, answer in enumerate(said.answers[known:], start=known + 1):
            about = {"index": index, "fingerprint": said.fingerprint, "turn": turn}
            self._on_disk.add({**about, **_as_values(answer), "seconds": said.seconds})
        self._said[index] = said


def forget_turns(path: Path) -> None:
    """All is answered: the file is of no more use. One that cannot be removed does no harm."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _as_values(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(answer).items() if value not in (None, "", ())}


def _answer(values: Mapping[str, Any]) -> Answer:
    """Raises TypeError for what is none."""
    known = {field.name for field in dataclasses.fields(Answer)}
    found = {name: value for name, value in values.items() if name in known}
    return Answer(**{"text": "", **found, "notes": tuple(values.get("notes", ()))})


def _read(path: Path) -> dict[Index, Said]:
    """Of every conversation the turns from its first on. What a kill left of a line is skipped, and what follows a gap
    is of no use."""
    found: dict[Index, Said] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return found
    except OSError as error:
        raise storage_error(path, error) from error
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            _take(found, json.loads(line))
    return found


def _take(found: dict[Index, Said], record: Mapping[str, Any]) -> None:
    index, fingerprint, turn = record["index"], record["fingerprint"], record["turn"]
    before = found.get(index)
    if turn == 1 or before is None or before.fingerprint != fingerprint:
        before = Said(fingerprint=fingerprint)
    if turn == len(before.answers) + 1:
        answers = (*before.answers, _answer(record))
        found[index] = Said(fingerprint=fingerprint, answers=answers, seconds=float(record["seconds"]))
