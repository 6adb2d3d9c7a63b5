"""`_score.json` read back: what two runs are compared by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vlmeval.errors import DatasetError
from vlmeval.report.score_json import SAMPLE_COLUMNS
from vlmeval.types import Index


class SampleGroups(NamedTuple):
    """What a sample belongs to; the columns of the score file's table of samples, without its index."""

    split: str
    l2_category: str
    category: str
    image: str
    prompt: str


class RowResult(NamedTuple):
    """What a row was worth and how its answer was read."""

    hit: float
    extracted: str


@dataclass(frozen=True, kw_only=True)
class ProtocolScore:
    """One protocol of a score file. `overall` maps `group` or `split/group` to its value."""

    version: int
    metric: str
    unit: str
    judge: str
    rows: Mapping[Index, RowResult]
    overall: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """A score file. `samples` is empty in files from before there was such a table."""

    label: str
    model: str
    dataset: str
    dataset_md5: str
    protocols: Mapping[str, ProtocolScore]
    samples: Mapping[Index, SampleGroups]


def read_score_file(path: Path) -> ScoreFile:
    """Raises DatasetError for a file that is no score file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from error
    return score_file_of(content, str(path))


def score_file_of(content: Any, label: str) -> ScoreFile:
    """The content of a score file, parsed already."""
    try:
        run = content["run"]
        return ScoreFile(
            label=label,
            model=str(content["model"]),
            dataset=str(content["dataset"]),
            dataset_md5=str(run.get("dataset_md5", "")),
            protocols={name: _protocol(entry) for name, entry in content["protocols"].items()},
            samples=_samples(content.get("benchmark", {}).get("samples")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(
            f"{label} is no score file of vlmeval ({type(error).__name__}: {error}); give a _score.json"
        ) from error


def _protocol(entry: Mapping[str, Any]) -> ProtocolScore:
    overall = [metric for metric in entry["metrics"] if metric["level"] == "overall"]
    return ProtocolScore(
        version=int(entry["version"]),
        metric=str(entry["metric"]),
        unit=str(entry["unit"]),
        judge=str(entry.get("judge", "")),
        rows={row["index"]: RowResult(_hit(row), str(row["extracted"])) for row in entry["rows"]},
        overall={
            m["group"] if m["split"] == "none" else f"{m['split']}/{m['group']}": float(m["value"]) for m in overall
        },
    )


def _hit(row: Mapping[str, Any]) -> float:
    hit = float(row["hit"])
    if not math.isfinite(hit):
        raise ValueError(f"row {row['index']} is worth {row['hit']}")
    return hit


def _samples(table: Mapping[str, Any] | None) -> dict[Index, SampleGroups]:
    if not table:
        return {}
    places = [table["columns"].index(column) for column in SAMPLE_COLUMNS]
    rows = ([row[at] for at in places] for row in table["rows"])
    return {index: SampleGroups(*map(str, cells)) for index, *cells in rows}
