"""The shortcuts of the protocol `exact` find what the searches they stand for find."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlmeval.scoring import (
    exact_bare,
    exact_by_text,
    exact_denial,
    exact_markers,
    exact_options,
    exact_text,
    exact_verdicts,
    extract_exact,
)
from vlmeval.scoring.exact_answer import Answer, Signs

WORDS = (
    "a A b B I Z answer Answer: ANSWER is the option choice selected solution conclusion response letter so wait, no, "
    "but actually correction on second thought not isn't never none nor except excluding unlike instead of rather than "
    "if whether though wrong incorrect least eliminated ruled out before without sorry cannot could not can't do not "
    "have unable to as an ai no idea unclear impossible hard too small say think it's => -> x: ** __ # > - + ` ' \" . ,"
    " ! ? ( ) [ ] { } $ _ 1 2.5 \n \t\n C++ B-52 dog hardly lacks far from compared to some friends need more please "
    "provide you 答案是 不 没 选 所以 其实 等等 抱歉 除了 是否 狗 İ ı"
).split(" ")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | st.text(st.characters(max_codepoint=127))


def _spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    return [hit.span() for hit in pattern.finditer(text)]


@pytest.mark.parametrize(
    "pattern",
    [
        exact_markers._STRONG_MARKER,
        exact_markers._WEAK_MARKER,
        exact_markers._CORRECTION,
        exact_denial._DENIAL,
        exact_denial._CLAUSE_END,
        extract_exact._REFUSAL,
    ],
)
def test_what_a_search_can_begin_with_leaves_out_nothing(pattern: re.Pattern[str]) -> None:
    whole = re.compile(re.sub(r"^\(\?=\[.*?[^\\]\]\)", "", pattern.pattern))
    assert whole.pattern != pattern.pattern

    @given(text=TEXTS)
    @settings(max_examples=200, deadline=None)
    @example(text="On Second Thought, NO, it's B")
    def same(text: str) -> None:
        lowered = Answer(text).lowered
        assert _spans(pattern, lowered) == _spans(whole, lowered)

    same()


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
@example(text="İstanbul or ısparta, WİTHOUT the dog")
def test_small_letters_stand_where_the_letters_stood(text: str) -> None:
    text = exact_text.one_spelling(text)
    answer = Answer(text)
    assert len(answer.lowered) == len(text)
    for pattern in (exact_denial._DENIAL, exact_markers._STRONG_MARKER, exact_markers._CORRECTION):
        assert _spans(pattern, answer.lowered) == _spans(re.compile(pattern.pattern, re.IGNORECASE), text)


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_signs_leave_out_nothing(text: str) -> None:
    answer = Answer(text)
    pairs: list[tuple[Signs, re.Pattern[str]]] = [
        (exact_markers._CORRECTION_SIGNS, exact_markers._CORRECTION),
        (exact_denial._DENIAL_SIGNS, exact_denial._DENIAL),
        (exact_denial._SUPPOSED_SIGNS, exact_denial._SUPPOSED),
        (exact_denial._SUPPOSED_SIGNS, exact_denial._IF_ONLY),
        (exact_markers._ALSO_SIGNS, exact_markers._ALSO),
        (extract_exact._REFUSAL_SIGNS, extract_exact._REFUSAL),
    ]
    for wanted, pattern in pairs:
        assert wanted.in_(answer) or not pattern.search(answer.lowered), pattern.pattern[:60]
    hits = [hit.span() for hit in exact_markers.strong_markers(answer)]
    assert hits == _spans(exact_markers._STRONG_MARKER, answer.lowered)
    alone = exact_verdicts.lone_letters(answer)
    assert alone == [hit.start() for hit in exact_verdicts._LETTER.finditer(text)]
    assert all(hit.start() in alone for hit in exact_verdicts._VERDICT.finditer(text))


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
@example(text="option B")
@example(text="optionB")
@example(text="1. (B)!")
def test_an_answer_that_is_only_a_letter_or_text_is_tried_as_one(text: str) -> None:
    options = {"A": "a dog", "B": "the answer is no", "C": "2.5", "D": "dog"}
    known = exact_options.option_texts(options)
    if exact_bare.read_bare(text, options, known):
        assert exact_bare.may_be_bare(Answer(text), known)


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_texts_of_letters_are_searched_without_being_cut_into_words(text: str) -> None:
    options = {"A": "a dog", "B": "answer is", "C": "not sure of it", "D": "B-52"}
    known = exact_options.option_texts(options)
    latin = re.sub(r"[0-9']", " ", text)
    slowly = exact_options.mentions(Answer(latin + " 7"), known)
    assert exact_options.mentions(Answer(latin), known) == slowly


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_a_plain_answer_is_what_spelling_makes_of_it(text: str) -> None:
    assert exact_text.plain_answer(text) == exact_text.one_spelling(exact_text.after_thinking(text))


def test_the_words_of_place_are_read_as_places_only() -> None:
    assert exact_by_text._is_place("left", "it is on the ")
    assert not exact_by_text._is_place("left", "the man ")
