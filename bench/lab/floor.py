"""The floor: what anyone would write by hand with plain transformers to answer the lab's questions, and nothing else.

    OMP_NUM_THREADS=1 python bench/lab/floor.py [FOLDER] [--batch-size 8] [--out answers.json]
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 bench/lab/floor.py [FOLDER] --batch-size 8

No resume, no score, no error handled: this is the work itself. Several processes take every n-th row each.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

MIN_PIXELS, MAX_PIXELS = 4 * 28 * 28, 1280 * 28 * 28
MAX_NEW_TOKENS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer the lab's questions by a hand-written loop.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lab-data"), help="what make_lab.py made")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument("--out", type=Path, help="write the answers here, as JSON by index")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        dist.init_process_group("gloo")
    rows = read_rows(arguments.folder / "TinyMMB.tsv")[: arguments.limit]
    answers = answer(arguments.folder / "tiny-qwen2vl", rows[rank::world_size], arguments.batch_size)
    if world_size > 1:
        gathered: list[dict[str, str]] = [{} for _ in range(world_size)]
        dist.all_gather_object(gathered, answers)
        answers = {index: text for part in gathered for index, text in part.items()}
        dist.destroy_process_group()
    if rank == 0:
        print(f"{len(answers)} answers, {len(set(answers.values()))} of them different")
        if arguments.out:
            arguments.out.write_text(json.dumps({row["index"]: answers[row["index"]] for row in rows}))


def read_rows(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(2**30)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@torch.inference_mode()
def answer(checkpoint: Path, rows: list[dict[str, str]], batch_size: int) -> dict[str, str]:
    processor = AutoProcessor.from_pretrained(checkpoint, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    processor.tokenizer.padding_side = "left"
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    answers = {}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        images = [Image.open(io.BytesIO(base64.b64decode(row["image"]))).convert("RGB") for row in batch]
        texts = [
            processor.apply_chat_template(conversation(row), tokenize=False, add_generation_prompt=True)
            for row in batch
        ]
        inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        for row, text in zip(batch, processor.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[row["index"]] = text
    return answers


def conversation(row: dict[str, str]) -> list[dict[str, object]]:
    """One turn of the user: the image, then the question in Qwen2-VL's words for multiple choice."""
    hint = f"Hint: {row['hint']}\n" if row["hint"] else ""
    options = "".join(f"{label}. {row[label]}\n" for label in "ABCD" if row[label])
    text = f"{hint}Question: {row['question']}\nOptions:\n{options}"
    text += "Please select the correct answer from the options above."
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


if __name__ == "__main__":
    main()
