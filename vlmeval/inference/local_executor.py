"""Replicas as processes of this machine, started again when they die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vlmeval.inference.executors import DONE, GAVE_UP, Launch, ReplicaSpec
from vlmeval.storage import storage_error

# Its own line of Python, not `-m` or a path: neither the working folder nor this package's folder shall come before
# the standard library. The parent's sys.path comes with the first line of its stdin.
BOOTSTRAP = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; import json; start = json.loads(sys.stdin.readline()); "
    "sys.path[:] = start['path']; from vlmeval.inference.worker import main; main(start)"
)


@dataclass
class _Slot:
    spec: ReplicaSpec
    log: IO[bytes]
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    start_at: float | None = 0.0
    started_at: float = 0.0
    end: str = ""
    code: int | None = None


class LocalExecutor:
    """Replicas as processes of this machine, started again with a growing pause when they die.

    Their stdout and stderr go to log files in `log_folder`.
    """

    def __init__(
        self,
        replicas: Sequence[ReplicaSpec],
        launch: Launch,
        log_folder: Path,
        final_codes: Sequence[int] = (DONE, GAVE_UP),
    ) -> None:
        self.replicas = tuple(replicas)
        self._launch = launch
        self._final_codes = final_codes
        self._told: list[bytes] = []
        self._slots: dict[int, _Slot] = {}
        for spec in self.replicas:
            path = log_folder / f"{spec.name.replace(' ', '-')}.log"
            self._slots[spec.number] = _Slot(spec=spec, log=_open_log(path), log_path=path)

    def tell(self, words: Mapping[str, Any]) -> None:
        """Written to the stdin of every process, and of those still to come."""
        line = json.dumps(words).encode() + b"\n"
        self._told.append(line)
        for slot in self._slots.values():
            if slot.process is not None:
                _write(slot.process, line)

    def tend(self) -> list[tuple[int, str]]:
        """Start what is due; say what ended by itself."""
        ended = []
        for number, slot in self._slots.items():
            if slot.process is not None and slot.process.poll() is not None:
                ended.append((number, self._ended(slot)))
            if slot.process is None and slot.start_at is not None and time.monotonic() >= slot.start_at:
                self._start(slot)
        return ended

    def how_it_ended(self, number: int) -> str:
        """Waits a moment for a process that is ending, else kills it."""
        slot = self._slots[number]
        if slot.process is None:
            return slot.end
        try:
            slot.process.wait(timeout=3.0)
        except subprocess.TimeoutExpired:
            slot.process.kill()
            slot.process.wait()
        return self._ended(slot)

    def end(self, number: int, pid: int) -> None:
        """SIGKILL: a process that is stopped takes no other."""
        process = self._slots[number].process
        if process is not None:
            process.kill()

    def proved(self, number: int) -> None:
        """Its next pause is the first one again."""
        self._slots[number].deaths = 0

    def pause_s(self, number: int) -> float | None:
        """By its slot."""
        slot = self._slots[number]
        if slot.process is not None:
            return 0.0
        return None if slot.start_at is None else max(0.0, slot.start_at - time.monotonic())

    def log(self, number: int) -> str:
        """The path of its log file."""
        return str(self._slots[number].log_path)

    def reduce(self, count: int) -> None:
        """Keep only the first `count` replicas: there is not work for all."""
        for spec in self.replicas[count:]:
            slot = self._slots.pop(spec.number)
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
                _close_stdin(slot.process)
            slot.log.close()
            slot.log_path.unlink(missing_ok=True)
        self.replicas = self.replicas[:count]

    def keep_logs(self, folder: Path) -> None:
        """Move the log files, which stay open, to where the run's files are."""
        for slot in self._slots.values():
            target = folder / slot.log_path.name
            if target == slot.log_path:
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                os.replace(slot.log_path, target)
            except OSError as error:
                raise storage_error(target, error) from error
            slot.log_path = target

    @property
    def hopeless(self) -> str:
        """Every replica died too often."""
        if any(slot.process is not None or slot.start_at is not None for slot in self._slots.values()):
            return ""
        return "; ".join(f"{s.spec.name} {s.end} ({s.log_path})" for s in self._slots.values())

    def final_code(self, number: int) -> int | None:
        """The exit code of a replica that will not be started again; None while it may."""
        slot = self._slots[number]
        return slot.code if slot.process is None and slot.start_at is None else None

    def stop(self) -> None:
        """Give those that were told to stop a moment, then kill."""
        deadline = time.monotonic() + 1.0
        running = [slot for slot in self._slots.values() if slot.process is not None]
        for slot in running:
            _close_stdin(slot.process)
        for slot in running:
            if slot.process is None:
                continue
            try:
                slot.process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
            slot.process, slot.start_at = None, None
        for slot in self._slots.values():
            slot.start_at = None
            slot.log.close()

    def _start(self, slot: _Slot) -> None:
        slot.start_at, slot.started_at = None, time.monotonic()
        environ = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **slot.spec.environ}
        command = [sys.executable, "-c", BOOTSTRAP, slot.spec.name]
        slot.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=slot.log,
            stderr=slot.log,
            env=environ,
            # Ctrl-C is the coordinator's to answer: it lets the replicas finish what they are at.
            preexec_fn=_deaf_to_interrupts if os.name == "posix" else None,
        )
        _write(slot.process, self._launch.line(slot.spec).encode() + b"".join(self._told))

    def _ended(self, slot: _Slot) -> str:
        if slot.process is None:
            return slot.end
        code = slot.process.returncode
        _close_stdin(slot.process)
        slot.process, slot.end = None, exit_words(code)
        slot.code = code
        if code in self._final_codes:
            slot.start_at = None
            return slot.end
        limits = self._launch.limits
        slot.deaths = 1 + (slot.deaths if time.monotonic() - slot.started_at < limits.steady_s else 0)
        pause_s = min(limits.longest_pause_s, limits.first_pause_s * 2 ** (slot.deaths - 1))
        if slot.deaths < limits.deaths_in_a_row:
            slot.start_at = time.monotonic() + pause_s
        else:
            slot.end += f", for the {slot.deaths}th time in a row, and is not started again,"
        return slot.end


def exit_words(code: int) -> str:
    """What an exit code of subprocess means: `was killed by SIGKILL`."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _deaf_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open_log(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise storage_error(path, error) from error


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    """A process that is gone takes nothing; that it is gone is seen when it is tended."""
    with contextlib.suppress(OSError):
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.write(data)
            process.stdin.flush()


def _close_stdin(process: subprocess.Popen[bytes] | None) -> None:
    with contextlib.suppress(OSError):
        if process is not None and process.stdin is not None:
            process.stdin.close()
