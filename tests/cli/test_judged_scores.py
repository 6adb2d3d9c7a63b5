"""Scores with a judge, from the command line against a real server on loopback: only when asked, and all of it said."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Workplace, png
from tests.cli.scored_answers import answers, benchmark, right, score_content, vlmeval
from tests.cli.terminal import run_in_terminal
from tests.judging.judge_server import JudgeServer, judge_server, rubbish, status

KEY = "sk-verysecret-0123456789"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("VLMEVAL_JUDGE_KEY", KEY)
    monkeypatch.setattr("vlmeval.judging.endpoint.Endpoint._wait_s", lambda *_: 0.01)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as state:
        yield state


def flags(server: JudgeServer) -> list[object]:
    return ["--judge", "gpt-x", "--judge-base-url", server.url]


UNREADABLE = {4: "the second of them, the one with the spy", 5: "neither, I think it is a fish with long wings"}


def test_only_answers_without_an_option_are_judged_and_the_result_says_by_whom(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda prompt: "B" if "the spy" in prompt else "Z"
    file, data = answers(tmp_path / "m.csv", {**right(), **UNREADABLE}), benchmark(tmp_path)
    assert vlmeval("score", file, "--data", data, "--out", "out", *flags(server)) == 0
    said = capsys.readouterr()
    content: Any = score_content(tmp_path / "out")
    for protocol in content["protocols"].values():
        assert protocol["judge"] == "gpt-x, options v1"
        assert protocol["metrics"][0]["value"] == pytest.approx(11 / 12)
        hits = {row["index"]: (row["hit"], row["extracted"], row["log"]) for row in protocol["rows"]}
        assert hits[4] == (1.0, "B", "B by judge")
        assert hits[5] == (0.0, "Z", "Z by judge")
        assert any("asked about 2 of 12 rows" in note for note in protocol["notes"])
    assert len(server.requests) == 2  # the second protocol finds the replies of the first
    assert (tmp_path / "out" / "m_Toy" / "m_Toy_gpt-x_result.xlsx").is_file()
    assert "asked about 2 of 12 rows, 0 replies were there already" in " ".join(said.out.split())


def test_without_the_flag_nobody_is_asked(tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    file = answers(tmp_path / "m.csv", {**right(), **UNREADABLE})
    for more in ([], ["--judge", "exact_matching"]):
        assert vlmeval("score", file, "--data", benchmark(tmp_path), "--out", "out", *more) == 0
    assert server.requests == []
    content: Any = score_content(tmp_path / "out")
    assert content["protocols"]["exact"]["judge"] == ""


def test_replies_that_cannot_be_read_are_counted_and_wrong_never_guessed(tmp_path: Path, server: JudgeServer) -> None:
    server.reply = lambda prompt: "It could be A or B."
    file = answers(tmp_path / "m.csv", {**right(), **UNREADABLE})
    assert vlmeval("score", file, "--data", benchmark(tmp_path), "--out", "out", *flags(server)) == 0
    content: Any = score_content(tmp_path / "out")
    exact = content["protocols"]["exact"]
    assert exact["unmatched"]["indices"] == [4, 5]
    assert exact["metrics"][0]["value"] == pytest.approx(10 / 12)
    assert any("2 replies could not be read (index 4, 5): nothing found, wrong" in note for note in exact["notes"])


def test_a_judge_that_is_down_ends_the_command_and_the_key_is_nowhere(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.misbehave = [status(500, f"upstream said {KEY}")] * 99
    file = answers(tmp_path / "m.csv", {**right(), **UNREADABLE})
    assert vlmeval("score", file, "--data", benchmark(tmp_path), "--out", "out", *flags(server)) == 1
    said = capsys.readouterr()
    assert "taken for down" in said.err
    server.misbehave = [rubbish(f"<p>{KEY}")]
    assert vlmeval("score", file, "--data", tmp_path / "Toy.tsv", "--out", "out", *flags(server)) == 0
    said_later = capsys.readouterr()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in said.out + said.err + said_later.out + said_later.err
    assert KEY.encode() not in written


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--judge-key", KEY, "--judge", "m"], "set VLMEVAL_JUDGE_KEY"),
        (["--judge-base-url", "http://127.0.0.1/v1"], "add --judge NAME"),
        (["--judge", "m", "--judge-model", "Qwen2-VL-Tiny"], "give one of them"),
        (["--judge", "m", "--judge-base-url", "127.0.0.1:80"], "is no http(s) address"),
        (["--judge", "m", "--judge-parallel", "0"], "--judge-parallel 0"),
        (["--judge-model", "Qwen2-VL-Tinny"], "nearest: Qwen2-VL-Tiny"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_without_repeating_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    file = answers(tmp_path / "m.csv", right())
    assert vlmeval("score", file, "--data", benchmark(tmp_path), *more) == 2
    err = capsys.readouterr().err
    assert said in err
    assert KEY not in err


def mm_vet(folder: Path) -> Path:
    path = folder / "MMVet.tsv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "question", "answer", "category", "image"])
        for index in range(4):
            writer.writerow(
                [f"v1_{index}", f"what {index}?", f"cat<OR>{index}", "ocr,math" if index % 2 else "rec", png()]
            )
    return path


def test_a_benchmark_that_needs_a_judge_is_scored_with_one_and_refused_without(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda prompt: "0.5" if "what 1?" in prompt else "1.0"
    (tmp_path / "m.csv").write_text("index,prediction\nv1_0,cat\nv1_1,dog\nv1_2,2\nv1_3,\n")
    command = ["score", tmp_path / "m.csv", "--data", mm_vet(tmp_path), "--out", "out"]
    assert vlmeval(*command) == 1
    assert "needs a judge to grade the answer" in capsys.readouterr().err
    assert vlmeval(*command, *flags(server)) == 0
    content: Any = score_content(tmp_path / "out")
    score = content["protocols"]["exact"]
    assert score["judge"].startswith("gpt-x, mmvet v")
    assert score["metrics"][0]["value"] == pytest.approx(100 * 2.5 / 4)
    assert len(server.requests) == 3  # an empty answer is not worth a question


def test_a_model_of_ours_can_be_the_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = answers(tmp_path / "m.csv", {**right(), 4: UNREADABLE[4]})
    command = ["score", file, "--data", benchmark(tmp_path), "--out", "out", "--protocol", "exact"]
    assert vlmeval(*command, "--judge-model", "Qwen2-VL-Tiny") == 0
    content: Any = score_content(tmp_path / "out")
    assert content["protocols"]["exact"]["judge"] == "Qwen2-VL-Tiny, options v1"
    assert any("asked about 1 of 12 rows" in note for note in content["protocols"]["exact"]["notes"])
    assert list((tmp_path / "cache" / "judge").glob("Qwen2-VL-Tiny.jsonl"))


def test_a_judge_of_ours_has_its_weights_before_the_live_view_is_drawn(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    file = answers(tmp_path / "m.csv", {**right(), 4: UNREADABLE[4]})
    command = ["score", str(file), "--data", str(benchmark(tmp_path)), "--judge-model", "Qwen2-VL-Tiny"]
    environ = {**place.environment, "TERM": "xterm-256color"}
    code, screen, written = run_in_terminal([sys.executable, str(ROOT / "run.py"), *command], tmp_path, environ)
    shown = "\n".join(screen.rows)
    assert code == 0, shown
    view_begins = written.find("\x1b[?25")
    assert 0 <= written.rfind("Loading weights") < view_begins < written.find("judging Toy"), shown
    assert written.count("ready in") == 1 and "Qwen2-VL-Tiny ready in" in shown, "said once, not for each protocol"
    again, _, written = run_in_terminal([sys.executable, str(ROOT / "run.py"), *command], tmp_path, environ)
    assert again == 0 and "Loading weights" not in written, "all replies are in the cache"


def test_a_run_asks_the_judge_after_the_answers_and_keeps_them_if_it_is_down(
    workplace: Workplace, server: JudgeServer
) -> None:
    workplace.configure(says="the one with the wings")
    more = ["--judge", "gpt-x", "--judge-base-url", server.url, "--batch-size", "4"]
    server.misbehave = [status(401, "no such key")]
    down = workplace.run(*workplace.base, *more, VLMEVAL_JUDGE_KEY=KEY)
    assert down.code == 1
    assert "HTTP 401" in down.err
    assert len(workplace.journal()) == 20
    assert json.loads((workplace.result_folder() / "status.json").read_text())["datasets"]["Mini"]["status"] == "error"
    done = workplace.run(*workplace.base, *more, VLMEVAL_JUDGE_KEY=KEY)
    assert done.code == 0
    assert len(workplace.log) == 20
    content = json.loads((workplace.result_folder() / "patient_Mini_score.json").read_text())
    assert content["protocols"]["vlmevalkit"]["metrics"][0]["value"] == 0.5
    entry = json.loads((workplace.result_folder() / "status.json").read_text())["datasets"]["Mini"]
    assert (entry["status"], entry["judge_model"]) == ("done", "gpt-x")
