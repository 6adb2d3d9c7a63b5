"""Tiny checkpoints, written and loaded once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.one_thread import one_thread as one_thread
from vlmeval.config import resolve_model
from vlmeval.vlm.transformers_model import TransformersModel

from . import tiny_families


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny random checkpoint. Not to be changed."""
    written: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in written:
            written[family] = tiny_families.write(family, tmp_path_factory.mktemp(family) / family)
        return written[family]

    return get


@pytest.fixture(scope="session")
def model_of(folder_of: Callable[[str], Path]) -> Callable[[str], TransformersModel]:
    """A family's model, loaded as `--model FOLDER` does, with at most 8 new tokens. Not to be changed."""
    loaded: dict[str, TransformersModel] = {}

    def get(family: str) -> TransformersModel:
        if family not in loaded:
            model = resolve_model(str(folder_of(family)))(max_new_tokens=8)
            assert isinstance(model, TransformersModel)
            model.load()
            torch.set_num_threads(1)
            loaded[family] = model
        return loaded[family]

    return get
