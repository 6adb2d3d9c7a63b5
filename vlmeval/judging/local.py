"""A judge in this process: any model of ours, given text prompts and laid over the cards like every other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from vlmeval.errors import RefusedError, SampleError
from vlmeval.types import Answer, Message, Task, TextPart


class TextModel(Protocol):
    """What a judge needs of a model (`vlmeval.vlm.base.BaseModel` has it)."""

    def load(self) -> None:
        """Load the weights, once."""

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        """One answer per prompt."""


class LocalJudge:
    """Asks one question at a time, whatever the threads: the cards are one model's."""

    def __init__(self, name: str, model: TextModel, identity: str) -> None:
        self.name = name
        self.identity = identity
        self._model = model
        self._lock = threading.Lock()
        self._is_ready = False

    def get_ready(self) -> bool:
        """Load the weights, unless they are; whether they were not."""
        with self._lock:
            was_ready = self._is_ready
            if not was_ready:
                self._model.load()
            self._is_ready = True
        return not was_ready

    def ask(self, prompt: str) -> str:
        """The reply, thinking left out. Raises RefusedError where the model cannot answer this, or says nothing."""
        self.get_ready()
        with self._lock:
            try:
                reply = self._model.generate_batch([[TextPart(type="text", value=prompt)]])[0].text
            except SampleError as error:
                raise RefusedError(f"judge {self.name}: {error}") from error
        if not reply.strip():
            raise RefusedError(f"judge {self.name}: an empty reply")
        return reply

    def stop(self) -> None:
        """Nothing waits here."""
