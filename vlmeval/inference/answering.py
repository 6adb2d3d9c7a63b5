"""From samples to predictions: prompts, what is left to do, and the loop that answers it.

Conversations of a batch go through their first turn together, then through the second with the first answers filled in,
and so on; one that has fewer turns is finished earlier. Each turn is a batch of prompts like any other: it may be
halved, or answered in several parts, and what was answered before stays. A record is made of a whole conversation; of
one that is under way each turn is told as it is answered, so that it can be gone on with (`turns.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Union

from vlmeval.conversation import is_conversation, prompt_of_turn, texts_as_cell, turns_in
from vlmeval.errors import ImageError, OutOfMemorySampleError, SampleError
from vlmeval.inference import ladder
from vlmeval.inference.batches import plan_pieces
from vlmeval.inference.fingerprint import prompt_fingerprint
from vlmeval.inference.journal import Journal
from vlmeval.types import Answer, Index, Message, Prediction, Sample, Task, TextPart
from vlmeval.vlm.base import BaseModel

Prepared = Callable[[], list[Answer]]
"""Gives the answers of a batch that was begun."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A batch whose turn will come; `answers` where something of it is prepared meanwhile."""

    batch: Sequence[Request]
    answers: Prepared | None = None


class Benchmark(Protocol):
    """What running needs of a dataset."""

    @property
    def task(self) -> Task:
        """What it asks for."""

    def build_prompt(self, sample: Sample) -> list[Message]:
        """The benchmark's own wording."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sample with its prompt, ready to be answered. `fingerprint` is that of the whole `message`; `said` are the
    answers to the first turns of a conversation, `seconds` what they took."""

    sample: Sample
    message: list[Message]
    fingerprint: str
    said: tuple[Answer, ...] = ()
    seconds: float = 0.0

    @cached_property
    def turns(self) -> int:
        """How many answers it takes; 1 where it is no conversation."""
        return turns_in(self.message)

    @cached_property
    def prompt(self) -> list[Message]:
        """What the model is given next."""
        return prompt_of_turn(self.message, [answer.text for answer in self.said])

    @property
    def is_finished(self) -> bool:
        """Whether every turn has its answer."""
        return len(self.said) == self.turns

    def after(self, reply: Answer, seconds: float) -> Request:
        """The same with one more answer."""
        return replace(self, said=(*self.said, reply), seconds=self.seconds + seconds)


Outcome = Union[Prediction, Request]
"""A record, or a conversation that has one more answer and is not finished."""


def requests(model: BaseModel, benchmark: Benchmark, samples: Iterable[Sample]) -> Iterator[Request]:
    """Each sample with the prompt this model shall see."""
    build = model.build_prompt if model.use_custom_prompt(benchmark.task) else None
    for sample in samples:
        message = []
        if not sample.image_error:
            try:
                message = model.shown(build(sample, benchmark.task) if build else benchmark.build_prompt(sample))
            except ImageError as error:
                sample = replace(sample, image_error=str(error))
        if sample.image_error:
            message = [TextPart(type="text", value=sample.image_error)]
        yield Request(sample=sample, message=message, fingerprint=prompt_fingerprint(message))


def finished(all_requests: Iterable[Request], records: Mapping[Index, Prediction]) -> dict[Index, Prediction]:
    """The records that answer these very prompts; a record of a prompt worded otherwise does not count."""
    found = ((request, records.get(request.sample.index)) for request in all_requests)
    return {r.sample.index: p for r, p in found if p is not None and p.fingerprint == r.fingerprint}


