"""Conversations in a batch: turn by turn, with the model's own answers; none is lost, repeated or half recorded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.prompt_parts import text_of
from vlmeval.conversation import ANSWER
from vlmeval.errors import OutOfMemorySampleError, SampleError
from vlmeval.inference.answering import Request, answer, answer_together
from vlmeval.inference.fingerprint import prompt_fingerprint
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.inference.ladder import climbed
from vlmeval.inference.pieces import cost
from vlmeval.inference.turns import Said, TurnJournal
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
    path.mkdir(exist_ok=True)
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


class Cut(Exception):
    """The run ends here."""


def interrupted(path: Path, batches: int, batch_size: int, waves: int = 1) -> Listener:
    """A run on `FOUR` that ends with its process after so many batches; the turns are kept beside the journal."""

    class Ending(Listener):
        def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
            if len(self.batches) == batches:
                raise Cut
            return super().generate_batch(batch, task)

    model = Ending(waves=waves)
    with contextlib.suppress(Cut):
        with_turns(path, model, batch_size)
    return model


def with_turns(path: Path, model: Listener, batch_size: int) -> dict[Index, Prediction]:
    journal_path, turns_path = path / "j.jsonl", path / "j.turns"
    pending = [request for request in asked(*FOUR) if request.sample.index not in read_journal(journal_path)]
    with Journal(journal_path) as journal, TurnJournal(turns_path) as turns:
        answer(
            model, TASK, turns.resumed(pending), journal, batch_size=batch_size, seed=0,
            on_finished=lambda prediction: None,
            on_turn=lambda request: turns.add(request.sample.index, Said.of(request)),
        )  # fmt: skip
    return read_journal(journal_path)


@pytest.mark.parametrize("batches", range(11))
@pytest.mark.parametrize("batch_size, waves", [(1, 1), (4, 1), (4, 2)])
def test_a_run_that_ended_after_any_batch_goes_on_at_the_turns_it_was_at(
    tmp_path: Path, batches: int, batch_size: int, waves: int
) -> None:
    first, second = interrupted(tmp_path, batches, batch_size, waves), Listener(waves=waves)
    records = with_turns(tmp_path, second, batch_size)
    assert texts(records) == SAID
    calm = run(tmp_path / "calm", Listener(), asked(*FOUR))
    assert [timeless(records[index]) for index in sorted(calm)] == [timeless(calm[index]) for index in sorted(calm)]
    answered = sorted(text for model in (first, second) for batch in model.batches for text in batch)
    # Parts in flight are one wave: what a part had answered when another ended the process is asked once more.
    assert set(answered) == set("".join(FOUR)) and (waves > 1 or len(answered) == len("".join(FOUR)))


def timeless(record: Prediction) -> Prediction:
    return replace(record, seconds=0.0)


def test_torn_lines_gaps_and_turns_of_another_wording_are_not_gone_on_with(tmp_path: Path) -> None:
    three, other = asked("abc", "xyz")
    about = {"index": 0, "fingerprint": three.fingerprint, "seconds": 1.0}
    lines = [
        {**about, "turn": 1, "text": "a0", "thinking": "hm", "prompt_tokens": 3, "notes": ["n"]},
        {**about, "index": 1, "turn": 1, "text": "of another prompt"},
        {**about, "turn": 3, "text": "no second turn before it"},
        "no object",
    ]
    path = tmp_path / "j.turns"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"index": 0, "finge')
    with TurnJournal(path) as turns:
        resumed = turns.resumed([three, other])
        assert [request.said for request in resumed] == [
            (Answer(text="a0", thinking="hm", prompt_tokens=3, notes=("n",)),),
            (),
        ]
        turns.add(0, Said.of(resumed[0].after(Answer(text="b1"), 0.5)))
    with TurnJournal(path) as turns:
        (again,) = turns.resumed([three])
        assert ([answer.text for answer in again.said], again.seconds) == (["a0", "b1"], 1.5)


def test_a_conversation_that_failed_is_tried_again_at_the_turn_that_failed(tmp_path: Path) -> None:
    words = {"fingerprint": asked("abc")[0].fingerprint, "answers": [{"text": "a0"}, {"text": "b1a"}], "seconds": 2.0}
    (resumed,) = [Said.of_words(words).resume(request) for request in asked("abc")]
    model = Listener()
    records = run(tmp_path, model, [resumed])
    assert (texts(records), model.batches) == ([SAID[0]], [["c"]])
    assert records[0].seconds >= 2.0


def test_benchmarks_without_conversations_leave_no_file(tmp_path: Path) -> None:
    message: list[Message] = [TextPart(type="text", value="a")]
    single = Request(sample=Sample(index=0, question=""), message=message, fingerprint=prompt_fingerprint(message))
    with TurnJournal(tmp_path / "j.turns") as turns:
        told = [one for one in answer_together(Listener(), TASK, [single], 0) if isinstance(one, Request)]
        assert not told and turns.resumed([single]) == [single]
    assert not (tmp_path / "j.turns").exists()


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
