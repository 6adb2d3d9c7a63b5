"""The result files of one model on one benchmark, in VLMEvalKit's layout, plus one file with everything we know.

    {model}_{dataset}.xlsx                          every column but `image`, dataset order, + prediction (+ thinking)
    {model}_{dataset}_exact_matching_result.xlsx    sorted by index, + hit, log; circular: base rows, + g_index;
                                                    with a judge its name instead of exact_matching
    {model}_{dataset}_acc.csv                       fractions: split, Overall, l2-categories, categories
    {model}_{dataset}_score.json                    both protocols: intervals, counts, every row, the run's stamps

Yes or no instead: `_auxmatch.xlsx` (+ extracted, score) and `_score.csv`. Words: `_results.xlsx` (+ eval_gt, eval_pred,
eval_match, eval_score) and `_acc.csv`, percent. Conversations: `_results.xlsx` (+ eval_pred, the overall grades of the
turns, and eval_score) and `_{judge}_score.csv`, means of grades times 10.
OCRBench: `_results.xlsx` and upstream's `_score.json`. Where
upstream's table is called `_score.json`, ours is `_protocols.json`.

They are made from the journal's predictions and are never read back for a score: a spreadsheet turns `None`, `NA` and
`007` into something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmeval.report.score_json import score_json
from vlmeval.report.tables import Cell, TableFormat, Written, write_table
from vlmeval.storage import replace_file
from vlmeval.types import Index, Layout, Prediction, RowScore, Sample, Score

RESULT_SUFFIX: Mapping[Layout, str] = {
    "choices": "exact_matching_result",
    "yes_no": "auxmatch",
    "words": "results",
    "ocrbench": "results",
    "turns": "results",
}
_EVAL_COLUMNS = ("eval_gt", "eval_pred", "eval_match", "eval_score")
OUR_COLUMNS: Mapping[Layout, tuple[str, ...]] = {
    "choices": ("hit", "log"),
    "yes_no": ("extracted", "score"),
    "words": _EVAL_COLUMNS,
    "ocrbench": _EVAL_COLUMNS,
    "turns": ("eval_pred", "eval_score"),
}
_NOT_IN_A_NAME = r'[\\/:*?"<>|\x00-\x1f]'
FAILED_TEXT = "Failed to obtain answer."
"""What readers of VLMEvalKit's files look for in the prediction of a failed sample."""


@dataclass(frozen=True, kw_only=True)
class ScoreFiles:
    """Where a benchmark's scores are, and what the user has to be told about the files."""

    result: Path
    table: Path
    score: Path
    notes: tuple[str, ...] = ()


def file_prefix(model: str, dataset: str) -> str:
    """`{model}_{dataset}` without what a file name cannot hold, such as the `/` of a hub id."""
    return re.sub(_NOT_IN_A_NAME, "_", f"{model}_{dataset}")


def write_predictions(
    folder: Path,
    model: str,
    dataset: str,
    columns: Sequence[str],
    samples: Iterable[Sample],
    predictions: Mapping[Index, Prediction],
    fmt: TableFormat = "xlsx",
) -> Written:
    """The answers beside the benchmark's own columns, in its order; rows without a record are left out."""
    rows = [sample for sample in samples if sample.index in predictions]
    sheet = _Sheet(columns, predictions)
    table = [sheet.row(sample) for sample in rows]
    return write_table(folder / file_prefix(model, dataset), sheet.columns, table, fmt)


def write_score_files(
    folder: Path,
    model: str,
    dataset: str,
    scores: Mapping[str, Score],
    samples: Sequence[Sample],
    predictions: Mapping[Index, Prediction],
    stamps: Mapping[str, object],
    *,
    columns: Sequence[str] | None = None,
    fmt: TableFormat = "xlsx",
    eval_format: TableFormat = "csv",
    images: Mapping[Index, str] | None = None,
) -> ScoreFiles:
    """Upstream's two files from the first of `scores`, and the score file from all of them.

    `stamps` is what the run says about itself (model, revision, precision, settings, versions ...), `images` names
    each row's image, for whoever compares two runs.
    """
    primary = next(iter(scores.values()))
    prefix = folder / file_prefix(model, dataset)
    names = list(columns) if columns is not None else list(samples[0].fields) if samples else ["index"]
    result = _write_result(prefix, names, samples, predictions, primary, fmt)
    table = _write_table(prefix, primary, eval_format)
    score = score_path(folder, model, dataset, primary.layout, eval_format)
    replace_file(score, score_json(model, dataset, scores, stamps, samples, predictions, images))
    return ScoreFiles(result=result.path, table=table, score=score, notes=result.notes)


def score_path(folder: Path, model: str, dataset: str, layout: Layout, eval_format: TableFormat = "csv") -> Path:
    """Where the file with everything is: `_score.json`, or `_protocols.json` where upstream has that name."""
    taken = layout == "ocrbench" or (layout == "yes_no" and eval_format == "json")
    return folder / f"{file_prefix(model, dataset)}_{'protocols' if taken else 'score'}.json"


