"""`vlmeval list models|datasets`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vlmeval.errors import UnknownNameError


def list_names(options: argparse.Namespace) -> int:
    """Print a table, or JSON for programs."""
    rows = {"models": _models, "datasets": _datasets}
    if options.what not in rows:
        raise UnknownNameError("list", options.what, rows)
    found = rows[options.what]()
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in found[0]:
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(soft_wrap=False).print(table, markup=False)
    return 0


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _models() -> list[dict[str, Any]]:
    from vlmeval.config import supported_VLM

    return [
        {"name": spec.name, "class": spec.class_path, "source": spec.source, "notes": spec.notes}
        for spec in supported_VLM.values()
    ]


def _datasets() -> list[dict[str, Any]]:
    from vlmeval.dataset.registry import dataset_listing

    return dataset_listing()
