"""The same settings find the same folder; a changed one makes a new folder and is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vlmeval.errors import StorageError, UsageError
from vlmeval.inference.run_folder import file_name, open_run_folder

SETTINGS = {"checkpoint": "abc", "generation.max_new_tokens": 16, "min_pixels": None}


def test_the_same_settings_continue_the_same_folder(tmp_path: Path) -> None:
    first = open_run_folder(tmp_path, "m", SETTINGS)
    again = open_run_folder(tmp_path, "m", dict(reversed(SETTINGS.items())))
    assert (first.is_new, again.is_new) == (True, False)
    assert again.path == first.path


def test_a_changed_setting_starts_a_new_folder_and_is_named(tmp_path: Path) -> None:
    first = open_run_folder(tmp_path, "m", SETTINGS)
    second = open_run_folder(tmp_path, "m", {**SETTINGS, "min_pixels": 3136, "revision": "v2"})
    assert second.is_new and second.path != first.path
    assert second.changes == ("min_pixels: None -> 3136", "revision: not set -> v2")
    assert open_run_folder(tmp_path, "m", SETTINGS).path == first.path


def test_without_reuse_a_new_folder_is_made_and_found_from_then_on(tmp_path: Path) -> None:
    first = open_run_folder(tmp_path, "m", SETTINGS)
    second = open_run_folder(tmp_path, "m", SETTINGS, reuse=False)
    assert second.path != first.path
    assert open_run_folder(tmp_path, "m", SETTINGS).path == second.path


def test_only_one_process_may_write(tmp_path: Path) -> None:
    folder = open_run_folder(tmp_path, "m", SETTINGS)
    code = (
        "from pathlib import Path; from vlmeval.inference.run_folder import open_run_folder\n"
        f"f = open_run_folder(Path({str(tmp_path)!r}), 'm', {SETTINGS!r})\n"
        "try: f.lock()\nexcept Exception as e: print(type(e).__name__, e)"
    )
    with folder.lock():
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert told.startswith("StorageError another process is writing to")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        open_run_folder(tmp_path, "m", SETTINGS)


def test_names_from_outside_stay_inside_the_folder() -> None:
    assert file_name("../../etc/passwd") == "_.._etc_passwd"
    assert "/" not in file_name("owner/name")
    with pytest.raises(UsageError):
        file_name("...")
