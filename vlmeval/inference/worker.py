"""A replica: a process with one whole copy of the model, which asks a coordinator for work until there is none.

It is started by an executor and told over stdin who it is (first line), where the coordinator listens and which
benchmarks there are (later lines). It opens the benchmarks itself and is only told row numbers; what has to agree is
compared by the coordinator. Everything it prints goes to its log file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from vlmeval.config import ModelSpec
from vlmeval.dataset.base import Dataset
from vlmeval.dataset.registry import dataset_classes
from vlmeval.dataset.video import VideoMCQDataset, VideoSettings
from vlmeval.errors import VLMEvalError
from vlmeval.hardware import parse_cards, visible_names
from vlmeval.inference.answering import Begun, Outcome, Request, answer_together, begin, requests
from vlmeval.inference.executors import COORDINATOR_LOST, DONE, FAREWELL, GAVE_UP
from vlmeval.inference.hand import Hand
from vlmeval.inference.journal import as_record
from vlmeval.inference.protocol import Address, Connection, Words, connect
from vlmeval.inference.turns import Said
from vlmeval.inference.versions import versions
from vlmeval.types import Index
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.card_memory import Held
from vlmeval.vlm.multi_card import MultiCardMixin
from vlmeval.vlm.placement_request import Placement

STAMPED = (
    "plan", "plan_reason", "copy_check", "placement_notes", "moves", "images", "images_reused", "image_reuse",
    "batches_in_flight",
    "batches_in_flight_reason", "in_flight_peak_bytes",
)  # fmt: skip
"""What of a model's stamp is its replica's own and grows while it answers."""
IN_HAND = 1
"""Pieces a replica on cards has besides the one it answers, so that the host prepares them meanwhile."""
FAREWELL_S = 5.0
"""How long a replica that had to give up waits to be told to stop."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A piece of work, as far as it was prepared before its turn."""

    dataset: Dataset
    row_of: Mapping[Index, int]
    parts: Sequence[Begun]

    @property
    def name(self) -> str:
        """`samples 3, 4 of Mini`."""
        named = list(self.row_of)
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        return f"sample{'s' * (len(named) > 1)} {', '.join(map(str, named[:8]))}{more} of {self.dataset.name}"


