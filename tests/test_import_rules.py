"""Who may import whom (design.md), read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlmeval

PACKAGE = Path(vlmeval.__file__).parent
SHARED = {"errors", "types", "images", "videos", "storage", "conversation"}
ALLOWED = {
    "errors": set(),
    "types": {"images", "videos", "errors"},
    "images": {"errors", "types"},
    "videos": {"errors", "types", "images", "video_decoding"},
    "video_decoding": {"errors", "images", "videos"},
    "conversation": {"types"},
    "storage": {"errors"},
    "hardware": {"errors", "types"},
    "placement": SHARED | {"hardware"},
    "vlm": SHARED | {"hardware", "placement"},
    "scoring": SHARED,
    "dataset": SHARED | {"scoring"},
    "config": SHARED | {"hardware", "placement", "vlm", "dataset", "scoring", "judging"},
    "inference": SHARED | {"hardware", "placement", "vlm", "dataset", "config"},
    "report": SHARED,
    "judging": SHARED,
    "answers": SHARED | {"inference"},
    "demo": SHARED | {"vlm", "dataset", "scoring", "config"},
}
"""Room -> rooms it may import. cli may import every one."""


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield parts[0], path


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "vlmeval" else [f"vlmeval.{a.name}" for a in node.names]
        found |= {name for name in names if name.startswith("vlmeval.")}
    return found


@pytest.mark.parametrize(("room", "path"), [(r, p) for r, p in _modules() if r in ALLOWED], ids=lambda v: str(v))
def test_a_room_imports_only_the_rooms_it_may(room: str, path: Path) -> None:
    rooms = {name.split(".")[1] for name in _imported(path)}
    assert rooms <= ALLOWED[room] | {room}, f"{path.name} imports {rooms - ALLOWED[room] - {room}}"


def test_every_room_has_a_rule() -> None:
    rooms = {room for room, _ in _modules()} - {"__init__", "__main__", "cli"}
    assert rooms <= set(ALLOWED)


LAUNCH_VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "AUTO_SPLIT"}


def _asked_by_name(path: Path) -> set[str]:
    """Names that a module gets from some mapping by `x["name"]` or `x.get("name")`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        asked = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            asked = node.slice
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            asked = node.args[0] if node.func.attr in ("get", "getenv", "pop") else None
        if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
            found.add(asked.value)
    return found


def test_only_the_room_hardware_reads_the_launch_environment() -> None:
    readers = {room for room, path in _modules() if LAUNCH_VARIABLES & _asked_by_name(path)}
    assert readers == {"hardware"}


def test_the_command_line_and_the_registry_import_neither_torch_nor_transformers() -> None:
    heavy = ("torch", "transformers", "numpy", "openpyxl", "rich", "qwen_vl_utils", "av")
    code = (
        "import sys, vlmeval, vlmeval.config, vlmeval.cli.main, vlmeval.cli.run, vlmeval.vlm.qwen2_vl\n"
        "import vlmeval.dataset\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_evaluates_pickles_or_catches_everything() -> None:
    for _, path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), where
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {a.name for a in node.names} | {getattr(node, "module", None)}
                assert "pickle" not in names, where
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, where
                assert getattr(node.type, "id", "") not in ("Exception", "BaseException"), where
            assert not isinstance(node, ast.Assert), where
