"""What becomes of the answers that replicas give: journals, the live view, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlmeval.cli.live_state import LiveState
from vlmeval.cli.progress import Progress
from vlmeval.cli.ready_lines import ReadyLines
from vlmeval.cli.replica_stamps import ReplicaStamps
from vlmeval.cli.screen import say
from vlmeval.config import RunConfig
from vlmeval.errors import DatasetError
from vlmeval.inference.batches import plan_pieces
from vlmeval.inference.journal import Journal
from vlmeval.inference.pieces import cost
from vlmeval.inference.queue import GivenUp, Piece, Waiting
from vlmeval.inference.roll import ReplicaState
from vlmeval.inference.turns import Said, TurnJournal
from vlmeval.report.live import BenchmarkView
from vlmeval.types import Index, Prediction
from vlmeval.vlm.base import BaseModel

if TYPE_CHECKING:
    from vlmeval.cli.evaluate import Work
    from vlmeval.inference.run_folder import RunFolder


class Recorder:
    """The coordinator's sink. Use as a context manager: it holds the journals of all that is not finished."""

    def __init__(self, works: Sequence[Work], folder: RunFolder, config: RunConfig) -> None:
        self._works = works
        self._folder = folder
        self._config = config
        self._open = ExitStack()
        self._journals: dict[int, Journal] = {}
        self._turns: dict[int, TurnJournal] = {}
        self._ready_lines = ReadyLines()
        self._stamps = ReplicaStamps()
        self._pending = {number: work.pending for number, work in enumerate(works)}

    def __enter__(self) -> Recorder:
        with ExitStack() as stack:
            for number, pending in self._pending.items():
                if pending:
                    path = self._folder.journal_path(self._works[number].dataset.name)
                    self._journals[number] = stack.enter_context(Journal(path))
                    self._turns[number] = stack.enter_context(opened_turns(self._folder, self._works[number]))
            state = LiveState(self._folder.model, unfinished(self._works))
            self._progress = stack.enter_context(Progress(state))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    @property
    def stamps(self) -> dict[str, Mapping[str, Any]]:
        """Replica -> where it lies and what its cards measured."""
        return self._stamps.all()

    @staticmethod
    def announce(work: Work, replicas: int) -> None:
        """How much there is to do."""
        pending, total, name = work.pending, len(work.requests), work.dataset.name
        done = total - len(pending)
        if not pending:
            say("answers", f"{name}: all {total} are there already")
            return
        retried = sum(record.status == "failed" for record in work.records.values())
        if done:
            again = f", {retried} failed before and are tried again" if retried else ""
            say("answers", f"{name}: {done} of {total} are there already{again}")
        say("answers", f"{name}: {len(pending)} to go; {replicas} replica{'s' if replicas > 1 else ''}")

    def pieces(self, model: BaseModel) -> list[Piece]:
        """All that is pending, cut for the queue as the model takes it."""
        found = []
        for number, pending in self._pending.items():
            row_of = {request.sample.index: row for row, request in enumerate(self._works[number].requests)}
            rows = [row_of[request.sample.index] for request in pending]
            task, messages = self._works[number].dataset.task, [request.message for request in pending]
            for places in plan_pieces(model, task, messages, self._config.batch_size):
                about = sum(cost(pending[place]) for place in places)
                found.append(Piece(dataset=number, rows=tuple(rows[place] for place in places), cost=about))
        return found

    def answered(self, dataset: int, row: int, prediction: Prediction) -> None:
        """Into the journal, and one more for who is watching. Raises DatasetError for another prompt's answer."""
        self._check(dataset, row, prediction.index, prediction.fingerprint)
        self._journals[dataset].append(prediction)
        failure = f"{self._short_name(dataset, row)} failed: {prediction.error}"
        self._progress.answered(dataset, failure if prediction.status == "failed" else "")
        if prediction.status == "failed":
            self._progress.print(failure)
        elif self._config.verbose:
            self._progress.print(f"{self._short_name(dataset, row)}: {prediction.prediction!r}")

    def _check(self, dataset: int, row: int, index: Index, fingerprint: str) -> None:
        request = self._works[dataset].requests[row]
        if (index, fingerprint) != (request.sample.index, request.fingerprint):
            raise DatasetError(
                f"{self.name(dataset, row)}: a replica answered another prompt; the benchmark's file or an image has "
                "changed since the run was started, start it again"
            )

    def turned(self, dataset: int, row: int, said: Mapping[str, Any]) -> None:
        """Beside the journal. Raises DatasetError for another prompt's answers."""
        request, found = self._works[dataset].requests[row], Said.of_words(said)
        self._check(dataset, row, request.sample.index, found.fingerprint)
        self._turns[dataset].add(request.sample.index, found)

    def said(self, piece: Piece) -> Mapping[int, Mapping[str, Any]]:
        """What is there of its conversations."""
        turns, asked = self._turns[piece.dataset], self._works[piece.dataset].requests
        found = {row: turns.said(asked[row]) for row in piece.rows}
        return {row: said.words for row, said in found.items() if said.answers}

    def given_up(self, row: GivenUp) -> None:
        """Failed, with what it did."""
        request = self._works[row.dataset].requests[row.row]
        error = f"the replica that was answering it ended, {len(row.deaths)} times: it {'; then it '.join(row.deaths)}"
        failed = Prediction(index=request.sample.index, status="failed", fingerprint=request.fingerprint, error=error)
        self.answered(row.dataset, row.row, failed)

    def name(self, dataset: int, row: int) -> str:
        """`sample 17 of Mini`."""
        work = self._works[dataset]
        return f"sample {work.requests[row].sample.index} of {work.dataset.name}"

    def _short_name(self, dataset: int, row: int) -> str:
        full = self.name(dataset, row)
        return full if len(self._journals) > 1 else full.partition(" of ")[0]

    def ready(self, replica: str) -> None:
        """The first one is worth a line; the others are counted."""
        self._stamps.begins(replica)
        self._progress.start_clock()
        self._say(self._ready_lines.ready(replica, time.monotonic()))

    def _say(self, line: str) -> None:
        if line:
            self._progress.print(line)

    def stamped(self, replica: str, stamp: Mapping[str, Any]) -> None:
        """Kept for the run's record."""
        self._progress.moved(replica, self._stamps.told(replica, stamp).get("moves") or ())

    def finished(self, piece: Piece, seconds: float) -> None:
        """For the time that is left."""
        self._progress.finished(piece, seconds)

    def watch(self, replicas: Sequence[ReplicaState], waiting: Mapping[int, Waiting]) -> None:
        """For who is watching."""
        self._say(self._ready_lines.watch(replicas, time.monotonic()))
        self._progress.watch(replicas, waiting)

    def say(self, line: str) -> None:
        """Above the view."""
        self._progress.print(line)


def opened_turns(folder: RunFolder, work: Work) -> TurnJournal:
    """The turns of a benchmark's conversations; those that are under way are told."""
    turns = TurnJournal(folder.turns_path(work.dataset.name))
    under_way = sum(bool(turns.said(request).answers) for request in work.pending)
    if under_way:
        told = "conversation goes on where it was" if under_way == 1 else "conversations go on where they were"
        say("answers", f"{work.dataset.name}: {under_way} {told}")
    return turns


def unfinished(works: Sequence[Work]) -> dict[int, BenchmarkView]:
    """The benchmarks that have something left to answer, by position."""
    return {
        number: BenchmarkView(
            name=work.dataset.name, total=len(work.requests), done=len(work.requests) - len(work.pending)
        )
        for number, work in enumerate(works)
        if work.pending
    }
