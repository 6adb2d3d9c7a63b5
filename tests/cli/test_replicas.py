"""Several replicas from the command line: the same files as one, whatever happens to them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Workplace, row, write_tsv
from vlmeval.inference.journal import read_journal

MODEL = """
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlmeval.errors import ModelError, SampleError
from vlmeval.vlm.base import BaseModel


class Moody(BaseModel):
    '''Answers with the question, unless the question tells it to do something else.'''

    def __init__(self, log, wait_s=0.0, load="well", says="A", ahead=False):
        self.log, self.wait_s, self.load_how, self.says, self.ahead = Path(log), wait_s, load, says, ahead
        self.thread = ThreadPoolExecutor(1)

    def settings(self):
        return {**super().settings(), "says": self.says}

    def load(self):
        if self.load_how == "mistake":
            raise ModelError("there is no such checkpoint")
        if self.load_how == "crash":
            raise RuntimeError("the driver is gone")

    def prepares_ahead(self):
        return self.ahead

    def begin_batch(self, batch, task=None):
        if not self.ahead:
            return super().begin_batch(batch, task)
        prepared = self.thread.submit(self.prepare, batch[0][-1]["value"])
        return lambda: (prepared.result(), self.generate_batch(batch, task))[1]

    def prepare(self, question):
        with self.log.with_suffix(".prepared").open("a") as file:
            file.write(f"{os.getpid()} {question.splitlines()[0]}\\n")
        if "end while prepared" in question:
            os.kill(os.getpid(), signal.SIGKILL)

    def generate_inner(self, message, task=None):
        question = message[-1]["value"].splitlines()[0].removeprefix("Question: ")
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {question}\\n")
        time.sleep(self.wait_s)
        if "die" in question:
            os.kill(os.getpid(), signal.SIGKILL)
        if "bug" in question:
            raise RuntimeError(f"cannot {question}")
        if "refuse" in question:
            raise SampleError("will not")
        return self.says + question
