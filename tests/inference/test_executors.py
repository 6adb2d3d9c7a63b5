"""Replicas as real processes: started again when they die, replaced when they hang, given up when it is hopeless."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cli.conftest import row, write_tsv
from tests.inference.fake_replicas import Notes
from vlmeval.config import ModelSpec
from vlmeval.dataset.registry import open_dataset
from vlmeval.errors import ModelError, VLMEvalError
from vlmeval.inference import torchrun
from vlmeval.inference.coordinator import Coordinator
from vlmeval.inference.executors import COORDINATOR_LOST, Launch, ReplicaSpec
from vlmeval.inference.limits import Limits
from vlmeval.inference.local_executor import LocalExecutor, exit_words
from vlmeval.inference.processes import stopped_children
from vlmeval.inference.protocol import Listener
from vlmeval.inference.queue import Piece, WorkQueue
from vlmeval.inference.worker import describe_dataset
from vlmeval.vlm.placement_request import Placement

MODEL = """
import os
import time

from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.multi_card import MultiCardMixin


class Simple(MultiCardMixin, BaseModel):
    def __init__(self, load="well", wait_s=0.0):
        self.how, self.wait_s, self.where = load, wait_s, "nowhere"

    def place(self, placement):
        self.where = f"cards {list(placement.cards)}"

    def load(self):
        if self.how == "crash":
            raise RuntimeError("the driver is gone")

    def generate_inner(self, message, task=None):
        time.sleep(self.wait_s)
        return f"{self.where}, {os.environ.get('SLICE', '')}, {os.environ['OMP_NUM_THREADS']}"
