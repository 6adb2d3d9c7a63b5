"""Files for the servers that score test splits: every row in the form each of them takes, and never a score."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from openpyxl import load_workbook

from tests.cli.conftest import Workplace, png
from tests.cli.scored_answers import vlmeval
from vlmeval.dataset import open_dataset


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))


def test_split(folder: Path, name: str, answer: str = "") -> Path:
    path = folder / f"{name}.tsv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "id", "question", "A", "B", "answer", "category", "image"])
        for index in (3, 1, 2, 4, 5):
            options = ("", "") if index == 5 else ("bird", "boat")
            writer.writerow([index, f"test_{index}", f"q{index}", *options, answer, "c", png()])
    return path


test_split.__test__ = False  # type: ignore[attr-defined]

GIVEN = "index,prediction\n3,The answer is B.\n1,=A\n2,no idea\n5,forty two\n"


def submitted(tmp_path: Path, name: str, suffix: str, *more: str) -> Path:
    (tmp_path / "m.csv").write_text(GIVEN)
    assert vlmeval("score", "m.csv", "--data", test_split(tmp_path, name), "--out", "out", *more) == 0
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert [p.name for p in files] == [f"m_{name}_submission{suffix}"]
    return files[0]


def test_mmbench_takes_an_xlsx_with_all_columns_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = load_workbook(submitted(tmp_path, "MMBench_TEST_EN", ".xlsx")).worksheets[0]
    header, *rows = sheet.iter_rows(values_only=True)
    assert header == ("index", "id", "question", "A", "B", "answer", "category", "prediction")
    assert [(row[0], row[-1]) for row in rows] == [
        (3, "The answer is B."),
        (1, "=A"),
        (2, "no idea"),
        (4, None),
        (5, "forty two"),
    ]
    assert sheet.cell(3, 8).data_type == "s"
    said = capsys.readouterr()
    assert "is in the form its server takes (mmbench)" in said.out
    assert "1 of 5 rows of the submission have no answer" in said.err


def test_mmmu_takes_letters_and_open_answers_by_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(submitted(tmp_path, "MMMU_TEST", ".json", "--protocol", "exact").read_text())
    assert content == {"test_3": "B", "test_1": "A", "test_2": "", "test_4": "", "test_5": "forty two"}
    assert "1 answers of the submission choose no option: empty there" in capsys.readouterr().err


def test_answers_that_mmmu_publishes_as_question_marks_are_none(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(GIVEN)
    assert vlmeval("score", "m.csv", "--data", test_split(tmp_path, "MMMU_TEST", answer="?"), "--out", "out") == 0
    assert (tmp_path / "out" / "m_MMMU_TEST" / "m_MMMU_TEST_submission.json").is_file()


@pytest.mark.parametrize("name, like", [("MMMU_TEST", "MMMU_DEV_VAL"), ("DocVQA_TEST", "DocVQA_VAL")])
def test_a_test_split_is_asked_as_its_scorable_split_is(tmp_path: Path, name: str, like: str) -> None:
    test, scorable = (open_dataset(test_split(tmp_path, own)) for own in (name, like))
    assert test.build_prompt(test[0])[-1] == scorable.build_prompt(scorable[0])[-1]
    assert test.task.traits == scorable.task.traits
    assert f"{like} is the scorable split" in " ".join(test.notes)


@pytest.mark.parametrize("name", ["DocVQA_TEST", "InfoVQA_TEST"])
def test_docvqa_takes_numbers_of_questions_and_answers(tmp_path: Path, name: str) -> None:
    content = json.loads(submitted(tmp_path, name, ".json").read_text())
    assert content[0] == {"questionId": 3, "answer": "The answer is B."}
    assert content[3] == {"questionId": 4, "answer": ""}
    assert len(content) == 5


def test_mmt_takes_a_sorted_tsv_with_the_option_read(tmp_path: Path) -> None:
    with submitted(tmp_path, "MMT-Bench_ALL", ".tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0])[-3:] == ["prediction", "opt", "log"]
    assert "image" not in rows[0]
    assert [(row["index"], row["opt"]) for row in rows] == [("1", "Z"), ("2", "Z"), ("3", "B"), ("4", "Z"), ("5", "Z")]


def test_another_file_is_submitted_by_naming_the_kind_even_if_it_has_answers(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(GIVEN)
    data = test_split(tmp_path, "Mine", answer="A")
    assert vlmeval("score", "m.csv", "--data", data, "--out", "out", "--submission", "docvqa") == 0
    assert (tmp_path / "out" / "m_Mine" / "m_Mine_submission.json").is_file()
    assert vlmeval("score", "m.csv", "--data", data, "--submission", "docvqs") == 2


def test_indices_that_are_no_numbers_cannot_go_to_docvqa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = test_split(tmp_path, "DocVQA_TEST")
    data.write_text(data.read_text().replace("3\ttest", "x3\ttest"))
    (tmp_path / "m.csv").write_text(GIVEN)
    assert vlmeval("score", "m.csv", "--data", data) == 1
    assert "row x3 has 'x3' where the server wants the number" in capsys.readouterr().err


def test_a_run_on_a_test_split_ends_with_the_submission(workplace: Workplace) -> None:
    path = test_split(workplace.folder, "MMBench_TEST_EN")
    arguments = [*workplace.base, "--data", str(path)]
    arguments.remove("Mini.tsv")
    del arguments[arguments.index("--data")]
    done = workplace.run(*arguments)
    assert done.code == 0
    assert "not scored, column 'answer' is empty in 5 of 5 rows" in done.out
    assert (workplace.result_folder() / "patient_MMBench_TEST_EN_submission.xlsx").is_file()
