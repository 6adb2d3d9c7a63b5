"""What the kit sends to a tiny model is what the model was trained on, token by token and number by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlmeval.config import supported_VLM
from vlmeval.dataset import open_dataset
from vlmeval.demo import evaluate, golden, prompts
from vlmeval.types import ImagePart, Sample, TextPart

KIT_NAME = {family: folder.name for family, folder in evaluate.SHIPPED_FOLDER.items()}
families = pytest.mark.parametrize(
    "family", [family for family in prompts.FAMILIES if KIT_NAME[family] in supported_VLM]
)


@pytest.fixture(scope="module")
def kit_model() -> Callable[[str], Any]:
    """The kit's model of a family, loaded."""
    loaded: dict[str, Any] = {}

    def get(family: str) -> Any:
        if family not in loaded:
            loaded[family] = supported_VLM[KIT_NAME[family]](dtype="float32")
            loaded[family].load()
        return loaded[family]

    return get


def kit_text(model: Any, sample: Sample, dataset: Any) -> str:
    """The text of the kit's prompt for a sample."""
    custom = model.use_custom_prompt(dataset.task)
    message = model.build_prompt(sample, dataset.task) if custom else dataset.build_prompt(sample)
    assert [part["type"] for part in message] == ["image", "text"]
    return str(message[1]["value"])


@families
def test_kit_words_the_question_as_in_training(
    family: str, kit_model: Callable[[str], Any], bench: list[evaluate.BenchRow]
) -> None:
    dataset = open_dataset("ShapesBench")
    model = kit_model(family)
    for row, sample in zip(bench[:12], dataset, strict=False):
        assert sample.index == row.index
        assert kit_text(model, sample, dataset) == prompts.multiple_choice(family, row.question, row.options)


@families
def test_kit_gives_the_golden_logits(family: str, kit_model: Callable[[str], Any]) -> None:
    model = kit_model(family)
    wanted = golden.read_golden(Path(__file__).parent / "golden" / f"{family}.json")
    word_ids = [model.processor.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in golden.WORDS]
    for sample, row in zip(wanted, golden.samples().values(), strict=True):
        logits = kit_logits(model, row.picture, prompts.multiple_choice(family, row.question, row.options))
        assert len(logits) == sample.prompt_tokens
        kept = logits[list(golden.POSITIONS)][:, word_ids]
        assert torch.allclose(kept, torch.tensor(sample.logits), atol=golden.TOLERANCE, rtol=0), sample.name


def kit_logits(model: Any, picture: Image.Image, text: str) -> torch.Tensor:
    """Logits [tokens, vocabulary] of the kit's own inputs."""
    message = [ImagePart(type="image", value=picture), TextPart(type="text", value=text)]
    with torch.inference_mode():
        logits: torch.Tensor = model.model(**model.prepare([message])).logits[0]
    return logits