"""
QUICK = Limits(heartbeat_s=0.1, silence_s=1.0, first_pause_s=0.05, deaths_in_a_row=3)


class Site:
    """A coordinator with replicas in processes of their own."""

    def __init__(self, folder: Path, replicas: list[ReplicaSpec], model: dict[str, object]) -> None:
        spec = ModelSpec(name="simple", class_path="simple_model:Simple", arguments=model)
        self.executor = LocalExecutor(replicas, Launch(model=spec, limits=QUICK), folder / "logs")
        self.listener = Listener()
        self.coordinator = Coordinator(self.listener, self.executor, {}, limits=QUICK)
        self.executor.tell({"address": asdict(self.listener.address)})
        self.executor.tell({"datasets": [describe_dataset(open_dataset(folder / "Mini.tsv"))]})
        self.notes = Notes()

    def serve(self, rows: int) -> Notes:
        self.coordinator.serve(WorkQueue(Piece(dataset=0, rows=(n,), cost=1.0) for n in range(rows)), self.notes)
        self.coordinator.dismiss()
        return self.notes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "simple_model.py").write_text(MODEL)
    write_tsv(tmp_path / "Mini.tsv", [row(i) for i in range(8)])
    return tmp_path


@contextmanager
def site(folder: Path, replicas: list[ReplicaSpec], **model: object) -> Iterator[Site]:
    made = Site(folder, replicas, model)
    # The facts are compared in test_coordinator.py.
    made.coordinator._compare = lambda member, facts: None  # type: ignore[method-assign]
    try:
        yield made
    finally:
        made.coordinator.close()
        made.executor.stop()
        made.listener.close()


def test_a_replica_gets_its_placement_its_environment_and_one_thread(folder: Path) -> None:
    spec = ReplicaSpec(number=0, name="replica 0", placement=Placement(cards=(2, 3)).words(), environ={"SLICE": "2,3"})
    with site(folder, [spec]) as at:
        notes = at.serve(1)
    assert notes.records[0].prediction == "cards [2, 3], 2,3, 1"


def test_a_replica_that_was_stopped_is_noticed_and_replaced(folder: Path) -> None:
    with site(folder, [ReplicaSpec(number=0, name="replica 0")], wait_s=0.3) as at:
        helper = threading.Thread(target=_stop_when_busy, args=[at])
        helper.start()
        notes = at.serve(3)
        helper.join()
    assert sorted(notes.records) == [0, 1, 2] and not notes.twice and not notes.failed
    (line,) = notes.lines
    assert "gave no sign of life" in line and "while answering sample" in line


def test_a_replica_tells_what_memory_it_holds_and_when_it_comes_back(folder: Path) -> None:
    with site(folder, [ReplicaSpec(number=0, name="replica 0")], wait_s=0.6) as at:
        helper = threading.Thread(target=_kill_when_busy, args=[at])
        helper.start()
        notes = at.serve(2)
        helper.join()
        assert at.executor.pause_s(0) == 0.0
    assert at.executor.pause_s(0) is None, "stopped for good"
    states = [replicas[0] for replicas, _ in notes.watched]
    held = [one.memory[0] for one in states if one.memory]
    assert held and all(one["card"] == "cpu" and 0 < one["now_bytes"] <= one["peak_bytes"] for one in held)
    assert {one.state for one in states} >= {"starting", "answering", "restarting"}
    assert states[-1].deaths == 1


def _kill_when_busy(at: Site) -> None:
    while not at.notes.records:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(at.coordinator._callers.members[0].pid, signal.SIGKILL)


def _stop_when_busy(at: Site) -> None:
    while not at.notes.records:
        time.sleep(0.01)
    os.kill(at.coordinator._callers.members[0].pid, signal.SIGSTOP)


def test_a_model_that_never_loads_is_tried_some_times_and_then_the_run_ends_naming_the_log(folder: Path) -> None:
    with site(folder, [ReplicaSpec(number=0, name="replica 0")], load="crash") as at:
        with pytest.raises(ModelError, match=r"no replica is left.*replica-0\.log"):
            at.serve(2)
        assert len(at.notes.lines) == 3
        assert "failed with RuntimeError: the driver is gone while loading the model" in at.notes.lines[0]
        assert Path(at.executor.log(0)).read_text().count("Traceback") == 3


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-200, "signal 200"), (7, "exit code 7")]
)
def test_how_a_process_ended_in_words(code: int, words: str) -> None:
    assert words in exit_words(code)


def test_a_rank_ends_when_the_coordinator_is_seen_stopped_and_says_what_its_replica_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrun, "STOPPED_S", 0.5)
    coordinator = subprocess.Popen(["sleep", "60"])
    spec = ReplicaSpec(number=1, name="rank 1")
    executor = LocalExecutor([spec], Launch(model=ModelSpec(name="none", class_path="none:None")), tmp_path)
    monkeypatch.setattr(executor, "tend", list)  # what it would start is not needed here
    try:
        patrol = torchrun.Patrol(executor, grace_s=1.0, coordinator=coordinator.pid)
        log = Path(executor.log(1))
        log.write_text(
            "noise\nreplica ends: the process that started it has ended; it was answering sample 7 of Mini\n"
        )
        coordinator.send_signal(signal.SIGSTOP)
        with pytest.raises(VLMEvalError, match=r"^rank 1: rank 0, .* has been stopped .*sample 7 of Mini; see"):
            patrol.until_done()
    finally:
        coordinator.kill()
        coordinator.wait()


def test_a_log_without_last_words_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("Loading weights\n")
    assert torchrun.last_words(str(tmp_path / "a.log")) == torchrun.last_words(str(tmp_path / "none.log")) == ""


@pytest.mark.parametrize("is_over", [True, False])
def test_a_rank_whose_replica_comes_when_all_is_answered_ends_well_and_one_that_is_left_alone_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    executor = LocalExecutor(
        [ReplicaSpec(number=1, name="rank 1")], Launch(model=ModelSpec(name="none", class_path="none:None")), tmp_path
    )
    monkeypatch.setattr(executor, "final_code", lambda number: COORDINATOR_LOST)
    patrol = torchrun.Patrol(executor, 1.0, 0, lambda: is_over)
    if is_over:
        patrol.until_done()
        return
    with pytest.raises(VLMEvalError, match="rank 1: rank 0, which gives out the work, is gone"):
        patrol.until_done()


def test_children_that_were_stopped_are_found() -> None:
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        assert not set(stopped_children(os.getpid())) & {child.pid for child in children}
        children[1].send_signal(signal.SIGSTOP)
        os.waitpid(children[1].pid, os.WUNTRACED)
        assert children[1].pid in stopped_children(os.getpid())
        assert children[0].pid not in stopped_children(os.getpid())
    finally:
        for child in children:
            child.kill()
            child.wait()
