"""Which prompts are answered together. Pure: sizes in, positions out.

Prompts of about one length share a batch, so that little is padded; the longest go first, so that a batch that does
not fit shows at once and no replica is left alone with the longest work at the end. Prompts about the same images
(circular copies, several questions on one picture) stay together, so that what was made of an image is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from vlmeval.types import Message, Task
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.prompt_size import PromptSize

MOST_WASTE = 0.2
"""The share of a batch that may be padding."""
FULL_ENOUGH = 0.75
"""A batch filled this far is closed rather than part prompts about the same images."""

Limit = Callable[[PromptSize], int]
"""How many prompts, none larger than this, can be answered at once."""


def plan_pieces(
    model: BaseModel, task: Task, messages: Iterable[list[Message]], batch_size: int | None
) -> list[tuple[int, ...]]:
    """The positions of the messages that are answered together, in the order in which to do it. `batch_size` None:
    as many as the model says it can take; a number: so many, whatever they are."""
    sizes = [model.prompt_size(message, task) for message in messages]
    if batch_size is None:
        return pieces(sizes, model.batch_limit)
    return pieces(sizes, lambda _: batch_size, most_waste=1.0)


def pieces(sizes: Sequence[PromptSize], limit: Limit, *, most_waste: float = MOST_WASTE) -> list[tuple[int, ...]]:
    """Every position once, largest first; no piece is over its limit, and padding is at most `most_waste` of it."""
    found: list[tuple[int, ...]] = []
    piece = _Piece(sizes, limit, most_waste)
    for unit in _units(sizes):
        if piece.is_nearly_full(unit):
            found.append(piece.close())
        for position in unit:
            if not piece.has_room(position):
                found.append(piece.close())
            piece.add(position)
    return [*found, piece.close()] if piece.positions else found


class _Piece:
    """The one that is being filled."""

    def __init__(self, sizes: Sequence[PromptSize], limit: Limit, most_waste: float) -> None:
        self._sizes, self._limit, self._most_waste = sizes, limit, most_waste
        self.positions: list[int] = []
        self._worst = PromptSize()
        self._tokens = self._longest = 0

    def has_room(self, position: int) -> bool:
        """An empty one takes anything: what does not fit alone fails by itself."""
        if not self.positions:
            return True
        size, count = self._sizes[position], len(self.positions) + 1
        worst = self._worst.or_larger(size)
        longest = max(self._longest, size.tokens)
        waste = 1 - (self._tokens + size.tokens) / (count * longest)
        return waste <= self._most_waste and count <= self._limit(worst)

    def is_nearly_full(self, unit: Sequence[int]) -> bool:
        """Whether a unit of several would be parted although this piece is about as full as it gets."""
        if not self.positions or len(unit) == 1:
            return False
        limit = self._limit(self._worst)
        return len(self.positions) + len(unit) > limit and len(self.positions) >= FULL_ENOUGH * limit

    def add(self, position: int) -> None:
        self.positions.append(position)
        self._worst = self._worst.or_larger(self._sizes[position])
        self._tokens += self._sizes[position].tokens
        self._longest = max(self._longest, self._sizes[position].tokens)

    def close(self) -> tuple[int, ...]:
        """The piece; the next one begins empty."""
        done, self.positions = tuple(self.positions), []
        self._worst, self._tokens, self._longest = PromptSize(), 0, 0
        return done


def _units(sizes: Sequence[PromptSize]) -> Iterator[list[int]]:
    """Positions that share all their images, largest first, each unit as large as its largest; else in order."""
    by_images: dict[tuple[str, ...] | int, list[int]] = {}
    for position, size in enumerate(sizes):
        by_images.setdefault(size.image_keys or position, []).append(position)
    units = [sorted(unit, key=lambda position: -sizes[position].tokens) for unit in by_images.values()]
    yield from sorted(units, key=lambda unit: -sizes[unit[0]].tokens)
