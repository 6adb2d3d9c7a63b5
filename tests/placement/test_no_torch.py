"""Planning imports neither torch nor transformers: only what touches a model does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vlmeval.placement

ROOM = Path(vlmeval.placement.__file__).parent
TOUCHES_MODELS = {
    "blocks.py", "carrier.py", "copy_check.py", "detour.py", "dispatch.py", "homes.py", "mismatch.py", "moving.py",
    "pieces.py", "turns.py",
}  # fmt: skip
PURE = sorted(path.name for path in ROOM.glob("*.py") if path.name not in TOUCHES_MODELS)


@pytest.mark.parametrize("name", PURE)
def test_a_file_of_planning_imports_no_torch(name: str) -> None:
    roots = set()
    for node in ast.walk(ast.parse((ROOM / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.add(node.module.split(".")[0])
    assert not roots & {"torch", "transformers", "accelerate", "numpy"}
