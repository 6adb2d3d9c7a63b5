"""MME-RealWorld and MMMU-Pro step by step: how upstream reads a letter, and the tables."""

from __future__ import annotations

import pytest

from vlmeval.scoring.mme_realworld import first_letter, score
from vlmeval.scoring.mmmu_pro_stepwise import final_line
from vlmeval.scoring.mmmu_pro_stepwise import score as score_stepwise
from vlmeval.scoring.rows import Answers
from vlmeval.types import Index, Prediction, Sample

OPTIONS = {label: f"text {label.lower()}" for label in "ABCDE"}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("B", "B"),
        ("(C) red", "C"),
        ("The best answer is D.", "D"),
        ("The answer is: E", "E"),
        ("Answer: C", "A"),  # the A of Answer
        ("I BELIEVE (C)", "B"),
        ("The correct option is C.", "C"),
        ("The best answer isA", "A"),
        ("b", "B"),
        ("(d)", "D"),
        ("f", ""),
        ("", "A"),
        ("The answer is", "A"),
        (")", "A"),
        ("red", ""),
        ("it is one of the many things that i can see here now", ""),
        ("it is one of the many things that i can see here now C", "C"),
        ("F G H", ""),
    ],
)
def test_the_first_capital_is_the_answer(text: str, label: str) -> None:
    assert first_letter(text) == label


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Because.\nAnswer: B", " B"),
        ("Because.\n  Answer: A  ", "A"),
        ("Answer: $B", " $B"),
        ("Answer: a", "A"),
        ("Answer:", "A"),
        ("Answer: b", "A"),
        ("Answer: A\nAnswer: B", "Answer: A\nAnswer: B"),
        ("The Answer: B", "The Answer: B"),
        ("answer: B", "answer: B"),
        ("B", "B"),
    ],
)
def test_a_single_answer_line_is_cut_to_what_it_says(text: str, line: str) -> None:
    assert final_line(text) == line


def answers(said: list[str], truths: list[str], categories: list[str], protocol: str) -> Answers:
    samples = [
        Sample(index=at, question="?", options=OPTIONS, answer=truth, category=kind.rpartition("|")[0],
               l2_category=kind.rpartition("|")[2])
        for at, (truth, kind) in enumerate(zip(truths, categories, strict=True))
    ]  # fmt: skip
    predictions: dict[Index, Prediction] = {
        at: Prediction(index=at, status="ok", fingerprint="", prediction=text) for at, text in enumerate(said)
    }
    return Answers(dataset="X", samples=samples, predictions=predictions, protocol=protocol)


def test_the_table_goes_by_task_subtask_and_category() -> None:
    kinds = [
        "Perception/Remote Sensing|Position",
        "Perception/Remote Sensing|Color/attribute count",
        "Reasoning/Monitoring|Intention",
        "Reasoning/Monitoring|color/Attribute",
    ]
    found = score(
        answers(
            ["B", "I BELIEVE (C)", "(D)", "hm, that is too hard to tell"], ["B", "C", "D", "E"], kinds, "vlmevalkit"
        )
    )
    assert found.table is not None
    assert found.table.rows == (
        ("Overall", "Avg", "Avg", 0.5),
        ("Reasoning", "Avg", "Avg", 0.5),
        ("Reasoning", "Monitoring", "Avg", 0.5),
        ("Reasoning", "Monitoring", "color/attribute", 0.0),
        ("Reasoning", "Monitoring", "intention", 1.0),
        ("Perception", "Avg", "Avg", 0.5),
        ("Perception", "Remote Sensing", "Avg", 0.5),
        ("Perception", "Remote Sensing", "color/attribute", 0.0),
        ("Perception", "Remote Sensing", "position", 1.0),
    )
    assert found.unmatched == (3,)
    ours = score(answers(["B", "I BELIEVE (C)", "(D)", "hm"], ["B", "C", "D", "E"], kinds, "exact"))
    assert ours.overall.value == 0.75


def test_step_by_step_is_read_from_its_last_line() -> None:
    said = ["A is red and B is blue.\nAnswer: B", "Answer: A\nAnswer: C", "So it is C.\nAnswer: (C)"]
    given = answers(said, ["B", "A", "C"], ["x|y"] * 3, "vlmevalkit")
    assert [row.extracted for row in score_stepwise(given).rows] == ["B", "", "C"]
    ours = answers(said, ["B", "A", "C"], ["x|y"] * 3, "exact")
    assert [row.extracted for row in score_stepwise(ours).rows] == ["B", "", "C"]
