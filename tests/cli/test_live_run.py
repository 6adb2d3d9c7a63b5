"""The live view of real runs: in a terminal, in a pipe, and where replicas die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.conftest import ROOT, Workplace, row, write_tsv
from tests.cli.terminal import Screen, run_in_terminal
from tests.cli.test_replicas import configure, moody  # noqa: F401

TERMINAL = {"TERM": "xterm-256color"}
TABLE = re.compile(r"^(replica \d  |process   ).*(answering|loading|waiting|restarting)")


def in_terminal(place: Workplace, *arguments: str, **more: object) -> tuple[int, Screen, str]:
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    environ = {**place.environment, **TERMINAL}
    return run_in_terminal(command, place.folder, environ, **more)  # type: ignore[arg-type]


def assert_clean(screen: Screen) -> None:
    assert screen.is_cursor_visible
    assert not [line for line in screen.rows if TABLE.match(line) or "━" in line], "\n".join(screen.rows)


def test_two_replicas_of_the_tiny_checkpoint_are_shown_and_leave_a_clean_terminal(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    def watch(screen: Screen, process: subprocess.Popen[bytes]) -> None:
        for line in screen.rows:
            if TABLE.match(line):
                seen[" ".join(line.split()[:4])] = line

    place = Workplace(tmp_path)
    (tmp_path / "LMUData").mkdir()
    arguments = ("--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--limit", "96", "--batch-size", "1")
    code, screen, _ = in_terminal(place, *arguments, "--replicas", "2", "--work-dir", "out", watch=watch)
    assert code == 0, "\n".join(screen.rows)
    assert {name[:9] for name in seen} == {"replica 0", "replica 1"}, seen
    # One that is ready late may find nothing left to do.
    now_gib, peak_gib, plan = next(line for name, line in seen.items() if name.endswith("cpu answering")).split()[-3:]
    assert 0 < float(now_gib) <= float(peak_gib) < 64 and plan == "-"
    assert_clean(screen)
    assert [line for line in screen.rows if re.match(r"replica \d is ready$", line.rstrip())]
    assert [line for line in screen.rows if line.startswith("ShapesBench  96/96 (100 %)") and "took" in line]


def test_a_replica_that_dies_is_shown_as_restarting_and_failures_stay_above(moody: Workplace) -> None:  # noqa: F811
    # The longest goes first, so that there is something left to do meanwhile.
    long = " and so on" * 50
    rows = [row(i, question={3: f"die{long}", 5: "refuse [red]"}.get(i, f"number {i}?")) for i in range(16)]
    write_tsv(moody.folder / "Mini.tsv", rows)
    configure(moody, wait_s=0.4)
    seen: set[str] = set()

    def watch(screen: Screen, process: subprocess.Popen[bytes]) -> None:
        seen.update(state for state in ("restarting", "replicas died", "failed: ") if state in str(screen.rows))

    code, screen, _ = in_terminal(moody, *moody.base, "--replicas", "2", watch=watch)
    assert code == 0 and seen == {"restarting", "replicas died", "failed: "}
    assert_clean(screen)
    shown = "\n".join(screen.rows)
    assert "sample 5 failed: will not" in shown and "was killed by SIGKILL" in shown
    assert "Mini  16/16 (100 %)" in shown and "2 failed" in shown


def test_one_process_has_the_same_view_and_ctrl_c_leaves_the_terminal_clean(moody: Workplace) -> None:  # noqa: F811
    configure(moody, wait_s=0.2)
    told_at: list[float] = []

    def watch(screen: Screen, process: subprocess.Popen[bytes]) -> None:
        shown = [line for line in screen.rows if line.startswith("process    cpu  answering")]
        if shown and int(shown[0].split()[3]) >= 3 and not told_at:
            told_at.append(time.monotonic())
            os.kill(process.pid, signal.SIGINT)

    code, screen, written = in_terminal(moody, *moody.base, "--replicas", "1", watch=watch)
    assert code == 130 and told_at
    assert_clean(screen)
    assert "the same command goes on from there" in "\n".join(screen.rows) and "Traceback" not in written


def test_a_pipe_and_a_dumb_terminal_get_plain_lines(moody: Workplace) -> None:  # noqa: F811
    piped = moody.run(*moody.base, "--replicas", "2", FORCE_COLOR="1", TERM="xterm")
    assert piped.code == 0 and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", piped.err)
    assert re.search(r"^Mini  20/20 \(100 %\)  [\d.]+ samples/s  took ", piped.err, re.M)
    assert "  0.0 samples/s" not in piped.err
    environ = {**moody.environment, "TERM": "dumb"}
    command = [sys.executable, str(ROOT / "run.py"), *moody.base[:-1], "again", "--replicas", "1"]
    code, screen, written = run_in_terminal(command, moody.folder, environ)
    assert code == 0 and "\x1b" not in written and "Mini  20/20 (100 %)" in "\n".join(screen.rows)
