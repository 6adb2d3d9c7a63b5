"""BaseModel: accepted forms of a prompt, and the one method a user's own model needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmeval.errors import ImageError, UsageError
from vlmeval.types import Message, Sample, Task
from vlmeval.vlm.base import BaseModel, normalise_prompt

TASK = Task(name="any", type="VQA")


class Echo(BaseModel):
    def generate_inner(self, message: list[Message], task: Task | None = None) -> str:
        return " ".join(part["type"] for part in message)


def kinds(prompt: Any) -> list[str]:
    return [part["type"] for part in normalise_prompt(prompt)]


def test_forms_of_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "no suffix"
    Image.new("RGB", (2, 2)).save(file, format="PNG")
    assert kinds("What is this?") == ["text"]
    assert kinds(Image.new("RGB", (2, 2))) == ["image"]
    assert kinds([str(file), "What?", "https://example.com/a.PNG?x=1", "https://example.com/page"]) == [
        "image", "text", "image", "text",
    ]  # fmt: skip
    assert kinds([{"type": "image", "value": "a.png"}, {"type": "text", "value": "b.png"}]) == ["image", "text"]
    assert kinds({"type": "text", "value": "x", "role": "system"}) == ["text"]
    assert kinds(f"file://{file}") == ["image"]


def test_text_that_only_mentions_a_picture_is_text() -> None:
    assert kinds("Look at my cat.jpg") == ["text"]
    assert kinds("line one\ncat.jpg") == ["text"]
    assert kinds("x" * 5000 + ".jpg") == ["text"]


def test_missing_image_file_is_not_read_out_to_the_model() -> None:
    with pytest.raises(ImageError, match=r"nowhere/cat\.jpg does not exist"):
        normalise_prompt(["nowhere/cat.jpg", "What?"])


@pytest.mark.parametrize(
    "prompt", [3, None, [], [3], {"type": "sound", "value": 1}, {"type": "text"}, b"x", [{"type": "answer"}]]
)
def test_what_is_no_prompt(prompt: Any) -> None:
    with pytest.raises(UsageError):
        normalise_prompt(prompt)


def test_own_model_needs_generate_inner_only() -> None:
    model = Echo()
    assert model.generate(["Hi", Image.new("RGB", (2, 2))]) == "text image"
    assert [answer.text for answer in model.generate_batch([normalise_prompt("a"), normalise_prompt("b")])] == [
        "text"
    ] * 2
    assert not model.use_custom_prompt(TASK)
    assert model.stamp() == {}
    assert model.settings()["class"].endswith("test_base:Echo")


def test_what_a_model_lacks_is_named() -> None:
    with pytest.raises(NotImplementedError, match="BaseModel must define generate_inner"):
        BaseModel().generate("Hi")
    with pytest.raises(NotImplementedError, match="Echo has no prompt of its own"):
        Echo().build_prompt(Sample(index=1, question="?"), TASK)


def test_seed_repeats_what_is_drawn() -> None:
    import random

    model = Echo()
    drawn = []
    for seed in (1, 2, 1):
        model.seed(seed)
        drawn.append(random.random())
    assert drawn[0] == drawn[2] != drawn[1]
