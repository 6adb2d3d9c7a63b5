"""The prompt of each kind, to the letter, and what can be scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prompt_parts import name_of, text_of
from vlmeval.dataset import Dataset, open_dataset
from vlmeval.errors import ConfigError, DatasetError, UnknownNameError
from vlmeval.types import Prediction

from .tsv_files import cell, row, write_tsv


def prompt_text(tmp_path: Path, cells: dict[str, str], **overrides: str | list[str]) -> str:
    dataset = open_dataset(write_tsv(tmp_path / "mine.tsv", [cells]), **overrides)  # type: ignore[arg-type]
    text = text_of(dataset.build_prompt(dataset[0])[-1])
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    "cells, text",
    [
        (
            row(1),
            "Question: What is it?\nOptions:\nA. bird\nB. boat\n"
            "Please select the correct answer from the options above. \n",
        ),
        (
            row(1, hint="Look left.\nThen right.", A="None", B="", C="3", D="NA", F="no column E"),
            "Hint: Look left.\nThen right.\nQuestion: What is it?\nOptions:\nA. None\nC. 3\nD. NA\n"
            "Please select the correct answer from the options above. \n",
        ),
        (row(1, A="", B=""), "Question: What is it?\n"),
    ],
)
def test_a_multiple_choice_prompt_is_upstreams(tmp_path: Path, cells: dict[str, str], text: str) -> None:
    assert prompt_text(tmp_path, cells) == text


def test_images_come_first_and_unread(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(1, image=str([cell(1), cell(2)]))])
    dataset = open_dataset(path)
    messages = dataset.build_prompt(dataset[0])
    assert [message["type"] for message in messages] == ["image", "image", "text"]
    assert [name_of(message) for message in messages[:2]] == ["row 1, image 1", "row 1, image 2"]
    assert all("role" not in message for message in messages)


def test_open_and_yes_no_questions_stand_as_they_are(tmp_path: Path) -> None:
    cells = {"index": "1", "image": cell(), "question": "Is it red? "}
    assert prompt_text(tmp_path, {**cells, "answer": "yes"}) == "Is it red? "
    assert prompt_text(tmp_path, {**cells, "answer": "cat"}) == "Is it red? "
    short = prompt_text(tmp_path, {**cells, "answer": "cat"}, traits=["short_answer"])
    assert short == "Is it red? \nAnswer the question using a single word or phrase."


def answered(dataset: Dataset) -> dict[int | str, Prediction]:
    return {
        sample.index: Prediction(index=sample.index, status="ok", fingerprint="", prediction=sample.answer)
        for sample in dataset
    }


@pytest.mark.parametrize("name, count", [("MMStar", 4), ("MMBench_DEV_EN", 2)])
def test_rotated_copies_count_as_one_where_the_benchmark_is_circular(tmp_path: Path, name: str, count: int) -> None:
    rows = [row(1), row(2), row(1000001, image="1", answer="B"), row(1000002, image="2", answer="B")]
    dataset = open_dataset(write_tsv(tmp_path / f"{name}.tsv", rows))
    score = dataset.score(answered(dataset), "exact")
    assert (score.dataset, score.overall.value, score.overall.count) == (name, 1.0, count)


def test_mmbenchs_l2_categories_have_their_short_names(tmp_path: Path) -> None:
    cells = {"category": "ocr", "l2-category": "finegrained_perception (instance-level)"}
    dataset = open_dataset(write_tsv(tmp_path / "MMBench_DEV_EN.tsv", [row(1, **cells)]))
    groups = {metric.group for metric in dataset.score(answered(dataset), "vlmevalkit").metrics}
    assert {"Overall", "FP-S", "ocr"} <= groups


@pytest.mark.parametrize(
    "cells, why",
    [
        ({"answer": ""}, r"column 'answer' is empty in 1 of 2 rows \(index 1\)"),
        (None, "has no column 'answer'"),
    ],
)
def test_without_all_answers_nothing_is_scored(tmp_path: Path, cells: dict[str, str] | None, why: str) -> None:
    rows = [row(1, **(cells or {})), row(2)]
    if cells is None:
        rows = [{name: text for name, text in each.items() if name != "answer"} for each in rows]
    dataset = open_dataset(write_tsv(tmp_path / "mine.tsv", rows))
    assert not dataset.scorable
    with pytest.raises(DatasetError, match="mine cannot be scored: .*" + why):
        dataset.score({}, "exact")


def test_words_without_a_declared_rule_are_not_scored_and_the_rules_are_named(tmp_path: Path) -> None:
    cells = {"index": "1", "image": cell(), "question": "What is it?", "answer": "a cat"}
    path = write_tsv(tmp_path / "mine.tsv", [cells])
    why = open_dataset(path).why_not_scorable
    assert why.startswith("no scoring rule is declared for it; name one as scoring in its config entry: vqa_accuracy")
    assert "pope" not in why
    assert open_dataset(path, scoring="word_match").scorable


def test_a_rule_of_another_kind_is_refused_with_those_that_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine is MCQ and the rule anls is for VQA; rules for MCQ: choices"):
        open_dataset(write_tsv(tmp_path / "mine.tsv", [row(1)]), class_name="ImageMCQDataset", scoring="anls")
    with pytest.raises(UnknownNameError, match="unknown scoring rule 'anl'; nearest: anls"):
        open_dataset(tmp_path / "mine.tsv", class_name="ImageVQADataset", scoring="anl")
