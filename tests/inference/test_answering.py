"""The loop: every sample once, failures recorded, answers independent of order and batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.prompt_parts import text_of
from vlmeval.errors import ImageError, SampleError
from vlmeval.images import ImageSource
from vlmeval.inference.answering import Request, answer, finished, requests
from vlmeval.inference.fingerprint import prompt_fingerprint
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.types import Answer, ImagePart, Index, Message, Prediction, Sample, Task, TextPart
from vlmeval.vlm.base import BaseModel

TASK = Task(name="t", type="VQA")


class Bench:
    task = TASK

    def build_prompt(self, sample: Sample) -> list[Message]:
        return [
            *(ImagePart(type="image", value=i) for i in sample.images),
            TextPart(type="text", value=sample.question),
        ]


class Echo(BaseModel):
    """Answers with the last text and a random number; refuses texts with "bad" in them."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        self.batches.append(len(batch))
        texts = [text_of(message[-1]) for message in batch]
        if any("bad" in text for text in texts):
            raise SampleError(f"cannot take {texts}")
        return [Answer(text=f"{text} {random.random()}") for text in texts]


def ask(texts: Sequence[str]) -> list[Request]:
    return list(requests(Echo(), Bench(), [Sample(index=i, question=text) for i, text in enumerate(texts)]))


def run(
    tmp_path: Path, pending: Sequence[Request], batch_size: int = 1, model: Echo | None = None
) -> tuple[Echo, dict[Index, Prediction]]:
    model, path = model or Echo(), tmp_path / f"{random.getrandbits(64)}.jsonl"
    seen: list[Index] = []
    with Journal(path) as journal:
        answer(model, TASK, pending, journal, batch_size=batch_size, seed=3, on_finished=lambda p: seen.append(p.index))
    records = read_journal(path)
    assert sorted(seen, key=str) == sorted(records, key=str) == sorted((r.sample.index for r in pending), key=str)
    return model, records


def test_a_failing_sample_is_recorded_and_the_rest_of_its_batch_is_answered(tmp_path: Path) -> None:
    model, records = run(tmp_path, ask(["a", "bad", "c", "d"]), batch_size=3)
    assert [records[i].status for i in range(4)] == ["ok", "failed", "ok", "ok"]
    assert "cannot take ['bad']" in records[1].error
    assert records[1].prediction == ""
    assert model.batches == [3, 1, 2, 1, 1, 1]


class Pipelined(Echo):
    """Has three batches in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.waves: list[list[int]] = []

    def batches_in_flight(self) -> int:
        return 3

    def generate_batches(
        self, batches: Sequence[Sequence[list[Message]]], task: Task | None = None
    ) -> list[list[Answer] | SampleError]:
        self.waves.append([len(batch) for batch in batches])
        return super().generate_batches(batches, task)


def test_a_batch_is_answered_in_as_many_parts_as_are_in_flight_and_a_failing_part_by_itself(tmp_path: Path) -> None:
    model, records = run(tmp_path, ask(["a", "b", "c", "bad", "e", "f", "g", "h"]), batch_size=5, model=Pipelined())
    assert isinstance(model, Pipelined)
    assert model.waves == [[1, 2, 2], [1, 1, 1]]
    assert [records[i].status for i in range(8)] == ["ok"] * 3 + ["failed"] + ["ok"] * 4
    assert model.batches == [1, 2, 2, 2, 1, 1, 1, 1, 1]  # the part with the bad one again, then each half of it


def test_a_sample_without_its_image_fails_without_the_model(tmp_path: Path) -> None:
    broken = Sample(index=7, question="q", image_error="row 7: no such reference")
    model, records = run(tmp_path, list(requests(Echo(), Bench(), [broken])))
    assert (records[7].status, records[7].error) == ("failed", "row 7: no such reference")
    assert model.batches == []


def test_sampled_answers_do_not_depend_on_order(tmp_path: Path) -> None:
    forward = run(tmp_path, ask(["a", "b", "c"]))[1]
    backward = run(tmp_path, ask(["a", "b", "c"])[::-1])[1]
    assert [forward[i].prediction for i in range(3)] == [backward[i].prediction for i in range(3)]


def test_a_record_of_another_prompt_does_not_count() -> None:
    asked = ask(["a", "b"])
    old = Prediction(index=0, status="ok", fingerprint="other", prediction="x")
    kept = Prediction(index=1, status="ok", fingerprint=asked[1].fingerprint, prediction="y")
    assert finished(asked, {0: old, 1: kept}) == {1: kept}


def source(digest: str) -> ImageSource:
    def read() -> bytes:
        raise ImageError("not read for a fingerprint")

    return ImageSource(digest=digest, name="x", read=read)


@pytest.mark.parametrize(
    "other",
    [
        [ImagePart(type="image", value=source("2")), TextPart(type="text", value="q")],
        [ImagePart(type="image", value=source("1")), TextPart(type="text", value="Q")],
        [TextPart(type="text", value="q"), ImagePart(type="image", value=source("1"))],
        [ImagePart(type="image", value=source("1")), TextPart(type="text", value="q", role="system")],
        [ImagePart(type="image", value=source("1"))],
    ],
)
def test_a_fingerprint_sees_texts_images_roles_and_order(other: list[Message]) -> None:
    prompt: list[Message] = [ImagePart(type="image", value=source("1")), TextPart(type="text", value="q")]
    assert prompt_fingerprint(prompt) == prompt_fingerprint(list(prompt))
    assert prompt_fingerprint(prompt) != prompt_fingerprint(other)


def test_a_fingerprint_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    a.write_bytes(b"same")
    b.write_bytes(b"same")
    first = prompt_fingerprint([ImagePart(type="image", value=str(a))])
    assert first == prompt_fingerprint([ImagePart(type="image", value=str(b))])
    b.write_bytes(b"else")
    assert first != prompt_fingerprint([ImagePart(type="image", value=str(b))])


def test_the_next_batch_begins_before_this_one_is_answered_and_errors_come_with_their_sample(tmp_path: Path) -> None:
    happened: list[str] = []

    class Ahead(Echo):
        def begin_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> Callable[[], list[Answer]]:
            name = "".join(text_of(message[-1]) for message in batch)
            happened.append(f"begin {name}")

            def answers() -> list[Answer]:
                happened.append(f"answer {name}")
                return self.generate_batch(batch, task)

            return answers

    pending = [*ask(["a", "bad", "c"]), *requests(Echo(), Bench(), [Sample(index=3, question="q", image_error="no")])]
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        answer(Ahead(), TASK, pending, journal, batch_size=1, seed=3, on_finished=lambda _: None)
    assert happened == ["begin a", "begin bad", "answer a", "begin c", "answer bad", "answer c"]
    records = read_journal(path)
    assert [records[i].status for i in range(4)] == ["ok", "failed", "ok", "failed"]