def answer(
    model: BaseModel,
    task: Task,
    pending: Sequence[Request],
    journal: Journal,
    *,
    batch_size: int | None,
    seed: int,
    on_finished: Callable[[Prediction], None],
    on_begun: Callable[[Sequence[Request], int], None] = lambda batch, left: None,
    on_turn: Callable[[Request], None] = lambda request: None,
) -> None:
    """Answer every request, record each as it finishes. A sample that cannot be answered is recorded as failed.

    Answers that the model holds in doubt wait for its decision, so that none is recorded that it takes back.
    `batch_size` None leaves it to the model how many it takes at once. `on_begun` gets each batch when its turn comes,
    and how many are left after it; `on_turn` each conversation that has another answer and needs more.
    """
    planned = plan_pieces(model, task, [request.message for request in pending], batch_size)
    begun = _begun(model, task, [[pending[position] for position in piece] for piece in planned])
    waiting: list[Prediction] = []

    def record() -> None:
        for prediction in waiting:
            journal.append(prediction)
            on_finished(prediction)
        waiting.clear()

    for one, left in begun:
        on_begun(one.batch, left)
        for outcome in answer_together(model, task, one.batch, seed, one.answers):
            if isinstance(outcome, Request):
                if not model.is_in_doubt():
                    on_turn(outcome)
                continue
            waiting.append(outcome)
            if not model.is_in_doubt():
                record()
    if waiting and not model.is_in_doubt(at_end=True):
        record()


def _begun(model: BaseModel, task: Task, batches: Sequence[list[Request]]) -> Iterator[tuple[Begun, int]]:
    """Each batch, and how many are left, once the one after it has begun, so that the host prepares the next while a
    card answers this."""
    waiting: list[tuple[Begun, int]] = []
    for number, batch in enumerate(batches, start=1):
        following = [(begun, len(batches) - number) for begun in begin(model, task, batch)]
        yield from waiting
        waiting = following
    yield from waiting


def begin(model: BaseModel, task: Task, batch: Sequence[Request]) -> list[Begun]:
    """Begin with what the host can do for a batch before its turn; in parts where memory ran out with as much."""
    messages = [request.prompt for request in _answerable(batch)]
    if len(messages) > 1 and model.parts_of_a_batch() > 1:
        return [Begun(batch=batch)]  # several batches in flight are prepared beside each other anyway
    if len(messages) > 1 and model.is_too_much(messages, task):
        return [begun for half in _halves(batch) for begun in begin(model, task, half)]
    return [Begun(batch=batch, answers=model.begin_batch(messages, task) if messages else None)]


def _halves(batch: Sequence[Request]) -> tuple[Sequence[Request], Sequence[Request]]:
    middle = len(batch) // 2
    return batch[:middle], batch[middle:]


def _answerable(batch: Sequence[Request]) -> list[Request]:
    return [request for request in batch if not request.sample.image_error]


def answer_together(
    model: BaseModel,
    task: Task,
    batch: Sequence[Request],
    seed: int,
    begun: Prepared | None = None,
    tried: Sequence[str] = (),
    is_part: bool = False,
) -> Iterator[Outcome]:
    """Answer one batch, in parts that are in flight at once where the model gains by that and this `is_part` of none;
    where it cannot be answered as one, its halves. `begun` is what was prepared for it, `tried` what was done about
    memory for a larger batch of which these are a part. Conversations are answered to their end, and given after each
    turn but the last."""
    for request in batch:
        if request.sample.image_error:
            yield _failed(request, request.sample.image_error, 0.0)
    asked = _answerable(batch)
    if any(request.turns > 1 for request in asked):
        model.keep_images(sum(part["type"] == "image" for request in asked for part in request.message))
    while asked:
        if begun is None and not is_part and len(asked) > 1 and model.parts_of_a_batch() > 1:
            answered = yield from _answer_in_flight(model, task, asked, seed)
        else:
            answered = yield from _answer_turn(model, task, asked, seed, begun, tried)
        yield from (_ok(request) for request in answered if request.is_finished)
        asked = [request for request in answered if not request.is_finished]
        yield from asked
        begun, tried = None, ()


Turn = Generator[Outcome, None, list[Request]]
"""Gives the requests that have one more answer now; before, what became of those that were answered otherwise."""


