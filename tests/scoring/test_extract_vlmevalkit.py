"""The five steps of VLMEvalKit's exact matching, to the letter, faults included."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmeval.scoring.extract_vlmevalkit import extract_option, match_option

ANIMALS = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}
LONG = {"A": "a very large cat on a mat", "B": "a very small dog in fog", "C": "one bird", "D": "two fish"}


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("The answer is bird", "B"),
        ("A dog", "A"),
        ("The answer is not A", "A"),
        ("（B）", None),
        ("A。", None),
        ("答案是B", None),
        ("</think>A", None),
    ],
)
def test_the_known_faults_are_reproduced(answer: str, label: str | None) -> None:
    assert extract_option(answer, ANIMALS) == label


@pytest.mark.parametrize("mark", list(".()[],:;!*#{}"))
def test_each_listed_mark_separates_letters(mark: str) -> None:
    assert extract_option(f"x{mark}B{mark}y", LONG) == "B"


@pytest.mark.parametrize("mark", list("?-_/'\"`$\\<>=+&@~|^。，：（）、"))
def test_no_other_mark_separates_letters(mark: str) -> None:
    assert extract_option(f"B{mark}", {"A": "cat", "B": "dog"}) is None


def test_unicode_white_space_separates_tokens() -> None:
    assert extract_option("选\u3000B\xa0吧", ANIMALS) == "B"


@pytest.mark.parametrize(("behind", "label"), [(0, "B"), (3, "B"), (4, None), (5, None)])
def test_a_lone_letter_counts_only_among_the_last_four_tokens(behind: int, label: str | None) -> None:
    answer = " ".join(["well", "well", "B"] + ["well"] * behind)
    assert extract_option(answer, LONG) == label


def test_the_first_occurrence_decides_the_position() -> None:
    assert extract_option("B then one two three B", LONG) is None
    assert extract_option("it is B or B", LONG) == "B"


def test_distinct_labels_are_counted_not_occurrences() -> None:
    assert extract_option("B B B", ANIMALS) == "B"
    assert extract_option("A B", ANIMALS) is None


def test_two_letters_leave_the_decision_to_the_phrase() -> None:
    assert extract_option("Between A and B, the answer is B", ANIMALS) == "B"


def test_a_letter_too_early_leaves_the_decision_to_the_phrase_and_then_the_text() -> None:
    assert extract_option("A thing I know well: the answer is C: one", ANIMALS) == "C"
    assert extract_option("A thing that I know as one bird", LONG) == "C"


def test_labels_are_case_sensitive_as_tokens() -> None:
    assert extract_option("b", LONG) is None


def test_only_labels_of_this_question_are_counted() -> None:
    two = {"A": "yes", "B": "no"}
    assert extract_option("C B", two) == "B"
    assert extract_option("C", two) is None
    assert extract_option("E", {**ANIMALS, "E": "ant"}) == "E"


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("A or C? Answer is C", "C"),
        ("A or C? THE ANSWER IS c", "C"),
        ("A or C? answer is **C**", "C"),
        ("A or C? answer is \n ***Cats", "C"),
        ("A or C? answer isC", None),
        ("A or C? answer is: C", None),
        ("A or C? answer is (C)", None),
        ("A or C? answer is E", None),
        ("A or C? answer is B answer is D", "B"),
    ],
)
def test_the_phrase_is_read_by_the_pattern_as_stated(answer: str, label: str | None) -> None:
    assert extract_option(answer, {"A": "q1", "B": "q2", "C": "q3", "D": "q4"}) == label


def test_the_phrase_reads_no_label_beyond_d() -> None:
    five = {"A": "q1", "B": "q2", "C": "q3", "D": "q4", "E": "q5"}
    assert extract_option("A or E? The answer is E, A", five) is None


def test_the_first_phrase_decides_even_when_its_letter_is_no_label() -> None:
    assert extract_option("A B: answer is D, answer is A", {"A": "q1", "B": "q2"}) is None


@pytest.mark.parametrize(
    "refusal",
    [
        "Sorry, I can't help with images of people yet.",
        "I can't process this file.",
        "I'm sorry, but without the image provided",
        "Cannot determine the answer",
    ],
)
def test_a_refusal_wins_over_any_letter(refusal: str) -> None:
    assert extract_option(f"{refusal} B", ANIMALS) == "Z"
    assert extract_option(refusal.upper() + " B", LONG) == "B"


def test_a_token_z_is_a_refusal_only_without_a_label() -> None:
    assert extract_option("Z", ANIMALS) == "Z"
    assert extract_option("Z B", ANIMALS) == "B"
    assert extract_option("Z and much more text after it", ANIMALS) == "Z"


def test_an_api_failure_is_only_read_as_text() -> None:
    failure = "Failed to obtain answer via API."
    assert extract_option(f"{failure} B", LONG) is None
    assert extract_option(f"{failure} Cannot determine the answer", LONG) is None
    assert extract_option(f"{failure} one bird", LONG) == "C"


def test_text_is_matched_without_case_anywhere_in_the_answer() -> None:
    assert extract_option("BIRDS", ANIMALS) == "C"
    assert extract_option("a bird", {"A": "CAT", "B": "Bird"}) == "B"


def test_the_text_of_two_options_is_nothing() -> None:
    assert extract_option("dogfish", ANIMALS) is None


def test_text_is_not_searched_in_answers_over_twice_as_long_as_the_options() -> None:
    options = {"A": "abc", "B": "xyz"}
    assert extract_option("abc" + "-" * 9, options) == "A"
    assert extract_option("abc" + "-" * 10, options) is None


def test_an_empty_option_text_always_matches() -> None:
    assert extract_option("hm", {"A": "", "B": "dog"}) == "A"
    assert extract_option("a dog", {"A": "", "B": "dog"}) is None
    assert extract_option("", {"A": "", "B": ""}) is None


def test_a_missing_answer_is_the_text_nan() -> None:
    assert extract_option(None, ANIMALS) is None
    assert extract_option(None, {"A": "banana", "B": "nan"}) == "B"
    assert extract_option("", {"A": "banana", "B": "nan"}) is None


def test_no_options_is_nothing() -> None:
    assert extract_option("B", {}) is None
    assert extract_option("", {}) is None


def test_the_step_that_decided_is_named() -> None:
    assert match_option("B", ANIMALS).how == "letter"
    assert match_option("bird", ANIMALS).how == "text"
    assert "several" in match_option("dogfish", ANIMALS).how


@settings(deadline=None)
@given(st.text(), st.dictionaries(st.sampled_from("ABCDEF"), st.text(max_size=8), max_size=6))
def test_any_answer_gives_a_label_of_the_question_a_refusal_or_nothing(answer: str, options: dict[str, str]) -> None:
    assert extract_option(answer, options) in {*options, "Z", None}


@settings(deadline=None)
@given(st.sampled_from("ABCD"), st.text(alphabet=" \n.()[],:;!*#{}", max_size=30))
def test_a_letter_in_listed_marks_is_that_letter(label: str, marks: str) -> None:
    assert extract_option(marks + label + marks, ANIMALS) == label
