"""Two runs side by side: the table on screen, and the rows that differ as a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TextIO

from vlmeval.errors import printable
from vlmeval.report.read_score import ScoreFile
from vlmeval.report.screen import PIPE_WIDTH, console_for, table_with
from vlmeval.report.tables import Cell, write_table

ROW_COLUMNS = ("index", "split", "l2_category", "category", "change", "hit_1", "hit_2", "read_1", "read_2")


class PairedResult(Protocol):
    """What the table shows of a group of rows (`vlmeval.scoring.paired.Paired`)."""

    @property
    def count(self) -> int: ...
    @property
    def first(self) -> float: ...
    @property
    def second(self) -> float: ...
    @property
    def difference(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float]: ...
    @property
    def won(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def p(self) -> float: ...
    @property
    def test(self) -> str: ...


def print_comparison(
    protocol: str,
    first: ScoreFile,
    second: ScoreFile,
    groups: Mapping[tuple[str, str], PairedResult],
    notes: tuple[str, ...],
    file: TextIO | None = None,
) -> None:
    """The mean over the rows, in percent; the difference is the second run minus the first."""
    console = console_for(file or sys.stdout, least_width=PIPE_WIDTH)
    score = first.protocols[protocol]
    console.print(
        f"\n{first.dataset}, {protocol} v{score.version}, percent, mean over rows", style="bold", overflow="fold"
    )
    for number, side in enumerate((first, second), 1):
        console.print(printable(f"{number}: {side.model} ({side.label})"), overflow="fold")
    table = table_with("", "n", "1", "2", "2 - 1 [95 %]", "won", "lost", "p")
    for (level, name), paired in groups.items():
        low, high = (100 * bound for bound in paired.interval)
        table.add_row(
            {"l2-category": "  ", "category": "    "}.get(level, "") + printable(name),
            str(paired.count),
            f"{100 * paired.first:.1f}",
            f"{100 * paired.second:.1f}",
            f"{100 * paired.difference:+.1f} [{low:+.1f}, {high:+.1f}]",
            str(paired.won),
            str(paired.lost),
            _p(paired.p),
            style="bold" if level == "overall" else "",
        )
    console.print(table)
    overall = next(iter(groups.values()))
    how = "exact McNemar test" if overall.test == "McNemar" else "paired bootstrap"
    console.print(f"p: {how}, two-sided; those of categories are not adjusted for their number", overflow="fold")
    for note in notes:
        console.print(printable(note), overflow="fold")


def write_rows(stem: Path, protocol: str, first: ScoreFile, second: ScoreFile) -> Path:
    """The rows one run has better than the other, as csv: won by the second first, then lost."""
    rows, others = first.protocols[protocol].rows, second.protocols[protocol].rows
    table: list[tuple[Cell, ...]] = []
    for index, row in rows.items():
        other = others.get(index)
        if other is None or other.hit == row.hit:
            continue
        sample = first.samples.get(index) or second.samples.get(index)
        groups = (sample.split, sample.l2_category, sample.category) if sample else ("", "", "")
        change = "won" if other.hit > row.hit else "lost"
        table.append((index, *groups, change, row.hit, other.hit, row.extracted, other.extracted))
    table.sort(key=lambda cells: cells[4] == "lost")
    return write_table(stem, ROW_COLUMNS, table, "csv").path


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
