"""The dataset doctor: each fault planted in a sound file is found, named by its row, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vlmeval.cli.main import main
from vlmeval.dataset.doctor import CheckedRow, Examined, with_answers_from
from vlmeval.dataset.doctor_answers import answer_findings
from vlmeval.dataset.doctor_losses import READ_AS_MISSING

from .tsv_files import cell, png, row, write_tsv

Rows = list[dict[str, str]]


def sound() -> Rows:
    """Six rows nothing is wrong with."""
    texts = {"A": "a red bird", "B": "a green boat"}
    return [
        row(n, image=cell(n), question=f"What is in picture {n}?", answer="AB"[n % 2], **texts) for n in range(1, 7)
    ]


def checked(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    code = main(["data", "check", f"{path}" if path.is_absolute() else f"./{path}", "--json"])
    content = json.loads(capsys.readouterr().out)
    return code, content[0]["findings"]


def problems(findings: list[dict[str, Any]]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(f["severity"], f["what"], tuple(f["rows"])) for f in findings if f["severity"] != "note"]


def test_a_sound_file_has_neither_errors_nor_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = checked(write_tsv(tmp_path / "t.tsv", sound()), capsys)
    assert (code, problems(findings)) == (0, [])
    assert any("exact reads every right option" in finding["what"] for finding in findings)


FAULTS: list[tuple[str, Mapping[str, str], str, str]] = [
    ("error", {"index": "1"}, "indices are used more than once", "1 (lines 2, 4)"),
    ("error", {"question": " "}, "rows have no question", "3"),
    ("error", {"image": ""}, "rows have no image", "3"),
    ("error", {"image": "77"}, "refer to the image of a row", "3 (to 77)"),
    ("error", {"image": "!" * 80}, "an image that cannot be had", "3 (the image is no base64"),
    ("error", {"image": cell(3)[:80]}, "an image that cannot be had", "3 (the image is cut off"),
    ("error", {"answer": ""}, "rows have no answer", "3"),
    ("error", {"answer": "E"}, "an answer that is none of their options", "3 ('E' of A, B)"),
    ("error", {"answer": "b"}, "an answer that is no bare letter", "3 ('b')"),
    ("error", {"answer": "a green boat"}, "an answer that is no bare letter", "3 ('a green boat')"),
    ("error", {"hint": "The answer is B."}, "state the right letter", "3"),
    ("error", {"B": "a green boat (correct)"}, "mark the right option", "3"),
    ("error", {"image": cell(1), "question": "What is in picture 1?", "answer": "A"}, "answered differently", "1: B"),
    ("warning", {"index": "03"}, "no plain numbers", "03"),
    ("warning", {"B": "", "answer": "A"}, "a single option", "3"),
    ("warning", {"A": "a green boat"}, "offer the same text twice", "3"),
    ("warning", {"A": "", "C": "cat"}, "leave out an option", "3 (B, C)"),
    ("warning", {"B": "None"}, "VLMEvalKit reads as missing", "3 (B: None)"),
    ("warning", {"B": "None"}, "lose the right option", "3"),
    ("warning", {"B": "a red bird and a boat"}, "the text alone of the right option is not read", "3"),
    ("warning", {"question": "What\u202e is in picture 3?"}, "writing direction", "3"),
    ("warning", {"question": "Caf\ufffd?"}, "U+FFFD", "3"),
]  # fmt: skip


@pytest.mark.parametrize(("severity", "fault", "what", "named"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_is_found_and_its_row_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    severity: str,
    fault: Mapping[str, str],
    what: str,
    named: str,
) -> None:
    rows = sound()
    rows[2].update(fault)
    code, findings = checked(write_tsv(tmp_path / "t.tsv", rows), capsys)
    hits = [f for f in findings if what in f["what"] and "under exact" not in f["what"]]
    assert [(f["severity"], f["count"]) for f in hits] == [(severity, 1)]
    assert hits[0]["rows"][0].startswith(named)
    assert code == (1 if any(f["severity"] == "error" for f in findings) else 0)


def test_circular_groups_are_checked_for_copies_base_rows_letters_and_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def copy(index: int, answer: str = "B", **cells: str) -> dict[str, str]:
        turned = {"A": "a green boat", "B": "a red bird"} if answer == "B" else {"A": "a red bird", "B": "a green boat"}
        return row(index, image=str(index % 10**6), answer=answer, question=f"q{index % 10**6}", **{**turned, **cells})

    rows = [row(n, image=cell(n), question=f"q{n}", A="a red bird", B="a green boat") for n in (1, 2, 3, 4)]
    rows += [copy(1_000_001), copy(1_000_002, B="a fish"), copy(1_000_003, "A"), copy(1_000_009)]
    code, findings = checked(write_tsv(tmp_path / "MMBench_mine.tsv", rows), capsys)
    said = {what: names for _, what, names in problems(findings)}
    assert code == 1
    assert said["rows belong to a circular group whose base row is missing: they do not count"] == ("1000009",)
    assert said["circular groups have fewer copies than options: they are easier than they should be"] == (
        "4 (1 of 2)",
    )
    assert said["circular groups do not have the same right text in every copy"] == ("2",)
    assert said["circular groups have the same right letter in two copies"] == ("3",)


def test_numbers_with_holes_are_shown_as_upstream_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**cells, "C": text} for cells, text in zip(sound(), ["3", "007", "", "4", "5.0", "6"], strict=True)]
    found = next(f for f in checked(write_tsv(tmp_path / "t.tsv", rows), capsys)[1] if "are numbers" in f["what"])
    assert found["rows"] == ["1 (3 -> 3.0)", "2 (007 -> 7.0)", "4 (4 -> 4.0)", "6 (6 -> 6.0)"]


def test_a_file_that_no_run_could_open_is_examined_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tsv(tmp_path / "t.tsv", sound())
    path.write_bytes(path.read_bytes() + b"7\tshort\n")
    code, findings = checked(path, capsys)
    assert code == 1
    assert ("error", "rows have more or fewer cells than columns", ("line 8",)) in problems(findings)
    assert any(what.startswith("a run cannot open it") for _, what, _ in problems(findings))


def test_images_in_files_are_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images" / "t").mkdir(parents=True)
    (tmp_path / "images" / "t" / "here.png").write_bytes(png(1))
    rows = [{**row(n), "image_path": name} for n, name in enumerate(("here.png", "gone.png", "../out.png"))]
    for cells in rows:
        del cells["image"]
    found = next(f for f in checked(write_tsv(tmp_path / "t.tsv", rows), capsys)[1] if "cannot be had" in f["what"])
    assert [name.split(" ")[0] for name in found["rows"]] == ["1", "2"]
    assert "No such file" in found["rows"][0]
    assert "leads out of" in found["rows"][1]


def test_a_test_split_without_answers_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**cells, "answer": ""} for cells in sound()]
    code, findings = checked(write_tsv(tmp_path / "t.tsv", rows), capsys)
    assert (code, problems(findings)) == (0, [])
    assert any("a submission is written instead" in finding["what"] for finding in findings)


KINDS = {
    "POPE": [{"answer": "Yes", "category": "popular"}, {"answer": "No", "category": "popular"}],
    "DocVQA_VAL": [{"answer": "['a b', 'c']"}, {"answer": "7"}],
    "OCRBench": [{"answer": "['SALE']", "category": "Regular Text Recognition"}],
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_without_options_are_given_their_own_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"index": str(n), "image": cell(n), "question": f"q{n}?", **cells} for n, cells in enumerate(KINDS[name])]
    write_tsv(tmp_path / f"{name}.tsv", rows)
    code, findings = checked(Path(f"./{name}.tsv"), capsys)
    assert (code, problems(findings)) == (0, [])
    assert sum("gives every row's own answer everything" in finding["what"] for finding in findings) == 2


def test_an_answer_no_rule_can_give_its_due_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"index": str(n), "image": cell(n), "question": f"q{n}?", "answer": a} for n, a in enumerate(("Yes", "Maybe"))
    ]
    code, findings = checked(write_tsv(tmp_path / "POPE.tsv", rows), capsys)
    assert code == 1
    assert ("error", "rows have an answer that is neither yes nor no", ("1",)) in problems(findings)
    assert any(what.endswith("not worth everything under exact") and names[0] == "1 ('Maybe')"
               for _, what, names in problems(findings))  # fmt: skip


def test_answers_in_a_column_of_another_name_are_checked_all_the_same() -> None:
    row = CheckedRow(line=2, name="1", cells={"index": "1", "key": "E", "A": "a", "B": "b", "question": "q"})
    examined = Examined(columns=("index", "key", "A", "B", "question"), rows=(row,), findings=())
    found = list(answer_findings(with_answers_from(examined, "key"), "MCQ", circular=False))
    assert ("error", ("1 ('E' of A, B)",)) in [(f.severity, f.rows) for f in found]


def test_plain_lines_name_five_rows_and_all_with_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tsv(tmp_path / "t.tsv", [{**cells, "answer": "E"} for cells in sound()])
    assert main(["data", "check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "error    6 rows have an answer that is none of their options" in out
    assert "... 1 more: --all" in out
    main(["data", "check", str(path), "--all"])
    assert "6 ('E' of A, B)" in capsys.readouterr().out


def test_the_demo_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "ShapesBench"]) == 0
    assert "0 kinds of error, 0 of warning" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["chekc", "t.tsv"], 2, "nearest: check"),
        (["check"], 2, "no benchmark named"),
        (["check", "Shapes"], 2, "nearest: ShapesBench"),
        (["check", "./nowhere.tsv"], 1, "nowhere.tsv"),
    ],
)
def test_what_cannot_be_checked_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["data", *arguments]) == code
    assert said in capsys.readouterr().err


def test_the_words_read_as_missing_are_pandas_own() -> None:
    assert {"None", "NA", "N/A", "n/a", "nan", "null", "NULL", "NaN", "<NA>", "#N/A"} <= READ_AS_MISSING
    assert len(READ_AS_MISSING) == 18


def test_options_in_one_cell_and_a_file_without_questions_are_no_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = str(["(A) None", "(B) 007", "(C) x", "(D) y", "(E) z"])
    cells = {"index": "1", "image": cell(), "question": "?", "multi-choice options": listed, "answer": "F"}
    lite = write_tsv(
        tmp_path / "MME-RealWorld-Lite.tsv", [cells, {**cells, "index": "2", "answer": "B", "image": cell(2)}]
    )
    _, findings = checked(lite, capsys)
    assert [f["what"] for f in findings if f["severity"] == "error"] == [
        "rows have an answer that is none of their options: they cannot be right"
    ]
    assert not any("VLMEvalKit reads as missing" in f["what"] for f in findings)
    blind = {column: text for column, text in row(1).items() if column != "question"}
    assert checked(write_tsv(tmp_path / "MMMU_Pro_V.tsv", [blind]), capsys)[0] == 0
