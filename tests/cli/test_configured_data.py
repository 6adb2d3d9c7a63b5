"""`data check`, `score` and `compare` with the benchmarks of a --config file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.scored_answers import answers, benchmark, right, score_content, vlmeval


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))


def config(folder: Path, data: Mapping[str, object], **other: object) -> Path:
    path = folder / "c.json"
    path.write_text(json.dumps({"data": data, **other}))
    return path


def test_answers_are_scored_by_the_rule_an_entry_gives_under_its_name(tmp_path: Path) -> None:
    benchmark(tmp_path)
    entry = {"path": "Toy.tsv", "class": "ImageVQADataset", "scoring": "relaxed_accuracy"}
    # The model of the file is of no concern here: its class is not there.
    file = config(tmp_path, {"Counts": entry}, model={"m": {"class": "nowhere.at_all:M"}})
    given = answers(tmp_path / "m_Counts.csv", {index: f"It is {letter}." for index, letter in right().items()})
    assert vlmeval("score", given, "--config", file, "--out", "out") == 0
    content: Any = score_content(tmp_path / "out")
    values = [score["metrics"][0]["value"] for score in content["protocols"].values()]
    assert (content["dataset"], values) == ("Counts", [0, 0]), "as choices every answer would be right"
    assert vlmeval("score", given, "--config", file, "--data", "Counts", "--out", "again") == 0
    assert score_content(tmp_path / "again")["dataset"] == "Counts"


def test_a_configs_benchmarks_are_checked_all_or_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark(tmp_path, solution="A")
    file = config(
        tmp_path,
        {"One": {"path": "Toy.tsv"}, "Two": {"path": "Toy.tsv", "answer_column": "solution"}},
    )
    assert vlmeval("data", "check", "--config", file, "--json") == 0
    assert [report["name"] for report in json.loads(capsys.readouterr().out)] == ["One", "Two"]
    vlmeval("data", "check", "Two", "--config", file, "--json")
    assert [report["name"] for report in json.loads(capsys.readouterr().out)] == ["Two"]


def test_answers_not_scored_yet_are_compared_by_a_configs_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark(tmp_path)
    file = config(tmp_path, {"Mine": {"path": "Toy.tsv"}})
    both = [answers(tmp_path / f"{name}.csv", right(wrong=wrong)) for name, wrong in (("a", (1, 2)), ("b", ()))]
    assert vlmeval("compare", *both, "--config", file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["dataset"] == "Mine"


@pytest.mark.parametrize("command", [("score", "x.csv"), ("data", "check")])
def test_a_key_that_no_entry_has_is_told_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    benchmark(tmp_path)
    answers(tmp_path / "x.csv", right())
    file = config(tmp_path, {"Mine": {"paht": "Toy.tsv"}})
    assert vlmeval(*command, "--config", file) == 2
    assert "'paht'" in (said := capsys.readouterr().err) and "path" in said


def test_without_names_and_without_data_in_the_config_none_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vlmeval("data", "check", "--config", config(tmp_path, {})) == 2
    assert "no benchmark named" in capsys.readouterr().err
