"""Rules that need a judge: what is settled without one, what is asked, how replies are read, what is made of them."""

from __future__ import annotations

import pytest

from tests.scoring.rows_example import ok, sample, values
from vlmeval.errors import UsageError
from vlmeval.scoring.judged import Verdict, judged_rule
from vlmeval.scoring.rows import Answers
from vlmeval.scoring.rules import RULES, find_rule
from vlmeval.types import Index, Sample

JUDGED = [name for name, rule in RULES.items() if rule.judge]


def maths(answer: str = "5", **more: str) -> Sample:
    cells = {"question_type": "free_form", "answer_type": "integer", "task": "geometry"}
    return sample(1, answer, **{**cells, "skills": "['algebra', 'sums']", **more})


def choice() -> Sample:
    return maths("cat", question_type="multi_choice", choices="['dog', 'cat']", answer_option="B")


def test_an_option_is_right_by_its_text_where_the_file_has_no_letter() -> None:
    letterless = maths("cat", question_type="multi_choice", choices="['dog', 'cat']")
    verdicts = [judged_rule(find_rule("mathvista")).settled(letterless, said) for said in ("A", "B")]
    assert [verdict and verdict.hit for verdict in verdicts] == [0.0, 1.0]


def answers(rows: list[Sample], protocol: str = "vlmevalkit") -> Answers:
    return Answers(
        dataset="Toy", samples=rows, predictions={row.index: ok(row.index, "?") for row in rows}, protocol=protocol
    )


@pytest.mark.parametrize("name", JUDGED)
def test_every_judged_rule_asks_with_question_and_answer_and_never_guesses(name: str) -> None:
    rule = judged_rule(find_rule(name))
    row = sample(1, "truth", question="What is it?", gpt4_ans="a cat", caption="a sofa", category="conv")
    prompt = rule.judge_prompt(row, "my answer")
    assert "What is it?" in prompt
    assert "my answer" in prompt
    assert rule.read_reply(row, "") is None


def test_a_rule_without_a_judge_has_no_such_functions() -> None:
    with pytest.raises(UsageError, match="the rule anls needs no judge"):
        judged_rule(find_rule("anls"))


@pytest.mark.parametrize(
    ("row", "text", "hit"),
    [
        (maths(), "5", 1.0),
        (maths(), " 5\n", 1.0),
        (maths(), "The answer is 5", None),
        (maths(), "6", None),
        (maths("1.50", answer_type="float"), "1.5", 1.0),
        (maths("a", answer_type="text"), "a", None),
        (choice(), "B", 1.0),
        (choice(), "A", 0.0),
        (choice(), "cat", 1.0),
        (choice(), "hard to say", None),
    ],
)
def test_mathvista_settles_options_and_bare_numbers_by_rule(row: Sample, text: str, hit: float | None) -> None:
    verdict = judged_rule(find_rule("mathvista")).settled(row, text)
    assert (None if verdict is None else verdict.hit) == hit


@pytest.mark.parametrize(
    ("rule", "row", "reply", "hit"),
    [
        ("mathvista", maths(), "5", 1.0),
        ("mathvista", maths(), "Final answer: 5", 1.0),
        ("mathvista", maths(), "five", 0.0),
        ("mathvista", choice(), "(B)", 1.0),
        ("mathvista", maths("[1, 2]", answer_type="list"), "[1, 2]", 1.0),
        ("mathvision", sample(1, "0.5", choices="[]"), "\\frac{1}{2}", 1.0),
        ("mathvision", sample(1, "1/2", choices="[]"), "\\boxed{0.5}", 1.0),
        ("mathvision", sample(1, "x+1", choices="[]"), "X+1", 1.0),
        ("mathvision", sample(1, "1/0", choices="[]"), "2", 0.0),
        ("mathvision", sample(1, "B", choices="['1', '2']"), "B", 1.0),
        ("mathverse", sample(1, "C"), "C\n1", 1.0),
        ("mathverse", sample(1, "C"), "B\n0", 0.0),
        ("mathverse", sample(1, "C"), "probably", None),
        ("mmvet", sample(1, "x"), "0.7", 0.7),
        ("mmvet", sample(1, "x"), "Grade: 1.0", 1.0),
        ("mmvet", sample(1, "x"), "1.5", None),
        ("mmvet", sample(1, "x"), "0.7 because", None),
        ("llavabench", sample(1, ""), "8 7\nBecause", 0.7),
        ("llavabench", sample(1, ""), "8, 7.5", 0.75),
        ("llavabench", sample(1, ""), "8", None),
        ("llavabench", sample(1, ""), "11 7", None),
    ],
)
def test_a_reply_is_read_or_refused(rule: str, row: Sample, reply: str, hit: float | None) -> None:
    verdict = judged_rule(find_rule(rule)).read_reply(row, reply)
    assert (None if verdict is None else pytest.approx(verdict.hit)) == hit


def test_mathvista_reports_tasks_and_skills_and_rows_without_verdict_are_wrong() -> None:
    rows = [maths(), sample(2, "5", task="puzzle", skills="['sums']")]
    score = judged_rule(find_rule("mathvista")).score_verdicts(answers(rows), {1: Verdict(1.0, "5", "by rule")})
    assert values(score) == {"Overall": 50.0, "algebra": 100.0, "sums": 50.0, "geometry": 100.0, "puzzle": 0.0}
    assert "1 of 2 rows have no verdict: counted as wrong" in score.notes
    assert score.unmatched == (2,)


def test_mmvet_counts_a_question_under_every_ability_it_needs() -> None:
    rows = [sample(1, "x", category="ocr,spat"), sample(2, "x", category="ocr")]
    verdicts: dict[Index, Verdict] = {1: Verdict(0.5, "0.5", "by judge"), 2: Verdict(1.0, "1.0", "by judge")}
    score = judged_rule(find_rule("mmvet")).score_verdicts(answers(rows), verdicts)
    assert values(score) == {"Overall": 75.0, "ocr": 75.0, "spat": 50.0}
    assert score.table is not None
    assert score.table.columns == ("Category", "tot", "hit", "acc")


def test_llavabench_is_relative_to_gpt4() -> None:
    rule = judged_rule(find_rule("llavabench"))
    rows = [sample(1, "", category="conv"), sample(2, "", category="detail")]
    verdicts: dict[Index, Verdict] = {}
    for row, reply in zip(rows, ("8 4", "8 8"), strict=True):
        verdict = rule.read_reply(row, reply)
        assert verdict is not None
        verdicts[row.index] = verdict
    score = rule.score_verdicts(answers(rows), verdicts)
    assert values(score) == {"Overall": 75.0, "conv": 50.0, "detail": 100.0}
    assert score.table is not None
    assert score.table.rows[0] == ("overall", 75.0, 60.0, 80.0)


def test_mathverse_reads_its_metadata() -> None:
    rows = [sample(1, "C", metadata="{'split': 'testmini', 'problem_version': 'Text Lite', 'subfield': 'Angle'}")]
    score = judged_rule(find_rule("mathverse")).score_verdicts(answers(rows), {1: Verdict(1.0, "C", "by judge")})
    assert values(score) == {"Overall": 100.0, "Text Lite": 100.0, "Angle": 100.0}
