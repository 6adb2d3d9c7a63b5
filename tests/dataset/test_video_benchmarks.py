"""Benchmarks of videos: where their files are, how a row becomes a prompt, and what the answers are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.prompt_parts import text_of, video_of
from tests.small_videos import video_mme_row, write_tsv, write_video
from vlmeval.dataset.config_entry import resolve_config
from vlmeval.dataset.registry import open_dataset
from vlmeval.dataset.video import VideoMCQDataset
from vlmeval.errors import ConfigError, DatasetError, VideoError
from vlmeval.types import Index, Prediction, Score
from vlmeval.videos import Sampling


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMUData", str(tmp_path / "data"))
    return tmp_path / "data"


def opened(name: str, root: Path) -> VideoMCQDataset:
    dataset = open_dataset(name, data_root=root)
    assert isinstance(dataset, VideoMCQDataset)
    return dataset


def mvbench_row(index: int, **other: object) -> dict[str, object]:
    return {
        "task_type": "Action Sequence", "prefix": "video/star/", "data_type": "video", "bound": "False", "start": "",
        "end": "", "video": "a.mp4", "question": "What came first?", "answer": "The cup.",
        "candidates": "['The door.', 'The cup.', 'The bag.']", "index": index, **other,
    }  # fmt: skip


def mlvu_row(index: int, task: str, answer: str = "two") -> dict[str, object]:
    return {
        "task_type": task, "prefix": "./MLVU/video/1_plotQA", "duration": 480.5, "video": "m.mp4",
        "question": "How many?", "answer": answer, "candidates": "['one', 'two', '3', 'four']", "index": index,
    }  # fmt: skip


def test_video_mme_is_worded_as_upstream_does(root: Path) -> None:
    write_tsv(root / "Video-MME.tsv", [video_mme_row(0, "v0")])
    write_video(root / "Video-MME" / "video" / "v0.mp4")
    dataset = opened("Video-MME_8frame", root)
    (sample,) = list(dataset)
    assert sample.options == {"A": "Red.", "B": "Green.", "C": "Blue.", "D": "White."} and sample.answer == "D"
    video, text = dataset.build_prompt(sample)
    assert video_of(video).path == root / "Video-MME" / "video" / "v0.mp4"
    assert video_of(video).sampling == Sampling(nframe=8)
    assert text_of(text) == (
        "\nThese are the frames of a video. Select the best answer to the following multiple-choice question based on "
        "the video. Respond with only the letter (A, B, C, or D) of the correct option.\nQuestion: Which colour is the "
        "square in question 0?\nA. Red.\nB. Green.\nC. Blue.\nD. White.\nAnswer: "
    )
    assert {"video", "dataset_prompt"} <= dataset.task.traits


def test_mvbench_and_mlvu_are_worded_as_upstream_does(root: Path) -> None:
    write_tsv(root / "MVBench" / "MVBench.tsv", [mvbench_row(0), mvbench_row(1, bound="True", start="1.0", end="2.5")])
    write_video(root / "MVBench" / "video" / "star" / "a.mp4", frames=20)
    dataset = opened("MVBench_8frame", root)
    whole, part = list(dataset)
    assert (whole.answer, whole.category) == ("B", "Action Sequence")
    assert whole.videos[0].sampling == Sampling(nframe=8, placing="segments")
    assert part.videos[0].sampling == Sampling(nframe=8, placing="segments", start_s=1.0, end_s=2.5)
    opening, video, ending = dataset.build_prompt(whole)
    assert text_of(opening).endswith(
        "question.\nQuestion: What came first?\nOptions:\n(A) The door.\n(B) The cup.\n(C) The bag."
    )
    assert video["type"] == "video" and text_of(ending) == "\nOnly give the best option.Best option:("
    write_tsv(root / "MLVU_MCQ" / "MLVU_MCQ.tsv", [mlvu_row(0, "plotQA")])
    mlvu = opened("MLVU_MCQ_1fps", root)
    (row,) = list(mlvu)
    assert row.videos[0].path == root / "MLVU_MCQ" / "MLVU" / "video" / "1_plotQA" / "m.mp4"
    assert row.videos[0].sampling == Sampling(fps=1.0) and row.answer == "B"
    assert text_of(mlvu.build_prompt(row)[-1]) == "\nOnly give the best option."


def test_what_is_spoken_at_the_frames_is_told(root: Path) -> None:
    write_tsv(root / "Video-MME" / "Video-MME.tsv", [video_mme_row(0, "v0"), video_mme_row(1, "v1")])
    for name in ("v0", "v1"):
        write_video(root / "Video-MME" / "video" / f"{name}.mp4", frames=36, fps=4)
    (root / "Video-MME" / "subtitle").mkdir()
    (root / "Video-MME" / "subtitle" / "v0.srt").write_text(
        "1\n00:00:00,500 --> 00:00:02,500\n<i>Once upon\na time</i>\n\n2\n00:00:06,900 --> 00:00:08,900\nthe end\n"
    )
    dataset = opened("Video-MME_8frame_subs", root)
    first, second = list(dataset)
    assert first.videos[0].timestamps() == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    told = "This video's subtitles are listed below:\nOnce upon a time\nOnce upon a time\nthe end\nthe end\nSelect"
    assert told in dataset.build_text(first)
    assert "listed below:\n\nSelect" in dataset.build_text(second), "there is no file of it"


def test_paths_stay_inside_the_folder(root: Path) -> None:
    rows = [
        video_mme_row(n, "v0", video_path=path) for n, path in enumerate(("../x.mp4", "/etc/x.mp4", "a/../../x.mp4"))
    ]
    write_tsv(root / "Video-MME.tsv", [*rows, video_mme_row(3, "", video_path="")])
    dataset = opened("Video-MME_8frame", root)
    for sample in list(dataset)[:3]:
        assert "leads out of" in sample.image_error
        with pytest.raises(VideoError, match="leads out of"):
            dataset.build_prompt(sample)
    assert "it has no video" in list(dataset)[3].image_error


def test_rows_with_broken_cells_fail_and_are_scored_as_wrong(root: Path) -> None:
    broken = video_mme_row(0, "v0", candidates="['A. Red', ")
    write_tsv(root / "Video-MME.tsv", [broken, video_mme_row(1, "v0")])
    dataset = opened("Video-MME_8frame", root)
    assert "opens like a list and is none" in dataset[0].image_error and not dataset[1].image_error
    score = dataset.score(answers({1: "D"}), "exact")
    assert score.overall.value == 0.5


def test_a_missing_table_is_told_with_where_it_would_be(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"Video-MME\.tsv is not there.*lmms-lab/Video-MME"):
        open_dataset("Video-MME_64frame", data_root=root)


def test_other_frames_are_had_by_a_config_entry(root: Path) -> None:
    write_tsv(root / "Video-MME.tsv", [video_mme_row(0, "v0")])
    entry = {"class": "VideoMME", "path": str(root / "Video-MME.tsv"), "fps": 0.25}
    dataset = resolve_config("slow", entry, data_root=root).open()
    assert isinstance(dataset, VideoMCQDataset) and dataset.video.fps == 0.25
    for wrong in ({"nframe": 4, "fps": 1.0}, {"nframe": "4"}, {"nframe": True}, {"use_subtitle": True}):
        with pytest.raises(ConfigError, match="slow"):
            resolve_config("slow", {"class": "VideoMME", "path": entry["path"], **wrong}, data_root=root).open()
    with pytest.raises(ConfigError, match="for benchmarks of videos"):
        resolve_config("Shapes", {"dataset": "ShapesBench", "nframe": 4}, data_root=root).open()


def test_a_table_without_videos_is_told(root: Path) -> None:
    path = write_tsv(root / "own.tsv", [{"index": 0, "video": "a.mp4", "question": "?", "answer": "A"}])
    with pytest.raises(ConfigError, match="neither a column candidates nor A, B, C"):
        open_dataset(path, class_name="VideoMME", data_root=root)


def test_a_table_of_ones_own_is_taken_by_its_columns(root: Path) -> None:
    row = {"index": 0, "video": "a.mp4", "question": "Which?", "A": "red", "B": "blue", "answer": "B"}
    dataset = open_dataset(write_tsv(root / "own.tsv", [row]), data_root=root)
    assert isinstance(dataset, VideoMCQDataset) and dataset.video.nframe == 8
    assert any("it has a column video" in note for note in dataset.notes)
    assert dataset[0].videos[0].path == root / "a.mp4"
    assert dataset.build_text(dataset[0]).startswith("Question: Which?\nOptions:\nA. red\nB. blue\nPlease select")
    assert dataset.score(answers({0: "B"}), "exact").overall.value == 1.0


def answers(texts: Mapping[int, str]) -> dict[Index, Prediction]:
    return {n: Prediction(index=n, status="ok", fingerprint="", prediction=text) for n, text in texts.items()}


def metrics(score: Score) -> dict[str, float]:
    return {metric.group: metric.value for metric in score.metrics}


def test_video_mme_is_scored_by_duration_domain_and_task(root: Path) -> None:
    rows = [video_mme_row(n, f"v{n // 3}", domain="Multilingual", sub_category="Multilingual") for n in range(3)]
    write_tsv(root / "Video-MME.tsv", [*rows, *(video_mme_row(n, f"v{n // 3}") for n in range(3, 6))])
    dataset = opened("Video-MME_8frame", root)
    given = {0: "D", 1: "The best answer is D.", 2: "A or D", 3: "Definitely none of these", 4: "none", 5: "White."}
    score = dataset.score(answers(given), "vlmevalkit")
    assert [row.hit for row in score.rows] == [1, 1, 0, 1, 0, 1], "the first of A to D, wherever it stands"
    found = metrics(score)
    assert (found["short"], found["medium"], found["long"]) == (1.0, 0.5, 0.5)
    assert found["Multilingual"] == pytest.approx(2 / 3) and found["Object Recognition"] == pytest.approx(4 / 6)
    table = score.table
    assert table is not None and table.columns[:2] == ("duration", "overall")
    assert [row[0] for row in table.rows] == ["short", "medium", "long", "overall"]
    assert "Multilingual (sub_category)" in table.columns
    assert score.overall.interval is not None
    exact = dataset.score(answers(given), "exact")
    assert exact.rows[3].hit == 0, "no option is named"


def test_mvbench_and_mlvu_are_scored_by_task(root: Path) -> None:
    write_tsv(root / "MVBench.tsv", [mvbench_row(n, task_type=f"Task {n % 2}") for n in range(6)])
    given = {0: "B", 1: "(B) The cup.", 2: "b) because", 3: "", 4: "it is the cup.", 5: "(A"}
    score = opened("MVBench_8frame", root).score(answers(given), "vlmevalkit")
    assert [row.hit for row in score.rows] == [1, 1, 1, 0, 1, 0]
    assert metrics(score)["Task 0"] == 1.0 and score.overall.value == pytest.approx(4 / 6)
    assert score.table is not None and score.table.rows[-1][:3] == ("overall", 4, 6)
    write_tsv(root / "MLVU_MCQ.tsv", [mlvu_row(n, task) for n, task in enumerate(("plotQA", "ego", "order", "order"))])
    mlvu = opened("MLVU_MCQ_8frame", root).score(answers({0: "B) two", 1: "A", 2: "B", 3: "C"}), "vlmevalkit")
    assert metrics(mlvu)["M-Avg"] == 0.5 and metrics(mlvu)["Overall"] == 0.5 and metrics(mlvu)["plotQA"] == 1.0
    assert mlvu.overall.group == "M-Avg" and mlvu.overall.count == 2