def _write_table(prefix: Path, score: Score, eval_format: TableFormat) -> Path:
    """Upstream's score table under its name."""
    header, lines = acc_table(score)
    if score.layout == "ocrbench":
        path = prefix.with_name(f"{prefix.name}_score.json")
        content = dict(zip(header, lines[0], strict=True))
        replace_file(path, (json.dumps(content, ensure_ascii=False, indent=4) + "\n").encode())
        return path
    suffix = "_score" if score.layout == "yes_no" else "_acc"
    if score.layout == "turns":
        suffix = f"_{re.sub(_NOT_IN_A_NAME, '_', score.judge_name)}_score"
    return write_table(prefix.with_name(f"{prefix.name}{suffix}"), header, lines, eval_format).path


def acc_table(score: Score) -> tuple[list[str], list[list[Cell]]]:
    """Header and rows of upstream's table: the rule's own, else that of multiple choice. There numbers upstream does
    not have stay out; of two groups of a name the last wins."""
    if score.table is not None:
        return list(score.table.columns), [list(row) for row in score.table.rows]
    by_split: dict[str, dict[str, float]] = {}
    groups: dict[str, None] = {}
    for metric in score.metrics:
        if metric.level == "overall" and metric.group != "Overall":
            continue
        by_split.setdefault(metric.split, {})[metric.group] = metric.value
        groups[metric.group] = None
    rows: list[list[Cell]] = [[split, *(values.get(group) for group in groups)] for split, values in by_split.items()]
    return ["split", *groups], rows


def _write_result(
    prefix: Path,
    columns: Sequence[str],
    samples: Iterable[Sample],
    predictions: Mapping[Index, Prediction],
    score: Score,
    fmt: TableFormat,
) -> Written:
    sheet = _Sheet(columns, predictions, {row.index: row for row in score.rows}, score.layout)
    rows = sorted(
        (s for s in samples if s.index in sheet.scores), key=lambda sample: (str(type(sample.index)), sample.index)
    )
    if score.layout != "choices":
        rows = [s for s in samples if s.index in sheet.scores]
    suffix = RESULT_SUFFIX[score.layout]
    if score.judge and score.layout == "choices":
        suffix = f"{re.sub(_NOT_IN_A_NAME, '_', score.judge_name)}_result"
    stem = prefix.with_name(f"{prefix.name}_{suffix}")
    return write_table(stem, sheet.columns, [sheet.row(sample) for sample in rows], fmt)


class _Sheet:
    """Which columns a table of answers has, and a sample's row in it."""

    def __init__(
        self,
        columns: Sequence[str],
        predictions: Mapping[Index, Prediction],
        scores: Mapping[Index, RowScore] | None = None,
        layout: Layout = "choices",
    ) -> None:
        self.predictions = predictions
        self.scores = scores or {}
        self.layout = layout
        ours = ["prediction"]
        if any(prediction.thinking for prediction in predictions.values()):
            ours.append("thinking")
        if any(row.g_index is not None for row in self.scores.values()):
            ours.append("g_index")
        if scores is not None:
            ours += OUR_COLUMNS[layout]
        if layout == "turns":
            ours += dict.fromkeys(name for row in self.scores.values() for name in row.details)
        theirs = [column for column in columns if column not in {"image", *ours}]
        self.columns = [*theirs, *ours]

    def row(self, sample: Sample) -> list[Cell]:
        ours = self._ours(sample.index)
        cells = {**sample.fields, **ours}
        return [cells.get(column, "") for column in self.columns]

    def _ours(self, index: Index) -> dict[str, Cell]:
        """Indices and hits are numbers, as a reader of upstream's files expects; all else is text."""
        cells: dict[str, Cell] = {"index": index}
        prediction = self.predictions.get(index)
        if prediction is not None:
            cells["prediction"] = prediction_text(prediction)
            cells["thinking"] = prediction.thinking
        score = self.scores.get(index)
        if score is not None:
            cells.update(_score_cells(score, self.layout))
        return cells


def _score_cells(row: RowScore, layout: Layout) -> dict[str, Cell]:
    """What a row was worth, in the columns of its kind of file."""
    if layout == "yes_no":
        return {"extracted": row.extracted or "Unknown", "score": bool(row.hit)}
    if layout == "choices":
        hit = int(row.hit) if row.hit in (0, 1) else row.hit
        return {"hit": hit, "log": row.log, **({"g_index": row.g_index} if row.g_index is not None else {})}
    said = {name: value if isinstance(value, str) else str(value) for name, value in row.details.items()}
    return {"eval_pred": row.extracted, **said, "eval_score": row.hit}


def prediction_text(prediction: Prediction) -> str:
    """The answer, or for a failed sample the text that says so and why."""
    if prediction.status == "ok":
        return prediction.prediction
    return f"{FAILED_TEXT} {prediction.error}".rstrip()
