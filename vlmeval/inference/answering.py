"""From samples to predictions: prompts, what is left to do, and the loop that answers it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from vlmeval.errors import ImageError, OutOfMemorySampleError, SampleError
from vlmeval.inference import ladder
from vlmeval.inference.batches import plan_pieces
from vlmeval.inference.fingerprint import prompt_fingerprint
from vlmeval.inference.journal import Journal
from vlmeval.types import Answer, Index, Message, Prediction, Sample, Task
from vlmeval.vlm.base import BaseModel

Answers = Callable[[], list[Answer]]
"""Answers of a batch that was begun."""


class Benchmark(Protocol):
    """What running needs of a dataset."""

    @property
    def task(self) -> Task:
        """What it asks for."""

    def build_prompt(self, sample: Sample) -> list[Message]:
        """The benchmark's own wording."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sample with its prompt, ready to be answered."""

    sample: Sample
    message: list[Message]
    fingerprint: str


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
            message = [Message(type="text", value=sample.image_error)]
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
) -> None:
    """Answer every request, record each as it finishes. A sample that cannot be answered is recorded as failed.

    Answers that the model holds in doubt wait for its decision, so that none is recorded that it takes back.
    `batch_size` None leaves it to the model how many it takes at once. `on_begun` gets each batch when its turn comes,
    and how many are left after it.
    """
    planned = plan_pieces(model, task, [request.message for request in pending], batch_size)
    begun = _begun(model, task, [[pending[position] for position in piece] for piece in planned])
    waiting: list[Prediction] = []

    def record() -> None:
        for prediction in waiting:
            journal.append(prediction)
            on_finished(prediction)
        waiting.clear()

    for number, (batch, answers) in enumerate(begun, start=1):
        on_begun(batch, len(planned) - number)
        for prediction in answer_together(model, task, batch, seed, answers):
            waiting.append(prediction)
            if not model.is_in_doubt():
                record()
    if waiting and not model.is_in_doubt(at_end=True):
        record()


def _begun(
    model: BaseModel, task: Task, batches: Sequence[list[Request]]
) -> Iterator[tuple[list[Request], Answers | None]]:
    """Each batch once the one after it has begun, so that the host prepares the next while a card answers this."""
    waiting: tuple[list[Request], Answers | None] | None = None
    for batch in batches:
        messages = [request.message for request in _answerable(batch)]
        # Several batches in flight are prepared beside each other anyway.
        is_alone = len(messages) == 1 or model.batches_in_flight() == 1
        following = (batch, model.begin_batch(messages, task) if messages and is_alone else None)
        if waiting is not None:
            yield waiting
        waiting = following
    if waiting is not None:
        yield waiting


def _answerable(batch: Sequence[Request]) -> list[Request]:
    return [request for request in batch if not request.sample.image_error]


def answer_together(
    model: BaseModel,
    task: Task,
    batch: Sequence[Request],
    seed: int,
    begun: Answers | None = None,
    tried: Sequence[str] = (),
    is_part: bool = False,
) -> Iterator[Prediction]:
    """Answer one batch, in parts that are in flight at once where the model gains by that and this `is_part` of none;
    where it cannot be answered as one, its halves. `begun` is what was prepared for it, `tried`
    what was done about memory for a larger batch of which these are a part."""
    answerable = _answerable(batch)
    for request in batch:
        if request.sample.image_error:
            yield _failed(request, request.sample.image_error, 0.0)
    if not answerable:
        return
    if begun is None and not is_part and len(answerable) > 1 and model.batches_in_flight() > 1:
        yield from _answer_in_flight(model, task, answerable, seed)
        return
    started = time.perf_counter()
    try:
        messages = [request.message for request in answerable]
        answers = ladder.generate(
            model, task, messages, _batch_seed(seed, answerable), about=_named(answerable), tried=tried, begun=begun
        )
    except SampleError as error:
        if len(answerable) > 1:
            tried = error.tried if isinstance(error, OutOfMemorySampleError) else tried
            # Halves: one that cannot be answered is found, and what was only too much at once stays together.
            middle = len(answerable) // 2
            yield from answer_together(model, task, answerable[:middle], seed, tried=tried, is_part=True)
            yield from answer_together(model, task, answerable[middle:], seed, tried=tried, is_part=True)
        else:
            yield _failed(answerable[0], str(error), time.perf_counter() - started)
        return
    seconds = (time.perf_counter() - started) / len(answerable)
    for request, reply in zip(answerable, answers, strict=True):
        yield _ok(request, reply, seconds)


def _answer_in_flight(model: BaseModel, task: Task, batch: Sequence[Request], seed: int) -> Iterator[Prediction]:
    """Answer a batch in as many parts as are in flight at once; a part that fails is answered as any other batch.

    A model that gains by it counts its memory for batches in such parts (`vlm/batch_limits.py`).
    """
    count = min(len(batch), model.batches_in_flight())
    parts = [batch[len(batch) * n // count : len(batch) * (n + 1) // count] for n in range(count)]
    started = time.perf_counter()
    outcomes = model.generate_batches([[request.message for request in part] for part in parts], task)
    seconds = (time.perf_counter() - started) / len(batch)
    for part, outcome in zip(parts, outcomes, strict=True):
        if isinstance(outcome, SampleError):
            yield from answer_together(model, task, part, seed, is_part=True)
        else:
            for request, reply in zip(part, outcome, strict=True):
                yield _ok(request, reply, seconds)


def _named(batch: Sequence[Request]) -> str:
    first, last = batch[0].sample.index, batch[-1].sample.index
    return f"sample {first}" if len(batch) == 1 else f"samples {first} to {last}"


def _batch_seed(seed: int, batch: Sequence[Request]) -> int:
    """Depends on the prompt alone, so that a sampled answer is the same in any order and after a resume."""
    return (seed + int(batch[0].fingerprint[:15], 16)) % 2**63


def _ok(request: Request, reply: Answer, seconds: float) -> Prediction:
    return Prediction(
        index=request.sample.index,
        status="ok",
        fingerprint=request.fingerprint,
        prediction=reply.text,
        thinking=reply.thinking,
        prompt_tokens=reply.prompt_tokens,
        new_tokens=reply.new_tokens,
        seconds=round(seconds, 6),
        notes=reply.notes,
    )


def _failed(request: Request, error: str, seconds: float) -> Prediction:
    return Prediction(
        index=request.sample.index,
        status="failed",
        fingerprint=request.fingerprint,
        error=error,
        seconds=round(seconds, 6),
    )
