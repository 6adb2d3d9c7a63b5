"""Score a checkpoint folder on ShapesBench through transformers alone, without the kit's own pipeline.

    python -m vlmeval.demo.evaluate DIR                # print accuracy and circular accuracy
    python -m vlmeval.demo.evaluate DIR --record       # and write them into DIR/TRAINING.json

It is a second opinion: the kit, its prompts and its scorer must come to the same numbers on another way. The scorer
here is the simplest one that fits these models: the option whose word is the answer.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from vlmeval.demo import prompts
from vlmeval.demo.make_bench import ROTATION_STEP

DEMO_FOLDER = Path(__file__).parent
BENCH_PATH = DEMO_FOLDER / "ShapesBench.tsv"
SHIPPED_FOLDER = {
    "qwen2vl": DEMO_FOLDER / "Qwen2-VL-Tiny",
    "internvl": DEMO_FOLDER / "InternVL-Tiny",
    "llava_onevision": DEMO_FOLDER / "LLaVA-OneVision-Tiny",
    "mllama": DEMO_FOLDER / "Llama-Vision-Tiny",
}
"""Family -> the checkpoint in this package."""

MAX_NEW_TOKENS = 4
"""An answer takes two: its word and the end of turn."""

FAMILY_OF_MODEL_TYPE = {
    "qwen2_vl": "qwen2vl",
    "internvl": "internvl",
    "llava_onevision": "llava_onevision",
    "mllama": "mllama",
}
MODEL_CLASS = {
    "qwen2vl": "Qwen2VLForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "mllama": "MllamaForConditionalGeneration",
}


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One row of the benchmark with its picture decoded."""

    index: int
    question: str
    options: tuple[str, ...]
    answer: str
    """The right option's letter."""
    category: str
    picture: Image.Image

    @property
    def group(self) -> int:
        """Index of the base row: the rotations of one question share it."""
        return self.index % ROTATION_STEP


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint ready to answer."""

    family: str
    processor: Any
    model: Any


@dataclass(frozen=True, kw_only=True)
class BenchScore:
    """Fractions from 0 to 1. `circular` counts a question as right where every rotation given is right."""

    rows: int
    accuracy: float
    circular: float
    by_category: dict[str, float]


def read_bench(path: Path = BENCH_PATH) -> list[BenchRow]:
    """All rows of a benchmark that `make_bench` wrote."""
    pictures: dict[str, Image.Image] = {}
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for cells in csv.DictReader(file, delimiter="\t"):
            if cells["image"] not in pictures:  # a base row: its rotations, further down, name its index
                stored = io.BytesIO(base64.b64decode(cells["image"]))
                pictures[cells["index"]] = Image.open(stored).convert("RGB")
            picture = pictures.get(cells["image"]) or pictures[cells["index"]]
            row = BenchRow(
                index=int(cells["index"]),
                question=cells["question"],
                options=tuple(cells[letter] for letter in prompts.LETTERS if cells[letter]),
                answer=cells["answer"],
                category=cells["category"],
                picture=picture,
            )
            rows.append(row)
    return rows


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Loaded:
    """Load through AutoProcessor and the class of the family, on the CPU."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    family = FAMILY_OF_MODEL_TYPE[config.model_type]
    model = getattr(transformers, MODEL_CLASS[family]).from_pretrained(folder, dtype=dtype).eval()
    return Loaded(family=family, processor=processor, model=model)


def chat_text(loaded: Loaded, row: BenchRow, *, image: bool = True, generation_prompt: bool = True) -> str:
    """The rendered prompt of a row, as the processor takes it."""
    text = prompts.multiple_choice(loaded.family, row.question, row.options)
    content = [{"type": "image"}] * image + [{"type": "text", "text": text}]
    messages = [{"role": "user", "content": content}]
    rendered: str = loaded.processor.apply_chat_template(messages, add_generation_prompt=generation_prompt)
    return rendered


