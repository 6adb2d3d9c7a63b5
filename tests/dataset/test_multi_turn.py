"""Conversations from a TSV: turns, images where they are named, faults, sizes, and what the doctor says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import conversations
from tests.conversations import HERE, images, rows
from tests.prompt_parts import text_of
from vlmeval.conversation import ANSWER, prompt_of_turn, turns_in
from vlmeval.dataset import resolve_config, resolve_dataset
from vlmeval.dataset.base import Dataset
from vlmeval.dataset.multi_turn import ImageMTDataset, MMDUDataset
from vlmeval.errors import ConfigError, ImageError
from vlmeval.images import image_key

from .test_doctor import checked, problems


@pytest.fixture
def mmdu(tmp_path: Path) -> Dataset:
    return resolve_dataset(conversations.write(tmp_path / "MMDU.tsv")).open()


def kinds(message: list[Any]) -> str:
    """`it|ti` for image, text, answer, text, image."""
    return "".join({"image": "i", "text": "t", "answer": "|"}[part["type"]] for part in message)


def test_a_file_called_mmdu_is_that_benchmark_and_its_turns_are_in_order(mmdu: Dataset) -> None:
    assert isinstance(mmdu, MMDUDataset) and mmdu.task.type == "MT" and mmdu.rule and mmdu.rule.judge
    prompts = [mmdu.build_prompt(sample) for sample in mmdu]
    assert " ".join(map(kinds, prompts)) == "it|t|t| titit|tit| it|it|t|t| iit|t| it|"
    assert [turns_in(message) for message in prompts] == list(conversations.TURNS.values())
    values = [part["value"] for part in prompts[1] if part["type"] == "image"]
    assert [image_key(value) for value in values] == [image.digest for image in mmdu[1].images]
    assert len(values) == images(2)
    assert prompts[0][1:4] == [{"type": "text", "value": "Which shape is this?"}, ANSWER,
                               {"type": "text", "value": "What colour is it?"}]  # fmt: skip


def test_lists_in_json_and_in_pythons_form_and_a_bare_question_are_read_alike(tmp_path: Path) -> None:
    cells = rows([1])[0]
    content = [cells, {**cells, "index": "2", "question": json.dumps(conversations.QUESTIONS[1])},
               {**cells, "index": "3", "question": f"{HERE}What?"}]  # fmt: skip
    first, second, bare = resolve_dataset(conversations.write(tmp_path / "MMDU.tsv", content)).open()
    dataset = MMDUDataset("MMDU", tmp_path / "MMDU.tsv")
    assert dataset.build_prompt(first)[1:] == dataset.build_prompt(second)[1:]
    assert kinds(dataset.build_prompt(bare)) == "it|"


def test_a_turn_without_a_word_is_asked_as_upstream_does(tmp_path: Path) -> None:
    cells = {**rows([1])[0], "question": json.dumps([f"{HERE}", "", "why?"])}
    dataset = resolve_dataset(conversations.write(tmp_path / "MMDU.tsv", [cells])).open()
    message = dataset.build_prompt(dataset[0])
    assert kinds(message) == "i|t|t|" and text_of(prompt_of_turn(message, ["x"])[-1]) == ""


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"question": json.dumps([HERE + HERE + HERE])}, "name 3 images (<ImageHere>) and it has 1"),
        ({"question": "[]"}, "its list of questions is empty"),
        ({"question": f"['{HERE}What?', ['And?']]"}, "opens and closes like a list and is no list of texts"),
        ({"question": f"['{HERE}What?, 'And?']"}, "opens and closes like a list and is no list of texts"),
        ({"image": ""}, "no image"),
    ],
)
def test_what_cannot_be_asked_fails_by_itself(tmp_path: Path, cells: dict[str, str], told: str) -> None:
    content = [{**rows([1])[0], **cells}, *rows([5])]
    dataset = resolve_dataset(conversations.write(tmp_path / "MMDU.tsv", content)).open()
    bad, good = dataset
    assert told in bad.image_error and "row 1 (line 2)" in bad.image_error
    with pytest.raises(ImageError, match="row 1"):
        dataset.build_prompt(bad)
    assert kinds(dataset.build_prompt(good)) == "it|"


def test_every_turn_has_a_size_of_its_own_with_the_images_shown_by_then(mmdu: Dataset) -> None:
    sizes = [size for size in mmdu.prompt_sizes() if size.index == 3]
    assert [(len(size.images), size.earlier_answers) for size in sizes] == [(1, 0), (2, 1), (2, 2), (2, 3)]
    assert sizes[1].text == "Which shape is this?\nAnd this?"


def test_ten_lines_of_config_name_a_benchmark_of_ones_own(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    example = json.loads(page.split("## Conversations")[1].split("```json\n")[1].split("```")[0])
    assert len(json.dumps(example, indent=1).splitlines()) <= 20
    ((name, settings),) = example["data"].items()
    path = conversations.write(tmp_path / settings["path"])
    dataset = resolve_config(name, {**settings, "path": str(path)}).open()
    assert isinstance(dataset, ImageMTDataset) and dataset.with_judge().scorable
    assert "needs a judge to grade the answers turn by turn" in dataset.why_not_scorable
    bare = resolve_config(name, {"class": "ImageMTDataset", "path": str(path)}).open()
    assert (
        "no scoring rule is declared for it; name one as scoring in its config entry: mmdu, mm_mt_bench"
        in bare.why_not_scorable
    )
    with pytest.raises(ConfigError, match="is MT and the rule anls is for VQA; rules for MT: mmdu, mm_mt_bench"):
        resolve_config(name, {**settings, "path": str(path), "scoring": "anls"})


def test_a_file_in_no_table_is_taken_for_conversations_by_its_questions(tmp_path: Path) -> None:
    dataset = resolve_dataset(conversations.write(tmp_path / "Talks.tsv")).open()
    assert isinstance(dataset, ImageMTDataset)
    assert dataset.notes[0] == "Talks: in no table, taken as MT because its questions are lists of turns"


def test_a_file_that_is_taken_for_words_though_some_questions_are_lists_says_so(tmp_path: Path) -> None:
    content = [*rows([1, 2]), {**rows([5])[0], "question": "['Only one, 'question"}]
    dataset = resolve_dataset(conversations.write(tmp_path / "Talks.tsv", content)).open()
    assert dataset.task.type == "VQA"
    assert dataset.notes[1] == (
        "Talks: 2 of its first 3 questions are lists of turns; if it holds conversations, "
        'give it "class": "ImageMTDataset" in a config entry'
    )


def test_the_doctor_finds_nothing_in_a_sound_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = checked(conversations.write(tmp_path / "MMDU.tsv"), capsys)
    assert (code, problems(findings)) == (0, [])
    assert any(f["what"] == "turns in all: 1 row of 1, 2 rows of 2, 1 row of 3, 1 row of 4" for f in findings)


FAULTS = [
    ("error", {"answer": "['one', 'two']"}, "another number of questions than of reference answers", "1 (3 and 2)"),
    ("error", {"answer": ""}, "rows have no reference answers", "1"),
    ("warning", {"answer": "['one', '', 'three']"}, "turns have an empty reference answer", "1 (turn 2)"),
    ("error", {"question": f"['{HERE}What?', ' ', 'Why?']"}, "turns have no question", "1 (turn 2)"),
    ("error", {"question": f"['{HERE}What?', '{HERE}', 'Why?']"}, "name more images", "1 (2 of 1)"),
    ("warning", {"question": "['What?', 'And?', 'Why?']"}, "images that no turn names", "1 (1 of 1)"),
    ("warning", {"question": f"{HERE}What?", "answer": "it"}, "no list of questions: taken as one turn", "1"),
    ("error", {"question": f"['{HERE}What?, 'And?']", "answer": "it"}, "questions like a broken list: they fail", "1"),
    ("warning", {"answer": f"['one', '{HERE}', 'three']"}, "in a reference answer", "1"),
]


@pytest.mark.parametrize(("severity", "cells", "what", "named"), FAULTS, ids=[fault[2] for fault in FAULTS])
def test_each_planted_fault_is_found_with_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], severity: str, cells: dict[str, str], what: str, named: str
) -> None:
    content = [{**rows([1])[0], **cells}, *rows([2, 5])]
    _, findings = checked(conversations.write(tmp_path / "MMDU.tsv", content), capsys)
    assert [(s, r) for s, w, r in problems(findings) if what in w] == [(severity, (named,))]
