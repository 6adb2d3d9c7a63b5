"""Turns of a conversation: where the model's own answers go, and lists of texts in one cell."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmeval.conversation import (
    ANSWER,
    is_conversation,
    prompt_of_turn,
    prompts_of,
    texts_as_cell,
    texts_of_cell,
    turns_in,
)
from vlmeval.types import Message, TextPart


def text(value: str) -> Message:
    return TextPart(type="text", value=value)


def said(value: str) -> Message:
    return TextPart(type="text", value=value, role="assistant")


def test_each_turn_sees_what_was_asked_and_what_the_model_itself_said() -> None:
    for message in ([text("a"), ANSWER, text("b"), text("c"), ANSWER], [text("a"), ANSWER, text("b"), text("c")]):
        assert turns_in(message) == 2 and is_conversation(message)
        assert prompt_of_turn(message, []) == [text("a")]
        assert prompt_of_turn(message, ["x"]) == [text("a"), said("x"), text("b"), text("c")]
        assert prompts_of(message) == [[text("a")], [text("a"), ANSWER, text("b"), text("c")]]


def test_a_prompt_without_a_mark_is_one_turn_and_stays_as_it_is() -> None:
    history = [text("a"), said("earlier"), text("b")]
    assert turns_in(history) == 1 and not is_conversation(history)
    assert prompt_of_turn(history, []) == history
    assert turns_in([text("a"), ANSWER]) == 1 and is_conversation([text("a"), ANSWER])


@given(st.lists(st.text()))
def test_a_cell_is_read_by_us_and_by_those_who_read_python(texts: list[str]) -> None:
    cell = texts_as_cell(texts)
    assert texts_of_cell(cell) == ast.literal_eval(cell) == texts
    assert texts_of_cell(repr(texts)) == texts


@pytest.mark.parametrize("cell", ["", "plain", "[unclosed", "(1, 2)", '{"a": 1}', "[[1]]", "[open('x')]", "[" * 5000])
def test_what_is_no_list_of_texts_is_none(cell: str) -> None:
    assert texts_of_cell(cell) is None


def test_numbers_count_as_text_and_null_as_nothing() -> None:
    assert texts_of_cell('["a", 7, null]') == texts_of_cell("['a', 7, None]") == ["a", "7", ""]
