"""The protocol `exact` against hand-made labels, and what it must never do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmeval.scoring.extract_exact import extract_option, match_option

LABELLED = [
    json.loads(line) for line in (Path(__file__).parent / "exact_labelled.jsonl").read_text("utf-8").splitlines()
]
ANIMALS = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}


def test_the_labelled_set_is_large_varied_and_has_no_repeats() -> None:
    chinese = [row for row in LABELLED if any("\u4e00" <= char <= "\u9fff" for char in row["answer"])]
    assert len({json.dumps(row, sort_keys=True) for row in LABELLED}) == len(LABELLED) >= 400
    assert len(chinese) >= 150
    assert sum(row["label"] is None for row in LABELLED) >= 200
    assert all(row["label"] is None or row["label"] in row["options"] for row in LABELLED)


def test_agreement_with_the_labels_is_at_least_99_percent() -> None:
    wrong = [row for row in LABELLED if extract_option(row["answer"], row["options"]) != row["label"]]
    assert len(wrong) <= 0.01 * len(LABELLED), wrong


def test_there_is_never_an_answer_where_the_label_is_none() -> None:
    invented = [row for row in LABELLED if row["label"] is None and extract_option(row["answer"], row["options"])]
    assert invented == []


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("The answer is bird", "C"),
        ("A dog", "B"),
        ("The answer is not A", None),
        ("（B）", "B"),
        ("A。", "A"),
        ("答案是B", "B"),
        ("</think>A", "A"),
        ("<think>The answer is A.", None),
    ],
)
def test_the_known_faults_of_vlmevalkit_are_right_here(answer: str, label: str | None) -> None:
    assert extract_option(answer, ANIMALS) == label


def test_a_refusal_with_a_choice_after_it_is_that_choice() -> None:
    assert extract_option("I can't see it well, but I believe the answer is B.", ANIMALS) == "B"
    assert extract_option("I'm sorry, I can't choose between A, B, C and D.", ANIMALS) is None


def test_a_missing_answer_is_nothing() -> None:
    assert extract_option(None, ANIMALS) is None
    assert extract_option("", ANIMALS) is None


def test_no_options_is_nothing() -> None:
    assert extract_option("B", {}) is None
    assert extract_option("The answer is B", {}) is None


def test_empty_and_repeated_option_texts_match_nothing_by_text() -> None:
    assert extract_option("a dog", {"A": "", "B": ""}) is None
    assert extract_option("a dog", {"A": "dog", "B": "dog"}) is None
    assert extract_option("B", {"A": "dog", "B": "dog"}) == "B"


def test_marks_as_option_texts_are_matched_whole() -> None:
    marks = {"A": "+", "B": "-", "C": "<", "D": "="}
    assert extract_option("A", marks) == "A"
    assert extract_option("C. <", marks) == "C"


def test_the_step_that_decided_is_named() -> None:
    assert match_option("B", ANIMALS).how == "letter"
    assert match_option("So the answer is B", ANIMALS).how == "claim"
    assert match_option("I see a bird", ANIMALS).how == "text"
    assert match_option("I cannot see the image", ANIMALS).how == "refusal"


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("the answer is " * 15_000, None),
        ("A " * 100_000, "A"),
        ("option B, " * 20_000, None),
        ("(" * 200_000, None),
        ("不是" * 100_000, None),
        ("<think>" * 30_000, None),
        ("\\boxed{" * 30_000, None),
        ("B\n" + "x" * 200_000, "B"),
    ],
)
def test_two_hundred_thousand_characters_are_read(answer: str, option: str | None) -> None:
    """Anything quadratic in the length runs into the suite's limit for one test."""
    assert extract_option(answer, ANIMALS) == option


def test_the_end_of_a_very_long_answer_is_read() -> None:
    assert extract_option("It barks. " * 30_000 + "The answer is B.", ANIMALS) == "B"


def test_bidirectional_and_invisible_marks_do_not_matter() -> None:
    assert extract_option("\u202eB\u202c", ANIMALS) == "B"
    assert extract_option("The answer\u200b is \u2066B\u2069", ANIMALS) == "B"


@settings(deadline=None)
@given(st.text(), st.dictionaries(st.sampled_from("ABCDEFGHI"), st.text(max_size=8), max_size=9))
def test_any_answer_gives_a_label_of_the_question_or_nothing(answer: str, options: dict[str, str]) -> None:
    assert extract_option(answer, options) in {*options, None}


def test_letters_that_grow_in_small_are_read() -> None:
    assert extract_option("\u0130\u0130\u0130 3 \u0130 a bird", ANIMALS) == "C"
    assert extract_option("\u0130" * 50 + " 20", {"A": "10", "B": "20"}) == "B"


def test_an_answer_that_was_cut_off_is_not_read_by_text() -> None:
    assert extract_option("It has the ears of a cat, and the", ANIMALS) is None
    assert extract_option("It has the ears of a cat.", ANIMALS) == "A"
    assert extract_option("The answer is A, because the", ANIMALS) == "A"


def test_options_gone_through_one_by_one_are_no_choice() -> None:
    assert extract_option("Here are the options:\nA. cat: soft\nB. dog: loud", ANIMALS) is None
    assert extract_option("A: 40%, B: 60%", ANIMALS) is None
    assert extract_option("A. cat: no\nB. dog: no\nThe answer is C.", ANIMALS) == "C"


def test_a_letter_that_is_a_quantity_or_a_name_is_no_choice() -> None:
    assert extract_option("圆的周长公式为 C = 2πr", ANIMALS) is None
    assert extract_option("血型是B型", ANIMALS) is None


WORDS = st.sampled_from(
    "the answer is not A B C D E option choose dog cat bird , . : ? ! ( ) but so no 答案 是 不 选 和 \n".split(" ")
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=12))
def test_any_mixture_of_the_words_it_reads_gives_a_label_or_nothing(words: list[str]) -> None:
    assert extract_option(" ".join(words), ANIMALS) in {*ANIMALS, None}


@settings(deadline=None)
@given(
    st.sampled_from("ABCD"),
    st.sampled_from(["{}", "({})", "**{}**", "答案是{}", "The answer is {}.", "选{}", "\\boxed{{{}}}"]),
)
def test_every_letter_is_read_alike(label: str, form: str) -> None:
    assert extract_option(form.format(label), ANIMALS) == label
