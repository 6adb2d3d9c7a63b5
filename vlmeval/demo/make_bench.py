"""Write ShapesBench, a synthetic benchmark in MMBench's TSV format.

    python -m vlmeval.demo.make_bench ShapesBench.tsv --images 240 --seed 0

Every rotation of a question's options is a row of its own with index = base + k * 1,000,000. Only the base row holds
the picture; the image cell of a rotation holds the base row's index. The same arguments give the same file, byte for
byte, with the same Pillow.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from vlmeval.demo import prompts, shapes

COLUMNS = (
    "index",
    "question",
    "hint",
    *prompts.LETTERS,
    "answer",
    "category",
    "l2-category",
    "split",
    "g_index",
    "image",
)

L2_CATEGORY = {
    "colour": "object",
    "shape": "object",
    "size": "object",
    "count": "layout",
    "side": "layout",
    "shade": "background",
}
"""Question type (the category) -> its group."""

ROTATION_STEP = 1_000_000
DEFAULT_IMAGES = 240
DEFAULT_SEED = 0


def bench_rows(images: int, seed: int) -> Iterator[dict[str, str]]:
    """The rows in file order: all base rows, then their rotations by one option, by two, by three.

    Question types take turns, and so do the answers within a type.
    """
    if images < 1:
        raise ValueError(f"images={images} must be at least 1")
    rng = shapes.benchmark_rng(seed)
    bases = [_base(number, rng) for number in range(1, images + 1)]
    for shift in range(shapes.MAX_OPTIONS):
        for number, (question, cell) in enumerate(bases, 1):
            if shift < len(question.options):
                yield _row(number, question, shift, cell if shift == 0 else str(number))


def write_bench(path: Path, images: int, seed: int) -> int:
    """Write the benchmark and return its number of rows."""
    rows = list(bench_rows(images, seed))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def _base(number: int, rng: random.Random) -> tuple[shapes.Question, str]:
    """Question `number` (from 1) and its picture as a base64 cell."""
    turn, kind = divmod(number - 1, len(shapes.QUESTION_TYPES))
    question_type = shapes.QUESTION_TYPES[kind]
    values = shapes.VALUES[question_type]
    scene = shapes.random_scene(rng, {question_type: values[turn % len(values)]})
    question = shapes.ask(scene, question_type, rng)
    return question, _image_cell(shapes.render(scene, rng))


def _image_cell(picture: Image.Image) -> str:
    """The picture as base64 of a PNG file."""
    stored = io.BytesIO()
    picture.save(stored, "PNG", optimize=True)
    return base64.b64encode(stored.getvalue()).decode("ascii")


def _row(number: int, question: shapes.Question, shift: int, image_cell: str) -> dict[str, str]:
    """The row of one rotation; `shift` says by how many places the options moved up."""
    options = question.options[shift:] + question.options[:shift]
    cells = dict.fromkeys(COLUMNS, "")
    cells.update(zip(prompts.LETTERS, options, strict=False))
    cells.update(
        {
            "index": str(number + shift * ROTATION_STEP),
            "question": question.text,
            "answer": prompts.LETTERS[options.index(question.answer)],
            "category": question.question_type,
            "l2-category": L2_CATEGORY[question.question_type],
            "split": "dev",
            "g_index": str(number),
            "image": image_cell,
        }
    )
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.tsv")
    parser.add_argument("--images", type=int, default=DEFAULT_IMAGES, help="pictures, with one question each")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    given = parser.parse_args(arguments)
    try:
        rows = write_bench(given.out, given.images, given.seed)
    except ValueError as error:
        parser.error(str(error))
    print(f"{given.out}: {given.images} pictures, {rows} rows, {given.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