class Link:
    """The conversation with the coordinator. What is said before it can be reached is kept until then."""

    def __init__(self, hello: Words, heartbeat_s: float, silence_s: float) -> None:
        self.hand: Hand[Prepared] = Hand()
        self._hello = hello
        self._heartbeat_s, self._silence_s = heartbeat_s, silence_s
        self._unsent: list[Words] = []
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._heard_at: float | None = None
        self.doing = "loading the model"
        self.memory: Callable[[], Sequence[Held]] = tuple
        """What the model holds on its cards; nothing before it is loaded."""

    def open(self, address: Address) -> None:
        """Call the coordinator, and begin to listen and to say that we live."""
        try:
            connection = connect(address)
            with self._lock:
                for words in ({**self._hello, "token": address.token}, *self._unsent):
                    connection.send(words)
                self._connection = connection
        except OSError as error:
            leave(COORDINATOR_LOST, f"the coordinator at {address.host}:{address.port} cannot be reached: {error}")
        threading.Thread(target=self._listen, args=(connection,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, words: Words) -> None:
        """Say this, now or once the coordinator is known."""
        with self._lock:
            if self._connection is None:
                self._unsent.append(words)
                return
            try:
                self._connection.send(words)
            except OSError as error:
                leave(COORDINATOR_LOST, f"the coordinator is gone: {error}")

    def _listen(self, connection: Connection) -> None:
        try:
            for message in connection.messages():
                self._heard_at = time.monotonic()
                if message["type"] == "stop":
                    leave(DONE, "told to stop")
                if message["type"] == "give_back":
                    self.send({"type": "given_back", "pieces": self.hand.give_back()})
                else:
                    self.hand.put(message)
        except (OSError, ValueError) as error:
            leave(COORDINATOR_LOST, f"the coordinator is gone: {error}")
        leave(COORDINATOR_LOST, f"the coordinator has ended; it was {self.doing}")

    def _beat(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(self._heartbeat_s)
            now = time.monotonic()
            if self._heard_at is not None and now - before > 2 * self._heartbeat_s:
                self._heard_at = now  # it was this process that was stopped
            before = now
            if self._heard_at is not None and now - self._heard_at > self._silence_s:
                leave(COORDINATOR_LOST, f"the coordinator is silent for {self._silence_s:.0f} s; it was {self.doing}")
            self.say_with_memory("alive")

    def tell_outcome(self, outcome: Outcome, dataset: int, row_of: Mapping[Index, int], *, in_doubt: bool) -> None:
        """A sample's record, or how far a conversation is; turns in doubt are not worth keeping."""
        if isinstance(outcome, Request):
            if not in_doubt:
                row = row_of[outcome.sample.index]
                self.send({"type": "turn", "dataset": dataset, "row": row, "said": Said.of(outcome).words})
            return
        words = {"row": row_of[outcome.index], "prediction": as_record(outcome)}
        self.send({"type": "answer", "dataset": dataset, "in_doubt": in_doubt, **words})

    def say_with_memory(self, kind: str, **more: Any) -> None:
        """A message that tells what the model holds, if anything is known."""
        held = [asdict(one) for one in self.memory()]
        self.send({"type": kind, **more, **({"memory": held} if held else {})})


def leave(code: int, why: str) -> None:
    """End this process at once, whatever its other threads are at; the log says why."""
    print(f"{FAREWELL}{why}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def main(start: Mapping[str, Any]) -> None:
    """The life of a replica. Returns never: it ends with one of the exit codes in `executors`."""
    sys.argv[:] = start["argv"]
    replica, limits = start["replica"], start["limits"]
    hello = {
        "type": "hello",
        "number": replica["number"],
        "job": start["job"],
        "pid": os.getpid(),
        "parent": os.getppid(),
    }
    link = Link(hello, limits["heartbeat_s"], limits["coordinator_silence_s"])
    _tell_bugs(link)
    told: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read_stdin, args=(link, told), daemon=True).start()
    try:
        with contextlib.ExitStack() as stack:
            if start["simulate_cards"]:
                from vlmeval.placement.simulate.machine import simulated_machine

                described = parse_cards(start["simulate_cards"])
                stack.enter_context(simulated_machine(described, visible=visible_names()))
            _work(start, link, told)
    except VLMEvalError as error:
        link.send({"type": "error", "text": str(error), "exit_code": error.exit_code})
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        time.sleep(FAREWELL_S)
        leave(GAVE_UP, "after this error")


def _work(start: Mapping[str, Any], link: Link, told: SimpleQueue[dict[str, Any]]) -> None:
    model = ModelSpec(**start["model"])()
    settings = {**model.settings(), "seed": start["seed"]}
    link.send({"type": "facts", "facts": {"version": versions(), "setting": json_values(settings)}})
    placement = start["replica"]["placement"]
    # Where the placement depends on the benchmarks it comes with them; else loading need not wait.
    words = told.get() if placement.get("later") else None
    _load(model, words["placement"] if words else placement)
    datasets = [_open(about) for about in (words or told.get())["datasets"]]
    link.send({"type": "facts", "facts": {"run": runs_as(model.stamp()), **dataset_facts(datasets)}})
    link.hand.prepare_with(lambda piece: _prepared(model, datasets[piece["dataset"]], piece))
    link.memory = model.memory_held
    link.say_with_memory("ready", ahead=IN_HAND if model.prepares_ahead() else 0)
    news = _News(model)
    while True:
        given = link.hand.next()
        if given.words["type"] == "settle":
            keep = not model.is_in_doubt(at_end=True)
            link.send({"type": "settled", "keep": keep, **news.words()})
        if given.prepared is None:
            continue
        link.doing = f"preparing rows {', '.join(map(str, given.words['rows'][:8]))}"
        piece = given.prepared.result()
        link.doing = f"answering {piece.name}"
        for part in piece.parts:
            for outcome in answer_together(model, piece.dataset.task, part.batch, start["seed"], part.answers):
                link.tell_outcome(outcome, given.words["dataset"], piece.row_of, in_doubt=model.is_in_doubt())
        link.send({"type": "done", **news.words()})
        link.doing = f"waiting for work after {piece.name}"


class _News:
    """What a model's stamp says that the coordinator has not heard."""

    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._said: Mapping[str, Any] = {}

    def words(self) -> Words:
        """Part of a message; empty where nothing has changed since the last."""
        stamp = {name: value for name, value in self._model.stamp().items() if name in STAMPED}
        if stamp == self._said:
            return {}
        self._said = stamp
        return {"stamp": stamp}


def _prepared(model: BaseModel, dataset: Dataset, piece: Words) -> Prepared:
    rows, said = piece["rows"], piece.get("said", {})
    asked = list(requests(model, dataset, (dataset[row] for row in rows)))
    for place, row in enumerate(rows):
        if str(row) in said:
            asked[place] = Said.of_words(said[str(row)]).resume(asked[place])
    row_of = {request.sample.index: row for request, row in zip(asked, rows, strict=True)}
    return Prepared(dataset=dataset, row_of=row_of, parts=begin(model, dataset.task, asked))


def _load(model: BaseModel, placement: Mapping[str, Any]) -> None:
    from vlmeval.vlm.transformers_model import TransformersModel

    if isinstance(model, TransformersModel):
        from vlmeval.vlm.quiet import quiet_transformers

        quiet_transformers()
    if placement and isinstance(model, MultiCardMixin):
        model.place(Placement.of_words(placement))
    model.load()


def runs_as(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's stamp has to be one and the same for all answers of a run."""
    return {name: stamp[name] for name in ("dtype", "attention") if name in stamp}


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """What a replica needs to open the same benchmark, as plain values."""
    return {
        "name": dataset.name,
        "path": str(dataset.path),
        "class": next(name for name, cls in dataset_classes.items() if cls is type(dataset)),
        "traits": sorted(dataset.task.traits),
        "scoring": dataset.rule.name if dataset.rule else "",
        "prompt_suffix": dataset.prompt_suffix,
        "answer_column": dataset.answer_column,
        "data_root": str(dataset.data_root),
        "limit": len(dataset),
        "video": asdict(dataset.video) if isinstance(dataset, VideoMCQDataset) else None,
    }


def _open(about: Mapping[str, Any]) -> Dataset:
    kind = dataset_classes[about["class"]]
    more: dict[str, Any] = {"video": VideoSettings(**about["video"])} if about["video"] else {}
    whole = kind(
        about["name"],
        Path(about["path"]),
        traits=frozenset(about["traits"]),
        scoring=about["scoring"],
        prompt_suffix=about["prompt_suffix"],
        answer_column=about["answer_column"],
        data_root=Path(about["data_root"]),
        **more,
    )
    return whole.head(about["limit"])


def dataset_facts(datasets: Sequence[Dataset]) -> dict[str, dict[str, Any]]:
    """What has to be the same for the coordinator and every replica."""
    return {
        f"benchmark {dataset.name}": {
            "md5": dataset.fingerprint,
            "rows": len(dataset),
            "type": dataset.task.type,
            "traits": sorted(dataset.task.traits),
        }
        for dataset in datasets
    }


def json_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they look after a journey through JSON."""
    found: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return found


def _read_stdin(link: Link, told: SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        words = json.loads(line)
        if "address" in words:
            link.open(Address(**words["address"]))
        else:
            told.put(words)
    leave(COORDINATOR_LOST, f"the process that started it has ended, or ends it; it was {link.doing}")


def _tell_bugs(link: Link) -> None:
    """Errors that nobody expected end the process, as always; the coordinator is told what they were."""

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        text = "".join(str(error).splitlines()[:1])
        link.send({"type": "bug", "text": f"{kind.__name__}: {text}" if text else kind.__name__})
        sys.__excepthook__(kind, error, traceback)
        leave(1, "after this error")

    sys.excepthook = hook
    threading.excepthook = lambda args: hook(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
