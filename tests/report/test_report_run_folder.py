"""`status.json` and the links to a run's files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.report.score_example import scores
from vlmeval.errors import StorageError
from vlmeval.report import DatasetStatus, link_results, scored_status, update_status

RUN = {"eval_id": "T1_G0", "commit": "abc", "argv": ["run.py"], "world_size": 1, "mode": "all"}


def test_status_has_upstreams_keys(tmp_path: Path) -> None:
    entry = scored_status(scores()["vlmevalkit"], tmp_path / "M_Toy.xlsx")
    content = json.loads(update_status(tmp_path, RUN, {"Toy": entry}).read_text("utf-8"))
    assert list(content) == [
        *("schema_version", "eval_id", "created_at", "updated_at", "commit", "argv", "world_size", "mode", "datasets"),
    ]
    toy = content["datasets"]["Toy"]
    assert list(toy) == [
        *("status", "prediction_file", "judge_model", "primary_metric", "metrics", "skip_reason", "error_message"),
    ]
    assert (toy["status"], toy["prediction_file"], toy["primary_metric"]) == ("done", "M_Toy.xlsx", "Overall")
    assert toy["metrics"]["Overall"] == 0.25


def test_an_update_keeps_the_start_and_the_other_benchmarks(tmp_path: Path) -> None:
    first = json.loads(update_status(tmp_path, RUN, {"Toy": DatasetStatus(status="running")}).read_text("utf-8"))
    path = update_status(tmp_path, {}, {"Other": DatasetStatus(status="failed", error_message="no image")})
    second = json.loads(path.read_text("utf-8"))
    assert second["created_at"] == first["created_at"]
    assert second["argv"] == ["run.py"]
    assert second["eval_id"] == "T1_G0"
    assert {name: entry["status"] for name, entry in second["datasets"].items()} == {
        "Toy": "running",
        "Other": "failed",
    }


def test_a_torn_status_file_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"datasets": {"To')
    update_status(tmp_path, RUN, {})
    assert json.loads((tmp_path / "status.json").read_text("utf-8"))["datasets"] == {}


def test_results_are_linked_relatively_and_links_follow_the_newest_run(tmp_path: Path) -> None:
    for run in ("T1", "T2"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "M_Toy_acc.csv").write_text(run)
        (tmp_path / run / "journal.jsonl").write_text("")
        (tmp_path / run / ".hidden.json").write_text("")
        links = link_results(tmp_path / run, tmp_path)
        assert [link.name for link in links] == ["M_Toy_acc.csv"]
    assert os.readlink(tmp_path / "M_Toy_acc.csv") == os.path.join("T2", "M_Toy_acc.csv")
    assert (tmp_path / "M_Toy_acc.csv").read_text() == "T2"


def test_where_links_cannot_be_made_there_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    (tmp_path / "T1").mkdir()
    (tmp_path / "T1" / "a.csv").write_text("x")
    link_results(tmp_path / "T1", tmp_path, ["a.csv"])
    assert not (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "a.csv").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["T1", "a.csv"]


def test_what_a_crash_left_behind_does_not_stop_linking(tmp_path: Path) -> None:
    from vlmeval.storage import scratch_name

    (tmp_path / "T1").mkdir()
    (tmp_path / "T1" / "a.csv").write_text("x")
    scratch_name(tmp_path).symlink_to("T1/a.csv")
    link_results(tmp_path / "T1", tmp_path)
    assert (tmp_path / "a.csv").is_symlink()


def test_a_link_that_cannot_be_placed_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "T1").mkdir()
    (tmp_path / "T1" / "a.csv").write_text("x")
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        link_results(tmp_path / "T1", tmp_path)
