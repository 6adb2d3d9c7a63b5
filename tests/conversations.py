"""A made-up MMDU: five conversations of one to four turns about one to three drawn images."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

HERE = "<ImageHere>"
QUESTIONS: dict[int, list[str]] = {
    1: [f"{HERE}Which shape is this?", "What colour is it?", "Say both once more."],
    2: [f"Here are two:{HERE}and{HERE}. Which is larger?", f"And of these three, with {HERE}?"],
    3: [f"{HERE}Which shape is this?", f"{HERE}And this?", "Are they alike?", "Why?"],
    4: [f"{HERE}{HERE}What do they have in common?", "What not?"],
    5: [f"{HERE}Only one question."],
}
TURNS = {index: len(questions) for index, questions in QUESTIONS.items()}


def picture(number: int) -> str:
    """A shape, as base64 PNG; each number another one."""
    size = (48 + 8 * (number % 3), 48)
    image = Image.new("RGB", size, ("white", "black", "gray")[number % 3])
    colour = ("red", "green", "blue", "yellow")[number % 4]
    getattr(ImageDraw.Draw(image), ("ellipse", "rectangle")[number % 2])((6, 6, 20 + 3 * number, 40), fill=colour)
    data = io.BytesIO()
    image.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def rows(indices: Sequence[int] = tuple(QUESTIONS)) -> list[dict[str, str]]:
    """Cells as upstream's file has them: lists in Python's form."""
    return [
        {
            "index": str(index),
            "question": repr(QUESTIONS[index]),
            "answer": repr([f"reference {index}.{turn}" for turn in range(1, TURNS[index] + 1)]),
            "image": json.dumps([picture(10 * index + n) for n in range(images(index))]),
        }
        for index in indices
    ]


def images(index: int) -> int:
    """How many images a conversation shows."""
    return sum(question.count(HERE) for question in QUESTIONS[index])


def write(path: Path, content: Sequence[dict[str, str]] | None = None) -> Path:
    """A TSV of these rows, or of all."""
    content = rows() if content is None else content
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(content[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(content)
    return path
