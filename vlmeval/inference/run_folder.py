"""Run folders: `{work_dir}/{model}/T{time}_{fingerprint}/`, one per model and settings, found again on resume."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vlmeval.errors import StorageError, UsageError
from vlmeval.inference.fingerprint import changed_settings, settings_fingerprint
from vlmeval.storage import replace_file, storage_error

RECORD = "run.json"
_NOT_IN_A_FILE_NAME = re.compile(r"[^\w.\-+=@]+")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where one run's files are. `changes` says which settings differ from the newest earlier run, if it is new."""

    path: Path
    model: str
    is_new: bool
    changes: tuple[str, ...] = ()

    def journal_path(self, dataset: str) -> Path:
        """The journal of one benchmark."""
        return self.path / f"{self.model}_{file_name(dataset)}.jsonl"

    def turns_path(self, dataset: str) -> Path:
        """The answered turns of its conversations that are not finished."""
        return self.path / f"{self.model}_{file_name(dataset)}.turns"

    def record(self) -> dict[str, Any]:
        """What run.json holds: settings, stamp, versions."""
        return _read_record(self.path)

    def stamp(self, values: Mapping[str, Any]) -> None:
        """Add to run.json what was found out on the way, e.g. the number type chosen."""
        _write_record(self.path, {**self.record(), **values})

    def lock(self) -> FileLock:
        """Held by the one process that writes here. Raises StorageError if another one holds it."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StorageError(
                f"another process is writing to {self.path}; wait for it, or give this run another --work-dir"
            ) from error
        except OSError as error:
            raise storage_error(self.path, error) from error
        return lock


def file_name(name: str) -> str:
    """A model's or benchmark's name as part of a file name: no separators, never empty, never a dot folder."""
    clean = _NOT_IN_A_FILE_NAME.sub("_", name).strip(".")
    if not clean:
        raise UsageError(f"name {name!r} leaves nothing that a file could be called")
    return clean


def open_run_folder(work_dir: Path, model: str, settings: Mapping[str, Any], *, reuse: bool = True) -> RunFolder:
    """The newest folder of this model with these settings, or a new one. Raises StorageError if it cannot be made."""
    model = file_name(model)
    parent = work_dir / model
    settings = json.loads(json.dumps(settings, default=str))
    fingerprint = settings_fingerprint(settings)
    earlier = sorted(_earlier_runs(parent), key=lambda item: item[0].name)
    same = [path for path, record in earlier if record.get("fingerprint") == fingerprint]
    if same and reuse:
        return RunFolder(path=same[-1], model=model, is_new=False)
    path = parent / f"T{time.strftime('%Y%m%d-%H%M%S')}_{fingerprint[:8]}"
    try:
        while path.exists():
            time.sleep(0.2)
            path = parent / f"T{time.strftime('%Y%m%d-%H%M%S')}_{fingerprint[:8]}"
        path.mkdir(parents=True)
        created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        _write_record(path, {"fingerprint": fingerprint, "settings": settings, "created_at": created})
    except OSError as error:
        raise storage_error(path, error) from error
    changes = changed_settings(earlier[-1][1].get("settings", {}), settings) if earlier and not same else []
    return RunFolder(path=path, model=model, is_new=True, changes=tuple(changes))


def _earlier_runs(parent: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if not parent.is_dir():
        return
    for path in parent.glob("T*_*"):
        record = _read_record(path)
        if record:
            yield path, record


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # A folder without a readable record belongs to no run that could be continued.
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n"
    replace_file(path / RECORD, text.encode("utf-8", "backslashreplace"))
