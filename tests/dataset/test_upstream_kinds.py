"""Prompts of the benchmarks beyond plain multiple choice, to the letter, and what they are scored from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prompt_parts import name_of, text_of
from vlmeval.dataset import open_dataset
from vlmeval.errors import DatasetError
from vlmeval.types import Index, Message, Prediction
from vlmeval.vlm.internvl2 import task_text
from vlmeval.vlm.llava_onevision import LLaVA_OneVision_HF
from vlmeval.vlm.qwen2_vl import Qwen2VLChat

from .tsv_files import cell, row, write_tsv

SHORT = "\nAnswer the question using a single word or phrase."


def opened(folder: Path, name: str, **cells: str):  # type: ignore[no-untyped-def]
    base = {"index": "1", "image": cell(), "question": "What is it?", "answer": "Yes"}
    return open_dataset(write_tsv(folder / f"{name}.tsv", [{**base, **cells}]))


def shown(message: list[Message]) -> list[object]:
    """Texts as they are, images by name."""
    return [text_of(part) if part["type"] == "text" else name_of(part) for part in message]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *(
            (name, "")
            for name in ("MME", "POPE", "HallusionBench", "OCRBench", "MathVista_MINI", "MMVet", "LLaVABench")
        ),
        *(
            (name, SHORT)
            for name in ("TextVQA_VAL", "DocVQA_VAL", "InfoVQA_VAL", "ChartQA_TEST", "GQA_TestDev_Balanced")
        ),
        ("AMBER", "\nPlease answer yes or no."),
        ("MathVision", ""),
    ],
)
def test_the_benchmarks_own_prompt(tmp_path: Path, name: str, suffix: str) -> None:
    dataset = opened(tmp_path, name)
    assert shown(dataset.build_prompt(dataset[0])) == ["row 1", "What is it?" + suffix]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("POPE", " Please answer yes or no."),
        ("HallusionBench", " Please answer yes or no."),
        ("MME", None),
        ("AMBER", None),
        ("MMVet", None),
        ("OCRBench", "\nPlease try to answer the question with short words or phrases if possible."),
        ("DocVQA_VAL", "\nPlease try to answer the question with short words or phrases if possible."),
    ],
)
def test_qwens_wording_by_traits(tmp_path: Path, name: str, suffix: str | None) -> None:
    dataset, model = opened(tmp_path, name), Qwen2VLChat("x/y")
    assert model.use_custom_prompt(dataset.task) == (suffix is not None)
    if suffix is not None:
        assert shown(model.build_prompt(dataset[0], dataset.task)) == ["row 1", "What is it?" + suffix]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("MME", " Answer the question using a single word or phrase."),
        ("HallusionBench", " Please answer yes or no. Answer the question using a single word or phrase."),
        ("POPE", ""),
        ("MathVista_MINI", ""),
        ("MMVet", ""),
        ("LLaVABench", "\nAnswer this question in detail."),
        ("OCRBench", SHORT),
        ("ChartQA_TEST", SHORT),
    ],
)
def test_internvls_wording_by_traits(tmp_path: Path, name: str, suffix: str) -> None:
    dataset = opened(tmp_path, name)
    assert task_text(dataset[0], dataset.task) == "What is it?" + suffix


TWO_IMAGES = str([cell(1), cell(2), cell(3)])
CLOSING = "\nOptions:\nA. bird\nB. boat\nPlease select the correct answer from the options above. \n"


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("Which?", ["row 1, image 1", "row 1, image 2", "row 1, image 3", "Question: Which?" + CLOSING]),
        ("Is <image 2> it?", ["Question: Is ", "row 1, image 2", " it?" + CLOSING]),
        (
            "<image 3><image 1>, <image 3>",
            ["Question: ", "row 1, image 3", "", "row 1, image 1", ", ", "row 1, image 3", CLOSING],
        ),
        ("<image 12>", ["row 1, image 1", "row 1, image 2", "row 1, image 3", "Question: <image 12>" + CLOSING]),
    ],
)
def test_mmmu_shows_images_where_the_text_names_them(tmp_path: Path, question: str, message: list[str]) -> None:
    dataset = open_dataset(write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", [row(1, question=question, image=TWO_IMAGES)]))
    assert shown(dataset.build_prompt(dataset[0])) == message
    with_markers = Qwen2VLChat("x/y").build_prompt(dataset[0], dataset.task)
    assert [part["type"] for part in with_markers] == ["image", "image", "image", "text"]
    assert question in text_of(with_markers[-1])


def test_markers_in_options_count_too(tmp_path: Path) -> None:
    dataset = open_dataset(
        write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", [row(1, A="<image 1>", B="<image 2>", image=TWO_IMAGES)])
    )
    assert shown(dataset.build_prompt(dataset[0]))[1::2] == ["row 1, image 1", "row 1, image 2"]


@pytest.mark.parametrize("marker", ["<image 4>", "<image 0>"])
def test_a_marker_without_its_image_fails_that_sample(tmp_path: Path, marker: str) -> None:
    path = write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", [row(1, question=marker, image=TWO_IMAGES), row(2)])
    dataset = open_dataset(path)
    assert dataset[0].image_error == f"row 1 (line 2): its text names {marker} and it has 3 images"
    assert dataset[1].image_error == ""


def test_mmmu_pro_is_worded_by_the_benchmark_whatever_the_family(tmp_path: Path) -> None:
    dataset = open_dataset(write_tsv(tmp_path / "MMMU_Pro_10c.tsv", [row(1, hint="no", question="Is <image 1> it?")]))
    assert shown(dataset.build_prompt(dataset[0])) == [
        "Question: Is ",
        "row 1",
        " it?\nOptions:\nA. bird\nB. boat\nAnswer directly with the option letter from the given choices. ",
    ]
    for model in (Qwen2VLChat("x/y"), LLaVA_OneVision_HF("x/y")):
        assert not model.use_custom_prompt(dataset.task)


@pytest.mark.parametrize("name", ["MMVet", "LLaVABench", "MathVista_MINI", "MathVerse_MINI", "MathVision_MINI"])
def test_that_a_judge_is_needed_is_said_when_the_benchmark_is_opened(tmp_path: Path, name: str) -> None:
    dataset = opened(tmp_path, name)
    assert not dataset.scorable
    assert dataset.notes[0].startswith(f"{name}: not scored, the rule ")
    assert "needs a judge to" in dataset.notes[0]


@pytest.mark.parametrize("name", ["POPE", "DocVQA_VAL", "OCRBench", "MMMU_DEV_VAL", "MME"])
def test_an_empty_answer_column_is_not_scored_and_said(tmp_path: Path, name: str) -> None:
    dataset = opened(tmp_path, name, answer="", A="x", B="y")
    assert dataset.why_not_scorable == "column 'answer' is empty in 1 of 1 rows (index 1)"


def test_vizwiz_has_its_answers_in_a_column_of_another_name(tmp_path: Path) -> None:
    dataset = opened(tmp_path, "VizWiz", answers=str(["red"] * 10))
    right = {1: Prediction(index=1, status="ok", fingerprint="", prediction="Red")}
    assert dataset.score(right, "vlmevalkit").overall.value == 100.0


def test_rows_that_share_an_image_are_known(tmp_path: Path) -> None:
    rows = [row(1), row(2, image="1"), row(3, image=cell(3)), row(4, image="3"), row(5, image=cell())]
    found = open_dataset(write_tsv(tmp_path / "mine.tsv", rows)).image_clusters()
    assert found[1] == found[2] == found[5]
    assert found[3] == found[4] != found[1]
    named = [{"index": str(n), "image_path": f"{n // 2}.jpg", "question": "?", "answer": "yes"} for n in range(4)]
    found = open_dataset(write_tsv(tmp_path / "paths.tsv", named)).image_clusters()
    assert [found[n] for n in range(4)] == ["0.jpg", "0.jpg", "1.jpg", "1.jpg"]


STEPWISE = (
    "The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER "
    "is one of the options. Think step by step before answering. "
)


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("MMMU_Pro_V", "Answer directly with the option letter from the given choices. "),
        ("MMMU_Pro_V_COT", STEPWISE),
    ],
)
def test_mmmu_pro_vision_needs_no_question_column(tmp_path: Path, name: str, request_: str) -> None:
    cells = {column: text for column, text in row(1, answer="B").items() if column != "question"}
    dataset = open_dataset(write_tsv(tmp_path / f"{name}.tsv", [cells]))
    assert shown(dataset.build_prompt(dataset[0])) == [
        "row 1",
        "Answer the following multiple-choice question in the image. " + request_,
    ]
    right: dict[Index, Prediction] = {1: Prediction(index=1, status="ok", fingerprint="", prediction="Answer: B")}
    assert dataset.score(right, "vlmevalkit").overall.value == 1.0
    for model in (Qwen2VLChat("x/y"), LLaVA_OneVision_HF("x/y")):
        assert not model.use_custom_prompt(dataset.task)


def test_mmmu_pro_step_by_step_asks_for_a_last_line(tmp_path: Path) -> None:
    dataset = open_dataset(write_tsv(tmp_path / "MMMU_Pro_10c_COT.tsv", [row(1, question="Which?")]))
    assert shown(dataset.build_prompt(dataset[0])) == [
        "row 1",
        "Question: Which?\nOptions:\nA. bird\nB. boat\nAnswer the following multiple-choice question. " + STEPWISE,
    ]


def test_mme_realworld_has_its_options_in_one_cell(tmp_path: Path) -> None:
    listed = ["(A) red", "(B) blue", "(C) None", "(D) 007", "(E) The image does not say"]
    cells = {"index": "7", "image": cell(), "question": "Which colour?", "multi-choice options": str(listed)}
    more = {"answer": "C", "category": "Perception/Remote Sensing", "l2-category": "color"}
    dataset = open_dataset(write_tsv(tmp_path / "MME-RealWorld-Lite.tsv", [{**cells, **more}]))
    assert dataset[0].options == {
        "A": "red", "B": "blue", "C": "None", "D": "007", "E": "The image does not say"
    }  # fmt: skip
    assert shown(dataset.build_prompt(dataset[0])) == [
        "row 7",
        "Which colour? The choices are listed below:\n"
        "(A) red\n(B) blue\n(C) None\n(D) 007\n(E) The image does not say\n"
        "Select the best answer to the above multiple-choice question based on the image. Respond with only the letter "
        "(A, B, C, D, or E) of the correct option. \nThe best answer is:",
    ]
    right: dict[Index, Prediction] = {7: Prediction(index=7, status="ok", fingerprint="", prediction="(C)")}
    assert [dataset.score(right, protocol).overall.value for protocol in ("vlmevalkit", "exact")] == [1.0, 1.0]


def test_mathverse_step_by_step_is_asked_by_another_column(tmp_path: Path) -> None:
    dataset = opened(tmp_path, "MathVerse_MINI_Vision_Only_cot", query_cot="Reason first. What is x?")
    assert shown(dataset.build_prompt(dataset[0])) == ["row 1", "Reason first. What is x?"]
    assert dataset[0].question == "What is it?"
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DatasetError, match="no column 'query_cot'"):
        opened(other, "MathVerse_MINI_Vision_Only_cot")
