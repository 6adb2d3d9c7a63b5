"""Golden logits hold, and fail for the mistakes that the score does not show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmeval.demo import evaluate, golden, prompts

families = pytest.mark.parametrize("family", prompts.FAMILIES)
Tiny = Callable[[str], evaluate.Loaded]
HERE = Path(__file__).parent / "golden"


def read(family: str) -> list[golden.GoldenSample]:
    return golden.read_golden(HERE / f"{family}.json")


def differing_samples(family: str, loaded: evaluate.Loaded) -> set[str]:
    """Names of the samples that no longer match."""
    return {line.split(":")[0] for line in golden.mismatches(read(family), golden.measure(loaded))}


@families
def test_logits_are_golden(family: str, tiny: Tiny) -> None:
    assert golden.mismatches(read(family), golden.measure(tiny(family))) == []


@families
def test_golden_sees_a_dropped_generation_prompt(family: str, tiny: Tiny) -> None:
    measured = golden.measure(tiny(family), generation_prompt=False)
    lines = golden.mismatches(read(family), measured)
    assert [line.split(":")[0] for line in lines if "logit" in line] == ["single", "several", "wide"]


def test_golden_sees_one_dimensional_positions(breakable: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = breakable("qwen2vl")

    def text_positions(input_ids: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        count, length = input_ids.shape
        return torch.arange(length).expand(3, count, length), torch.zeros(count, 1, dtype=torch.long)

    monkeypatch.setattr(broken.model.model, "get_rope_index", text_positions)
    assert differing_samples("qwen2vl", broken) == {"single", "several", "wide"}


def vision_blocks(loaded: evaluate.Loaded) -> torch.nn.ModuleList:
    """The blocks of the family's vision tower."""
    inner = loaded.model.model
    return {
        "qwen2vl": lambda: inner.visual.blocks,
        "internvl": lambda: inner.vision_tower.encoder.layer,
        "llava_onevision": lambda: inner.vision_tower.encoder.layers,
        "mllama": lambda: inner.vision_model.transformer.layers,
    }[loaded.family]()


@families
def test_golden_sees_swapped_vision_blocks(family: str, breakable: Tiny) -> None:
    broken = breakable(family)
    blocks = vision_blocks(broken)
    blocks[0], blocks[1] = blocks[1], blocks[0]
    assert differing_samples(family, broken) == {"single", "several", "wide"}


@families
def test_golden_sees_another_interpolation(family: str, breakable: Tiny) -> None:
    """Only the wide picture is resized, so only it can show this."""
    broken = breakable(family)
    image_processor = broken.processor.image_processor
    image_processor.resample = 2 if image_processor.resample != 2 else 3
    assert differing_samples(family, broken) == {"wide"}


@families
def test_golden_sees_another_size(family: str, breakable: Tiny) -> None:
    """Another pixel budget, or no tiles."""
    broken = breakable(family)
    image_processor = broken.processor.image_processor
    if family == "qwen2vl":
        image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}
    elif family == "internvl":
        image_processor.max_patches = 1
    elif family == "llava_onevision":
        image_processor.image_grid_pinpoints = [[112, 112]]
        broken.model.config.image_grid_pinpoints = [[112, 112]]  # the model itself refuses tiles it does not expect
    else:
        image_processor.max_image_tiles = 1
        with pytest.raises(RuntimeError, match="invalid for input of size"):  # this model refuses other tiles, too
            golden.measure(broken)
        return
    assert "wide" in differing_samples(family, broken)


def test_doubled_begin_token_is_seen(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny("mllama")
    real = golden.chat_text
    monkeypatch.setattr(golden, "chat_text", lambda *a, **k: "<|begin_of_text|>" + real(*a, **k))
    assert differing_samples("mllama", loaded) == {"single", "several", "wide"}


def test_file_of_other_positions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    path = tmp_path / "golden.json"
    golden.write_golden(path, read("qwen2vl"))
    assert golden.read_golden(path) == read("qwen2vl")
    monkeypatch.setattr(golden, "POSITIONS", (-1,))
    with pytest.raises(ValueError, match="rewrite it"):
        golden.read_golden(path)
