"""Conversations from the command line: answered, killed, resumed, judged, scored from tables, compared."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import conversations
from tests.cli.conftest import Workplace
from tests.cli.scored_answers import score_content, vlmeval
from tests.cli.test_replicas import final_files, processes_with, wait_for
from tests.conversations import TURNS
from tests.judging.judge_server import JudgeServer, judge_server, status
from vlmeval.inference.journal import read_journal
from vlmeval.scoring.mmdu import RESPECTS

MODEL = """
import time
from pathlib import Path

from vlmeval.errors import SampleError
from vlmeval.images import open_image
from vlmeval.vlm.base import BaseModel


class Chatty(BaseModel):
    '''Says which turn it is, how many images it has seen, and what it said before.'''

    def __init__(self, log, wait_s=0.0):
        self.log, self.wait_s = Path(log), wait_s

    def generate_inner(self, message, task=None):
        own = [part["value"] for part in message if part.get("role") == "assistant"]
        images = [open_image(part["value"], 10**6).size for part in message if part["type"] == "image"]
        with self.log.open("a") as file:
            file.write(f"{len(own) + 1} {images[0]}\\n")
        time.sleep(self.wait_s)
        return f"turn {len(own) + 1}, {len(images)} images, after {own[-1][:6] if own else 'nothing'}"
"""
SAID = {
    1: ["turn 1, 1 images, after nothing", "turn 2, 1 images, after turn 1", "turn 3, 1 images, after turn 2"],
    2: ["turn 1, 2 images, after nothing", "turn 2, 3 images, after turn 1"],
    5: ["turn 1, 1 images, after nothing"],
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("VLMEVAL_JUDGE_KEY", "sk-0")
    with judge_server() as state:
        state.reply = grades
        yield state


def grades(prompt: str) -> str:
    """The number of the turn that the answer says, everywhere; 9 over all."""
    turn = int(prompt.rpartition("[Answer]\nturn ")[2][0])
    return f"One.\nTwo.\n{json.dumps({**dict.fromkeys(RESPECTS, turn), 'Overall Score': 9})}"


@pytest.fixture
def chatty(workplace: Workplace) -> Workplace:
    (workplace.folder / "chatty.py").write_text(MODEL)
    conversations.write(workplace.folder / "talks.tsv")
    configure(workplace)
    return workplace


def configure(place: Workplace, wait_s: float = 0.0) -> None:
    model = {"class": "chatty:Chatty", "log": str(place.folder / "log.txt"), "wait_s": wait_s}
    data = {"Mini": {"class": "MMDUDataset", "path": "talks.tsv"}}
    (place.folder / "config.json").write_text(json.dumps({"model": {"patient": model}, "data": data}))


def command(out: str, *more: object) -> list[str]:
    return ["--config", "config.json", "--work-dir", out, *map(str, more)]


def judged(server: JudgeServer) -> list[str]:
    return ["--judge", "gpt-x", "--judge-base-url", server.url]


def test_killed_in_the_middle_and_resumed_over_replicas_the_files_are_those_of_one_calm_run(
    chatty: Workplace, server: JudgeServer
) -> None:
    calm = chatty.run(*command("calm", *judged(server)), PRED_FORMAT="tsv")
    assert calm.code == 0, calm.err
    assert len(chatty.log) == sum(TURNS.values())
    (chatty.folder / "log.txt").unlink()
    configure(chatty, wait_s=0.15)
    process = chatty.start(command("out", "--replicas", 2))
    wait_for(lambda: len(chatty.log) >= 5 or process.poll() is not None)
    time.sleep(0.05)
    process.kill()
    process.communicate()
    wait_for(lambda: not processes_with(str(chatty.folder)), timeout_s=8)
    done = chatty.run(*command("out", "--replicas", 2, *judged(server)), PRED_FORMAT="tsv")
    assert done.code == 0, done.err
    # How many replies were there already stands in the notes, and differs.
    found, wanted = (final_files(chatty.folder / out) for out in ("out", "calm"))
    assert found.keys() == wanted.keys() and len(found) == 5
    assert {name: text for name, text in found.items() if "_score.json" not in name}.items() <= wanted.items()
    records = chatty.journal()
    assert sorted(int(str(record["index"])) for record in records) == [1, 2, 3, 4, 5], "each exactly once"
    assert {int(str(r["index"])): json.loads(str(r["prediction"])) for r in records}.items() >= SAID.items()
    # At most the turns that were under way are asked again, and one more of each replica that was not heard any more.
    assert sum(TURNS.values()) <= len(chatty.log) <= sum(TURNS.values()) + 4
    assert not list(chatty.result_folder().glob("*.turns")), "all is answered: of no more use"
    # The answers are the same, so the judge was asked only once about each turn.
    assert len(server.requests) == sum(TURNS.values())


def test_a_judge_grades_every_turn_and_the_files_have_upstreams_table(chatty: Workplace, server: JudgeServer) -> None:
    server.reply = lambda prompt: grades(prompt) if "colour" not in prompt else "I would rather not."
    done = chatty.run(*command("out", *judged(server)))
    assert done.code == 0, done.err
    assert "asked about 12 of 12 turns" in " ".join(done.out.split())
    assert len(server.requests) == 12 + 1, "a reply that cannot be read is asked for once more"
    folder = chatty.result_folder()
    score = json.loads((folder / "patient_Mini_score.json").read_text())["protocols"]["vlmevalkit"]
    assert score["judge"] == "gpt-x, mmdu v1" and score["metrics"][0]["value"] == pytest.approx(11 * 9 / 12 * 10)
    assert any("1 replies could not be read (index 1 (turn 2))" in note for note in score["notes"])
    with (folder / "patient_Mini_gpt-x_score.csv").open() as file:
        everything, valid = csv.DictReader(file)
    assert list(everything) == ["set", *RESPECTS]
    turns = sum(turn for count in TURNS.values() for turn in range(1, count + 1)) - 2
    assert everything["set"] == "all" and float(everything["Creativity"]) == pytest.approx(turns / 12 * 10)
    assert valid["set"] == "valid" and float(valid["Overall Score"]) == pytest.approx(90)
    assert (folder / "patient_Mini_results.xlsx").is_file()


def test_without_a_judge_answers_are_collected_and_that_is_said_before_the_first(chatty: Workplace) -> None:
    done = chatty.run(*command("out"))
    assert done.code == 0, done.err
    assert done.out.index("needs a judge to grade the answers turn by turn") < done.out.index("5 to go")
    assert len(chatty.journal()) == 5 and (chatty.result_folder() / "patient_Mini.xlsx").is_file()
    entry = json.loads((chatty.result_folder() / "status.json").read_text())["datasets"]["Mini"]
    assert entry["status"] == "not scored" and "needs a judge" in entry["skip_reason"]


FAILURE = "Failed to obtain answer via API."


def table(path: Path, spread: bool, said: dict[int, list[str]]) -> Path:
    """As VLMEvalKit writes it: the list in Python's form, or (older) a column a turn."""
    most = max(map(len, said.values()))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        columns = [*(f"prediction_{turn}" for turn in range(most)), "nturn"] if spread else ["prediction"]
        writer.writerow(["index", "question", *columns])
        for index, turns in said.items():
            cells = [*turns, *[""] * (most - len(turns)), len(turns)] if spread else [str(turns)]
            writer.writerow([index, str(conversations.QUESTIONS[index]), *cells])
    return path


