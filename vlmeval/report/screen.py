"""The score table a run ends with: readable in a terminal, in a pipe, in a log file, at 80 columns.

Numbers are percent with one decimal; in brackets the 95 % interval. Names are wrapped, never cut.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from vlmeval.errors import MissingPackageError, printable
from vlmeval.types import Index, Layout, Metric, Score

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 80
FIRST_FEW = 5
UNREAD: Mapping[Layout, str] = {
    "choices": "no option found",
    "yes_no": "neither yes nor no",
    "words": "nothing to read",
    "ocrbench": "nothing to read",
    "turns": "no grades",
}
"""What is said of answers from which nothing could be read."""


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """One model on one benchmark: its scores by protocol, the first being the headline, and where its files are."""

    model: str
    dataset: str
    scores: Mapping[str, Score]
    files: Sequence[Path] = ()
    notes: Sequence[str] = ()


def print_scores(runs: Sequence[ScoredRun], file: TextIO | None = None) -> None:
    """Print each run's table and what belongs to it; for several runs a summary in the end."""
    console = console_for(file or sys.stdout, least_width=PIPE_WIDTH)
    for run in runs:
        _print_run(console, run)
    if len(runs) > 1:
        console.print("\nSummary", style="bold")
        console.print(_summary(runs))


def console_for(file: TextIO, *, least_width: int = 1) -> Console:
    """A console that knows the terminal's width, and 80 columns for a pipe. Markup in names is text.

    Tables of scores ask for a `least_width`: a narrower terminal wraps their lines, where rich would drop
    names and cut numbers without a mark.
    """
    try:
        from rich.console import Console
    except ImportError as error:
        raise MissingPackageError("rich", "the score table") from error
    width = None if file.isatty() else PIPE_WIDTH
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    console.width = max(console.width, least_width)
    return console


def _print_run(console: Console, run: ScoredRun) -> None:
    console.print(printable(f"\n{run.model} on {run.dataset}"), style="bold", overflow="fold")
    console.print(_score_table(run.scores))
    for line in (*_remarks(run.scores), *run.notes):
        console.print(printable(line), overflow="fold")
    for folder in dict.fromkeys(path.parent for path in run.files):
        console.print(f"files in {_short(folder)}:", soft_wrap=True)
        for path in run.files:
            if path.parent == folder:
                console.print(f"  {path.name}", soft_wrap=True)


def _score_table(scores: Mapping[str, Score]) -> Table:
    """Protocols as columns, groups as rows; the splits one after the other."""
    rows: dict[tuple[str, str, str], dict[str, Metric]] = {}
    for name, score in scores.items():
        for metric in score.metrics:
            rows.setdefault((metric.split, metric.level, metric.group), {})[name] = metric
    splits = sorted({split for split, _, _ in rows})
    ordered = sorted(rows.items(), key=lambda row: row[0][1] != "overall")  # what is over everything stands on top
    table = table_with("", "n", *(_column_head(name, score) for name, score in scores.items()))
    for split in splits:
        for (row_split, level, group), metrics in ordered:
            if row_split != split:
                continue
            label = group if len(splits) == 1 or level != "overall" else f"{group} ({split})"
            cells = [_cell(metrics.get(name), score) for name, score in scores.items()]
            style = "bold" if level == "overall" else ""
            table.add_row(_indent(level) + printable(label), _counts(metrics.values()), *cells, style=style)
        table.add_section()
    return table


def _summary(runs: Sequence[ScoredRun]) -> Table:
    protocols = list(dict.fromkeys(name for run in runs for name in run.scores))
    table = table_with("model", "benchmark", *protocols)
    for run in runs:
        cells = [_cell(run.scores[name].overall, run.scores[name]) if name in run.scores else "" for name in protocols]
        table.add_row(printable(run.model), printable(run.dataset), *cells)
    return table


def table_with(*columns: str) -> Table:
    """Names on the left, wrapped where they must be; numbers on the right, never wrapped."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        if column in ("", "model", "benchmark"):
            table.add_column(column, overflow="fold", min_width=12)
        else:
            table.add_column(column, justify="right", no_wrap=column != "n", overflow="fold")
    return table


def _column_head(name: str, score: Score) -> str:
    return f"{name} v{score.protocol_version}"


def _indent(level: str) -> str:
    return {"overall": "", "l2-category": "  "}.get(level, "    ")


def _counts(metrics: Iterable[Metric]) -> str:
    """The denominators, one number where the protocols agree."""
    return "/".join(dict.fromkeys(str(metric.count) for metric in metrics))


def _cell(metric: Metric | None, score: Score) -> str:
    if metric is None:
        return ""
    scale = 100 if score.unit == "fraction" else 1
    value = f"{metric.value * scale:.1f}"
    if metric.interval is None:
        return value
    low, high = (bound * scale for bound in metric.interval)
    return f"{value} [{low:.1f}, {high:.1f}]"


def _remarks(scores: Mapping[str, Score]) -> list[str]:
    """What has to be said below the numbers; what all protocols have in common is said once."""
    lines: dict[str, list[str]] = {}
    for name, score in scores.items():
        lines.setdefault(f"failed: {_few(score.failed)} of {score.samples} samples", []).append(name)
    for name, score in scores.items():
        lines.setdefault(f"{UNREAD[score.layout]}: {_few(score.unmatched)}", []).append(name)
    for name, score in scores.items():
        if score.missing:
            lines.setdefault(f"no record: {_few(score.missing)}", []).append(name)
    for name, score in scores.items():
        for note in score.notes:
            lines.setdefault(note, []).append(name)
    said = [line if len(names) == len(scores) else f"{line} ({', '.join(names)})" for line, names in lines.items()]
    return said + [_difference(scores, a, b) for a, b in combinations(scores, 2)]


def _difference(scores: Mapping[str, Score], first: str, second: str) -> str:
    rows = [a.index for a, _ in scores[first].differing_rows(scores[second])]
    return f"read differently by {first} and {second}: {_few(rows)}"


def _few(indices: Sequence[Index]) -> str:
    """`12 (3, 17, 21, 40, 44, ...)`."""
    if not indices:
        return "0"
    more = ", ..." if len(indices) > FIRST_FEW else ""
    return f"{len(indices)} (index {', '.join(map(str, indices[:FIRST_FEW]))}{more})"


def _short(folder: Path) -> Path:
    """Relative to where the user stands, if it is below."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_absolute() and folder.is_relative_to(here) else folder
