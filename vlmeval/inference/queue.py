"""The work queue: which piece a free replica takes next, and what becomes of the pieces of one that died.

Pure bookkeeping without clocks, files or processes; whoever holds pieces is named by a number. The first of them is
being answered, the others are in hand: they are prepared meanwhile, and can be given back.

Whose fault a death is has to be certain before a row is given up. Preparing a row can end a process as well as
answering it; so what was at a replica that died is given out alone from then on, without a piece before or after it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

DEATHS_TO_FAIL = 2
"""A row that was being answered when a replica died, this often, is given up."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows of one benchmark that are answered together: `dataset` and `rows` are positions, `cost` is about tokens.

    While one that is to be `alone` is answered, nothing else is at its replica.
    """

    dataset: int
    rows: tuple[int, ...]
    cost: float
    alone: bool = False


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
        self._held: dict[int, list[_Held]] = {}
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
        """The same by benchmark, as far as any waits, with what is only in hand."""
        pieces, costs = self._pieces.copy(), dict(self._costs)
        for piece in (other.piece for held in self._held.values() for other in held[1:]):
            pieces[piece.dataset] += 1
            costs[piece.dataset] += piece.cost
        return {one: Waiting(pieces=count, cost=costs[one]) for one, count in sorted(pieces.items()) if count}

    @property
    def is_done(self) -> bool:
        """Nothing waits and nobody holds anything."""
        return not self._waiting and not self._held

    def held(self, holder: int) -> Piece | None:
        """What this holder is answering."""
        return self._held[holder][0].piece if holder in self._held else None

    def in_hand(self, holder: int) -> tuple[Piece, ...]:
        """What this holder has not begun, as far as can be known."""
        return tuple(held.piece for held in self._held.get(holder, ())[1:])

    def open_rows(self, holder: int) -> tuple[int, ...]:
        """Rows without an answer of what it is answering, in the piece's order."""
        if holder not in self._held:
            return ()
        now = self._held[holder][0]
        return tuple(row for row in now.piece.rows if row in now.open_rows)

    def take(self, holder: int) -> Piece | None:
        """The next piece, which `holder` answers now; None if none waits. Raises ValueError if it holds one already."""
        if holder in self._held:
            raise ValueError(f"holder {holder} has not finished {self._held[holder][0].piece}")
        return self._taken(holder)

    def take_ahead(self, holder: int) -> Piece | None:
        """The next piece, to be answered after what `holder` has; None if none waits or one of them is to be alone."""
        now = self.held(holder)
        if now is None or now.alone or not self._waiting or self._waiting[0][-1].alone:
            return None
        return self._taken(holder)

    def _taken(self, holder: int) -> Piece | None:
        if not self._waiting:
            return None
        piece = heapq.heappop(self._waiting)[-1]
        self._pieces[piece.dataset] -= 1
        self._costs[piece.dataset] -= piece.cost
        self._held.setdefault(holder, []).append(_Held(piece, set(piece.rows)))
        return piece

    def give_back(self, holder: int, dataset: int, rows: Collection[int]) -> bool:
        """The holder has not begun this piece and will not: it waits again. Whether it held such a piece."""
        for held in self._held.get(holder, ()):
            if held.piece.dataset == dataset and set(held.piece.rows) == set(rows) == held.open_rows:
                self._let_go(holder, held)
                self._put(held.piece)
                return True
        return False

    def _let_go(self, holder: int, held: _Held) -> None:
        self._held[holder].remove(held)
        if not self._held[holder]:
            del self._held[holder]

    def answered(self, holder: int, row: int) -> bool:
        """Whether this answer counts: the row is of what the holder answers now, and its first. Ends the piece with
        its last."""
        if holder not in self._held or row not in self._held[holder][0].open_rows:
            return False
        now = self._held[holder][0]
        now.open_rows.remove(row)
        if not now.open_rows:
            self._let_go(holder, now)
        return True

    def lost(self, holder: int, how: str) -> tuple[GivenUp, ...]:
        """The holder died: open rows of what it was answering wait again, one by one so that a guilty one is found, or
        are given up; what it had in hand waits again, and nothing is held against it."""
        held = self._held.pop(holder, [])
        for other in held[1:]:
            self._put(replace(other.piece, alone=True))
        return tuple(given_up for now in held[:1] for given_up in self._blamed(now, how))

    def _blamed(self, held: _Held, how: str) -> list[GivenUp]:
        given_up = []
        for row in held.piece.rows:
            if row not in held.open_rows:
                continue
            deaths = self._deaths.setdefault((held.piece.dataset, row), [])
            deaths.append(how)
            if len(deaths) >= DEATHS_TO_FAIL:
                given_up.append(GivenUp(dataset=held.piece.dataset, row=row, deaths=tuple(deaths)))
            else:
                cost = held.piece.cost / len(held.piece.rows)
                self._put(Piece(dataset=held.piece.dataset, rows=(row,), cost=cost, alone=True))
        return given_up

    def again(self, dataset: int, row: int) -> None:
        """A row whose answer was lost before it was recorded."""
        self._put(Piece(dataset=dataset, rows=(row,), cost=1.0))

    def _put(self, piece: Piece) -> None:
        # The count keeps pieces of one cost in the order they came in.
        heapq.heappush(self._waiting, (piece.dataset, -piece.cost, self._count, piece))
        self._count += 1
        self._pieces[piece.dataset] += 1
        self._costs[piece.dataset] = self._costs.get(piece.dataset, 0.0) + piece.cost
