"""`vlmeval compare`: run folders, score files and journals, and what may not be compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.scored_answers import answers, benchmark, journal, right, vlmeval


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))


def scored(path: Path, data: Path, out: str = "out") -> Path:
    assert vlmeval("score", path, "--data", data, "--out", out) == 0
    (found,) = (path.parent / out).rglob(f"{path.stem.split('_')[0]}_{data.stem}_score.json")
    return found


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert vlmeval("compare", *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


def test_score_files_are_compared_overall_and_by_category(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = benchmark(tmp_path)
    first = scored(answers(tmp_path / "a_Toy.csv", right(wrong=(1, 2, 3))), data)
    second = scored(answers(tmp_path / "b_Toy.csv", right(wrong=(3, 4))), data)
    both = compared(capsys, first, second)
    assert [result["protocol"] for result in both] == ["vlmevalkit", "exact"]
    groups = {group["group"]: group for group in both[0]["groups"]}
    assert list(groups) == ["Overall", "c0", "c1"]
    assert (groups["Overall"]["won"], groups["Overall"]["lost"], groups["Overall"]["count"]) == (2, 1, 12)
    assert groups["Overall"]["difference"] == pytest.approx(1 / 12)
    assert (groups["c1"]["won"], groups["c1"]["lost"]) == (1, 0)
    assert groups["Overall"]["clusters"] == 4
    assert any("12 rows show 4 images" in note for note in both[0]["notes"])


def test_the_rows_won_and_lost_are_listed_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = benchmark(tmp_path)
    first = answers(tmp_path / "a_Toy.csv", right(wrong=(1, 2)))
    second = answers(tmp_path / "b_Toy.csv", {**right(), 5: "=1"})
    assert vlmeval("compare", first, second, "--data", data, "--protocol", "exact", "--out", "cmp") == 0
    out = capsys.readouterr().out
    assert "2 - 1 [95 %]" in out
    with (tmp_path / "cmp" / "a_vs_b_Toy_exact_rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["index"], row["change"], row["read_1"], row["read_2"]) for row in rows] == [
        ("1", "won", "B", "A"),
        ("2", "won", "A", "B"),
        ("5", "lost", "A", ""),
    ]


def test_journals_with_other_prompts_are_compared_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark(tmp_path)
    first = journal(tmp_path / "a" / "T1" / "a_Toy.jsonl", right())
    second = journal(tmp_path / "b" / "T1" / "b_Toy.jsonl", right(wrong=(1,)), prompt="g")
    (result, _) = compared(capsys, first.parent, second, "--data", data)
    assert "the prompts differ in 12 of 12 rows: the runs were not asked the same" in result["notes"]


def test_rows_only_one_run_has_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = benchmark(tmp_path)
    part = {index: text for index, text in right().items() if index <= 9}
    first, second = answers(tmp_path / "a.csv", right()), answers(tmp_path / "b.csv", part)
    upstream, exact = compared(capsys, first, second, "--data", data)
    assert upstream["groups"][0]["count"] == 9
    assert any(note.startswith("3 rows are scored only in ") for note in upstream["notes"])
    assert (exact["groups"][0]["count"], exact["groups"][0]["lost"]) == (12, 3)


def test_what_may_not_be_compared_is_refused_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, other = benchmark(tmp_path), benchmark(tmp_path, "Other")
    file = scored(answers(tmp_path / "a_Toy.csv", right()), data)
    elsewhere = scored(answers(tmp_path / "b_Other.csv", right()), other)
    edited = tmp_path / "edited_score.json"
    changes: dict[str, Any] = json.loads(file.read_text())
    changes["run"]["dataset_md5"] = "0" * 32
    edited.write_text(json.dumps(changes))
    judged = tmp_path / "judged_score.json"
    content: dict[str, Any] = json.loads(file.read_text())
    content["protocols"]["exact"].update(judge="gpt-x, options v1", version=99)
    judged.write_text(json.dumps(content))
    cases = [
        ((file, elsewhere), "no benchmark in common"),
        ((file, edited), "different files of Toy"),
        (
            (file, judged, "--protocol", "exact"),
            " in the first and 99 in the second; judge is none",
        ),
        ((file, file, "--protocol", "other"), "no protocol in common"),
        ((file,), "compare takes two runs"),
        ((file, tmp_path / "a_Toy.csv"), "has no scores yet"),
    ]
    for arguments, said in cases:
        assert vlmeval("compare", *arguments) == 2
        assert said in capsys.readouterr().err
    content = json.loads(file.read_text())
    content["protocols"]["exact"]["rows"][0]["hit"] = float("nan")
    (tmp_path / "nan_score.json").write_text(json.dumps(content))
    assert vlmeval("compare", file, tmp_path / "nan_score.json") == 1
    assert "row 1 is worth nan" in capsys.readouterr().err
    (tmp_path / "broken_score.json").write_text("{}")
    assert vlmeval("compare", file, tmp_path / "broken_score.json", "--data", data) == 1


def test_a_score_file_without_the_table_of_samples_still_gives_the_overall_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scored(answers(tmp_path / "a_Toy.csv", right()), benchmark(tmp_path))
    content: dict[str, Any] = json.loads(file.read_text())
    del content["benchmark"]
    (tmp_path / "old_score.json").write_text(json.dumps(content))
    result = compared(capsys, tmp_path / "old_score.json", tmp_path / "old_score.json")[0]
    assert [group["group"] for group in result["groups"]] == ["Overall"]
    assert any("older version" in note for note in result["notes"])
