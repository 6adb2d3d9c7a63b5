"""The live view as lines of a given width, never more than a given height. Every line is one row of the screen.

A replica has a row for each of its cards while there is room; else one, with the fullest of its cards (`x8`: of eight).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from vlmeval.errors import printable
from vlmeval.report.live import BenchmarkView, CardView, ReplicaView, RunView, State, unit_of

STYLES: dict[State, str] = {
    "starting": "dim",
    "loading": "cyan",
    "answering": "green",
    "waiting": "dim",
    "restarting": "yellow",
    "ended": "red",
}
TROUBLED = ("restarting", "ended")
ASCII = str.maketrans({"━": "=", "─": "-", "±": "~", "…": "."})
FREE_ROWS = 3
"""Of the screen, for what is printed above the view, where it has more than a few."""
SHORT_AGE_S = 99.5

Cell = tuple[str, str]
"""Text and style."""


class Column(NamedTuple):
    """`width` 0 takes what the others leave."""

    key: str
    title: str
    width: int


NARROW_BELOW = 76
"""Columns of the screen below which batch, age and the memory now are left out."""
LEFT_OUT = ("batch", "age", "now")


def lines(view: RunView, width: int, height: int, *, ascii_only: bool = False) -> list[Text]:
    """The whole view. Replicas there is no room for are summed up, those in trouble last."""
    below = _below(view)
    room = max(1, height - (FREE_ROWS if height > 12 else 1) - 2 - len(below))
    in_full = sum(max(1, len(one.cards)) for one in view.replicas) <= room
    shown = view.replicas if in_full else _chosen(view.replicas, room)
    rows = [row for replica in shown for row in (_rows(replica) if in_full else [(replica, _fullest(replica))])]
    many = len(view.benchmarks) > 1
    found = [[(_head(view, width, ascii_only), "bold")]]
    cards = [card for replica in view.replicas for card in replica.cards]
    size, unit = unit_of(cards)
    columns = _columns(width, unit, max((cell_len(card.card) for card in cards), default=0))
    if rows:
        found.append(_cells({one.key: one.title for one in columns}, columns, "dim"))
    found += [_row(replica, card, columns, size, many) for replica, card in rows]
    if len(shown) < len(view.replicas):
        found.append([(_others(view.replicas, shown), "dim")])
    found += below
    return [_line(cells, width, ascii_only) for cells in found][: max(1, height)]


def plain(text: str, ascii_only: bool) -> str:
    """Text as this terminal can have it: what it has no characters for is a question mark."""
    return text.translate(ASCII).encode("ascii", "replace").decode() if ascii_only else text


def one_line(text: str) -> str:
    """Whatever it was: one line, without control characters."""
    return " ".join(printable(text).split())


def _line(cells: Sequence[Cell], width: int, ascii_only: bool) -> Text:
    # One column is left free: a terminal that writes into its last one may begin a new row.
    line = Text(no_wrap=True, overflow="crop")
    for text, style in cells:
        line.append(plain(text, ascii_only), style)
    line.truncate(max(1, width - 1), overflow="ellipsis" if not ascii_only else "crop")
    return line


def _head(view: RunView, width: int, ascii_only: bool) -> str:
    """`Qwen2-VL-Tiny  ShapesBench ━━━━━━──── 412/800 52 %  261.3/s  ETA 12 s ± 2 s`."""
    share = view.done / max(view.total, 1)
    rate = f"  {view.per_s:.1f}/s" if view.per_s is not None else ""
    eta = f"  ETA {view.eta}" if view.eta is not None and view.done < view.total else ""
    told = f"{view.done}/{view.total}  {100 * share:.0f} %{rate}{eta}"
    room = max(8, width - cell_len(told) - 3)
    names = one_line(f"{view.model}  {view.label}")
    if cell_len(names) > room:
        names = one_line(view.label)
    if cell_len(names) > room:
        names = set_cell_size(names, room - 1) + "…"
    bar = room - cell_len(names) - 1
    full = round(share * bar)
    return f"{names} {'━' * full + '─' * (bar - full) if bar >= 8 else ''} {told}"


def _columns(width: int, unit: str, card: int) -> list[Column]:
    """Those a screen of this width has room for; `card` is the width of the longest name of one, as `GPU-8932`."""
    columns = [
        Column("replica", "replica", 10),
        Column("card", "card", max(4, min(card, 8))),
        Column("state", "state", 0),
        Column("done", "done", 6),
        Column("rate", "/s", 5),
        Column("batch", "batch", 5),
        Column("age", "age", 6),
        Column("now", f"{unit} now", 7),
        Column("peak", "peak", 5),
        Column("plan", "plan", 5),
    ]
    if width < NARROW_BELOW:
        columns = [one for one in columns if one.key not in LEFT_OUT]
        columns[-2] = Column("peak", f"{unit} peak", 8)
    rest = width - 1 - sum(one.width + 1 for one in columns)
    return [one if one.width else one._replace(width=min(max(rest, 4), 28)) for one in columns]


def _cells(texts: Mapping[str, str], columns: Sequence[Column], style: str = "") -> list[Cell]:
    """One row: words on the left, numbers on the right, what is too long is cut."""
    found = []
    for column in columns:
        text = texts.get(column.key, "")
        if cell_len(text) > column.width:
            text = set_cell_size(text, column.width - 1) + "…"
        gap = " " * (column.width - cell_len(text))
        is_word = column.key in ("replica", "card", "state")
        found.append((f"{text}{gap} " if is_word else f"{gap}{text} ", style))
    return found


def _rows(replica: ReplicaView) -> list[tuple[ReplicaView | None, CardView | None]]:
    """The replica with its first card, then its further cards alone."""
    cards = replica.cards or (None,)
    return [(replica, cards[0]), *((None, card) for card in cards[1:])]


def _row(
    replica: ReplicaView | None, card: CardView | None, columns: Sequence[Column], size: int, many: bool
) -> list[Cell]:
    """`size` is the unit of memory in bytes; of `many` benchmarks the present one is named."""
    texts: dict[str, str] = {}
    if replica is not None:
        texts |= {
            "replica": one_line(replica.name),
            "state": _state(replica, many),
            "done": str(replica.answered),
            "rate": _number(replica.per_s),
            "batch": str(replica.batch or "-"),
            "age": _age(replica.age_s),
        }
    if card is not None:
        held = {"now": card.now_bytes, "peak": card.peak_bytes, "plan": card.planned_bytes}
        texts |= {key: _number(None if count is None else count / size) for key, count in held.items()}
        texts["card"] = one_line(card.card)
    styles = {"state": STYLES[replica.state] if replica else "", "peak": "yellow" if card and card.fullness > 1 else ""}
    return [
        (text, styles.get(column.key, "")) for column, (text, _) in zip(columns, _cells(texts, columns), strict=True)
    ]


def _state(replica: ReplicaView, many: bool) -> str:
    """`answering`, of several benchmarks `answering ShapesBench`; `restarting, 12 s`."""
    if replica.state == "restarting" and replica.starts_in_s:
        return f"restarting, {math.ceil(replica.starts_in_s)} s"
    return one_line(f"{replica.state} {replica.benchmark}") if many else replica.state


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 999.95 else f"{value:.0f}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < SHORT_AGE_S else f"{seconds / 60:.0f} min"


def _fullest(replica: ReplicaView) -> CardView | None:
    """The card that stands for all of a replica where there is one row for each: `x8`."""
    if len(replica.cards) < 2:
        return replica.cards[0] if replica.cards else None
    fullest = max(replica.cards, key=lambda card: (card.fullness, card.peak_bytes or 0))
    return replace(fullest, card=f"x{len(replica.cards)}")


def _chosen(replicas: Sequence[ReplicaView], room: int) -> list[ReplicaView]:
    """As many as fit, one row each, in their order. If not all do, one row is kept for the others' sum, and those in
    trouble come before the others."""
    if len(replicas) <= room:
        return list(replicas)
    first = sorted(range(len(replicas)), key=lambda n: replicas[n].state not in TROUBLED)[: room - 1]
    return [replicas[n] for n in sorted(first)]


def _others(replicas: Sequence[ReplicaView], shown: Sequence[ReplicaView]) -> str:
    names = {one.name for one in shown}
    others = [one for one in replicas if one.name not in names]
    states = Counter(one.state for one in others)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    rate = sum(one.per_s or 0 for one in others)
    fullest = max((card.fullness for one in others for card in one.cards), default=0.0)
    full = f", fullest card {fullest:.0%} of its plan" if fullest else ""
    return f"{'and ' if shown else ''}{len(others)} more: {told}; {rate:.1f}/s{full}"


def _below(view: RunView) -> list[list[Cell]]:
    """Queue, failures, deaths and moves; a line only for what there is."""
    left = [one for one in view.benchmarks if one.done < one.total]
    found: list[list[Cell]] = []
    if left:
        found.append([(f"left: {'; '.join(map(_left, left))}", "")])
    if view.failed:
        found.append([(f"failed: {view.failed}, the last one: {one_line(view.last_failure)}", "red")])
    notes = [f"replicas died: {_many(view.deaths, 'time')}"] if view.deaths else []
    if view.moves:
        notes.append(f"blocks moved: {_many(view.moves, 'time')}, the last time because {one_line(view.last_move)}")
    if notes:
        found.append([("; ".join(notes), "yellow")])
    return found


def _left(one: BenchmarkView) -> str:
    """`ShapesBench 388 samples (40 pieces waiting)`."""
    waiting = f" ({_many(one.pieces_left, 'piece')} waiting)" if one.pieces_left else ""
    return f"{one_line(one.name)} {_many(one.total - one.done, 'sample')}{waiting}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
