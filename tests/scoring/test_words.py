"""Answers in words: VQA accuracy, ANLS, relaxed accuracy, equal words, OCRBench, under both protocols."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring.rows_example import hits, sample, scored, values
from vlmeval.scoring.anls import edit_distance, normalised_distance, similarity
from vlmeval.scoring.ground_truths import ground_truths
from vlmeval.scoring.relaxed_accuracy import relaxed_correct
from vlmeval.scoring.short_answer import short_answers
from vlmeval.scoring.vqa_words import vqa_words

NINE_AND_ONE = str(["nokia"] * 9 + ["phone"])


@pytest.mark.parametrize(
    ("cell", "truths"),
    [
        ("cat", ("cat",)),
        ("['a', 'b']", ("a", "b")),
        ('["it\'s", "3"]', ("it's", "3")),
        ("[1, 2.50]", ("1", "2.5")),
        ("[unclosed", ("[unclosed",)),
        ("[]", ()),
        ("('a', 'b')", ("('a', 'b')",)),
        ("[__import__('os')]", ("[__import__('os')]",)),
        ("[" * 5000, ("[" * 5000,)),
        ("", ("",)),
    ],
)
def test_an_answer_cell_is_a_list_only_where_python_writes_one(cell: str, truths: tuple[str, ...]) -> None:
    assert ground_truths(cell) == truths


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Two  dogs", "2 dogs"),
        ("None", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),
        ("a\tb\nc", "b c"),  # the article goes
        ("$5,000.00", "$5000.00"),
        ("10 a.m.", "10 am"),
        ("ten-four", "10 4"),
        ("wed", "wed"),
        ("the a an", ""),
    ],
)
def test_words_are_compared_as_in_the_vqa_metric(text: str, words: str) -> None:
    assert vqa_words(text) == words


@pytest.mark.parametrize(
    ("truth", "text", "upstream", "exact"),
    [
        (NINE_AND_ONE, "Nokia", 1.0, 1.0),
        (NINE_AND_ONE, "nokia.", 1.0, 1.0),
        (NINE_AND_ONE, "phone", 0.3, 0.3),
        (NINE_AND_ONE, "The answer is Nokia.", 0.0, 1.0),
        (NINE_AND_ONE, "", 0.0, 0.0),
        (str(["x"] * 3 + ["y"] * 7), "x", (3 * 2 / 3 + 7) / 10, (3 * 2 / 3 + 7) / 10),
        (str(["x"] * 2 + ["y"] * 8), "x", (2 / 3 + 8 * 2 / 3) / 10 - 1 / 30, None),
        ("cat", "cat", 0.0, 1.0),  # upstream asks the other ground truths, and there are none
        ("['cat', 'cat']", "cat", 1 / 3, 1.0),
    ],
)
def test_vqa_accuracy_asks_the_other_ground_truths(truth: str, text: str, upstream: float, exact: float | None) -> None:
    if exact is None:  # 2 of 10: 1/3 twice, 2/3 eight times
        upstream = exact = (2 * (1 / 3) + 8 * (2 / 3)) / 10
    assert hits("vqa_accuracy", truth, [text], "vlmevalkit") == [pytest.approx(upstream)]
    assert hits("vqa_accuracy", truth, [text], "exact") == [pytest.approx(exact)]


@pytest.mark.parametrize(
    ("truth", "text", "upstream", "exact"),
    [
        ("nokia", "Nokia", 1.0, 1.0),
        ("nokia", "nokla", 0.8, 0.8),
        ("ab", "ac", 0.5, 0.5),  # exactly a half still counts
        ("abc", "axy", 0.0, 0.0),
        ("['abcd', 'nokia']", "nokia", 1.0, 1.0),
        ("a  b", "a b", 1.0, 1.0),
        ("ab", "xb          ", 11 / 12, 0.5),  # blanks count in upstream's length
        ("nokia", "The answer is nokia.", 0.0, 1.0),
        ("straße", "strasse", 5 / 7, 5 / 7),  # in capitals both have seven letters
        ("12", "１２", 0.0, 1.0),
        ("", "", 1.0, 0.0),
        ("[]", "x", 0.0, 0.0),
    ],
)
def test_anls_is_the_nearest_ground_truth_from_a_half_on(truth: str, text: str, upstream: float, exact: float) -> None:
    assert hits("anls", truth, [text], "vlmevalkit") == [pytest.approx(upstream)]
    assert hits("anls", truth, [text], "exact") == [pytest.approx(exact)]


def plain_levenshtein(first: str, second: str) -> int:
    line = list(range(len(second) + 1))
    for at, char in enumerate(first, 1):
        before, line[0] = line[0], at
        for place, other in enumerate(second, 1):
            before, line[place] = line[place], min(line[place] + 1, line[place - 1] + 1, before + (char != other))
    return line[-1]


@settings(max_examples=200, deadline=None)
@given(st.text("abc ü", max_size=70), st.text("abc ü", max_size=70))
def test_the_edit_distance_is_levenshteins(first: str, second: str) -> None:
    assert edit_distance(first, second) == edit_distance(second, first) == plain_levenshtein(first, second)


def test_distance_and_threshold_are_upstreams() -> None:
    assert normalised_distance(" A  b ", "a c") == pytest.approx(1 / 6)
    assert normalised_distance("", "") == 0.0
    assert (similarity([0.5]), similarity([0.51, 0.6]), similarity([])) == (0.5, 0.0, 0.0)


@pytest.mark.parametrize(
    ("truth", "text", "upstream", "exact"),
    [
        ("100", "105", True, True),
        ("100", "95", True, True),
        ("100", "105.1", False, False),
        ("100", "-100", False, False),
        ("-20", "-21", True, True),
        ("5%", "0.05", True, True),
        ("5%", "5", False, True),
        ("5", "5%", False, True),
        ("1000", "1,000", False, True),
        ("1000", "$1000", False, True),
        ("0", "0.0", False, True),
        ("0", "0", True, True),
        ("0", "0.01", False, False),
        ("2.5", " 2.5 ", True, True),
        ("Yes", "yes", True, True),
        ("Blue", "blue.", False, True),
        ("12", "The answer is 12.", False, True),
        ("12", "12 million", False, True),
        ("12", "between 12 and 15", False, False),
        ("1e3", "1000", True, True),
        ("inf", "5", False, False),
        ("nan", "nan", False, True),
        ("%", "%", True, True),
    ],
)
def test_relaxed_accuracy_allows_five_percent(truth: str, text: str, upstream: bool, exact: bool) -> None:
    assert relaxed_correct(truth, text.strip()) is upstream
    assert hits("relaxed_accuracy", truth, [text], "vlmevalkit") == [float(upstream)]
    assert hits("relaxed_accuracy", truth, [text], "exact") == [float(exact)]


@pytest.mark.parametrize(
    ("text", "upstream", "exact"),
    [("Stephen King", 1, 1), (" stephen king ", 1, 1), ("Stephen King.", 0, 1), ("by Stephen King", 0, 0), ("", 0, 0)],
)
def test_equal_words_are_equal_but_for_case(text: str, upstream: float, exact: float) -> None:
    assert hits("word_match", "Stephen King", [text], "vlmevalkit") == [upstream]
    assert hits("word_match", "Stephen King", [text], "exact") == [exact]


@pytest.mark.parametrize(
    ("truth", "text", "category", "upstream", "exact"),
    [
        ("['CENTRE', 'x9']", "It reads Centre.", "Regular Text Recognition", 1, 1),
        ("['on']", "none", "Regular Text Recognition", 1, 0),
        ("['on']", "(ON)", "Regular Text Recognition", 1, 1),
        ("['a b']", "a\nb", "Doc-oriented VQA", 1, 1),
        ("['a b']", "a  b", "Doc-oriented VQA", 0, 1),
        ("['']", "x", "Doc-oriented VQA", 1, 0),
        ("['北京']", "在北京市", "Scene Text-centric VQA", 1, 1),
        ("['x ^ 2']", "y = x^2", "Handwritten Mathematical Expression Recognition", 1, 1),
        ("['X']", "x", "Handwritten Mathematical Expression Recognition", 0, 0),
        ("['12']", "<think>12</think>13", "Digit String Recognition", 1, 0),
        ("plain", "Plain!", "Regular Text Recognition", 1, 1),
    ],
)
def test_ocrbench_finds_a_right_answer_in_the_text(
    truth: str, text: str, category: str, upstream: float, exact: float
) -> None:
    assert hits("ocrbench", truth, [text], "vlmevalkit", category=category) == [upstream]
    assert hits("ocrbench", truth, [text], "exact", category=category) == [exact]


def test_ocrbench_adds_up_its_parts() -> None:
    kinds = ["Regular Text Recognition", "Handwriting Recognition", "Key Information Extraction", "of no part"]
    rows = [(sample(at, "['x']", category=kind), "x" if at != 1 else "y") for at, kind in enumerate(kinds)]
    score = scored("ocrbench", rows)
    assert score.table is not None
    assert dict(zip(score.table.columns, score.table.rows[0], strict=True)) == {
        "Text Recognition": 1,
        "Scene Text-centric VQA": 0,
        "Doc-oriented VQA": 0,
        "Key Information Extraction": 1,
        "Handwritten Mathematical Expression Recognition": 0,
        "Final Score": 2,
        "Final Score Norm": 0.2,
    }
    assert (score.overall.group, score.overall.value, score.unit) == ("Final Score", 2.0, "points")
    assert any("1 rows are of a category that OCRBench does not have" in note for note in score.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Nokia.", ("Nokia",)),
        ('"Nokia"', ("Nokia",)),
        ("**Nokia**", ("Nokia",)),
        ("The answer is 12.5.", ("12.5", "The answer is 12.5")),
        ("Answer:\nNokia", ("Nokia", "Answer:\nNokia")),
        ("Final answer: **42**", ("42", "Final answer: **42**")),
        ("so \\boxed{\\text{Nokia}}", ("Nokia", "so \\boxed{\\text{Nokia}}")),
        ("<answer>a b</answer>", ("a b", "<answer>a b</answer>")),
        ("答案是：诺基亚。", ("诺基亚", "答案是:诺基亚")),
        ("<think>x</think> y", ("y",)),
        ("<think>x", ()),
        ("  ", ()),
        ("a\u200bb\u202e", ("ab",)),
        ("5 p.m.", ("5 p.m",)),
        ("...", ("...",)),
    ],
)
def test_a_short_answer_is_what_is_said_and_then_the_whole(text: str, says: tuple[str, ...]) -> None:
    assert short_answers(text) == says


def test_splits_come_before_overall_and_categories_only_without_splits() -> None:
    rows = [(sample(1, "x", split="b", category="k"), "x"), (sample(2, "x", split="a", category="k"), "y")]
    table = scored("word_match", rows).table
    assert table is not None
    assert (table.columns, table.rows) == (("a", "b", "Overall"), ((0.0, 100.0, 50.0),))
    table = scored("word_match", [(sample(at, "x", category=kind), "x") for at, kind in enumerate("ba")]).table
    assert table is not None
    assert table.columns == ("Overall", "a", "b")


def test_rows_of_one_image_are_drawn_together() -> None:
    rows = [(sample(at, "x"), "x" if at < 10 else "y") for at in range(20)]
    alone = scored("word_match", rows).overall.interval
    shared = scored("word_match", rows, images={at: at // 10 for at in range(20)}).overall.interval
    assert alone is not None
    assert shared is not None
    assert shared[1] - shared[0] > 1.5 * (alone[1] - alone[0])


def test_rows_worth_something_else_are_listed_and_words_alone_do_not_differ() -> None:
    rows = [(sample(1, "12"), "12."), (sample(2, "12"), "It is 12."), (sample(3, "5"), "5%")]
    upstream, exact = scored("relaxed_accuracy", rows), scored("relaxed_accuracy", rows, "exact")
    assert [row.index for row, _ in upstream.differing_rows(exact)] == [3]
    assert values(exact)["Overall"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("rule", ["vqa_accuracy", "anls", "relaxed_accuracy", "word_match", "ocrbench", "yes_no"])
@pytest.mark.parametrize("protocol", ["vlmevalkit", "exact"])
@pytest.mark.parametrize(
    "text",
    [
        "x" * 200_000,
        "<answer>" * 25_000,
        "*" * 200_000,
        "\\boxed{" * 30_000,
        " ." * 100_000,
        "answer is " * 20_000,
        "\x00\x07\x1b[31m\u202eno\u202c" * 2_000,
        "no " * 66_000,
        "[" * 200_000,
        "\udcff\ud800",
    ],
    ids=["letters", "tags", "stars", "boxes", "stops", "markers", "control", "no", "brackets", "surrogates"],
)
def test_answers_of_200_000_characters_and_odd_ones_are_read(rule: str, protocol: str, text: str) -> None:
    (hit,) = hits(rule, "nokia", [text], protocol, category="Regular Text Recognition")
    assert hit == 0.0