def model_inputs(loaded: Loaded, texts: Sequence[str], pictures: Sequence[Image.Image] | None) -> Any:
    """Padded inputs of a batch; the templates have written the special tokens already."""
    images = None if pictures is None else [[picture] for picture in pictures]
    inputs = loaded.processor(
        text=list(texts), images=images, padding=True, return_tensors="pt", add_special_tokens=False
    )
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(loaded.model.dtype)
    return inputs


def answer_rows(
    loaded: Loaded, rows: Sequence[BenchRow], batch_size: int = 16, render: Callable[..., str] = chat_text
) -> list[str]:
    """Greedy answers through `generate`, in order."""
    answers: list[str] = []
    with torch.inference_mode():
        for batch in _chunks(rows, batch_size):
            texts = [render(loaded, row) for row in batch]
            inputs = model_inputs(loaded, texts, [row.picture for row in batch])
            made = loaded.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
            new = made[:, inputs["input_ids"].shape[1] :]
            answers += loaded.processor.batch_decode(new, skip_special_tokens=True)
    return answers


def letter_of(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that the answer names, else None."""
    word = answer.strip().strip(".").lower()
    for letter, option in zip(prompts.LETTERS, options, strict=False):
        if option.lower() == word:
            return letter
    return None


def score(rows: Sequence[BenchRow], answers: Sequence[str]) -> BenchScore:
    """Accuracy over the rows, circular accuracy over their groups."""
    by_category: dict[str, list[bool]] = defaultdict(list)
    by_group: dict[int, list[bool]] = defaultdict(list)
    for row, answer in zip(rows, answers, strict=True):
        hit = letter_of(answer, row.options) == row.answer
        by_category[row.category].append(hit)
        by_group[row.group].append(hit)
    return BenchScore(
        rows=len(rows),
        accuracy=sum(map(sum, by_category.values())) / len(rows),
        circular=sum(map(all, by_group.values())) / len(by_group),
        by_category={name: sum(hits) / len(hits) for name, hits in sorted(by_category.items())},
    )


def chance(rows: Sequence[BenchRow]) -> float:
    """Accuracy of guessing among the options of each row."""
    return sum(1 / len(row.options) for row in rows) / len(rows)


def measure(folder: Path, rows: Sequence[BenchRow]) -> dict[str, Any]:
    """Everything TRAINING.json keeps: the score, and how far number type and batch size change answers."""
    loaded = load(folder)
    started = time.process_time()
    answers = answer_rows(loaded, rows)
    seconds = time.process_time() - started
    alone = answer_rows(loaded, rows, batch_size=1)
    bfloat = answer_rows(load(folder, torch.bfloat16), rows)
    result = score(rows, answers)
    return {
        "rows": result.rows,
        "chance": round(chance(rows), 4),
        "accuracy": round(result.accuracy, 4),
        "circular": round(result.circular, 4),
        "by_category": {name: round(value, 4) for name, value in result.by_category.items()},
        "same_answers_batch_1_and_16": _agreement(answers, alone),
        "same_answers_float32_and_bfloat16": _agreement(answers, bfloat),
        "cpu_ms_per_row_batch_16": round(1000 * seconds / len(rows), 1),
    }


def _agreement(left: Sequence[str], right: Sequence[str]) -> str:
    same = sum(a == b for a, b in zip(left, right, strict=True))
    return f"{same} of {len(left)}"


def _chunks(rows: Sequence[BenchRow], size: int) -> Iterator[Sequence[BenchRow]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=BENCH_PATH)
    parser.add_argument("--limit", type=int, help="only the first so many rows")
    parser.add_argument("--record", action="store_true", help="write the result into TRAINING.json")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    measured = measure(given.folder, read_bench(given.data)[: given.limit])
    print(json.dumps(measured, indent=2))
    if given.record:
        path = given.folder / "TRAINING.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        record["held_out"] = measured
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
