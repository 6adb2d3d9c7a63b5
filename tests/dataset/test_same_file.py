"""A known benchmark's file under the name it is published by, or under any name with its content, is that benchmark."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small_videos import video_mme_row
from tests.small_videos import write_tsv as write_video_tsv
from vlmeval.cli.main import main
from vlmeval.dataset import dataset_listing, open_dataset, resolve_config, supported_datasets
from vlmeval.dataset.mcq import HRBenchDataset
from vlmeval.dataset.video import VideoMME
from vlmeval.dataset.vqa import MathVerse, MathVerseStepwise

from .tsv_files import row, write_tsv

QUESTION = {"index": "1", "image": "1", "question": "?", "answer": "4"}


def known_as(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """The file at `path` counts as the published one of a known benchmark."""
    spec = replace(supported_datasets[name], md5=hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setitem(supported_datasets, name, spec)


def test_a_video_table_by_its_path_has_its_benchmarks_prompt_rule_and_frames_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "Video-MME.tsv"
    write_video_tsv(path, [video_mme_row(0, "v0")])
    dataset = open_dataset(path)
    assert isinstance(dataset, VideoMME) and (dataset.name, dataset.video.nframe) == ("Video-MME", 8)
    assert dataset.rule is not None and dataset.rule.name == "video_mme"
    assert dataset.task.traits == supported_datasets["Video-MME_8frame"].traits
    taken, of_another_md5 = dataset.notes
    assert taken.startswith(
        "Video-MME: taken as Video-MME_8frame (rule video_mme, 8 frames a video) because its file is called like a "
        "known benchmark's; of the same file: Video-MME_64frame, Video-MME_8frame_subs,"
    )
    assert "MD5" in of_another_md5


def test_frames_that_are_said_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "Video-MME.tsv"
    write_video_tsv(path, [video_mme_row(0, "v0")])
    dataset = resolve_config("Mine", {"path": str(path), "fps": 2, "use_subtitle": True}).open()
    assert isinstance(dataset, VideoMME) and (dataset.name, dataset.video.fps) == ("Mine", 2)
    assert "Mine: taken as Video-MME_8frame (rule video_mme, 2 frames a second, with subtitles)" in dataset.notes[0]


def test_a_file_that_its_server_calls_otherwise_is_known_by_that_name_too(tmp_path: Path) -> None:
    dataset = open_dataset(write_tsv(tmp_path / "hr_bench_4k.tsv", [row(1, category="single")]))
    assert isinstance(dataset, HRBenchDataset) and dataset.notes[0] == (
        "hr_bench_4k: taken as HRBench4K (rule hr_bench) because its file is called like a known benchmark's"
    )


def test_of_two_benchmarks_of_one_file_the_first_is_taken_and_the_other_named(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "MathVerse_MINIVOnly.tsv", [QUESTION])
    dataset = open_dataset(path)
    assert isinstance(dataset, MathVerse) and not isinstance(dataset, MathVerseStepwise)
    assert dataset.notes[0].endswith(
        "; of the same file: MathVerse_MINI_Vision_Only_cot (give --data one of these names)"
    )


def test_a_class_or_rule_of_ones_own_is_what_counts(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "hr_bench_4k.tsv", [row(1)])
    dataset = open_dataset(path, scoring="choices")
    assert (type(dataset).__name__, dataset.notes[0]) == (
        "ImageMCQDataset",
        "hr_bench_4k: in no table, taken as MCQ because its rule is choices",
    )


def test_a_file_with_the_md5_of_a_known_one_is_that_benchmark_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tsv(tmp_path / "copy (1).tsv", [QUESTION])
    assert "in no table" in open_dataset(path).notes[0]
    known_as(monkeypatch, "ChartQA_TEST", path)
    dataset = open_dataset(path)
    assert dataset.rule is not None and dataset.rule.name == "relaxed_accuracy"
    assert (dataset.name, dataset.task.traits) == ("copy (1)", frozenset({"short_answer", "chart"}))
    assert dataset.notes == (
        "copy (1): taken as ChartQA_TEST (rule relaxed_accuracy) because its MD5 is that of a known benchmark's file",
    )


def test_data_check_of_such_a_file_looks_for_what_that_benchmark_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(1, category="a"), row(2, answer="B", category="b")])
    known_as(monkeypatch, "MME", path)
    main(["data", "check", str(path), "--json"])
    (report,) = json.loads(capsys.readouterr().out)
    told = [finding["what"] for finding in report["findings"]]
    assert any("taken as MME (rule mme)" in what for what in told)
    assert "rows have an answer that is neither yes nor no" in told


def test_the_list_tells_what_a_dropped_file_is_taken_as(data_root: Path) -> None:
    write_tsv(data_root / "hr_bench_8k.tsv", [row(1)])
    entry = dataset_listing(data_root)[-1]
    assert (entry["name"], entry["type"], entry["scoring"]) == ("hr_bench_8k", "MCQ", "hr_bench")
    assert entry["notes"] == f"found in {data_root}, taken as HRBench8K"
