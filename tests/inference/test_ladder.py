"""The memory ladder: its rungs in order, each told and noted, and a failure of the one sample at its end."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.prompt_parts import text_of
from vlmeval.errors import OutOfMemorySampleError, SampleError
from vlmeval.inference import ladder
from vlmeval.inference.answering import answer, requests
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.types import Answer, Index, Message, Prediction, Sample, Task, TextPart
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.room import Room, no_room

TASK = Task(name="t", type="VQA")


class Hungry(BaseModel):
    """Answers once the things of `needs` have been done; `can` says which of them can be done at all."""

    def __init__(self, needs: set[str], can: set[str], most_at_once: int = 99) -> None:
        self.needs, self.can, self.most_at_once = needs, can, most_at_once
        self.done: set[str] = set()
        self.asked: list[str] = []
        self.looked = 0

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        self.asked.append(f"{len(batch)} prompts")
        if not self.needs <= self.done or len(batch) > self.most_at_once:
            raise OutOfMemorySampleError("out of memory: too much")
        return [Answer(text=f"{text_of(message[-1])} {random.random()}") for message in batch]

    def _do(self, what: str) -> Room:
        self.asked.append(what)
        if what not in self.can:
            return no_room("it cannot")
        self.done.add(what)
        return Room(is_made=True, text="")

    def clear_memory(self) -> None:
        self._do("clear")

    def look_after_memory(self) -> None:
        self.looked += 1

    def move_blocks(self, failure: OutOfMemorySampleError) -> Room:
        return self._do("move")

    def take_more_cards(self, failure: OutOfMemorySampleError) -> Room:
        return self._do("more")

    @contextlib.contextmanager
    def sparing(self, *, host_cache: bool = False, pixel_share: float = 1.0) -> Iterator[Room]:
        what = "host" if pixel_share == 1 else f"{'host and ' * host_cache}{pixel_share}"
        before = set(self.done)
        yield self._do(what)
        self.done = before


def one(model: BaseModel, text: str = "q") -> Answer:
    return ladder.generate(model, TASK, [[TextPart(type="text", value=text)]], 3, about="sample 7")[0]


EVERYTHING = {"clear", "move", "more", "host", "host and 0.5", "host and 0.25", "host and 0.125"}


@pytest.mark.parametrize(
    ("needs", "rungs"),
    [
        ("clear", ["memory cleared"]),
        ("move", ["memory cleared", "blocks moved"]),
        ("more", ["memory cleared", "blocks moved", "more cards"]),
        ("host", ["memory cleared", "blocks moved", "more cards", "keys and values in host memory"]),
        (
            "host and 0.25",
            ["memory cleared", "blocks moved", "more cards", "keys and values in host memory", "fewer pixels (1/4)"],
        ),
    ],
)
def test_rungs_are_climbed_in_order_until_there_is_room_and_stand_in_the_notes(
    needs: str, rungs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = Hungry({needs}, EVERYTHING)
    assert one(model).notes == (f"answered after: {', '.join(rungs)}",)
    told = [record.message for record in caplog.records]
    assert list(dict.fromkeys(line.partition("; ")[2] for line in told if "(1/2)" not in line)) == rungs
    assert all(line.startswith("sample 7: out of memory; ") for line in told)
    assert model.looked == 1


def test_answers_to_smaller_images_are_found_by_their_notes() -> None:
    notes = {
        1: one(Hungry({"host and 0.25"}, EVERYTHING)).notes,
        2: one(Hungry({"move"}, EVERYTHING)).notes,
        3: ("the prompt speaks of fewer pixels",),
        4: (),
    }
    records: dict[Index, Prediction] = {
        index: Prediction(index=index, status="ok", fingerprint="f", notes=own) for index, own in notes.items()
    }
    assert ladder.climbed(records) == {"answered_after": [1, 2], "fewer_pixels": [1]}


def test_what_cannot_be_done_is_told_once_and_the_failure_says_what_was_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Hungry({"wonder"}, {"clear", "more"})
    with pytest.raises(OutOfMemorySampleError) as caught:
        one(model)
    assert str(caught.value) == (
        "out of memory: too much; tried: memory cleared, more cards; not possible: blocks moved: it cannot; keys and "
        "values in host memory: it cannot; fewer pixels: it cannot"
    )
    tried = [asked for asked in model.asked if "prompt" not in asked]
    assert tried == ["clear", "move", "more", "move", "host", "0.5"], "over more cards blocks may be moved again"
    assert sum("not possible: more cards" in record.message for record in caplog.records) == 0
    assert sum("not possible: fewer pixels (1/2) (it cannot)" in record.message for record in caplog.records) == 1
    assert model.looked == 0


def test_moving_is_tried_a_few_times_for_what_was_measured_grows_with_each() -> None:
    model = Hungry({"wonder"}, {"clear", "move"})
    with pytest.raises(OutOfMemorySampleError):
        one(model)
    assert model.asked.count("move") == ladder.MOST_MOVES


def test_without_trouble_there_is_no_note_and_memory_is_looked_after() -> None:
    model = Hungry(set(), set())
    assert one(model).notes == ()
    assert model.looked == 1


def test_a_retry_draws_the_same_numbers() -> None:
    assert one(Hungry({"host"}, EVERYTHING)).text == one(Hungry(set(), set())).text


def test_other_faults_of_a_sample_climb_nothing() -> None:
    class Picky(Hungry):
        def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
            raise SampleError("no")

    model = Picky(set(), EVERYTHING)
    with pytest.raises(SampleError, match=r"^no$"):
        one(model)
    assert model.asked == []


class Bench:
    task = TASK

    def build_prompt(self, sample: Sample) -> list[Message]:
        return [TextPart(type="text", value=sample.question)]


def run(model: BaseModel, tmp_path: Path, texts: Sequence[str], batch_size: int) -> dict[Index, Prediction]:
    pending = list(requests(model, Bench(), [Sample(index=i, question=text) for i, text in enumerate(texts)]))
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        answer(model, TASK, pending, journal, batch_size=batch_size, seed=3, on_finished=lambda _: None)
    return read_journal(path)


def test_a_batch_becomes_smaller_before_anything_is_moved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Hungry(set(), EVERYTHING, most_at_once=1)
    records = run(model, tmp_path, ["a", "b", "c"], 3)
    assert {record.status for record in records.values()} == {"ok"}
    assert {record.notes for record in records.values()} == {("answered after: memory cleared, smaller batch",)}
    whole, half = ["3 prompts", "clear", "3 prompts"], ["2 prompts", "clear", "2 prompts"]
    assert model.asked == [*whole, "1 prompts", *half, "1 prompts", "1 prompts"]
    assert "samples 0 to 2: out of memory; smaller batch" in caplog.text


class Plain(BaseModel):
    """Of a class that knows nothing of cards, on a machine whose memory ends now and then."""

    def __init__(self, error: BaseException, times: int) -> None:
        self.error, self.times = error, times

    def generate_inner(self, message: list[Message], task: Task | None = None) -> str:
        if "large" in text_of(message[-1]) and self.times:
            self.times -= 1
            raise self.error
        return "fine"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_a_plain_model_is_tried_again_and_at_last_only_the_sample_fails(error: Any, tmp_path: Path) -> None:
    assert one(Plain(error, 1), "large").notes == ("answered after: memory cleared",)
    records = run(Plain(error, 99), tmp_path, ["small", "large", "small"], 3)
    assert [records[index].status for index in range(3)] == ["ok", "failed", "ok"]
    assert "tried: memory cleared, smaller batch" in records[1].error
    assert "not possible: blocks moved: it does not lie over cards by itself" in records[1].error
    assert records[1].prediction == ""


def test_other_errors_of_a_plain_model_end_the_run_as_before(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="device-side"):
        run(Plain(RuntimeError("device-side assert triggered"), 1), tmp_path, ["large"], 1)