"""


@pytest.fixture
def moody(workplace: Workplace) -> Workplace:
    (workplace.folder / "moody.py").write_text(MODEL)
    configure(workplace)
    return workplace


def configure(place: Workplace, **arguments: object) -> None:
    place.configure(**{"class": "moody:Moody", **arguments})


def run(place: Workplace, replicas: int, out: str = "out") -> Done:
    base = [*place.base[:-1], out]
    return place.run(*base, "--replicas", str(replicas), PRED_FORMAT="tsv")


def final_files(folder: Path) -> dict[str, str]:
    """What a run leaves, without times and paths."""
    found = {}
    for path in sorted(folder.glob("patient/T*/patient_Mini*")):
        text = path.read_text()
        if path.suffix == ".jsonl":
            records = [{**json.loads(line), "seconds": 0} for line in text.splitlines()]
            text = json.dumps(sorted(records, key=lambda record: record["index"]))
        if path.name.endswith("_score.json"):
            score = json.loads(text)
            text = json.dumps([score["protocols"], score["differences"]])
        found[path.name] = text
    return found


def processes_with(text: str) -> list[int]:
    """Processes, not zombies, whose environment or command line has this text in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                text in (folder / "environ").read_text(errors="replace")
                and "replica" in (folder / "cmdline").read_text()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_for(what: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_any_number_of_replicas_leaves_the_same_files(moody: Workplace) -> None:
    rows = [row(i, question=f"number {i}{' and more' * (i % 5)}?") for i in range(12)]
    write_tsv(moody.folder / "Mini.tsv", [*rows, row(12, question="refuse"), row(13, image="bm8=" * 20)])
    configure(moody, wait_s=0.1)
    told = {count: run(moody, count, f"out{count}") for count in (1, 2, 3)}
    assert [done.code for done in told.values()] == [0, 0, 0], told
    files = {count: final_files(moody.folder / f"out{count}") for count in told}
    assert files[1] and files[1] == files[2] == files[3]
    assert "14 to go; 2 replicas" in told[2].out and "sample 12 failed: will not" in told[2].err
    assert len({line.split()[0] for line in moody.log}) == 1 + 2 + 3, "a process each"


def test_a_sample_that_ends_every_replica_is_recorded_as_failed_with_what_it_did(moody: Workplace) -> None:
    write_tsv(
        moody.folder / "Mini.tsv", [*(row(i) for i in range(6)), row(6, question="die"), row(7, question="a bug")]
    )
    told = run(moody, 2)
    assert told.code == 0, told
    records = {record["index"]: record for record in moody.journal()}
    assert [records[i]["status"] for i in range(8)] == ["ok"] * 6 + ["failed"] * 2
    assert str(records[6]["error"]).count("was killed by SIGKILL") == 2
    assert str(records[7]["error"]).count("RuntimeError: cannot a bug") == 2
    assert len(moody.journal()) == 8
    assert "while answering sample 6 of Mini" in told.err and "Traceback" not in told.err
    logs = "".join(path.read_text() for path in (moody.result_folder() / "logs").glob("*.log"))
    assert logs.count("Traceback") == 2


def test_the_next_piece_is_prepared_meanwhile_and_one_that_ends_its_replica_then_is_the_one_that_fails(
    moody: Workplace,
) -> None:
    configure(moody, wait_s=0.3, ahead=True)
    rows = [row(i, question=f"number {i} is longer, so it comes first") for i in range(7)]
    rows[5] = row(5, question="end while prepared")
    write_tsv(moody.folder / "Mini.tsv", rows)
    told = run(moody, 2)
    assert told.code == 0, told
    records = {record["index"]: record for record in moody.journal()}
    assert [records[i]["status"] for i in range(7)] == ["ok"] * 5 + ["failed", "ok"]
    assert str(records[5]["error"]).count("was killed by SIGKILL") == 2
    assert len(moody.journal()) == 7
    prepared = (moody.folder / "log.prepared").read_text().splitlines()
    assert 3 <= sum("end while prepared" in line for line in prepared) <= 4, "in hand, then alone"


def test_a_mistake_is_told_in_one_line(moody: Workplace) -> None:
    configure(moody, load="mistake")
    told = run(moody, 2)
    assert (told.code, told.err.splitlines()[-1]) == (1, "vlmeval: error: there is no such checkpoint")
    assert "Traceback" not in told.err


def test_kill_9_of_replicas_and_of_their_parent_loses_nothing(moody: Workplace) -> None:
    undisturbed = run(moody, 1, "calm")
    assert undisturbed.code == 0
    (moody.folder / "log.txt").unlink()
    configure(moody, wait_s=0.1)
    chance = random.Random(5)
    for attempt in range(3):
        seen = len(moody.log)
        process = moody.start([*moody.base, "--replicas", str(2 + attempt % 2)])
        wait_for(lambda: len(moody.log) >= seen + 3 or process.poll() is not None)  # noqa: B023
        victims = processes_with(str(moody.folder))
        assert victims
        os.kill(chance.choice(victims), signal.SIGKILL)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate()
    wait_for(lambda: not processes_with(str(moody.folder)), timeout_s=5)
    done = run(moody, 3)
    assert done.code == 0, done
    assert final_files(moody.folder / "out") == final_files(moody.folder / "calm")
    indices = [int(str(record["index"])) for record in moody.journal()]
    assert sorted(indices) == list(range(20)), "each exactly once"


def test_ctrl_c_finishes_what_is_in_flight_and_twice_stops_at_once(moody: Workplace) -> None:
    configure(moody, wait_s=1.0)
    process = moody.start([*moody.base, "--replicas", "2"])
    wait_for(lambda: len(moody.log) >= 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in err
    assert "the same command goes on from there" in err
    done = len(moody.journal())
    # A replica that starts more than a second after the other finds it at its second sample.
    assert 2 <= done == len(moody.log) <= 3, "all were finished, no other was begun"
    configure(moody, wait_s=8.0)
    process = moody.start([*moody.base, "--replicas", "2"])
    wait_for(lambda: len(moody.log) >= done + 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=3)
    assert process.returncode == 130 and len(moody.journal()) == done
    assert not processes_with(str(moody.folder))


def test_a_full_disk_stops_cleanly_and_the_run_goes_on_later(moody: Workplace) -> None:
    out = moody.folder / "out"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(out)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        configure(moody, says="A" * 4000)
        full = run(moody, 2)
        assert full.code == 1 and "the disk is full" in full.err and "Traceback" not in full.err
        assert 0 < len(read_journal(moody.result_folder() / "patient_Mini.jsonl")) < 20
        subprocess.run(["mount", "-o", "remount,size=4m", str(out)], check=True)
        assert run(moody, 3).code == 0
        assert len(read_journal(moody.result_folder() / "patient_Mini.jsonl")) == 20
        assert len(moody.log) <= 20 + 3, "only what could not be recorded is answered again"
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)