@pytest.mark.parametrize("spread", [True, False])
def test_upstreams_tables_are_scored_and_a_failed_turn_fails_its_conversation(
    tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, spread: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    said = {1: ["turn 1", "turn 2 isn't", "turn 3"], 2: ["turn 1", f"{FAILURE} 500"], 5: ["turn 1"]}
    data = conversations.write(tmp_path / "MMDU.tsv", conversations.rows([1, 2, 5]))
    file = table(tmp_path / "m_MMDU.tsv", spread, said)
    assert vlmeval("score", file, "--data", data, "--out", "out", *judged(server)) == 0
    content: Any = score_content(tmp_path / "out")
    exact = content["protocols"]["exact"]
    assert exact["failed"]["indices"] == [2]
    assert exact["metrics"][0]["value"] == pytest.approx(4 * 9 / 6 * 10), "both its turns count as 0"
    assert [row["extracted"] for row in exact["rows"]] == ["9, 9, 9", "", "9"]
    assert len(server.requests) == 4
    logs = {row["index"]: row["log"] for row in exact["rows"]}
    assert logs[2].startswith("failed: turn 2: 500")


def test_two_scored_runs_are_compared_conversation_by_conversation(
    tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    data = conversations.write(tmp_path / "MMDU.tsv", conversations.rows([1, 2]))
    for name, first in (("a", "turn 1"), ("b", "turn 1 BETTER")):
        server.reply = lambda prompt: grades(prompt).replace("9", "5" if "BETTER" not in prompt else "8")
        file = table(tmp_path / f"{name}_MMDU.tsv", False, {1: [first, "turn 2", "turn 3"], 2: ["turn 1", "turn 2"]})
        assert vlmeval("score", file, "--data", data, "--out", name, *judged(server)) == 0
    capsys.readouterr()
    assert vlmeval("compare", "a/a_MMDU", "b/b_MMDU", "--protocol", "exact", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    overall = result["groups"][0]
    assert (overall["count"], overall["won"], overall["lost"]) == (2, 1, 0)
    assert overall["difference"] == pytest.approx((8 - 5) / 3 / 10 / 2)
    # The scores count turns, this table conversations: where one of two differs both scores are told.
    assert "mean grade of the turns, Overall: 50.00 and 56.00" in result["notes"]


def test_a_judge_that_is_down_leaves_the_answers(chatty: Workplace, server: JudgeServer) -> None:
    server.misbehave = [status(401, "no such key")] * 9
    assert chatty.run(*command("out", *judged(server))).code == 1
    assert len(chatty.journal()) == 5


@pytest.mark.parametrize("name", ["Qwen2-VL-Tiny", "LLaVA-OneVision-Tiny", "InternVL-Tiny", "Llama-Vision-Tiny"])
def test_every_embedded_checkpoint_talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    data = conversations.write(tmp_path / "MMDU.tsv")
    base = ["--model", name, "--data", data, "--max-tokens", "6", "--batch-size", "4"]
    assert vlmeval(*base, "--work-dir", tmp_path) == 0
    (path,) = (tmp_path / name).glob(f"T*/{name}_MMDU.jsonl")
    records = read_journal(path)
    assert {index: len(json.loads(record.prediction)) for index, record in records.items()} == TURNS
    assert all(record.status == "ok" and record.new_tokens for record in records.values())
