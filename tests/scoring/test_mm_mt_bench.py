"""MM-MT-Bench: one grade a turn, asked with the questions before it, and means over turns, categories and places."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.scoring.test_mmdu import said, sample
from vlmeval.scoring import mm_mt_bench
from vlmeval.scoring.judged import Verdict
from vlmeval.scoring.rows import Answers
from vlmeval.types import Index, Sample, Score


def test_a_turn_is_asked_about_with_the_questions_before_it_and_none_after() -> None:
    turns = mm_mt_bench.turns_of(sample(3, 3), '["a", "b", "c"]')
    assert [(turn.index, turn.answer, text) for turn, text in turns] == [
        ("3 (turn 1)", "r3.0", "a"), ("3 (turn 2)", "r3.1", "b"), ("3 (turn 3)", "r3.2", "c"),
    ]  # fmt: skip
    prompt = mm_mt_bench.judge_prompt(*turns[1])
    assert prompt.index("q3.0") < prompt.index("q3.1") < prompt.index("r3.1") < prompt.index("[Answer]\nb")
    assert "q3.2" not in prompt and "r3.0" not in prompt


@pytest.mark.parametrize(
    ("reply", "hit"),
    [
        ("Good.\nRating: [[7]]", 0.7),
        ("[[3]] at first, on reflection [[8.5]]", 0.85),
        ("[[0]]", None),
        ("[[11]]", None),
        ("7", None),
        ("[7]", None),
        ("[[seven]]", None),
        ("", None),
    ],
)
def test_the_last_number_in_double_brackets_is_the_grade(reply: str, hit: float | None) -> None:
    found = mm_mt_bench.read_reply(sample(1, 1), reply)
    assert (None if found is None else found.hit) == hit


def score(protocol: str, failed: int = 0) -> Score:
    rows: list[Sample] = [replace(sample(1, 2), category="chart"), replace(sample(2, 1), category="code")]
    given = {row.index: said(row, "failed" if row.index == failed else "ok") for row in rows}
    verdicts: dict[Index, Verdict] = {"1 (turn 1)": Verdict(0.8, "8", ""), "2 (turn 1)": Verdict(0.2, "2", "")}
    return mm_mt_bench.score_verdicts(
        Answers(dataset="M", samples=rows, predictions=given, protocol=protocol), verdicts
    )


def values(found: Score) -> dict[str, object]:
    return {metric.group: pytest.approx(metric.value) for metric in found.metrics}


def test_turns_without_a_grade_are_left_out_as_upstream_does_or_count_as_0() -> None:
    upstream, exact = score("vlmevalkit"), score("exact")
    assert values(upstream) == {"Overall": 50, "macro": 50, "turn_0": 50, "turn_1": 0, "chart": 80, "code": 20}
    assert values(exact) == {"Overall": 100 / 3, "macro": 30, "turn_0": 50, "turn_1": 0, "chart": 40, "code": 20}
    assert upstream.table is not None and upstream.table.rows[:2] == (
        ("micro_average", 5.0, 2),
        ("macro_average", 5.0, 2),
    )
    assert any("1 of 3 turns have no grades (failed, empty or not judged): left out" in note for note in upstream.notes)


@pytest.mark.parametrize("protocol", ["vlmevalkit", "exact"])
def test_a_failed_conversation_counts_as_0_in_every_turn(protocol: str) -> None:
    found = score(protocol, failed=1)
    assert values(found)["Overall"] == pytest.approx(20 / 3) and found.overall.count == 3
