"""Conversations in a batch: turn by turn, with the model's own answers; none is lost, repeated or half recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.prompt_parts import text_of
from vlmeval.conversation import ANSWER
from vlmeval.errors import OutOfMemorySampleError, SampleError
from vlmeval.inference.answering import Request, answer
from vlmeval.inference.fingerprint import prompt_fingerprint
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.inference.ladder import climbed
from vlmeval.inference.pieces import cost
from vlmeval.types import Answer, ImagePart, Index, Message, Prediction, Sample, Task, TextPart
from vlmeval.vlm.base import BaseModel

TASK = Task(name="t", type="MT")


class Listener(BaseModel):
    """Answers with what it was told last, how many answers of its own it sees, and how its last one began."""

    def __init__(self, most_at_once: int = 99, waves: int = 1) -> None:
        self.most_at_once, self.waves = most_at_once, waves
        self.batches: list[list[str]] = []
        self.kept: list[int] = []

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        if len(batch) > self.most_at_once and any(own(message) for message in batch):
            raise OutOfMemorySampleError("out of memory: histories are long")
        if any("bad" in text_of(message[-1]) for message in batch):
            raise SampleError("cannot take it")
        self.batches.append([text_of(message[-1]) for message in batch])
        return [
            Answer(
                text=f"{text_of(message[-1])}{len(own(message))}{''.join(text[:1] for text in own(message)[-1:])}",
                thinking="hm" if len(own(message)) == 1 else "",
                prompt_tokens=len(message),
                new_tokens=2,
            )
            for message in batch
        ]

    def batches_in_flight(self) -> int:
        return self.waves

    def keep_images(self, count: int) -> None:
        self.kept.append(count)


def own(message: Sequence[Message]) -> list[str]:
    return [text_of(part) for part in message if part.get("role") == "assistant"]


def asked(*conversations: str) -> list[Request]:
    """`"abc"` are three turns; a mark after each."""
    found = []
    for number, questions in enumerate(conversations):
        turns = questions.split() if " " in questions else list(questions)
        message: list[Message] = [part for text in turns for part in (TextPart(type="text", value=text), ANSWER)]
        sample = Sample(index=number, question=questions)
        found.append(Request(sample=sample, message=message, fingerprint=prompt_fingerprint(message)))
    return found


def run(path: Path, model: BaseModel, requests: list[Request], batch_size: int = 4) -> dict[Index, Prediction]:
    seen: list[Index] = []
    with Journal(path / "j.jsonl") as journal:
        answer(
            model, TASK, requests, journal, batch_size=batch_size, seed=0, on_finished=lambda p: seen.append(p.index)
        )
    records = read_journal(path / "j.jsonl")
    assert sorted(map(str, seen)) == sorted(str(request.sample.index) for request in requests), "one record each"
    return records


def texts(records: dict[Index, Prediction]) -> list[list[str]]:
    return [json.loads(records[number].prediction) for number in sorted(records, key=int)]


FOUR = ("abc", "d", "ef", "ghij")
SAID = [["a0", "b1a", "c2b"], ["d0"], ["e0", "f1e"], ["g0", "h1g", "i2h", "j3i"]]


def test_a_batch_goes_through_the_turns_together_and_those_with_fewer_end_earlier(tmp_path: Path) -> None:
    model = Listener()
    records = run(tmp_path, model, asked(*FOUR))
    assert texts(records) == SAID
    assert model.batches == [["a", "d", "e", "g"], ["b", "f", "h"], ["c", "i"], ["j"]]
    assert {record.fingerprint for record in records.values()} == {request.fingerprint for request in asked(*FOUR)}


def test_tokens_and_thinking_of_a_record_are_those_of_all_turns(tmp_path: Path) -> None:
    record = run(tmp_path, Listener(), asked("abc"))[0]
    assert (record.prompt_tokens, record.new_tokens) == (1 + 3 + 5, 6)
    assert json.loads(record.thinking) == ["", "hm", ""]
    assert run(tmp_path, Listener(), asked("d"))[0].thinking == ""


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_size_of_a_batch_changes_no_answer(tmp_path: Path, batch_size: int) -> None:
    assert texts(run(tmp_path, Listener(), asked(*FOUR), batch_size)) == SAID


def test_memory_that_runs_out_in_a_later_turn_halves_the_batch_and_repeats_no_turn(tmp_path: Path) -> None:
    model = Listener(most_at_once=2)
    records = run(tmp_path, model, asked(*FOUR))
    assert texts(records) == SAID
    assert model.batches[0] == ["a", "d", "e", "g"]
    assert sorted(text for batch in model.batches for text in batch) == sorted("".join(FOUR))
    # Those that were together too large are answered after that, and it is said.
    assert climbed(records)["answered_after"] == [0, 2, 3]


def test_a_turn_that_fails_fails_the_conversation_with_its_number_and_leaves_the_others_alone(tmp_path: Path) -> None:
    records = run(tmp_path, Listener(), asked("abc", "d e bad f", "gh"))
    assert (records[1].status, records[1].prediction) == ("failed", "")
    assert records[1].error == "turn 3 of 4: cannot take it"
    assert [records[0].status, records[2].status] == ["ok", "ok"]


def test_conversations_are_in_flight_as_any_batch(tmp_path: Path) -> None:
    model = Listener(waves=2)
    assert texts(run(tmp_path, model, asked(*FOUR))) == SAID
    assert model.batches == [["a", "d"], ["e", "g"], ["b"], ["f", "h"], ["c"], ["i"], ["j"]]


def test_the_model_is_told_how_many_images_will_be_wanted_again(tmp_path: Path) -> None:
    image = ImagePart(type="image", value="https://example.org/a.png")
    message: list[Message] = [
        image,
        TextPart(type="text", value="a"),
        ANSWER,
        image,
        TextPart(type="text", value="b"),
        ANSWER,
    ]
    model = Listener()
    run(tmp_path, model, [Request(sample=Sample(index=0, question=""), message=message, fingerprint="ab" * 12)])
    assert model.kept == [2]
    single = Listener()
    run(tmp_path, single, [Request(sample=Sample(index=0, question=""), message=message[:3], fingerprint="ab" * 12)])
    assert single.kept == [], "one turn: nothing comes again"


def test_a_fingerprint_sees_where_the_answers_go() -> None:
    a, b = TextPart(type="text", value="a"), TextPart(type="text", value="b")
    prompts: list[list[Message]] = [[a, b], [a, ANSWER, b], [a, b, ANSWER], [a, ANSWER, b, ANSWER]]
    assert len({prompt_fingerprint(message) for message in prompts}) == 4


def test_every_turn_costs_what_was_said_before_it_once_more() -> None:
    one, two, three = (cost(request) for request in asked("a", "ab", "abc"))
    assert one < two - one < three - two


def test_a_very_long_conversation_is_answered(tmp_path: Path) -> None:
    records = run(tmp_path, Listener(), asked("a" * 400))
    assert len(texts(records)[0]) == 400
