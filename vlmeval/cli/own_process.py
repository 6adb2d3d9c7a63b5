"""The one replica of a run that has no other: this process, and a thread that shows how it stands."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import TYPE_CHECKING

from vlmeval.cli.live_state import LiveState
from vlmeval.cli.progress import DRAW_INTERVAL_S, Progress
from vlmeval.cli.recorder import unfinished
from vlmeval.inference.answering import Request
from vlmeval.inference.pieces import cost
from vlmeval.inference.queue import Piece, Waiting
from vlmeval.inference.roll import ReplicaState, State
from vlmeval.types import Prediction
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.multi_card import MultiCardMixin

if TYPE_CHECKING:
    from vlmeval.cli.evaluate import Work


class OwnProcess:
    """Told by the loop that answers, it keeps the live view. Use as a context manager."""

    def __init__(self, name: str, model: BaseModel, works: Sequence[Work]) -> None:
        self._model = model
        self._progress = Progress(LiveState(name, unfinished(works)))
        self._costs = {
            number: sum(cost(request) for request in work.pending) for number, work in enumerate(works) if work.pending
        }
        self._pieces: dict[int, int] = {}
        self._replica = ReplicaState(number=0, name="process", state="loading")
        self._since = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_showing, daemon=True)

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._over.set()
            self._thread.join()
            self._show()
            self._progress.__exit__(kind, error, traceback)

    def loaded(self) -> None:
        """The model is there, and from now on it is shown; before, transformers showed how far loading had come."""
        self._become("waiting", None)
        if not self._thread.is_alive():
            self._progress.__enter__()
            self._progress.start_clock()
            self._thread.start()

    def begun(self, benchmark: int, batch: Sequence[Request], left: int) -> None:
        """This batch is answered now; `left` of the benchmark's come after it."""
        self._end_piece()
        piece = Piece(dataset=benchmark, rows=tuple(range(len(batch))), cost=sum(map(cost, batch)))
        self._costs[benchmark] -= piece.cost
        self._pieces[benchmark] = left
        if isinstance(self._model, MultiCardMixin):
            self._progress.moved("", self._model.placement_stamp().get("moves", ()))
        self._become("answering", piece)

    def answered(self, benchmark: int, prediction: Prediction, *, verbose: bool) -> None:
        """One more is in the journal."""
        self._replica = replace(self._replica, answered=self._replica.answered + 1)
        about = f"sample {prediction.index}"
        if prediction.status == "failed":
            self._progress.answered(benchmark, f"{about} failed: {prediction.error}")
            self._progress.print(f"{about} failed: {prediction.error}")
        else:
            self._progress.answered(benchmark)
            if verbose:
                self._progress.print(f"{about}: {prediction.prediction!r}")

    def ended(self, benchmark: int) -> None:
        """All of it is answered."""
        self._end_piece()
        self._costs.pop(benchmark)
        self._become("waiting", None)

    def _end_piece(self) -> None:
        if self._replica.piece is not None:
            self._progress.finished(self._replica.piece, time.monotonic() - self._since)

    def _become(self, state: State, piece: Piece | None) -> None:
        self._since = time.monotonic()
        self._replica = replace(self._replica, state=state, piece=piece)

    def _keep_showing(self) -> None:
        while not self._over.wait(DRAW_INTERVAL_S):
            self._show()

    def _show(self) -> None:
        now = replace(self._replica, age_s=time.monotonic() - self._since)
        if now.state in ("answering", "waiting"):
            now = replace(now, memory=tuple(asdict(held) for held in self._model.memory_held()))
        waiting = {
            number: Waiting(pieces=self._pieces.get(number, 0), cost=max(0.0, left))
            for number, left in list(self._costs.items())
        }
        self._progress.watch([now], waiting)
