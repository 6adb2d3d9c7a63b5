"""Killed at any moment and started again: nothing finished is redone, nothing is lost."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace, row, write_tsv
from vlmeval.inference.journal import read_journal


def test_kill_9_at_random_moments_redoes_nothing_that_was_finished(workplace: Workplace) -> None:
    workplace.configure(wait_s=0.02)
    chance = random.Random(0)
    redone = 0
    for _ in range(5):
        process = workplace.start(workplace.base)
        before = len(workplace.log)
        while len(workplace.log) < before + 2 and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        process.communicate()
    assert workplace.run().code == 0
    assert sorted(str(record["index"]) for record in workplace.journal()) == sorted(map(str, range(20)))
    # A kill may hit between the model's answer and its record: that one sample is answered again.
    redone = len(workplace.log) - 20
    assert redone <= 5
    assert set(workplace.log) == {f"Question: number {i}?" for i in range(20)}


def test_a_finished_run_is_only_scored_again(workplace: Workplace) -> None:
    first = workplace.run()
    second = workplace.run()
    assert (first.code, second.code) == (0, 0)
    assert len(workplace.log) == 20
    assert "20 to go" in first.out and "(new)" in first.out
    assert "(continued)" in second.out
    table = first.out[first.out.index("patient on Mini") :]
    assert second.out.endswith(table)


def test_a_limit_over_a_longer_run_says_what_the_result_files_leave_out(workplace: Workplace) -> None:
    assert workplace.run().code == 0
    answered = len(workplace.journal())
    limited = workplace.run(*workplace.base, "--limit", "2")
    assert f"the result files leave out {answered - 2} answers that the journal has" in limited.err
    assert "leave out" not in workplace.run().err


def test_ctrl_c_keeps_what_is_finished_and_says_so(workplace: Workplace) -> None:
    workplace.configure(wait_s=0.2)
    process = workplace.start(workplace.base)
    while len(workplace.log) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "the same command goes on from there" in err and "Traceback" not in err
    done = len(workplace.journal())
    assert 0 < done < 20
    assert f"{done} of 20 are there already" in workplace.run().out


def test_failed_samples_are_tried_again_and_an_edited_row_is_answered_anew(workplace: Workplace) -> None:
    rows = [row(i) for i in range(6)]
    write_tsv(workplace.folder / "Mini.tsv", [*rows[:5], row(5, image="bm90IGFuIGltYWdl" * 10)])
    first = workplace.run()
    assert "sample 5 failed" in first.err
    write_tsv(workplace.folder / "Mini.tsv", [row(0, question="another?"), *rows[1:]])
    second = workplace.run()
    assert "4 of 6 are there already" in second.out
    assert sorted(workplace.log[5:]) == ["Question: another?", "Question: number 5?"]
    assert second.err.count("failed") == 0


def test_a_benchmark_edited_after_the_run_is_told_when_it_is_scored_again(workplace: Workplace) -> None:
    workplace.run()
    rows = [row(i) for i in range(20)]
    write_tsv(workplace.folder / "Mini.tsv", [{**rows[0], "answer": "B"}, {**rows[1], "question": "new?"}, *rows[2:]])
    done = workplace.run(*workplace.base, "--mode", "eval")
    assert "Mini: its file has changed since the run (its MD5 was" in done.err
    assert "1 answers are to rows that ask otherwise now and do not count" in done.err
    score = json.loads((workplace.result_folder() / "patient_Mini_score.json").read_text())
    assert "has changed since the run" in score["run"]["notes"][0]
    workplace.run()  # answers the row that is new
    assert "has changed" not in workplace.run(*workplace.base, "--mode", "eval").err


def test_a_changed_setting_starts_a_new_run_and_is_named(workplace: Workplace) -> None:
    workplace.run()
    workplace.configure(says="B")
    told = workplace.run().out
    assert "changed setting: says: A -> B" in told
    assert len(workplace.log) == 40


def test_two_processes_do_not_write_into_the_same_run(workplace: Workplace) -> None:
    workplace.configure(wait_s=0.2)
    first = workplace.start(workplace.base)
    while not workplace.log:
        time.sleep(0.01)
    second = workplace.run()
    assert second.code == 1 and "another process is writing" in second.err
    first.kill()
    first.communicate()
    workplace.configure()
    assert workplace.run().code == 0


def test_the_reader_of_the_output_may_leave(workplace: Workplace) -> None:
    with workplace.start(workplace.base) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in err


def test_infer_and_eval_apart_give_what_both_together_give(workplace: Workplace) -> None:
    nothing = workplace.run(*workplace.base, "--mode", "eval")
    assert "nothing to score" in nothing.err
    assert not workplace.log
    infer = workplace.run(*workplace.base, "--mode", "infer")
    assert "patient on Mini" not in infer.out
    evaluation = workplace.run(*workplace.base, "--mode", "eval")
    assert len(workplace.log) == 20
    assert "patient on Mini" in evaluation.out and evaluation.code == 0


@pytest.fixture
def small_disk(workplace: Workplace) -> Iterator[Path]:
    """A real file system of 48 KiB for the results; needs the right to mount one."""
    folder = workplace.folder / "out"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_cleanly_and_the_run_goes_on_later(workplace: Workplace, small_disk: Path) -> None:
    workplace.configure(says="A" * 4000)
    full = workplace.run()
    assert full.code == 1 and "the disk is full" in full.err and "Traceback" not in full.err
    answered = len(workplace.log)
    assert 0 < answered < 20
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert workplace.run().code == 0
    assert len(read_journal(workplace.result_folder() / "patient_Mini.jsonl")) == 20
    assert len(workplace.log) <= 21, "only the sample whose record did not fit is answered again"


def test_output_is_one_line_per_event_in_a_log_file(workplace: Workplace) -> None:
    told = workplace.run()
    assert "\r" not in told.err and "Mini  20/20 (100 %)" in told.err and "samples/s" in told.err
