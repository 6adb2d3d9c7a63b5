"""`vlmeval list models|datasets`."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Literal

from vlmeval.errors import UnknownNameError
from vlmeval.types import Task, TaskType

if TYPE_CHECKING:
    from vlmeval.config import ModelSpec


FAMILIES = {
    "Qwen2VLChat": "Qwen2-VL",
    "Qwen2_5_VLChat": "Qwen2.5-VL",
    "Qwen3VLChat": "Qwen3-VL",
    "LLaVA_OneVision_HF": "LLaVA-OneVision",
    "LlamaVision": "Llama-3.2-Vision",
    "InternVLChat": "InternVL",
}
"""Class -> what its models are called; a class that is not here goes by its own name."""

PIPE_WIDTH = 200
"""A file or a pipe has no width of its own: there a row stays on one line."""
TABLE_WIDTH = 140
"""Columns that the tables need."""
MORE_MODELS = (
    "~ worked out from the number of parameters. Any other checkpoint folder or hub id that transformers maps to an "
    "image-text-to-text class runs as well: --model owner/name (see docs/auto_architectures.md)."
)
OTHER_WORDS = {"model": "models", "data": "datasets", "dataset": "datasets"}
"""As the flags call them."""
TASK_TYPES: tuple[TaskType, ...] = ("MCQ", "Y/N", "VQA", "MT")


def list_names(options: argparse.Namespace) -> int:
    """Print a table, or JSON for programs."""
    rows = {"models": _models, "datasets": _datasets}
    what = OTHER_WORDS.get(options.what, options.what)
    if what not in rows:
        raise UnknownNameError("list", options.what, rows)
    found = rows[what]()
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    shown = [_model_cells(row) for row in found] if what == "models" else found
    width = get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
    if width < TABLE_WIDTH:
        print("\n".join(narrow_lines(shown, width)))
    else:
        _print_table(shown, width)
    if options.what == "models":
        print(textwrap.fill(MORE_MODELS, min(width, 106)))
    return 0


def narrow_lines(rows: Sequence[Mapping[str, Any]], width: int) -> Iterator[str]:
    """Where a table would break its words: the name on a line of its own, what is known of it below."""
    for row in rows:
        name, *others = row.items()
        yield str(name[1])
        told = "; ".join(f"{column}: {_cell(value)}" for column, value in others if _cell(value))
        yield from textwrap.wrap(
            told, width, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )


def _print_table(shown: Sequence[Mapping[str, Any]], width: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in shown[0]:
        align: Literal["right", "left"] = "right" if column == "weights" else "left"
        table.add_column(column, overflow="fold", justify=align, no_wrap=column in ("name", "weights"))
    for row in shown:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(soft_wrap=False, width=width).print(table, markup=False)


def _cell(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _models() -> list[dict[str, Any]]:
    """One dict a model, sizes in bytes. Imports no torch and reads no network."""
    from vlmeval.config import supported_VLM
    from vlmeval.vlm.weight_sizes import weight_size

    rows = []
    for spec in supported_VLM.values():
        weight_bytes, exact = weight_size(spec.source)
        row = {
            "name": spec.name, "family": FAMILIES.get(spec.class_path, spec.class_path), "class": spec.class_path,
            "source": spec.source, "weight_bytes": weight_bytes, "weight_bytes_exact": exact,
            "own_prompts": _own_prompts(spec), "notes": spec.notes,
        }  # fmt: skip
        rows.append(row)
    return rows


def _own_prompts(spec: ModelSpec) -> list[str]:
    """Task types that the family words itself; the others are worded by the benchmark."""
    model = spec()
    return [kind for kind in TASK_TYPES if model.use_custom_prompt(Task(name="", type=kind))]


def _model_cells(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "family": row["family"],
        "hub id or folder": row["source"],
        "weights": _size(row["weight_bytes"], row["weight_bytes_exact"]),
        "prompts": f"own: {', '.join(row['own_prompts'])}" if row["own_prompts"] else "benchmark's",
        "notes": row["notes"],
    }


def _size(weight_bytes: int | None, exact: bool) -> str:
    if weight_bytes is None:
        return "?"
    gib = weight_bytes / 2**30
    text = f"{gib:,.0f} GiB" if gib >= 10 else f"{gib:.1f} GiB" if gib >= 0.1 else f"{weight_bytes / 2**20:.1f} MiB"
    return text if exact else f"~{text}"


def _datasets() -> list[dict[str, Any]]:
    from vlmeval.dataset.listing import dataset_listing

    return dataset_listing()
