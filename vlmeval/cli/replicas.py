"""Several replicas for one run: whether, how many, started early, and what the screen says meanwhile."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from signal import SIGCONT
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlmeval.cli.card_slices import own_rank, rank_placement, replicas_of
from vlmeval.cli.recorder import Recorder
from vlmeval.cli.screen import warn
from vlmeval.config import ModelSpec, RunConfig
from vlmeval.dataset.registry import DatasetPlan
from vlmeval.errors import UsageError
from vlmeval.hardware import LaunchEnvironment, cards_possible, cpu_cores, usable_memory_bytes
from vlmeval.inference.coordinator import Coordinator
from vlmeval.inference.executors import COORDINATOR_LOST, DONE, GAVE_UP, Executor, Launch, ReplicaSpec
from vlmeval.inference.limits import Limits
from vlmeval.inference.local_executor import LocalExecutor
from vlmeval.inference.processes import is_alive, is_stopped, kill, stopped_children
from vlmeval.inference.protocol import Listener
from vlmeval.inference.queue import WorkQueue
from vlmeval.inference.replica_count import replicas_on_cpu, weight_bytes
from vlmeval.inference.run_folder import RunFolder
from vlmeval.inference.torchrun import Patrol, Store, TorchrunExecutor, rank_replica
from vlmeval.inference.versions import versions
from vlmeval.inference.worker import dataset_facts, describe_dataset, json_values, runs_as
from vlmeval.placement.policy import Plan
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.prompt_size import PromptSize

if TYPE_CHECKING:
    from vlmeval.cli.evaluate import Work

QUICKLY_OPENED_BYTES = 2 * 2**20
"""Benchmarks up to this size are opened before it is decided whether replicas are worth starting."""
FAREWELL_S = 15.0
USUAL_BATCH = 8
"""Prompts of a batch whose size the model is left to choose, for counting how many there will be."""
SCRATCH = ".starting-"
"""Logs of replicas that are started before there is a run folder to put them in."""


class Crew:
    """The replicas of a run, model after model. Without any, `wanted` says so and the caller's own process answers."""

    def __init__(self, config: RunConfig, launched: LaunchEnvironment) -> None:
        overrides = config.placement.overrides
        replicas = overrides.replicas if overrides else None
        if replicas is not None and launched.world_size > 1:
            raise UsageError("--replicas is not for torchrun, where every rank is one: --nproc-per-node says how many")
        self._config = config
        self._launched = launched
        self._asked = replicas
        self._listener: Listener | None = None
        self._executor: LocalExecutor | None = None
        self._store: Store | None = None
        self._job = -1
        self._dismissed = launched.world_size == 1 or config.mode == "eval"
        self._scratch = config.work_dir / f"{SCRATCH}{os.getpid()}"

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._dismissed:
                self._dismiss_ranks()
            if kind is None and self._store is not None:
                self._store.publish_end()
        finally:
            self.not_needed()
            if self._listener is not None:
                self._listener.close()

    def start_early(self, models: Sequence[BaseModel], plans: Sequence[DatasetPlan]) -> None:
        """Start the replicas of the first model while benchmarks are still being opened, where it is sure to be worth
        it; under torchrun also say to the other ranks where we listen."""
        if self._config.mode == "eval":
            return
        model, spec = models[0], self._config.models[0]
        if self._launched.world_size > 1:
            self._start(spec, 0, [own_rank(self._launched, self._config)], self._scratch)
            self._store = Store(self._launched)
            self._store.publish(self._open_door().address)
            return
        small = all(plan.on_disk and plan.path.stat().st_size <= QUICKLY_OPENED_BYTES for plan in plans)
        is_here = Path(getattr(model, "model_path", os.curdir)).expanduser().is_dir()
        # On cards the plan decides, and the plan depends on the benchmarks.
        if small or not is_here or self._config.dry_run or cards_possible():
            return
        limit, batch_size = self._config.limit, self._usual_batch(model)
        pieces = len(plans) * math.ceil(limit / batch_size) if limit else sys.maxsize
        count = self._count(model, pieces, None)
        if count > 1:
            self._start(spec, 0, replicas_of(count, model, None), self._scratch)

    def wanted(self, model: BaseModel, works: Sequence[Work], plan: Plan | None) -> bool:
        """Whether replicas shall answer this, rather than this process."""
        if self._executor is not None or self._launched.world_size > 1:
            return True
        return self._count(model, self._pieces(model, works), plan) > 1

    def answer(
        self, spec: ModelSpec, model: BaseModel, works: Sequence[Work], folder: RunFolder, plan: Plan | None
    ) -> Mapping[str, Mapping[str, Any]]:
        """Answer all that is pending. The journals have it then. Returns the replicas' stamps."""
        job = self._config.models.index(spec)
        alone = self._launched.world_size == 1
        count = self._count(model, self._pieces(model, works), plan) if alone else 1
        specs = replicas_of(count, model, plan) if alone else [own_rank(self._launched, self._config)]
        if self._executor is not None and self._job != job:
            self.not_needed()
        logs = folder.path / "logs"
        executor = self._executor or self._start(spec, job, specs, logs)
        executor.reduce(count)
        executor.keep_logs(logs)
        datasets = [work.dataset for work in works]
        placement = {} if alone else rank_placement(model, datasets, self._config)
        executor.tell({"datasets": [describe_dataset(dataset) for dataset in datasets], "placement": placement})
        try:
            return self._serve(executor, model, works, folder, job)
        finally:
            self.not_needed()

    def not_needed(self) -> None:
        """End the replicas that are there."""
        if self._executor is not None:
            self._executor.stop()
            self._executor = None
        for folder in self._config.work_dir.glob(f"{SCRATCH}*"):
            if folder == self._scratch or not is_alive(int(folder.name.removeprefix(SCRATCH))):
                shutil.rmtree(folder, ignore_errors=True)

    def _count(self, model: BaseModel, pieces: int, plan: Plan | None) -> int:
        if plan is not None:
            return max(1, min(len(plan.replicas), pieces))
        if self._asked is not None:
            return max(1, min(self._asked, pieces))
        if cards_possible():
            return 1  # a model that cannot be planned for runs in this process
        return replicas_on_cpu(cpu_cores(), usable_memory_bytes(), weight_bytes(model), pieces)

    def _pieces(self, model: BaseModel, works: Sequence[Work]) -> int:
        each = self._usual_batch(model)
        return sum(math.ceil(len(work.pending) / each) for work in works)

    def _usual_batch(self, model: BaseModel) -> int:
        """Prompts of a piece, for counting how many there will be. Replicas that were asked for start all the same."""
        if self._asked is not None:
            return 1
        return self._config.batch_size or min(USUAL_BATCH, model.batch_limit(PromptSize()))

    def _open_door(self) -> Listener:
        if self._listener is None:
            self._listener = Listener()
        return self._listener

    def _hire(self, spec: ModelSpec, job: int, replicas: Sequence[ReplicaSpec], logs: Path) -> LocalExecutor:
        simulated = self._config.simulate_cards
        launch = Launch(model=spec, seed=self._config.seed, job=job, simulate_cards=simulated)
        return LocalExecutor(replicas, launch, logs)

    def _start(self, spec: ModelSpec, job: int, replicas: Sequence[ReplicaSpec], logs: Path) -> LocalExecutor:
        self._executor, self._job = self._hire(spec, job, replicas, logs), job
        self._executor.tell({"address": asdict(self._open_door().address)})
        self._executor.tend()
        return self._executor

    def _serve(
        self, own: LocalExecutor, model: BaseModel, works: Sequence[Work], folder: RunFolder, job: int
    ) -> Mapping[str, Mapping[str, Any]]:
        for work in works:
            Recorder.announce(work, self._launched.world_size if self._launched.world_size > 1 else len(own.replicas))
        coordinator = self._coordinator(own, _facts(model, works, self._config), job)
        with ExitStack() as stack:
            stack.callback(coordinator.close)
            recorder = stack.enter_context(Recorder(works, folder, self._config))
            queue = WorkQueue(recorder.pieces(model))
            coordinator.serve(queue, recorder)
            is_last = job == len(self._config.models) - 1
            if is_last and not self._dismissed:
                self._say_farewell(coordinator)
            else:
                coordinator.dismiss()
        return recorder.stamps

    def _coordinator(self, own: LocalExecutor, facts: dict[str, Any], job: int) -> Coordinator:
        executor: Executor = own if self._launched.world_size == 1 else TorchrunExecutor(own, self._launched)
        return Coordinator(self._open_door(), executor, facts, job=job, limits=Limits())

    def _dismiss_ranks(self) -> None:
        """The last model left nothing to do: the other ranks have to hear so."""
        job = len(self._config.models) - 1
        self.not_needed()
        self._executor = self._hire(self._config.models[job], job, [rank_replica(self._launched)], self._scratch)
        coordinator = self._coordinator(self._executor, {}, job)
        try:
            self._say_farewell(coordinator)
        finally:
            coordinator.close()

    def _say_farewell(self, coordinator: Coordinator) -> None:
        self._dismissed = True
        others = [rank for rank in range(self._launched.world_size) if rank != self._launched.rank]
        if self._launched.has_agent:
            # One that was stopped before it ever called is torchrun's child as we are; nobody else would wake it.
            for rank_process in set(stopped_children(os.getppid())) - set(coordinator.parents.values()):
                warn(f"a rank (process {rank_process}) was stopped before it took part; it is woken to end")
                kill(rank_process, SIGCONT)
        missing = coordinator.dismiss(others, FAREWELL_S)
        for rank, parent in coordinator.parents.items():
            if rank in others and is_stopped(parent):
                warn(f"rank {rank} (process {parent}) was stopped; its work is done, so it is woken to end")
                kill(parent, SIGCONT)
        for rank in sorted(missing - {self._launched.rank}):
            warn(f"rank {rank} has not ended within {FAREWELL_S:.0f} s; all is answered without it")


