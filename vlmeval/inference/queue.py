"""The work queue: which piece a free replica takes next, and what becomes of the pieces of one that died.

Pure bookkeeping without clocks, files or processes; whoever holds a piece is named by a number.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DEATHS_TO_FAIL = 2
"""A row that was being answered when a replica died, this often, is given up."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows of one benchmark that are answered together: `dataset` and `rows` are positions, `cost` is about tokens."""

    dataset: int
    rows: tuple[int, ...]
    cost: float


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """A row that nobody shall try again, and how each replica that tried it ended."""

    dataset: int
    row: int
    deaths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Of one benchmark: pieces nobody has taken yet, and what they cost together."""

    pieces: int = 0
    cost: float = 0.0


@dataclass
class _Held:
    piece: Piece
    open_rows: set[int] = field(default_factory=set)


class WorkQueue:
    """Pieces, longest first within a benchmark, benchmarks in their order; nobody waits between two of them."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._waiting: list[tuple[int, float, int, Piece]] = []
        self._held: dict[int, _Held] = {}
        self._deaths: dict[tuple[int, int], list[str]] = {}
        self._pieces: Counter[int] = Counter()
        self._costs: dict[int, float] = {}
        self._count = 0
        for piece in pieces:
            self._put(piece)

    @property
    def waiting(self) -> int:
        """Pieces nobody has taken yet."""
        return len(self._waiting)

    @property
    def waiting_of(self) -> Mapping[int, Waiting]:
        """The same by benchmark, as far as any waits."""
        return {
            one: Waiting(pieces=count, cost=self._costs[one]) for one, count in sorted(self._pieces.items()) if count
        }

    @property
    def is_done(self) -> bool:
        """Nothing waits and nobody holds anything."""
        return not self._waiting and not self._held

    def held(self, holder: int) -> Piece | None:
        """What this holder is answering."""
        return self._held[holder].piece if holder in self._held else None

    def open_rows(self, holder: int) -> tuple[int, ...]:
        """Rows of its piece without an answer, in the piece's order."""
        held = self._held.get(holder)
        return tuple(row for row in held.piece.rows if row in held.open_rows) if held else ()

    def take(self, holder: int) -> Piece | None:
        """The next piece, now held by `holder`; None if none waits. Raises ValueError if it holds one already."""
        if holder in self._held:
            raise ValueError(f"holder {holder} has not finished {self._held[holder].piece}")
        if not self._waiting:
            return None
        piece = heapq.heappop(self._waiting)[-1]
        self._pieces[piece.dataset] -= 1
        self._costs[piece.dataset] -= piece.cost
        self._held[holder] = _Held(piece, set(piece.rows))
        return piece

    def answered(self, holder: int, row: int) -> bool:
        """Whether this answer counts: the row is one of the holder's, and its first. Ends the piece with its last."""
        held = self._held.get(holder)
        if held is None or row not in held.open_rows:
            return False
        held.open_rows.remove(row)
        if not held.open_rows:
            del self._held[holder]
        return True

    def lost(self, holder: int, how: str) -> tuple[GivenUp, ...]:
        """The holder died: its open rows wait again, one by one so that a guilty one is found, or are given up."""
        held = self._held.pop(holder, None)
        given_up = []
        for row in held.piece.rows if held else ():
            if held is None or row not in held.open_rows:
                continue
            deaths = self._deaths.setdefault((held.piece.dataset, row), [])
            deaths.append(how)
            if len(deaths) >= DEATHS_TO_FAIL:
                given_up.append(GivenUp(dataset=held.piece.dataset, row=row, deaths=tuple(deaths)))
            else:
                cost = held.piece.cost / len(held.piece.rows)
                self._put(Piece(dataset=held.piece.dataset, rows=(row,), cost=cost))
        return tuple(given_up)

    def again(self, dataset: int, row: int) -> None:
        """A row whose answer was lost before it was recorded."""
        self._put(Piece(dataset=dataset, rows=(row,), cost=1.0))

    def _put(self, piece: Piece) -> None:
        # The count keeps pieces of one cost in the order they came in.
        heapq.heappush(self._waiting, (piece.dataset, -piece.cost, self._count, piece))
        self._count += 1
        self._pieces[piece.dataset] += 1
        self._costs[piece.dataset] = self._costs.get(piece.dataset, 0.0) + piece.cost
