"""Where benchmarks are kept."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_root() -> Path:
    """`$LMUData`, else `~/LMUData`."""
    return Path(os.environ.get("LMUData") or "~/LMUData").expanduser()  # noqa: SIM112 - upstream's name
