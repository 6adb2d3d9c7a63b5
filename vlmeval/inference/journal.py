"""The journal: one line of JSON per finished sample, appended and never rewritten.

A line is handed to the system in one write, so a killed process loses nothing that was finished; it is forced to the
disk once a second, so a power cut loses at most that. A torn last line is skipped; the next record starts a new one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlmeval.errors import StorageError
from vlmeval.storage import storage_error
from vlmeval.types import Index, Prediction

if TYPE_CHECKING:
    from typing_extensions import Self

SYNC_INTERVAL_S = 1.0
_FIELDS = {f.name for f in dataclasses.fields(Prediction)}


class Lines:
    """Appends JSON objects to a file. Use as a context manager; only one process may hold a run's files at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._synced_at = 0.0

    def __enter__(self) -> Self:
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            if _ends_torn(self.path):
                self._write(b"\n")
        except OSError as error:
            raise storage_error(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._sync()
        except OSError as failure:
            raise storage_error(self.path, failure) from failure
        finally:
            os.close(self._file)

    def add(self, record: Mapping[str, Any]) -> None:
        """One line more. Raises StorageError, e.g. when the disk is full; what was there stays."""
        line = json.dumps(record, ensure_ascii=False)
        try:
            self._write(line.encode("utf-8", "backslashreplace") + b"\n")
            if time.monotonic() - self._synced_at >= SYNC_INTERVAL_S:
                self._sync()
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _sync(self) -> None:
        """To the disk; and not into a file that nobody will find again."""
        os.fsync(self._file)
        self._synced_at = time.monotonic()
        try:
            os.stat(self.path)
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.path} was removed or moved away while the run wrote to it, and its answers with it; put it "
                "back where it was, if it is anywhere, and start the same command again"
            ) from error

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]


class Journal(Lines):
    """Finished samples."""

    def append(self, prediction: Prediction) -> None:
        """Record one finished sample. Raises StorageError, e.g. when the disk is full; what was there stays."""
        self.add(as_record(prediction))


def as_record(prediction: Prediction) -> dict[str, Any]:
    """What JSON holds of it: everything that is not empty."""
    return {k: v for k, v in dataclasses.asdict(prediction).items() if v not in (None, "", ())}


def from_record(record: Any) -> Prediction:
    """Back from JSON. Raises ValueError, TypeError or AttributeError for what is no record."""
    values: dict[str, Any] = {k: tuple(v) if k == "notes" else v for k, v in record.items() if k in _FIELDS}
    found = Prediction(**values)
    texts = (found.fingerprint, found.prediction, found.thinking, found.error)
    if type(found.index) not in (int, str) or found.status not in ("ok", "failed"):
        raise ValueError(f"no record: index {found.index!r}, status {found.status!r}")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"no record: texts of index {found.index!r} are no texts")
    return found


def read_journal(path: Path) -> dict[Index, Prediction]:
    """The last record of every sample, by index. Lines that are torn or no records are skipped.

    Raises StorageError if the file is there and cannot be read.
    """
    return {record.index: record for record in _records(path)}


def _records(path: Path) -> Iterator[Prediction]:
    try:
        with path.open("rb") as file:
            for line in file:
                record = _parse(line)
                if record is not None:
                    yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error


def _parse(line: bytes) -> Prediction | None:
    try:
        return from_record(json.loads(line))
    except (ValueError, TypeError, AttributeError):
        # What a kill leaves in the middle of a write is no record; that sample is answered again.
        return None


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
