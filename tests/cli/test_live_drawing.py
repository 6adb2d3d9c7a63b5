"""The live view on screens of every size: nothing too wide, nothing too high, and what matters is there."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from vlmeval.cli.live_drawing import lines
from vlmeval.report.live import BenchmarkView, CardView, Eta, ReplicaView, RunView, State

GIB = 2**30


def replica(number: int, state: State = "answering", cards: int = 1, name: str = "replica") -> ReplicaView:
    held = tuple(
        CardView(card=str(number * cards + n), planned_bytes=20 * GIB, now_bytes=12 * GIB, peak_bytes=19 * GIB)
        for n in range(cards)
    )
    return ReplicaView(
        name=f"{name} {number}",
        state=state,
        benchmark="ShapesBench",
        answered=100 + number,
        per_s=12.34,
        batch=8,
        age_s=3.2,
        starts_in_s=12.0 if state == "restarting" else None,
        cards=held,
    )


def view(count: int, cards: int = 1, *replicas: ReplicaView, model: str = "Qwen2-VL-72B-Instruct") -> RunView:
    return RunView(
        model=model,
        replicas=replicas or tuple(replica(n, cards=cards) for n in range(count)),
        benchmarks=(
            BenchmarkView(name="ShapesBench", total=800, done=412, failed=2, pieces_left=40),
            BenchmarkView(name="MMBench_DEV_EN", total=4329, done=0, pieces_left=541),
        ),
        elapsed_s=30.0,
        per_s=98.7,
        eta=Eta(seconds=200, margin_s=15),
        last_failure="sample 17 of ShapesBench failed: out of memory\nand more",
        moves=1,
        last_move="card 1 came to 97% of what it can hold",
    )


def drawn(run: RunView, width: int, height: int) -> list[str]:
    """As a terminal of this size has it."""
    console = Console(file=io.StringIO(), record=True, width=width, height=height, force_terminal=True)
    console.print(Group(*lines(run, width, height)))
    return console.export_text().rstrip("\n").split("\n")


@pytest.mark.parametrize("count", [1, 2, 8, 64])
@pytest.mark.parametrize("height", [10, 24, 50])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_size_holds_the_view_and_every_replica_is_told_or_counted(width: int, height: int, count: int) -> None:
    told = drawn(view(count), width, height)
    assert len(told) <= height - 1 and all(cell_len(line) < width for line in told)
    assert "412/5129" in told[0] and "ETA 3 min 20 s" in told[0]
    rows = [line for line in told if line.startswith("replica ") and "answering" in line]
    more = [line for line in told if "more: " in line]
    hidden = int(more[0].removeprefix("and ").split()[0]) if more else 0
    assert len(rows) + hidden == count and rows
    assert any(line.startswith("failed: 2, the last one: sample 17") for line in told)
    assert any(line.startswith("left: ShapesBench 388 samples (40 pieces waiting)") for line in told)


def test_a_replica_on_several_cards_has_a_row_for_each() -> None:
    told = drawn(view(2, cards=4), 80, 24)
    assert [line[11] for line in told[2:10]] == list("01234567")
    assert told[2].split()[-3:] == ["12.0", "19.0", "20.0"]
    assert [line[:9].strip() for line in told[2:10]] == ["replica 0", "", "", "", "replica 1", "", "", ""]


def test_where_not_all_cards_have_room_each_replica_is_told_by_its_fullest() -> None:
    told = drawn(view(1, cards=64), 80, 10)
    assert len(told) <= 9 and told[2].split()[:3] == ["replica", "0", "x64"]
    told = drawn(view(10, cards=4), 80, 24)
    assert [line.split()[2] for line in told[2:12]] == ["x4"] * 10 and "more" not in "".join(told[:12])


def test_replicas_in_trouble_are_shown_before_others() -> None:
    crowd = [replica(n) for n in range(64)]
    crowd[40], crowd[50] = replica(40, "restarting"), replica(50, "ended")
    told = drawn(view(0, 1, *crowd), 80, 14)
    assert any(line.startswith("replica 40") and "restarting, 12 s" in line for line in told)
    assert any(line.startswith("replica 50") and "ended" in line for line in told)
    (more,) = [line for line in told if "more: " in line]
    assert "answering" in more and "restarting" not in more and "fullest card 95% of its plan" in more


def test_strange_names_cannot_move_the_cursor_nor_be_markup() -> None:
    told = drawn(view(2, model="[red]模型\x1b[2J\n\x07\u202e"), 200, 24)
    assert told[0].startswith("[red]模型\\u001b[2J \\u0007\\u202e")
    assert all("\x1b" not in line for line in told)
    assert all(cell_len(line) < 60 for line in drawn(view(2, model="模" * 200), 60, 24))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert all(str(line).isascii() for line in lines(view(64, model="模型"), 80, 24, ascii_only=True))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 2), (20, 4), (39, 5)])
def test_the_smallest_screens_do_no_harm(width: int, height: int) -> None:
    found = lines(view(64, cards=2), width, height)
    assert len(found) <= height and all(line.cell_len <= max(1, width - 1) for line in found)


def test_what_is_not_known_yet_is_a_dash() -> None:
    run = RunView(
        model="m",
        replicas=(ReplicaView(name="replica 0", state="starting"),),
        benchmarks=(BenchmarkView(name="B", total=3, done=0),),
    )
    told = drawn(run, 80, 24)
    assert told[0].endswith("0/3  0 %") and told[2].split() == ["replica", "0", "starting", "0", "-", "-", "-"]
