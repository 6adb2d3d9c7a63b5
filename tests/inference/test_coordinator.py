"""The coordinator against replicas of every kind: fast ones, silent ones, strangers, and many."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.inference.fake_replicas import Crowd, FakeExecutor, Notes, answer, greet, record
from vlmeval.errors import ModelError, UsageError, VLMEvalError
from vlmeval.inference import intake
from vlmeval.inference.callers import Member
from vlmeval.inference.coordinator import Coordinator
from vlmeval.inference.intake import Intake
from vlmeval.inference.limits import Limits, Patience
from vlmeval.inference.protocol import Connection, Listener, connect
from vlmeval.inference.queue import Piece, Waiting, WorkQueue
from vlmeval.inference.roll import Roll

FACTS: dict[str, dict[str, Any]] = {"version": {"torch": "2.15.0"}, "benchmark Mini": {"md5": "abc", "rows": 4}}


def work(count: int, cost: float = 1.0) -> WorkQueue:
    return WorkQueue(Piece(dataset=0, rows=(row,), cost=cost) for row in range(count))


class Desk:
    """A coordinator with its door."""

    def __init__(self, replicas: int, limits: Limits | None = None) -> None:
        self.listener = Listener()
        self.executor = FakeExecutor(replicas)
        self.coordinator = Coordinator(self.listener, self.executor, FACTS, limits=limits)
        self.notes = Notes()
        self.address = self.listener.address

    def serve(self, queue: WorkQueue) -> Notes:
        self.coordinator.serve(queue, self.notes)
        self.coordinator.dismiss()
        return self.notes


@contextmanager
def desk(replicas: int, limits: Limits | None = None) -> Iterator[Desk]:
    made = Desk(replicas, limits)
    try:
        yield made
    finally:
        made.coordinator.close()
        made.listener.close()


@pytest.mark.parametrize("ahead", [0, 1])
def test_ten_thousand_samples_on_64_replicas_are_answered_once_each(ahead: int) -> None:
    with desk(64) as at:
        crowd = Crowd(at.address, 64, ahead=ahead)
        crowd.start()
        notes = at.serve(work(10_000))
        crowd.join(5)
    assert len(notes.records) == 10_000 and not notes.twice


@pytest.mark.parametrize("ahead", [0, 1])
def test_skewed_lengths_are_shared_better_than_in_fixed_shares(ahead: int) -> None:
    chance = random.Random(1)
    costs = [50.0 if chance.randrange(50) == 0 else 1.0 for _ in range(400)]
    unit_s, replicas = 0.004, 8
    fixed = max(sum(costs[rank::replicas]) for rank in range(replicas))
    with desk(replicas) as at:
        crowd = Crowd(at.address, replicas, seconds=lambda rows: unit_s * costs[rows[0]], ahead=ahead)
        crowd.start()
        at.serve(WorkQueue(Piece(dataset=0, rows=(row,), cost=cost) for row, cost in enumerate(costs)))
        crowd.join(5)
    # The 1.05 of the bound is shown with units of a second (bench/faults.py), and without clocks in test_queue.
    shares = [sum(costs[row] for row in rows) for rows in crowd.answered.values()]
    assert sum(shares) == sum(costs) and max(shares) < fixed
    assert crowd.most_at_once == 1 + ahead


def test_who_has_not_the_token_or_no_number_of_ours_is_shown_out() -> None:
    with desk(1) as at:
        stranger = connect(at.address)
        stranger.send({"type": "hello", "number": 0, "job": 0, "token": "guess"})
        rude = connect(at.address)
        rude.send({"type": "ready"})
        unknown = connect(at.address)
        unknown.send({"type": "hello", "number": 9, "job": 0, "token": at.address.token})
        crowd = Crowd(at.address, 1)
        crowd.start()
        notes = at.serve(work(3))
        assert len(notes.records) == 3
        for connection in (stranger, rude, unknown):
            assert list(connection.messages()) == []
            connection.close()
        crowd.join(5)


def test_a_replica_of_an_earlier_model_is_told_to_stop() -> None:
    with desk(2) as at:
        late = greet(at.address, 1, job=7)
        crowd = Crowd(at.address, 1)
        crowd.start()
        at.serve(work(2))
        assert [message["type"] for message in late.messages()] == ["stop"]
        late.close()
        crowd.join(5)


def test_a_replica_that_would_answer_otherwise_is_refused_with_the_difference() -> None:
    with desk(2) as at:
        other = {"version": {"torch": "2.14.1"}, "benchmark Mini": {"md5": "xyz", "rows": 4}}
        connection = greet(at.address, 1, facts=other)
        told = pytest.raises(
            UsageError,
            match=r"replica 1 is refused.*version torch: 2\.15\.0 -> 2\.14\.1; benchmark Mini md5: abc -> xyz",
        )
        with told:
            at.serve(work(1))
        connection.close()


def test_a_mistake_of_the_users_in_a_replica_ends_the_run_with_its_own_words() -> None:
    with desk(1) as at:
        connection = greet(at.address, 0)
        connection.send({"type": "error", "text": "no such checkpoint", "exit_code": 2})
        with pytest.raises(VLMEvalError, match=r"^no such checkpoint$") as told:
            at.serve(work(1))
        assert told.value.exit_code == 2
        connection.close()


def test_a_replica_that_falls_silent_is_ended_and_its_sample_goes_to_another() -> None:
    with desk(2, Limits(silence_s=0.3, heartbeat_s=0.2)) as at:
        silent = greet(at.address, 0)
        helper = threading.Timer(0.8, _answer_one, [at])
        helper.start()
        notes = at.serve(work(1))
        helper.join()
        assert at.executor.ended == [0]
        assert list(notes.records) == [0]
        assert "gave no sign of life" in notes.lines[0] and "sample 0" in notes.lines[0] and "0.log" in notes.lines[0]
        silent.close()


def _answer_one(at: Desk) -> None:
    connection = greet(at.address, 1)
    for message in connection.messages():
        if message["type"] == "stop":
            break
        if message["type"] == "piece":
            answer(connection, 0)
    connection.close()


def test_a_replica_that_is_alive_and_never_finishes_is_found_by_the_time_others_take() -> None:
    patience = Patience(Limits(piece_s=1.0, slack=20.0, first_piece_s=3600.0))
    assert patience.allowed_s(cost=500) == 3600
    patience.learn(cost=100, seconds=2)
    assert patience.allowed_s(cost=500) == 20 * 0.02 * 500
    assert patience.allowed_s(cost=1) == 1.0
    patience.learn(cost=1, seconds=0.001)
    assert patience.allowed_s(cost=500) == 200, "the slowest counts"


def test_without_hope_the_run_ends_and_says_why() -> None:
    with desk(1) as at:
        at.executor.hopeless = "replica 0 was killed by SIGSEGV (0.log)"
        with pytest.raises(ModelError, match=r"no replica is left.*SIGSEGV"):
            at.serve(work(1))


def test_replicas_that_leave_are_waited_for_and_those_that_do_not_are_named() -> None:
    with desk(3) as at:
        stopped = greet(at.address, 1)
        crowd = Crowd(at.address, 1, seconds=lambda rows: 0.05)
        crowd.start()
        queue = WorkQueue([Piece(dataset=0, rows=(row,), cost=1.0) for row in range(3)])
        threading.Timer(0.5, lambda: answer(stopped, _held(stopped))).start()
        at.coordinator.serve(queue, at.notes)
        assert at.coordinator.dismiss([0, 1, 2], wait_s=0.9) == {1, 2}
        assert 1 in at.executor.ended
        stopped.close()
        crowd.join(5)


def _held(connection: Connection) -> int:
    pieces = [message for message in connection.receive() or [] if message["type"] == "piece"]
    return int(pieces[0]["rows"][0])


def _doubting(at: Desk, *, keep: bool | None) -> None:
    """A replica that is sure of none of its answers; `keep` None: it dies when it is asked."""
    connection = greet(at.address, 0)
    for message in connection.messages():
        if message["type"] == "stop":
            break
        if message["type"] == "piece":
            row = message["rows"][0]
            answer(connection, row, in_doubt=True)
        if message["type"] == "settle":
            if keep is None:
                break
            connection.send({"type": "settled", "keep": keep})
    connection.close()


@pytest.mark.parametrize(("keep", "recorded"), [(True, [0, 1, 2]), (False, [])])
def test_answers_in_doubt_are_recorded_only_once_their_model_stands_by_them(keep: bool, recorded: list[int]) -> None:
    with desk(1) as at:
        replica = threading.Thread(target=_doubting, args=[at], kwargs={"keep": keep})
        replica.start()
        notes = at.serve(work(3))
        replica.join()
        assert list(notes.records) == recorded


def test_answers_in_doubt_of_a_replica_that_dies_are_asked_for_again() -> None:
    with desk(2) as at:
        replica = threading.Thread(target=_doubting, args=[at], kwargs={"keep": None})
        replica.start()
        helper = threading.Timer(0.6, _answer_one, [at])
        helper.start()
        notes = at.serve(work(1))
        replica.join()
        helper.join()
        assert list(notes.records) == [0]
        assert not notes.twice


def test_a_surer_answer_settles_those_before_it() -> None:
    with desk(1) as at:
        connection = greet(at.address, 0)

        def doubting() -> None:
            for message in connection.messages():
                if message["type"] == "stop":
                    break
                if message["type"] == "piece":
                    row = message["rows"][0]
                    answer(connection, row, in_doubt=row < 2)

        replica = threading.Thread(target=doubting)
        replica.start()
        notes = at.serve(work(3))
        replica.join()
        connection.close()
        assert list(notes.records) == [0, 1, 2]


def test_turns_of_a_replica_that_dies_go_to_the_next_with_the_piece() -> None:
    said = {"fingerprint": "f", "answers": [{"text": "one"}], "seconds": 0.5}
    pieces: list[dict[str, Any]] = []

    def life(at: Desk, *, dies: bool) -> None:
        connection = greet(at.address, 0)
        for message in connection.messages():
            if message["type"] == "stop":
                break
            if message["type"] == "piece":
                pieces.append(dict(message))
                row = message["rows"][0]
                for about in (row, 77):  # nobody was asked about row 77
                    connection.send({"type": "turn", "dataset": 0, "row": about, "said": said})
                if dies:
                    break
                connection.send({"type": "answer", "dataset": 0, "row": row, "prediction": record(row)})
        connection.close()

    def lives() -> None:
        life(at, dies=True)
        life(at, dies=False)

    with desk(1) as at:
        replica = threading.Thread(target=lives)
        replica.start()
        notes = at.serve(work(1))
        replica.join()
    assert [piece.get("said") for piece in pieces] == [None, {"0": said}]
    assert list(notes.turns) == [0] and list(notes.records) == [0]


def test_one_that_is_free_is_given_what_a_busy_one_has_in_hand() -> None:
    with desk(2) as at:
        # The first takes two pieces at once, and needs far longer for one than was thought.
        crowd = Crowd(at.address, 2, seconds=lambda rows: 1.0 if rows[0] == 0 else 0.05, ahead=1)
        crowd.start()
        notes = at.serve(work(4))
        crowd.join(5)
    assert sorted(notes.records) == [0, 1, 2, 3] and not notes.twice
    assert crowd.given_back >= 1
    assert [0] in crowd.answered.values(), "nothing waited for the busy one"


def test_a_row_that_ends_its_replica_while_it_is_prepared_is_found_and_no_other_is_blamed() -> None:
    deaths: list[tuple[int, ...]] = []

    def fragile(at: Desk) -> None:
        """Replica after replica: each dies of row 2 as soon as it is given it, whatever it answers meanwhile."""
        done = False
        while not done:
            connection, given = greet(at.address, 0, ahead=1), list[int]()
            for message in connection.messages():
                if message["type"] == "give_back":
                    connection.send({"type": "given_back", "pieces": []})
                if message["type"] == "stop":
                    done = True
                    break
                if message["type"] != "piece":
                    continue
                given += message["rows"]
                if 2 in given:
                    deaths.append(tuple(given))
                    break
                if len(given) > 1 or given[0] != 0:  # row 0 is finished once the next has come
                    answer(connection, given.pop(0))
            connection.close()

    with desk(1) as at:
        queue = WorkQueue(Piece(dataset=0, rows=(row,), cost=10.0 - row) for row in range(4))
        replica = threading.Thread(target=fragile, args=[at])
        replica.start()
        notes = at.serve(queue)
        replica.join(5)
    assert (sorted(notes.records), list(notes.failed)) == ([0, 1, 3], [2])
    assert not notes.twice
    assert deaths[0] == (1, 2), "the first time it was in hand"
    assert deaths[1:] == [(2,), (2,)], "and then alone"


def test_what_a_stopped_replica_has_in_hand_goes_to_others_too() -> None:
    with desk(2, Limits(silence_s=0.3, heartbeat_s=0.2)) as at:
        silent = greet(at.address, 0, ahead=1)
        helper = threading.Timer(0.8, lambda: Crowd(at.address, 2).run())
        helper.start()
        notes = at.serve(work(3))
        assert sorted(notes.records) == [0, 1, 2]
        assert "sample 0" in notes.lines[0]
        silent.close()
        helper.join(5)


@pytest.mark.parametrize("signals", [1, 2], ids=["once", "told by the terminal and by a launcher at once"])
def test_ctrl_c_takes_back_what_is_in_hand(signals: int) -> None:
    with desk(1) as at:
        connection, seen = greet(at.address, 0, ahead=1), list[dict[str, Any]]()

        def replica() -> None:
            for message in connection.messages():
                seen.append(message)
                if message["type"] == "piece" and len(seen) == 2:
                    for _ in range(signals):
                        at.coordinator._interrupts(2, None)
                if message["type"] == "give_back":
                    connection.send({"type": "given_back", "pieces": seen[1:2]})
                    answer(connection, 0)
            connection.close()

        thread = threading.Thread(target=replica)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            at.coordinator.serve(work(4), at.notes)
        at.coordinator.close()
        thread.join(5)
    assert list(at.notes.records) == [0]
    assert [message["rows"] for message in seen if message["type"] == "piece"] == [[0], [1]]
    assert [line for line in at.notes.lines if line.startswith("SIGINT: finishing what 1 replica")]


def test_whoever_watches_is_told_what_every_replica_is_at_and_what_waits() -> None:
    with desk(3) as at:
        answering, loading = greet(at.address, 0), connect(at.address)
        loading.send({"type": "hello", "number": 1, "job": 0, "pid": 0, "token": at.address.token})
        answering.send({"type": "alive", "memory": [{"card": "0", "now_bytes": 7}]})

        def answer_later() -> None:
            time.sleep(0.8)
            answering.send({"type": "answer", "dataset": 0, "row": 0, "prediction": record(0)})
            answer(answering, 1)
            for message in answering.messages():
                if message["type"] == "stop":
                    break
                if message["type"] == "piece" and message["rows"] == [2]:
                    time.sleep(0.5)
                    answer(answering, 2)

        replica = threading.Thread(target=answer_later)
        replica.start()
        pieces = [Piece(dataset=0, rows=(0, 1), cost=10.0), Piece(dataset=0, rows=(2,), cost=4.0)]
        notes = at.serve(WorkQueue(pieces))
        replica.join()
        loading.close()
        answering.close()
    assert notes.finished_pieces == pieces
    early = [(states, waiting) for states, waiting in notes.watched if waiting]
    states, waiting = early[-1]
    assert [one.state for one in states] == ["answering", "loading", "starting"]
    assert (states[0].piece, states[0].answered, states[0].memory) == (pieces[0], 0, ({"card": "0", "now_bytes": 7},))
    assert states[0].age_s > 0.2 and waiting == {0: Waiting(pieces=1, cost=4.0)}
    assert notes.watched[-1][0][0].answered == 2


def test_a_replica_that_died_is_counted_and_holds_nothing_any_more() -> None:
    with desk(2, Limits(silence_s=0.3, heartbeat_s=0.2)) as at:
        silent = greet(at.address, 0)
        silent.send({"type": "alive", "memory": [{"card": "0", "now_bytes": 7}]})
        helper = threading.Timer(0.9, _answer_one, [at])
        helper.start()
        notes = at.serve(work(1))
        helper.join()
        silent.close()
    last = notes.watched[-1][0][0]
    assert (last.state, last.deaths, last.memory, last.piece) == ("restarting", 1, (), None)


def _counting(at: Desk, number: int, late_s: float, then: Callable[[Connection], None]) -> threading.Thread:
    """A replica that answers one row and takes a moment to count, which is what it does `then`."""
    connection = greet(at.address, number)

    def life() -> None:
        for message in connection.messages():
            if message["type"] == "stop":
                break
            if message["type"] == "piece":
                row = message["rows"][0]
                time.sleep(0.2)  # so that each of them has a row
                connection.send({"type": "answer", "dataset": 0, "row": row, "prediction": record(row)})
                time.sleep(late_s)
                then(connection)
                if connection.fileno() < 0:
                    return
        connection.close()

    thread = threading.Thread(target=life)
    thread.start()
    return thread


def _count(connection: Connection) -> None:
    connection.send({"type": "done", "stamp": {"images": 1}})


def test_what_a_replica_counts_after_its_last_answer_is_in_the_record() -> None:
    with desk(3) as at:
        replicas = [_counting(at, number, 0.3 + 0.1 * number, _count) for number in range(3)]
        notes = at.serve(work(3))
        for replica in replicas:
            replica.join()
    assert notes.stamps == {f"replica {number}": {"images": 1} for number in range(3)}


def test_the_next_piece_is_given_before_the_counts_of_the_last_are_there() -> None:
    order: list[str] = []
    with desk(1) as at:
        connection = greet(at.address, 0)

        def life() -> None:
            for message in connection.messages():
                if message["type"] == "stop":
                    break
                if message["type"] == "piece":
                    row = message["rows"][0]
                    order.append(f"piece {row}")
                    connection.send({"type": "answer", "dataset": 0, "row": row, "prediction": record(row)})
                if len(order) == 3:
                    order.append("counts")
                    for _ in range(3):
                        connection.send({"type": "done"})
            connection.close()

        replica = threading.Thread(target=life)
        replica.start()
        at.serve(work(3))
        replica.join()
    assert order == ["piece 0", "piece 1", "piece 2", "counts"]


def test_a_replica_that_never_says_what_it_counted_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "COUNTS_S", 0.8)
    with desk(2) as at:
        replicas = [_counting(at, 0, 0.0, lambda connection: None), _counting(at, 1, 0.3, _count)]
        notes = at.serve(work(2))
        for replica in replicas:
            replica.join()
    assert sorted(notes.records) == [0, 1] and not notes.twice
    assert notes.stamps == {"replica 1": {"images": 1}}


def test_a_replica_that_dies_before_it_has_counted_loses_no_answer_and_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "COUNTS_S", 3600.0)
    with desk(2) as at:
        replicas = [_counting(at, 0, 0.1, Connection.close), _counting(at, 1, 0.3, _count)]
        notes = at.serve(work(2))
        for replica in replicas:
            replica.join()
    assert sorted(notes.records) == [0, 1] and not notes.twice
    assert notes.stamps == {"replica 1": {"images": 1}}


def test_a_stopped_replica_is_not_waited_for_to_count() -> None:
    stopped = subprocess.Popen(["sleep", "60"])
    with desk(1) as at:
        connection = connect(at.address)
        member = Member(connection=connection, since=0.0, heard_at=0.0, pid=stopped.pid, not_counted=1)
        taken = Intake(WorkQueue([]), at.notes, Roll({0: "replica 0"}), {0: member})
        try:
            assert taken.is_uncounted()
            stopped.send_signal(signal.SIGSTOP)
            os.waitpid(stopped.pid, os.WUNTRACED)
            assert not taken.is_uncounted()
        finally:
            stopped.kill()
            stopped.wait()
            connection.close()
