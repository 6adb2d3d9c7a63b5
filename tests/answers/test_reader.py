"""Answers matched to a benchmark's rows: what fits is taken, what does not is counted or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmeval.answers.agreement import check_agreement
from vlmeval.answers.reader import read_answers
from vlmeval.errors import DatasetError
from vlmeval.inference.journal import Journal
from vlmeval.types import Prediction, Sample


def table(path: Path, *rows: str, header: str = "index,prediction") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_rows_are_matched_by_index_in_the_benchmarks_order(tmp_path: Path) -> None:
    answers = read_answers(table(tmp_path / "a.csv", "2,None", "1.0,007"), [1, 2, 3])
    assert [(i, p.prediction) for i, p in answers.predictions.items()] == [(1, "007"), (2, "None")]
    assert answers.notes == ()


def test_007_is_not_7_where_indices_are_texts_nor_where_they_are_numbers(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "007,A", "7,B")
    assert read_answers(path, ["007", "x"]).predictions["007"].prediction == "A"
    assert list(read_answers(path, [7]).predictions) == [7]


def test_unknown_nameless_repeated_and_empty_rows_are_counted(tmp_path: Path) -> None:
    answers = read_answers(table(tmp_path / "a.csv", "1,A", "1,A", "9,B", ",C", "2,"), [1, 2])
    said = "\n".join(answers.notes)
    assert "1 answers have an index that is none of the benchmark's (9)" in said
    assert "1 rows have no index" in said
    assert "1 rows are answered more than once: the answers agree" in said
    assert "1 answers are empty" in said


def test_a_row_answered_twice_and_differently_is_refused_unless_it_is_said_which_counts(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "1,A", "1,B")
    with pytest.raises(DatasetError, match=r"1 rows are answered twice and differently \(index 1\)"):
        read_answers(path, [1])
    assert read_answers(path, [1], repeated="first").predictions[1].prediction == "A"
    assert read_answers(path, [1], repeated="last").predictions[1].prediction == "B"


def test_answers_to_no_row_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="another benchmark"):
        read_answers(table(tmp_path / "a.csv", "8,A", "9,B"), [1, 2])


def test_upstreams_failure_texts_are_failed_samples_and_not_answers(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "1,Failed to obtain answer via API.", "2,Failed to obtain answer. image is broken")
    found = read_answers(path, [1, 2]).predictions
    assert [(p.status, p.error) for p in found.values()] == [
        ("failed", "no reason given"),
        ("failed", "image is broken"),
    ]


def test_a_journal_is_read_as_the_run_reads_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "m_d.jsonl") as journal:
        journal.append(Prediction(index=1, status="failed", fingerprint="f", error="x"))
        journal.append(Prediction(index=1, status="ok", fingerprint="f", prediction="None"))
        journal.append(Prediction(index=5, status="ok", fingerprint="f", prediction="B"))
    answers = read_answers(tmp_path / "m_d.jsonl", [1, 2])
    assert answers.is_journal
    assert answers.predictions[1].prediction == "None"
    assert "1 answers have an index" in answers.notes[0]


def test_a_journal_whose_first_line_is_torn_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"index": 1, "sta\n{"index": 2, "status": "ok", "fingerprint": "f", "prediction": "B"}\n')
    answers = read_answers(path, [1, 2])
    assert (answers.is_journal, answers.predictions[2].prediction, len(answers.predictions)) == (True, "B", 1)


def test_json_lines_of_others_are_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"index": 1, "prediction": "B"}\n')
    answers = read_answers(tmp_path / "a.jsonl", [1])
    assert (answers.is_journal, answers.predictions[1].prediction) == (False, "B")


@pytest.mark.parametrize("make", ["missing", "folder", "empty"])
def test_no_file_a_folder_and_an_empty_file_are_told(tmp_path: Path, make: str) -> None:
    path = tmp_path / "a.csv"
    if make == "folder":
        path.mkdir()
    elif make == "empty":
        path.touch()
    with pytest.raises(DatasetError, match=r"No such file|is a folder|is empty"):
        read_answers(path, [1])


def samples(*questions: str) -> list[Sample]:
    return [Sample(index=number, question=question) for number, question in enumerate(questions, 1)]


def test_rows_that_ask_another_question_are_counted_and_if_all_do_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "1,A,What  is it?", "2,B,Old?", header="index,prediction,question")
    answers = read_answers(path, [1, 2])
    assert check_agreement(answers, "Toy", "m", samples("What is\nit?", "Old?")) == ()
    assert "1 of 2 rows ask another question" in check_agreement(answers, "Toy", "m", samples("What is it?", "New?"))[0]
    with pytest.raises(DatasetError, match="another benchmark"):
        check_agreement(answers, "Toy", "m", samples("X?", "Y?"))


def test_a_benchmark_edited_after_the_run_is_told(tmp_path: Path) -> None:
    with Journal(tmp_path / "m_Toy.jsonl") as journal:
        journal.append(Prediction(index=1, status="ok", fingerprint="f", prediction="A"))
    (tmp_path / "run.json").write_text(json.dumps({"datasets": {"Toy": "old"}}))
    answers = read_answers(tmp_path / "m_Toy.jsonl", [1])
    assert "has changed since the run (its MD5 was old, is new)" in check_agreement(answers, "Toy", "new", [])[0]
    assert check_agreement(answers, "Toy", "old", []) == ()
