"""Putting a file in place: whole or not at all, and what is said when the disk does not take it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

from vlmeval.errors import StorageError

GIB = 1024**3


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync it, and move it over `path` in one step."""
    temp = scratch_name(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temp, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise cannot_write(path, error) from error


def scratch_name(folder: Path) -> Path:
    """A name in `folder` no other process or thread uses, short enough for any file system."""
    return folder / f".writing-{os.getpid()}-{threading.get_ident()}"


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error for the user: what failed where, and how much room there is."""
    return StorageError(
        f"cannot write {path}: {error.strerror or error}; {free_space(path)}; "
        "try another --work-dir, or make room and start the same command again"
    )


def free_space(path: Path) -> str:
    """Free space where `path` is or would be, in words."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            free_bytes = shutil.disk_usage(folder).free
            return f"{free_bytes / GIB:.2f} GiB ({free_bytes} bytes) free there"
    return "free space unknown"
