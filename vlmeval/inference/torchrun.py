"""One run shared by the ranks that torchrun started on this machine.

Rank 0 is the coordinator and the only one that writes; every rank, 0 too, keeps one replica as a process of its own, so
that a crash in a driver ends the replica and not the rank (torchrun ends all ranks when one does). Ranks find the
coordinator through torch's TCPStore, which torchrun's agent serves at MASTER_ADDR:MASTER_PORT; nothing else of
torch.distributed is used, and there is no barrier.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from vlmeval.errors import VLMEvalError
from vlmeval.hardware import LaunchEnvironment, rank_environment
from vlmeval.inference.executors import COORDINATOR_LOST, DONE, FAREWELL, ReplicaSpec
from vlmeval.inference.local_executor import LocalExecutor
from vlmeval.inference.processes import is_stopped, kill
from vlmeval.inference.protocol import Address

LOOKUP_S = 60.0
PATROL_S = 0.1
STOPPED_S = 8.0
"""A rank 0 that is seen stopped for so long ends the others; torchrun takes 30 s more to end it. While all of them are
stopped (Ctrl-Z) nobody looks, and nothing is counted."""


def rank_replica(launched: LaunchEnvironment, rank: int | None = None, each: int | None = 1) -> ReplicaSpec:
    """The replica of this rank, with `each` of the cards (None: an equal share); of another `rank` number and name."""
    if rank is not None:
        return ReplicaSpec(number=rank, name=f"rank {rank}")
    environ = rank_environment(launched, each)
    placement = {"later": True} if environ else {}  # which depends on the benchmarks
    return ReplicaSpec(number=launched.rank, name=f"rank {launched.rank}", placement=placement, environ=environ)


class TorchrunExecutor:
    """Rank 0's: its own replica is a process here, those of the other ranks are started, and again, by their ranks."""

    def __init__(self, own: LocalExecutor, launched: LaunchEnvironment) -> None:
        self._own = own
        others = [rank_replica(launched, rank) for rank in range(launched.world_size) if rank != launched.rank]
        self.replicas: Sequence[ReplicaSpec] = (*own.replicas, *others)
        self._remote = {replica.number for replica in others}

    def tell(self, words: Mapping[str, Any]) -> None:
        """Only our own: the other ranks tell theirs."""
        self._own.tell(words)

    def tend(self) -> list[tuple[int, str]]:
        """Our own."""
        return self._own.tend()

    def how_it_ended(self, number: int) -> str:
        """Of another rank's replica no more is known than that its connection broke."""
        return "is gone (its connection broke)" if number in self._remote else self._own.how_it_ended(number)

    def end(self, number: int, pid: int) -> None:
        """All ranks are on this machine, and while a connection is open its process id belongs to nobody else."""
        if number not in self._remote:
            self._own.end(number, pid)
        elif pid > 1:
            kill(pid, signal.SIGKILL)

    def proved(self, number: int) -> None:
        """The other ranks keep count of theirs."""
        if number not in self._remote:
            self._own.proved(number)

    def pause_s(self, number: int) -> float | None:
        """Of our own; the other ranks start theirs, and do not say when."""
        return 0.0 if number in self._remote else self._own.pause_s(number)

    def log(self, number: int) -> str:
        """Of our own."""
        return "" if number in self._remote else self._own.log(number)

    @property
    def hopeless(self) -> str:
        """Our own cannot be started; asked for while no other rank is there either."""
        return self._own.hopeless

    def stop(self) -> None:
        """Our own; the others were told to stop and end with their ranks."""
        self._own.stop()