def _answer_turn(
    model: BaseModel, task: Task, batch: Sequence[Request], seed: int, begun: Prepared | None, tried: Sequence[str]
) -> Turn:
    """Put the next prompt of each; where they cannot be answered as one, its halves, these to their end."""
    messages = [request.prompt for request in batch]
    if len(batch) > 1 and model.is_too_much(messages, task):  # since it was begun
        for half in _halves(batch):
            yield from answer_together(model, task, half, seed, tried=tried, is_part=True)
        return []
    started = time.perf_counter()
    try:
        answers = ladder.generate(
            model, task, messages, _batch_seed(seed, batch), about=_named(batch), tried=tried, begun=begun
        )
    except SampleError as error:
        if len(batch) > 1:
            if isinstance(error, OutOfMemorySampleError):
                tried = error.tried
                model.remember_too_much(messages, task)
            # Halves: one that cannot be answered is found, and what was only too much at once stays together.
            for half in _halves(batch):
                yield from answer_together(model, task, half, seed, tried=tried, is_part=True)
        else:
            yield _failed(batch[0], str(error), time.perf_counter() - started)
        return []
    seconds = (time.perf_counter() - started) / len(batch)
    return [request.after(reply, seconds) for request, reply in zip(batch, answers, strict=True)]


def _answer_in_flight(model: BaseModel, task: Task, batch: Sequence[Request], seed: int) -> Turn:
    """Answer a batch in as many parts as are in flight at once; a part that fails is answered as any other batch.

    A model that gains by it counts its memory for batches in such parts (`vlm/batch_limits.py`).
    """
    parts = _parts(batch, model.parts_of_a_batch())
    while any(len(part) > 1 and model.is_too_much([one.prompt for one in part], task) for part in parts):
        parts = _parts(batch, 2 * len(parts))
    started = time.perf_counter()
    outcomes = model.generate_batches([[request.prompt for request in part] for part in parts], task)
    seconds = (time.perf_counter() - started) / len(batch)
    answered: list[Request] = []
    for part, outcome in zip(parts, outcomes, strict=True):
        if isinstance(outcome, SampleError):
            yield from answer_together(model, task, part, seed, is_part=True)
        else:
            answered += [request.after(reply, seconds) for request, reply in zip(part, outcome, strict=True)]
    return answered


def _parts(batch: Sequence[Request], count: int) -> list[Sequence[Request]]:
    count = min(len(batch), count)
    return [batch[len(batch) * n // count : len(batch) * (n + 1) // count] for n in range(count)]


def _named(batch: Sequence[Request]) -> str:
    first, last = batch[0].sample.index, batch[-1].sample.index
    return f"sample {first}" if len(batch) == 1 else f"samples {first} to {last}"


def _batch_seed(seed: int, batch: Sequence[Request]) -> int:
    """Depends on prompt and turn alone, so that a sampled answer is the same in any order and after a resume."""
    return (seed + int(batch[0].fingerprint[:15], 16) + len(batch[0].said)) % 2**63


def _ok(request: Request) -> Prediction:
    """Of a conversation: the answers as a list in one cell, as upstream has them, and what all turns took together."""
    said, first = request.said, request.said[0]
    is_one = not is_conversation(request.message)
    return Prediction(
        index=request.sample.index,
        status="ok",
        fingerprint=request.fingerprint,
        prediction=first.text if is_one else texts_as_cell([answer.text for answer in said]),
        thinking=first.thinking
        if is_one or not any(a.thinking for a in said)
        else texts_as_cell([a.thinking for a in said]),
        prompt_tokens=_sum([answer.prompt_tokens for answer in said]),
        new_tokens=_sum([answer.new_tokens for answer in said]),
        seconds=round(request.seconds, 6),
        notes=tuple(dict.fromkeys(note for answer in said for note in answer.notes)),
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _failed(request: Request, error: str, seconds: float) -> Prediction:
    """Without the answers to earlier turns: a conversation is never half scored."""
    if is_conversation(request.message):
        error = f"turn {len(request.said) + 1} of {request.turns}: {error}"
    return Prediction(
        index=request.sample.index,
        status="failed",
        fingerprint=request.fingerprint,
        error=error,
        seconds=round(request.seconds + seconds, 6),
    )
