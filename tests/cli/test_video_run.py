"""Benchmarks of videos from the command line: answered, resumed, checked, over replicas; bad videos fail alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace
from tests.small_videos import video_mme_row, write_tsv, write_video
from vlmeval.cli.main import main
from vlmeval.inference.journal import read_journal


def benchmark(root: Path) -> Path:
    """Four videos with two questions each, one of them missing and one cut off, its header whole."""
    folder = root / "Video-MME"
    for number in range(2):
        write_video(folder / "video" / f"v{number}.mp4", frames=6 + 3 * number, shift=number)
    header_first = {"movflags": "faststart"}
    cut = write_video(folder / "video" / "v2.mp4", frames=60, codec="libx264", options=header_first)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    rows = [video_mme_row(2 * video + n, f"v{video}") for video in range(4) for n in range(2)]
    write_tsv(folder / "Video-MME.tsv", rows)
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMUData", str(tmp_path / "data"))
    return benchmark(tmp_path / "data")


def test_videos_are_answered_and_bad_ones_fail_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "Qwen2-VL-Tiny", "--data", "Video-MME_8frame", "--work-dir", str(tmp_path / "out")]
    assert main([*arguments, "--replicas", "1"]) == 0
    screen = capsys.readouterr().out
    assert "failed: 4 (index 4, 5, 6, 7) of 8" in screen
    folder = next((tmp_path / "out" / "Qwen2-VL-Tiny").glob("T*"))
    records = read_journal(next(folder.glob("*.jsonl")))
    assert [records[n].status for n in range(8)] == ["ok"] * 4 + ["failed"] * 4
    assert "v2.mp4: the last frame is at" in records[4].error
    assert "v3.mp4 cannot be read" in records[6].error
    table = next(folder.glob("*_acc.csv")).read_text().splitlines()
    assert table[0] == "duration,overall,Knowledge,Technology,Object Recognition"
    # Once the video is there the samples that failed are answered, and no other.
    write_video(root / "Video-MME" / "video" / "v3.mp4", shift=1)
    assert main([*arguments, "--batch-size", "1"]) == 0
    assert "failed: 2 (index 4, 5) of 8" in capsys.readouterr().out
    again = read_journal(next(folder.glob("*.jsonl")))
    assert again[7].status == "ok" and again[0] == records[0]


def test_replicas_open_the_benchmark_with_the_same_frames(workplace: Workplace) -> None:
    benchmark(workplace.folder / "LMUData")
    arguments = ["--config", "config.json", "--model", "patient", "--data", "Video-MME_8frame", "--work-dir", "out"]
    workplace.configure()
    done = workplace.run(*arguments, "--replicas", "2")
    assert "failed: 4 (index 4, 5, 6, 7) of 8" in done.out, done.out + done.err
    alone = {index: record.fingerprint for index, record in _records(workplace).items()}
    assert len(set(alone.values())) == 7, "rows of the video that is not there say the same"
    again = workplace.run(*arguments, "--replicas", "1")
    assert "4 to go" in again.out, "with one process the same prompts are the same"


def _records(workplace: Workplace):  # type: ignore[no-untyped-def]
    return read_journal(next(workplace.result_folder().glob("*.jsonl")))


def test_the_data_check_tells_of_videos(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "Video-MME_8frame", "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    errors = [found for found in report["findings"] if found["severity"] == "error"]
    assert [found["count"] for found in errors] == [2], "what is cut off shows when it is decoded"
    assert any("shortest 1.5 s" in found["what"] for found in report["findings"])


def test_a_plan_grows_with_the_frames(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = []
    for name in ("Video-MME_8frame", "Video-MME_64frame", "MVBench_64frame"):
        assert main(["plan", "--model", "Qwen2-VL-7B-Instruct", "--data", name, "--cards", "2x48", "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        tokens.append(plan["workload"]["image_tokens"])
    # 8 of 60 frames of 64x48 pixels, all 60, and 64 of 1280x720 where no video is.
    assert tokens[:2] == [4 * 42 * 31, 30 * 42 * 31] and tokens[2] > tokens[1]


def test_benchmarks_of_videos_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "datasets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["MVBench_8frame"]["scoring"] == "mvbench" and "video" in rows["MLVU_MCQ_1fps"]["traits"]
