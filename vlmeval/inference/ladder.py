"""The memory ladder: what is tried, in this order, before a sample fails because memory ran out.

1. let go of what failed attempts held, and try again
2. smaller batches (the caller makes them: `generate` raises, and is called again for each part)
3. lay the model out anew with what was measured, and move its blocks
4. lay it over more cards, where some are free, and move its blocks among them
5. keys and values in host memory
6. fewer pixels, halved up to three times, only if the user allowed that: the one rung that changes what is asked
7. the sample fails, with all of this in its error

What was done is told as it is done, and stands in the notes of the answer. Layouts stay as 3 and 4 left them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from vlmeval.errors import OutOfMemorySampleError
from vlmeval.types import Answer, Index, Message, Prediction, Task
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.limits import is_out_of_memory, plain_out_of_memory
from vlmeval.vlm.room import Room

CLEARED = "memory cleared"
SMALLER = "smaller batch"
MOVED = "blocks moved"
MORE_CARDS = "more cards"
ON_HOST = "keys and values in host memory"
FEWER_PIXELS = "fewer pixels"
NOTE = "answered after: "
MOST_MOVES = 3
HALVINGS = 3

_log = logging.getLogger("vlmeval")


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One thing to try: as long as `room` is open, the model may have room. `detail` tells tries of a kind apart."""

    name: str
    room: Callable[[OutOfMemorySampleError], AbstractContextManager[Room]]
    detail: str = ""

    def __str__(self) -> str:
        return self.name + self.detail


def generate(
    model: BaseModel,
    task: Task,
    batch: Sequence[list[Message]],
    seed: int,
    *,
    about: str = "a sample",
    tried: Sequence[str] = (),
    begun: Callable[[], list[Answer]] | None = None,
) -> list[Answer]:
    """The model's answers to a batch, with room made where memory runs out. Looks after the model's memory afterwards.

    `about` names the samples in what is told; `tried` is what was done for a larger batch of them; `begun` answers the
    batch as far as it was prepared ahead.
    Raises OutOfMemorySampleError; its `tried` goes into the calls for the parts of a batch, for one prompt it is final.
    """
    done, impossible = [*tried], dict[str, str]()
    found = _attempt(model, task, batch, seed, begun)
    for rung in _rungs(model, alone=len(batch) == 1):
        if not isinstance(found, OutOfMemorySampleError):
            break
        if rung.name in impossible:
            continue
        with rung.room(found) as room:
            if not room.is_made:
                impossible[rung.name] = room.text
                _log.warning("%s: out of memory; not possible: %s (%s)", about, rung, room.text)
                continue
            _log.warning("%s: out of memory; %s%s", about, rung, f": {room.text}" if room.text else "")
            if str(rung) not in done:  # of several tries of a kind the last one stands for all
                done = [*(one for one in done if not one.startswith(rung.name)), str(rung)]
            if rung.name == MORE_CARDS:
                impossible.pop(MOVED, None)
            found = _attempt(model, task, batch, seed)
    if isinstance(found, OutOfMemorySampleError):
        raise _given_up(found, len(batch), done, impossible, about)
    model.look_after_memory()
    note = f"{NOTE}{', '.join(done)}"
    return [replace(answer, notes=(*answer.notes, note)) for answer in found] if done else found


def climbed(records: Mapping[Index, Prediction]) -> dict[str, list[Index]]:
    """The samples that were answered after room was made, and of these the ones whose images were made smaller."""
    after = {index: [note for note in record.notes if note.startswith(NOTE)] for index, record in records.items()}
    return {
        "answered_after": [index for index, notes in after.items() if notes],
        "fewer_pixels": [index for index, notes in after.items() if any(FEWER_PIXELS in note for note in notes)],
    }


def _rungs(model: BaseModel, *, alone: bool) -> Iterator[Rung]:
    """Those for a batch, or for a prompt alone."""

    def cleared(failure: OutOfMemorySampleError) -> Room:
        model.clear_memory()
        return Room(is_made=True, text="")

    yield Rung(name=CLEARED, room=_lasting(cleared))
    if not alone:
        return
    for _ in range(MOST_MOVES):
        yield Rung(name=MOVED, room=_lasting(model.move_blocks))
    has_more = on_host = False

    def more_cards(failure: OutOfMemorySampleError) -> Room:
        nonlocal has_more
        room = model.take_more_cards(failure)
        has_more = room.is_made
        return room

    yield Rung(name=MORE_CARDS, room=_lasting(more_cards))
    for _ in range(MOST_MOVES if has_more else 0):  # among the cards it has then
        yield Rung(name=MOVED, room=_lasting(model.move_blocks))

    @contextlib.contextmanager
    def on_the_host(failure: OutOfMemorySampleError) -> Iterator[Room]:
        nonlocal on_host
        with model.sparing(host_cache=True) as room:
            on_host = room.is_made
            yield room

    yield Rung(name=ON_HOST, room=on_the_host)
    for halving in range(1, HALVINGS + 1):
        share = 0.5**halving

        def smaller(failure: OutOfMemorySampleError, share: float = share) -> AbstractContextManager[Room]:
            return model.sparing(host_cache=on_host, pixel_share=share)

        yield Rung(name=FEWER_PIXELS, room=smaller, detail=f" (1/{2**halving})")


def _lasting(
    make: Callable[[OutOfMemorySampleError], Room],
) -> Callable[[OutOfMemorySampleError], AbstractContextManager[Room]]:
    """Room that stays."""
    return lambda failure: contextlib.nullcontext(make(failure))


def _attempt(
    model: BaseModel,
    task: Task,
    batch: Sequence[list[Message]],
    seed: int,
    begun: Callable[[], list[Answer]] | None = None,
) -> list[Answer] | OutOfMemorySampleError:
    """The answers, or how memory ran out: without the traceback, which keeps alive what the attempt held."""
    model.seed(seed)
    try:
        return begun() if begun is not None else model.generate_batch(batch, task)
    except OutOfMemorySampleError as error:
        failure = error.with_traceback(None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failure = plain_out_of_memory(error, len(batch))
    return failure


def _given_up(
    failure: OutOfMemorySampleError, prompts: int, done: list[str], impossible: dict[str, str], about: str
) -> OutOfMemorySampleError:
    if prompts > 1:
        _log.warning("%s: out of memory; %s", about, SMALLER)
        return OutOfMemorySampleError(str(failure), tried=[*(one for one in done if one != SMALLER), SMALLER])
    cannot = "; ".join(f"{name}: {why}" for name, why in impossible.items())
    told = f"{failure}; tried: {', '.join(done)}{f'; not possible: {cannot}' if cannot else ''}"
    _log.warning("%s: out of memory; given up", about)
    return OutOfMemorySampleError(told, tried=done)
