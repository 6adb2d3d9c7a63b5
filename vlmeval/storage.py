"""Putting a file in place: whole or not at all, and what is said when the disk does not take it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from pathlib import Path

from vlmeval.errors import StorageError

GIB = 1024**3
KEPT = "everything finished is kept: make room or choose another --work-dir, and start the same command again"


def cache_folder(name: str) -> Path:
    """Where what can be made again is kept, `name` saying what: below `$VLMEVAL_CACHE`, else `vlmeval` in
    `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("VLMEVAL_CACHE")
    root = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vlmeval"
    return root.expanduser() / name


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
        raise storage_error(path, error) from error


def scratch_name(folder: Path) -> Path:
    """A name in `folder` no other process or thread uses, short enough for any file system."""
    return folder / f".writing-{os.getpid()}-{threading.get_ident()}"


def storage_error(
    path: Path,
    error: OSError,
    advice: str = KEPT,
) -> StorageError:
    """The error for the user: what failed where, how much room there is, and what to do."""
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return StorageError(f"{path} cannot be written: {reason}; {free_space(path)}; {advice}")


def free_space(path: Path) -> str:
    """Free space where `path` is or would be, in words."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            free_bytes = shutil.disk_usage(folder).free
            return f"{free_bytes / GIB:.2f} GiB ({free_bytes:,} bytes) free there"
    return "free space unknown"
