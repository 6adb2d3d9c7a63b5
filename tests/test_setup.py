"""The package as it is installed: the demo's files and the console script are in it, and requirements stay few."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vlmeval

ROOT = Path(vlmeval.__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of what git tracks, so that nothing lying around gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("vlmeval-*.whl")))


def test_the_demo_is_in_the_package(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "vlmeval/demo/ShapesBench.tsv" in names
    tracked = {str(p.relative_to(ROOT)) for p in (ROOT / "vlmeval" / "demo" / "Qwen2-VL-Tiny").iterdir()}
    assert tracked <= names
    assert not any(name.startswith("tests/") for name in names)


def test_the_command_is_installed(wheel: zipfile.ZipFile) -> None:
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "vlmeval = vlmeval.cli.main:main" in wheel.read(entry).decode()


def test_each_embedded_file_is_small() -> None:
    demo = ROOT / "vlmeval" / "demo"
    assert (demo / "ShapesBench.tsv").stat().st_size < 4 * 10**6
    for folder in (path for path in demo.iterdir() if (path / "config.json").exists()):
        assert sum(file.stat().st_size for file in folder.iterdir()) < 4 * 10**6, folder


def test_flash_attn_is_an_extra_and_never_required(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(next(n for n in wheel.namelist() if n.endswith("METADATA"))).decode()
    assert 'Requires-Dist: flash-attn; extra == "flash"' in metadata