def _facts(model: BaseModel, works: Sequence[Work], config: RunConfig) -> dict[str, Any]:
    return {
        "version": versions(),
        "setting": json_values({**model.settings(), "seed": config.seed}),
        "run": runs_as(model.stamp()),
        **dataset_facts([work.dataset for work in works]),
    }


def serve_rank(launched: LaunchEnvironment, config: RunConfig, plans: Sequence[DatasetPlan]) -> int:
    """What a rank other than 0 does: keep a replica for each model until rank 0 says that it is done."""
    store, address, datasets = None, None, None
    for job, spec in enumerate(config.models if config.mode != "eval" else ()):
        launch = Launch(model=spec, seed=config.seed, job=job, simulate_cards=config.simulate_cards)
        executor = LocalExecutor(
            [own_rank(launched, config)], launch, config.work_dir / "logs", (DONE, GAVE_UP, COORDINATOR_LOST)
        )
        try:
            executor.tend()
            store = store or Store(launched)
            address = address or store.lookup()
            if address is None:
                return 0
            executor.tell({"address": asdict(address)})
            datasets = datasets or [plan.open().head(config.limit) for plan in plans]
            described = [describe_dataset(dataset) for dataset in datasets]
            executor.tell({"datasets": described, "placement": rank_placement(spec(), datasets, config)})
            Patrol(executor, Limits().interrupt_s + 2, address.pid, store.is_over).until_done()
        finally:
            executor.stop()
    return 0
