"""AutoVLM and images that come again: features are reused once that is proved, and never where it is wrong."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlmeval.types import ImagePart, Message, TextPart
from vlmeval.vlm import feature_reuse
from vlmeval.vlm.auto import AutoVLM
from vlmeval.vlm.feature_reuse import PROOFS

from . import auto_architectures as tiny

SIZES = ((28, 28), (56, 28), (90, 120))


@pytest.fixture(autouse=True)
def whatever_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of these sizes cost next to nothing."""
    monkeypatch.setattr(feature_reuse, "LONGEST", math.inf)


def prompt(*numbers: int, text: str = "What?") -> list[Message]:
    pictures = [Image.linear_gradient("L").convert("RGB").rotate(90 * n).resize(SIZES[n % 3]) for n in numbers]
    return [*(ImagePart(type="image", value=picture) for picture in pictures), TextPart(type="text", value=text)]


def loaded(name: str, folder: Path, **arguments: Any) -> AutoVLM:
    package = tiny.PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"transformers needs {package} for it")
    tiny.build(name, folder)
    model = AutoVLM(str(folder), **{"max_new_tokens": 4, "min_new_tokens": 4, **arguments})
    model.load()
    model.watch._is_settled = True  # past the first answers, which are looked at
    assert not model.watch.is_on
    return model


def texts(model: AutoVLM, batch: list[list[Message]]) -> list[str]:
    return [answer.text for answer in model.generate_batch(batch)]


@pytest.mark.parametrize("name", ["LLaVA 1.5", "Gemma 3", "Qwen2.5-VL", "LLaVA-NeXT"])
def test_features_are_reused_after_a_proof_with_the_answers_to_pixels(name: str, tmp_path: Path) -> None:
    model = loaded(name, tmp_path / "m")
    batches = [[prompt(n % 3, text=f"What{q * '?'}") for q in range(4)] for n in range(PROOFS + 2)]
    batches.append([prompt(0, 1), prompt(1, 0)])
    found = [texts(model, batch) for batch in batches]
    stamp = model.stamp()
    assert stamp["image_reuse"] == f"on: {PROOFS} batches were answered both ways, with the same tokens"
    assert (stamp["images"], stamp["images_reused"]) == (4 * (PROOFS + 2) + 4, 4 * (PROOFS + 2) + 4 - 3)
    model._reuse = None
    assert [texts(model, batch) for batch in batches] == found


def test_once_proved_repeated_images_are_not_encoded_again(tmp_path: Path) -> None:
    model = loaded("LLaVA 1.5", tmp_path / "m")
    for _ in range(PROOFS):
        texts(model, [prompt(0), prompt(0)])
    calls: list[int] = []
    tower = model.model.model.vision_tower
    tower.register_forward_hook(lambda module, args, output: calls.append(1))
    texts(model, [prompt(0, text="Which colour?"), prompt(0, text="Where?")])
    assert calls == []
    texts(model, [prompt(1), prompt(2)])
    assert len(calls) == 1, "new images are encoded together, as ever"


def test_one_difference_turns_it_off_and_is_stamped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = loaded("LLaVA 1.5", tmp_path / "m")
    right = texts(model, [prompt(0), prompt(0)])
    reuse = model._reuse
    assert reuse is not None and reuse.proofs == 1
    (key,) = reuse.store._kept
    features, part, size = reuse.store._kept[key]
    reuse.store._kept[key] = (tuple(-100 * tensor for tensor in features), part, size)
    assert texts(model, [prompt(0), prompt(0)]) == right, "those to pixels count"
    assert model.stamp()["image_reuse"] == "off: answers differed from those to pixels"
    assert "images that come again are encoded again" in caplog.text
    assert texts(model, [prompt(0), prompt(0)]) == right


def test_where_it_saves_no_time_it_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_reuse, "LONGEST", 0.0)
    model = loaded("LLaVA 1.5", tmp_path / "m")
    right = [texts(model, [prompt(0), prompt(0)]) for _ in range(PROOFS + 1)]
    assert model.stamp()["image_reuse"].startswith("off: it saved no time (")
    assert right == right[:1] * len(right)


def test_an_error_after_the_proof_costs_no_sample(tmp_path: Path) -> None:
    model = loaded("LLaVA 1.5", tmp_path / "m")
    for _ in range(PROOFS):
        right = texts(model, [prompt(0), prompt(0)])
    reuse = model._reuse
    assert reuse is not None and reuse.is_proved
    (key,) = reuse.store._kept
    features, part, size = reuse.store._kept[key]
    reuse.store._kept[key] = (tuple(torch.cat([tensor, tensor]) for tensor in features), part, size)
    assert texts(model, [prompt(0), prompt(0)]) == right
    assert model.stamp()["image_reuse"].startswith("off: SampleError: ")
    assert "image tokens for" in model.stamp()["image_reuse"]


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("Kosmos-2.5", {}, "it has no get_image_features()"),
        ("LLaVA 1.5", {"num_beams": 2}, "several beams share an image"),
        ("LLaVA 1.5", {"do_sample": True}, "answers are drawn"),
    ],
)
def test_where_it_cannot_be_it_is_off_from_the_start(
    name: str, arguments: dict[str, Any], why: str, tmp_path: Path
) -> None:
    assert loaded(name, tmp_path / "m", **arguments).stamp()["image_reuse"] == f"off: {why}"
