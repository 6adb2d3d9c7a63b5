"""The shortcuts of the protocol `exact` find what the searches they stand for find."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlmeval.scoring import exact_claims, exact_denial, exact_text, extract_exact

WORDS = (
    "a A b B I Z answer Answer: ANSWER is the option choice selected solution conclusion response letter so wait, no, "
    "but actually correction on second thought not isn't never none nor except excluding unlike instead of rather than "
    "if whether though wrong incorrect least eliminated ruled out before without sorry cannot could not can't do not "
    "have unable to as an ai no idea unclear impossible hard too small say think it's => -> x: ** __ # > - + ` ' \" . ,"
    " ! ? ( ) [ ] { } $ _ 1 2.5 \n \t\n C++ B-52 dog"
).split(" ")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | st.text(st.characters(max_codepoint=127))


def _spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    return [hit.span() for hit in pattern.finditer(text)]


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
@example(text="On Second Thought, NO, it's B")
def test_searches_of_ascii_on_small_letters_find_the_same(text: str) -> None:
    lowered = text.lower()
    assert _spans(exact_claims._STRONG_MARKER_LOWER, lowered) == _spans(exact_claims._STRONG_MARKER, text)
    assert _spans(exact_denial._DENIAL_LOWER, lowered) == _spans(exact_denial._DENIAL, text)
    assert _spans(exact_denial._CLAUSE_END_LOWER, lowered) == _spans(exact_denial._CLAUSE_END, text)
    if ":" not in text:
        assert _spans(exact_claims._WEAK_MARKER_LOWER, lowered) == _spans(exact_claims._WEAK_MARKER, text)


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_hints_leave_out_nothing(text: str) -> None:
    assert exact_claims.corrects(text) == bool(exact_claims.CORRECTION.search(text))
    assert not extract_exact._REFUSAL.search(text) or extract_exact._may_refuse(text)
    assert not exact_denial._DENIAL.search(text) or any(h in text.lower() for h in exact_denial._DENIAL_HINTS)
    assert exact_claims._lone_letters(text) == [hit.start() for hit in exact_claims._LETTER.finditer(text)]
    first, start = exact_claims._STRONG_MARKER.search(text), exact_claims._first_strong_word(text)
    assert first is None or (start is not None and start <= first.start())
    verdicts = [hit for hit in exact_claims._VERDICT.finditer(text) if hit.group(1) in "AB"]
    alone = exact_claims._lone_letters(text)
    assert [claim.at for claim in exact_claims._verdicts(text, {"A": "x", "B": "y"}, alone)] == [
        hit.start()
        for hit in verdicts
        if not exact_claims._IN_LIST.search(text, max(0, hit.start() - 12), hit.start())
        and not exact_denial.is_denied(text, hit.start())
    ]


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_a_plain_answer_is_what_spelling_makes_of_it(text: str) -> None:
    assert exact_text.plain_answer(text) == exact_text.one_spelling(exact_text.after_thinking(text))
    assert exact_text.one_spelling(text) == exact_text._MARKDOWN.sub("", _without_tokens_and_latex(text))


def _without_tokens_and_latex(text: str) -> str:
    text = exact_text._LATEX_BRACKET.sub(r"\1", exact_text._LATEX_TEXT.sub(r"\1", text))
    return exact_text._END_TOKEN.sub(" ", text)
