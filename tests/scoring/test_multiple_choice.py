"""Multiple choice end to end on small hand-made benchmarks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from vlmeval.errors import UnknownNameError
from vlmeval.scoring import score_multiple_choice
from vlmeval.scoring.circular import circular_groups, group_of
from vlmeval.types import Index, Prediction, Sample, Score

ANIMALS = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}


def sample(index: Index, answer: str = "A", **more: object) -> Sample:
    values: dict[str, object] = {"question": "?", "options": ANIMALS, "answer": answer, **more}
    return Sample(index=index, **values)  # type: ignore[arg-type]


def said(**answers: str) -> dict[Index, Prediction]:
    return {int(key[1:]): record(int(key[1:]), text) for key, text in answers.items()}


def record(index: Index, text: str) -> Prediction:
    return Prediction(index=index, status="ok", fingerprint="f", prediction=text)


def failed(index: Index) -> Prediction:
    return Prediction(index=index, status="failed", fingerprint="f", prediction="A", error="image is broken")


def score(
    samples: list[Sample],
    predictions: Mapping[Index, Prediction],
    protocol: str = "vlmevalkit",
    circular: bool = False,
    l2_short_names: Mapping[str, str] | None = None,
) -> Score:
    return score_multiple_choice(
        "Toy", samples, predictions, protocol=protocol, circular=circular, l2_short_names=l2_short_names
    )


def test_accuracy_is_right_rows_over_rows() -> None:
    result = score([sample(1), sample(2, "B"), sample(3, "C")], said(i1="A", i2="B.", i3="fish"))
    assert result.overall.value == pytest.approx(2 / 3)
    assert result.overall.count == result.samples == 3
    assert [(row.index, row.hit, row.extracted) for row in result.rows] == [(1, 1, "A"), (2, 1, "B"), (3, 0, "D")]
    assert [row.log for row in result.rows] == ["A by letter", "B by letter", "D by text"]


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="vlmevalkit, exact"):
        score([], {}, protocol="vlmeval-kit")


@pytest.mark.parametrize("protocol", ["vlmevalkit", "exact"])
def test_a_failed_sample_is_wrong_listed_and_in_the_denominator_whatever_its_text(protocol: str) -> None:
    result = score([sample(1), sample(2)], {1: record(1, "A"), 2: failed(2)}, protocol)
    assert result.overall.value == 0.5
    assert result.failed == (2,)
    assert result.unmatched == ()
    assert result.rows[1].log == "failed: image is broken"


def test_an_answer_without_an_option_is_wrong_and_listed() -> None:
    result = score([sample(1), sample(2)], said(i1="A", i2="who knows"))
    assert result.overall.value == 0.5
    assert result.unmatched == (2,)
    assert result.rows[1].extracted == ""


def test_a_refusal_is_matched_and_wrong() -> None:
    result = score([sample(1)], said(i1="Cannot determine the answer"))
    assert (result.overall.value, result.unmatched, result.rows[0].extracted) == (0.0, (), "Z")


def test_missing_rows_are_left_out_by_vlmevalkit_and_wrong_under_exact() -> None:
    samples = [sample(1), sample(2), sample(3)]
    left_out, kept = score(samples, said(i1="A", i2="B")), score(samples, said(i1="A", i2="B"), "exact")
    assert (left_out.overall.value, left_out.overall.count) == (0.5, 2)
    assert kept.overall.value == pytest.approx(1 / 3)
    assert kept.overall.count == 3
    assert left_out.missing == kept.missing == (3,)
    assert "1 of 3 rows have no record: left out, as VLMEvalKit does" in left_out.notes
    assert "1 of 3 rows have no record: counted as wrong" in kept.notes


def test_categories_are_sorted_and_l2_names_shortened_after_sorting() -> None:
    samples = [
        sample(1, category="zebra", l2_category="relation_reasoning"),
        sample(2, category="ape", l2_category="coarse_perception"),
        sample(3, category="ape", l2_category="other"),
    ]
    short = {"relation_reasoning": "RR", "coarse_perception": "CP"}
    result = score(samples, said(i1="A", i2="A", i3="B"), l2_short_names=short)
    assert [(m.level, m.group, m.value) for m in result.metrics] == [
        ("overall", "Overall", pytest.approx(2 / 3)),
        ("l2-category", "CP", 1.0),
        ("l2-category", "other", 0.0),
        ("l2-category", "RR", 1.0),
        ("category", "ape", 0.5),
        ("category", "zebra", 1.0),
    ]


def test_each_split_has_its_own_metrics() -> None:
    samples = [sample(1, split="dev"), sample(2, split="test"), sample(3, split="test")]
    result = score(samples, said(i1="A", i2="A", i3="B"))
    assert [(m.split, m.value, m.count) for m in result.metrics] == [("dev", 1.0, 1), ("test", 0.5, 2)]


def test_without_a_split_there_is_the_single_row_none() -> None:
    assert {m.split for m in score([sample(1)], said(i1="A")).metrics} == {"none"}


def test_a_circular_group_is_right_iff_every_present_row_is() -> None:
    samples = [sample(1), sample(1_000_001, "B"), sample(2), sample(1_000_002, "B")]
    result = score(samples, said(i1="A", i1000001="B", i2="A", i1000002="A"), circular=True)
    assert (result.overall.value, result.overall.count, result.samples) == (0.5, 2, 4)
    assert [(row.index, row.g_index, row.hit, row.extracted) for row in result.rows] == [
        (1, 1, 1.0, "A B"),
        (2, 2, 0.0, "A A"),
    ]
    assert "1000002: A by letter (answer B)" in result.rows[1].log


def test_circular_scores_also_say_what_each_row_by_itself_is_worth() -> None:
    samples = [sample(1), sample(1_000_001, "B"), sample(2), sample(1_000_002, "B")]
    result = score(samples, said(i1="A", i1000001="B", i2="A", i1000002="A"), circular=True)
    vanilla = result.metrics[-1]
    assert (vanilla.group, vanilla.value, vanilla.count) == ("Vanilla", 0.75, 4)
    assert vanilla.interval is not None


def test_a_missing_copy_is_ignored_by_vlmevalkit_and_fails_its_group_under_exact() -> None:
    samples, predictions = [sample(1), sample(1_000_001, "B")], said(i1="A")
    assert score(samples, predictions, circular=True).overall.value == 1.0
    assert score(samples, predictions, "exact", circular=True).overall.value == 0.0


def test_a_group_without_its_base_row_does_not_count_and_is_noted() -> None:
    samples = [sample(1), sample(1_000_002), sample(2_000_002)]
    result = score(samples, said(i1="A", i1000002="A", i2000002="A"), circular=True)
    assert result.overall.count == 1
    assert "2 rows do not count: the base row of their group is not there" in result.notes


def test_a_failed_copy_fails_its_group() -> None:
    samples = [sample(1), sample(1_000_001)]
    assert score(samples, {1: record(1, "A"), 1_000_001: failed(1_000_001)}, circular=True).overall.value == 0.0


def test_groups_follow_g_index_before_the_index_and_copies_may_come_first() -> None:
    rows = [sample(7, fields={"g_index": "3"}), sample(3, fields={"g_index": "3.0"}), sample(4, fields={"g_index": ""})]
    assert {g: [s.index for s in members] for g, members in circular_groups(rows).items()} == {3: [3, 7], 4: [4]}


def test_text_indices_group_by_g_index_or_stand_alone() -> None:
    assert group_of(sample("q_1_r2", fields={"g_index": "q_1"})) == "q_1"
    assert group_of(sample("q_1")) == "q_1"


def test_a_group_takes_category_and_split_from_its_base_row() -> None:
    samples = [sample(1_000_001, "B", category="copy", split="s2"), sample(1, category="base", split="s1")]
    result = score(samples, said(i1="A", i1000001="B"), circular=True)
    assert [(m.split, m.group) for m in result.metrics if m.group != "Vanilla"] == [("s1", "Overall"), ("s1", "base")]


def test_answers_outside_the_options_and_unknown_records_are_noted() -> None:
    result = score([sample(1, ""), sample(2, "E")], said(i1="A", i2="A", i9="A"))
    assert "2 rows have an answer that is none of their options: they cannot be right" in result.notes
    assert "1 records name no row of Toy scored here: ignored" in result.notes


def test_nothing_to_score_is_zero_of_zero() -> None:
    result = score([], {})
    assert (result.overall.value, result.overall.count, result.overall.interval) == (0.0, 0, None)


def test_two_protocols_list_the_rows_they_read_differently() -> None:
    samples = [sample(1), sample(2, "B"), sample(3)]
    predictions = said(i1="A", i2="（B）", i3="zzz")
    first, second = score(samples, predictions), score(samples, predictions, "exact")
    pairs = first.differing_rows(second)
    assert [(a.index, a.extracted, b.extracted) for a, b in pairs] == [(2, "", "B")]
    assert first.differing_rows(first) == ()


def test_scores_carry_the_protocol_and_its_version() -> None:
    result = score([sample(1)], said(i1="A"), "exact")
    assert (result.protocol, result.protocol_version) == ("exact", 2)


def test_importing_scoring_and_report_loads_no_heavy_package() -> None:
    code = (
        "import sys, vlmeval.scoring, vlmeval.report\n"
        "print([m for m in ('numpy', 'openpyxl', 'rich', 'torch', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