class Store:
    """torch's TCPStore: where rank 0 says how it can be reached. Imports torch; keep it while it may be needed."""

    def __init__(self, launched: LaunchEnvironment) -> None:
        from torch.distributed import DistError, TCPStore

        self._error = DistError
        self._key = f"vlmeval/{launched.launch_id}/coordinator"
        self._where = f"MASTER_ADDR:MASTER_PORT {launched.master[0]}:{launched.master[1]}"
        serves = launched.rank == 0 and not launched.has_agent
        try:
            self._store = TCPStore(
                *launched.master, is_master=serves, wait_for_workers=False, timeout=timedelta(seconds=LOOKUP_S)
            )
        except (DistError, ValueError) as error:
            why = "another process listens there" if serves else "nobody answers there"
            first = str(error).splitlines()[0][:200]
            raise VLMEvalError(
                f"rank {launched.rank}: the ranks cannot meet at {self._where}: {why} ({first}); choose a free port: "
                "torchrun --master-port N, or --standalone"
            ) from error

    def publish(self, address: Address) -> None:
        """Say where the coordinator listens."""
        self._store.set(self._key, json.dumps(asdict(address)))

    def publish_end(self) -> None:
        """Say that all is answered: a rank that comes too late to be told so by the coordinator reads it here."""
        with contextlib.suppress(self._error):
            self._store.set(self._key, json.dumps(None))

    def is_over(self) -> bool:
        """Whether that was said; False where the store is gone."""
        try:
            return json.loads(self._store.get(self._key)) is None
        except self._error:
            return False

    def lookup(self) -> Address | None:
        """Where the coordinator listens; None once all is answered. Waits for it to be said."""
        try:
            found = json.loads(self._store.get(self._key))
            return None if found is None else Address(**found)
        except self._error as error:
            raise VLMEvalError(
                f"rank 0 has not said at {self._where} within {LOOKUP_S:.0f} s where it listens"
            ) from error


class Patrol:
    """What a rank other than 0 does: keep its replica alive until that is told to stop, or rank 0 (process
    `coordinator`, 0: not known) cannot go on. `is_over` says whether all was answered without it."""

    def __init__(
        self,
        executor: LocalExecutor,
        grace_s: float,
        coordinator: int = 0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._executor = executor
        self._grace_s = grace_s
        self._coordinator = coordinator
        self._is_over = is_over
        self._seen_stopped = 0
        self._stop_at: float | None = None

    def until_done(self) -> None:
        """Raises VLMEvalError when the replica ended otherwise, KeyboardInterrupt after a signal."""
        (replica,) = self._executor.replicas
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._interrupted) for number in signals}
        try:
            while (code := self._executor.final_code(replica.number)) is None and not self._is_coordinator_stopped():
                self._executor.tend()
                if self._stop_at is not None and time.monotonic() > self._stop_at:
                    raise KeyboardInterrupt
                time.sleep(PATROL_S)
        finally:
            for number, old in before.items():
                signal.signal(number, old)
            log = self._executor.log(replica.number)
            self._executor.stop()
        if code != DONE and self._stop_at is not None:
            raise KeyboardInterrupt
        if code != DONE and not (code == COORDINATOR_LOST and self._is_over()):
            raise VLMEvalError(f"{replica.name}: {self._why(code)}; {last_words(log)}see what rank 0 says, and {log}")

    def _is_coordinator_stopped(self) -> bool:
        """Looks are counted, not seconds: this process may have been stopped as well."""
        is_now = self._coordinator > 1 and is_stopped(self._coordinator)
        self._seen_stopped = self._seen_stopped + 1 if is_now else 0
        return self._seen_stopped * PATROL_S >= STOPPED_S

    def _why(self, code: int | None) -> str:
        if code is None:
            return f"rank 0, which gives out the work, has been stopped (process {self._coordinator}, SIGSTOP)"
        return "rank 0, which gives out the work, is gone" if code == COORDINATOR_LOST else "its replica had to end"

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        # Rank 0 lets the replicas finish what they are at, and ends them.
        self._stop_at = time.monotonic() + self._grace_s


def last_words(log: str) -> str:
    """What a replica wrote last about its end, "" where it wrote nothing."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
    except OSError:
        return ""
    said = [line.removeprefix(FAREWELL) for line in lines if line.startswith(FAREWELL)]
    return f"{said[-1]}; " if said else ""
