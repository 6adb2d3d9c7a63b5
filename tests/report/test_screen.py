"""The score table as text: whole names, 80 columns, no colour in a pipe."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.report.score_example import scores
from vlmeval.report import ScoredRun, print_scores
from vlmeval.types import Metric, Score


def printed(*runs: ScoredRun) -> str:
    file = io.StringIO()
    print_scores(runs, file)
    return file.getvalue()


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def run(model: str = "M", files: Sequence[Path] = ()) -> ScoredRun:
    return ScoredRun(model=model, dataset="Toy", scores=scores(), files=files)


def metric_score(group: str = "Overall", value: float = 50.0, interval: tuple[float, float] | None = None) -> Score:
    metric = Metric(group=group, value=value, count=4, interval=interval)
    return Score(dataset="T", protocol="p", metric="m", unit="percent", metrics=(metric,), rows=(), samples=4)


def test_a_pipe_gets_plain_text_in_80_columns() -> None:
    text = printed(run(), run())
    assert "\x1b" not in text
    assert max(map(cells, text.splitlines())) <= 80


class NarrowTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_of_40_columns_gets_every_name_and_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    file = NarrowTerminal()
    metric = Metric(group="Overall", value=100.0, count=4, interval=(92.5, 100.0))
    score = Score(dataset="T", protocol="p", metric="m", unit="percent", metrics=(metric,), rows=(), samples=4)
    print_scores([ScoredRun(model="M", dataset="Toy", scores={"p": score, "q": score})], file)
    line = next(line for line in file.getvalue().splitlines() if "Overall" in line)
    assert line.count("100.0 [92.5, 100.0]") == 2


def test_values_are_percent_with_one_decimal_and_the_interval() -> None:
    line = next(line for line in printed(run()).splitlines() if line.strip().startswith("Overall"))
    assert "25.0 [" in line
    assert "40.0 [" in line
    assert "4/5" in line


def test_percent_scores_are_not_multiplied_again() -> None:
    text = printed(ScoredRun(model="M", dataset="T", scores={"p": metric_score(value=61.25, interval=(50.0, 70.04))}))
    assert "61.2 [50.0, 70.0]" in text


def test_long_names_are_wrapped_and_never_cut() -> None:
    name = "spatial_relationship_of_many_things_together_in_a_very_long_category_name"
    text = printed(ScoredRun(model="m" * 100, dataset="T", scores={"p": metric_score(group=name), "q": metric_score()}))
    first_column = "".join(line.split()[0] for line in text.splitlines() if line.strip())
    assert name in first_column
    assert "m" * 100 in first_column
    assert "…" not in text
    assert max(map(cells, text.splitlines())) <= 80


def test_columns_align_under_wide_characters() -> None:
    lines = [line for line in printed(run()).splitlines() if "[" in line and "]" in line and "index" not in line]
    assert any("动作识别" in line for line in lines)
    assert len({cells(line.rstrip()) for line in lines}) == 1


def test_what_failed_did_not_match_is_missing_or_is_read_differently_is_said_below() -> None:
    text = printed(run())
    assert "failed: 1 (index 3) of 5 samples" in text
    assert "no option found: 2 (index 1000001, 2) (vlmevalkit)" in text
    assert "no option found: 1 (index 2) (exact)" in text
    assert "no record: 1 (index 4)" in text
    assert "read differently by vlmevalkit and exact: 1 (index 1000001)" in text
    assert "1 of 5 rows have no record: counted as wrong (exact)" in text


def test_only_the_first_few_indices_are_shown() -> None:
    from dataclasses import replace

    score = replace(metric_score(), unmatched=tuple(range(100)))
    assert "no option found: 100 (index 0, 1, 2, 3, 4, ...)" in printed(
        ScoredRun(model="M", dataset="T", scores={"p": score})
    )


def test_the_files_are_listed_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = printed(run(files=[tmp_path / "outputs" / "M" / "M_Toy.xlsx", tmp_path / "outputs" / "M" / "M_Toy_acc.csv"]))
    assert "files in outputs/M:\n  M_Toy.xlsx\n  M_Toy_acc.csv\n" in text


def test_several_runs_end_with_a_summary() -> None:
    assert "Summary" not in printed(run())
    summary = printed(run("first"), run("second")).split("Summary")[1]
    assert summary.index("first") < summary.index("second")


def test_square_brackets_in_names_are_shown_as_they_are() -> None:
    text = printed(ScoredRun(model="[bold]M[/bold]", dataset="T", scores={"p": metric_score(group="[red]x")}))
    assert "[bold]M[/bold] on T" in text
    assert "[red]x" in text


def test_splits_are_shown_one_after_the_other() -> None:
    metrics = tuple(Metric(group="Overall", value=0.5, count=1, split=split) for split in ("dev", "test"))
    score = Score(dataset="T", protocol="p", metric="m", unit="fraction", metrics=metrics, rows=(), samples=2)
    text = printed(ScoredRun(model="M", dataset="T", scores={"p": score}))
    assert "Overall (dev)" in text
    assert "Overall (test)" in text
