"""The roll of the replicas: what each has done over all its lives, for whoever shows a run while it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmeval.inference.queue import Piece

State = Literal["starting", "loading", "answering", "waiting", "restarting", "ended"]


@dataclass(frozen=True, kw_only=True)
class ReplicaState:
    """One replica at one moment. `piece` is what it has been at for `age_s`; `starts_in_s` is for one that died.

    `memory` is as it last told: plain values, `vlm.card_memory.Held` of each of its cards.
    """

    number: int
    name: str
    state: State
    piece: Piece | None = None
    age_s: float = 0.0
    answered: int = 0
    deaths: int = 0
    starts_in_s: float | None = None
    memory: tuple[Mapping[str, Any], ...] = ()


class Roll:
    """Counts by number. A replica that was started again goes on with its own counts."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._answered: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()
        self._memory: dict[int, tuple[Mapping[str, Any], ...]] = {}

    def answered(self, number: int, count: int = 1) -> None:
        """So many more answers of its are recorded."""
        self._answered[number] += count

    def died(self, number: int) -> None:
        """It holds nothing any more."""
        self._deaths[number] += 1
        self._memory.pop(number, None)

    def told(self, number: int, message: Mapping[str, Any]) -> None:
        """What it holds, if the message says so."""
        if "memory" in message:
            self._memory[number] = tuple(message["memory"])

    def living(self, number: int, is_ready: bool, piece: Piece | None, age_s: float) -> ReplicaState:
        """One that has called and not left; `piece` is what it holds."""
        ready: State = "answering" if piece is not None else "waiting"
        return self._state(number, ready if is_ready else "loading", piece=piece, age_s=age_s)

    def absent(self, number: int, pause_s: float | None) -> ReplicaState:
        """One whose process has not called: yet, again, or for ever (`pause_s` None)."""
        if pause_s is None:
            return self._state(number, "ended")
        if not self._deaths[number]:
            return self._state(number, "starting")
        return self._state(number, "restarting", starts_in_s=pause_s)

    def _state(self, number: int, state: State, **more: Any) -> ReplicaState:
        return ReplicaState(
            number=number,
            name=self._names[number],
            state=state,
            answered=self._answered[number],
            deaths=self._deaths[number],
            memory=self._memory.get(number, ()),
            **more,
        )
