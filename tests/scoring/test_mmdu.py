"""MMDU: what is asked about each turn, how grades are read, and what is made of conversations."""

from __future__ import annotations

import json

import pytest

from vlmeval.scoring import mmdu
from vlmeval.scoring.judged import Verdict
from vlmeval.scoring.rows import Answers
from vlmeval.types import Index, Prediction, Sample, Score

NAMES = tuple(mmdu.RESPECTS)


def sample(index: int, turns: int) -> Sample:
    return Sample(
        index=index,
        question=repr([f"q{index}.{turn}" for turn in range(turns)]),
        answer=json.dumps([f"r{index}.{turn}" for turn in range(turns)]),
    )


def graded(*grades: int) -> Verdict:
    """The same in every respect, or one grade for each."""
    own = dict(zip(NAMES, grades if len(grades) > 1 else grades * len(NAMES), strict=True))
    return Verdict(own[mmdu.OVERALL] / 10, str(own[mmdu.OVERALL]), "by judge", own)


def said(sample: Sample, status: str = "ok") -> Prediction:
    return Prediction(index=sample.index, status=status, fingerprint="f", prediction='["a", "b"]')  # type: ignore[arg-type]


def score(
    rows: list[Sample], verdicts: dict[Index, Verdict], failed: int = 0, missing: int = 0, protocol: str = "exact"
) -> Score:
    given = {row.index: said(row, "failed" if row.index == failed else "ok") for row in rows if row.index != missing}
    return mmdu.score_verdicts(Answers(dataset="M", samples=rows, predictions=given, protocol=protocol), verdicts)


def test_each_turn_is_asked_about_with_its_own_question_reference_and_answer() -> None:
    turns = mmdu.turns_of(sample(7, 2), '["first \\"answer\\"", "second"]')
    assert [(turn.index, turn.question, turn.answer, text) for turn, text in turns] == [
        ("7 (turn 1)", "q7.0", "r7.0", 'first "answer"'), ("7 (turn 2)", "q7.1", "r7.1", "second"),
    ]  # fmt: skip
    prompt = mmdu.judge_prompt(*turns[0])
    assert all(text in prompt for text in ("q7.0", "r7.0", 'first "answer"', *NAMES))
    assert "q7.1" not in prompt and "second" not in prompt
    # Upstream's tables have Python's form; an answer that is no list is that to the first turn.
    assert [text for _, text in mmdu.turns_of(sample(7, 3), "['x', 'it\\'s']")] == ["x", "it's", ""]
    assert [text for _, text in mmdu.turns_of(sample(7, 2), "only this")] == ["only this", ""]
    # A list that was cut off, as a spreadsheet does with long ones, is no answer to anything.
    assert [text for _, text in mmdu.turns_of(sample(7, 2), '["first", "sec')] == ["", ""]


ALL = {name: 7 for name in NAMES}


@pytest.mark.parametrize(
    ("reply", "overall"),
    [
        (f"It is fine.\n{json.dumps(ALL)}", 7),
        (f"Reasons {{braces}} first.\n{ALL}", 7),
        (f"```json\n{json.dumps({**ALL, mmdu.OVERALL: 10.0}, indent=1)}\n```", 10),
        (json.dumps({name.lower(): 3 for name in NAMES}), 3),
        (json.dumps({name: 7 for name in NAMES[1:]}), None),
        (json.dumps({**ALL, mmdu.OVERALL: 0}), None),
        (json.dumps({**ALL, mmdu.OVERALL: 11}), None),
        (json.dumps({**ALL, mmdu.OVERALL: 7.5}), None),
        (json.dumps({**ALL, mmdu.OVERALL: "7"}), None),
        (json.dumps({**ALL, mmdu.OVERALL: True}), None),
        (json.dumps({**ALL, mmdu.OVERALL: float("nan")}), None),
        ("{'Creativity': __import__('os')}", None),
        ("Overall Score: 7", None),
        ("{" * 3000, None),
        ("", None),
    ],
)
def test_a_reply_has_to_hold_every_grade_from_1_to_10(reply: str, overall: int | None) -> None:
    found = mmdu.read_reply(sample(1, 1), reply)
    assert (None if found is None else found.details[mmdu.OVERALL]) == overall


def test_the_table_is_upstreams_and_the_headline_is_over_all_turns() -> None:
    rows = [sample(1, 2), sample(2, 1)]
    verdicts: dict[Index, Verdict] = {"1 (turn 1)": graded(8), "2 (turn 1)": graded(1, 2, 3, 4, 5, 6, 7)}
    found = score(rows, verdicts)
    assert found.table is not None
    assert found.table.columns == ("set", "Creativity", "Richness", "Visual Perception", "Logical Coherence",
                                   "Answer Accuracy", "Image Relationship Understanding", "Overall Score")  # fmt: skip
    everything, valid = found.table.rows
    assert everything[0] == "all" and everything[1:] == pytest.approx([(8 + n) / 3 * 10 for n in range(1, 8)])
    assert valid[0] == "valid" and valid[1:] == pytest.approx([(8 + n) / 2 * 10 for n in range(1, 8)])
    assert found.overall.value == pytest.approx(50.0) and found.overall.count == 3
    assert [metric.group for metric in found.metrics] == ["Overall", *NAMES[:-1]]
    assert [row.extracted for row in found.rows] == ["8, none", "7"]
    assert any("1 of 3 turns have no grades" in note for note in found.notes)


def test_a_failed_conversation_counts_as_0_in_every_turn_whatever_was_judged() -> None:
    rows = [sample(1, 2), sample(2, 2)]
    verdicts: dict[Index, Verdict] = {f"{n} (turn {turn})": graded(8) for n in (1, 2) for turn in (1, 2)}
    assert score(rows, verdicts).overall.value == 80
    found = score(rows, verdicts, failed=2)
    assert (found.overall.value, found.failed, found.rows[1].hit) == (40, (2,), 0.0)


def test_a_conversation_without_a_record_stays_out_as_upstream_has_it_or_counts_as_wrong() -> None:
    rows = [sample(1, 1), sample(2, 3)]
    verdicts: dict[Index, Verdict] = {"1 (turn 1)": graded(8)}
    assert score(rows, verdicts, missing=2, protocol="vlmevalkit").overall.value == 80
    assert score(rows, verdicts, missing=2, protocol="exact").overall.value == 20


def test_another_number_of_answers_than_of_questions_is_said() -> None:
    assert any("1 conversations have another number of answers than of questions (index 2)" in note
               for note in score([sample(1, 2), sample(2, 3)], {"1 (turn 1)": graded(8)}).notes)  # fmt: skip


def test_intervals_draw_conversations_and_not_turns() -> None:
    rows = [sample(n, 10) for n in range(1, 9)]
    places = [(n, t) for n in range(1, 9) for t in range(1, 11)]
    apart: dict[Index, Verdict] = {f"{n} (turn {t})": graded(9 if n % 2 else 2) for n, t in places}
    mixed: dict[Index, Verdict] = {f"{n} (turn {t})": graded(9 if t % 2 else 2) for n, t in places}
    wide, none = (score(rows, verdicts).overall for verdicts in (apart, mixed))
    assert wide.value == none.value == 55
    assert wide.interval is not None and wide.interval[1] - wide.interval[0] > 30
    assert none.interval is None, "all conversations are alike: nothing to draw"
