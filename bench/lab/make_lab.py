"""Makes the lab: the same work for every kit that is compared, made the same on every machine with the same versions.

    python bench/lab/make_lab.py [FOLDER]          # ./lab-data

FOLDER/TinyMMB.tsv      200 rows in MMBench's format, each with a JPEG of about 448 x 448 that compresses like a photo
FOLDER/tiny-qwen2vl     a random Qwen2-VL of 2.5 M parameters. The rows of lm_head that belong to special tokens are
                        zero and the others are not, so greedy decoding never ends early: every answer has exactly as
                        many tokens as were asked for.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration

ROWS = 200
SIZES = ((448, 448), (504, 392), (392, 504), (476, 420))
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SHAPES = ("circle", "square", "triangle", "ellipse")
CATEGORIES = (
    ("object_localization", "finegrained_perception (instance-level)"),
    ("attribute_recognition", "finegrained_perception (instance-level)"),
    ("spatial_relationship", "finegrained_perception (cross-instance)"),
    ("image_scene", "coarse_perception"),
    ("image_style", "coarse_perception"),
    ("social_relation", "relation_reasoning"),
)
WORDS = (
    "the picture shows a large object near the left edge while another smaller thing stands on the right side behind "
    "the table under bright light and the question asks about position colour or count"
).split()
COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "split", "image")

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Qwen2-VL's, in its order."""

CHAT_TEMPLATE = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}\
{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}\
{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Qwen2-VL's, less videos and picture numbers."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the lab's benchmark and checkpoint.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lab-data"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows()
    write_tsv(folder / "TinyMMB.tsv", rows)
    parameters = write_checkpoint(folder / "tiny-qwen2vl", rows)
    size_mb = (folder / "TinyMMB.tsv").stat().st_size / 1e6
    print(f"{folder}: TinyMMB.tsv ({ROWS} rows, {size_mb:.1f} MB), tiny-qwen2vl ({parameters / 1e6:.2f} M parameters)")


def make_rows() -> list[dict[str, str]]:
    draw, noise = random.Random(0), np.random.default_rng(0)
    return [make_row(number, draw, noise) for number in range(ROWS)]


def make_row(number: int, draw: random.Random, noise: np.random.Generator) -> dict[str, str]:
    """Every fifth question has two options instead of four, every third no hint."""
    count = 4 if number % 5 else 2
    options = draw.sample(COLOURS, count)
    hint = " ".join(draw.choice(WORDS) for _ in range(draw.randint(5, 60))) if number % 3 else ""
    category, l2_category = CATEGORIES[number % len(CATEGORIES)]
    return {
        "index": str(number),
        "question": f"What is the colour of the {draw.choice(SHAPES)} in the image?",
        "hint": hint,
        **dict(zip("ABCD", [*options, "", ""], strict=False)),
        "answer": "ABCD"[draw.randrange(count)],
        "category": category,
        "l2-category": l2_category,
        "split": "dev",
        "image": base64.b64encode(make_jpeg(SIZES[number % len(SIZES)], draw, noise)).decode(),
    }


def make_jpeg(size: tuple[int, int], draw: random.Random, noise: np.random.Generator) -> bytes:
    """A gradient, coarse noise and some discs: some 40 kB, as a photo of this size has."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    gradient = np.stack([(x * draw.random() + y * draw.random()) % 256 for _ in range(3)], -1)
    coarse = noise.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    grain = np.asarray(Image.fromarray(coarse).resize(size))
    image = Image.fromarray((0.6 * gradient + 0.4 * grain).astype(np.uint8))
    brush = ImageDraw.Draw(image)
    for _ in range(draw.randint(1, 4)):
        left, top, across = draw.randint(20, width - 160), draw.randint(20, height - 160), draw.randint(40, 130)
        brush.ellipse((left, top, left + across, top + across), fill=draw.choice(COLOURS))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def write_tsv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_checkpoint(folder: Path, rows: list[dict[str, str]]) -> int:
    """Returns the number of parameters."""
    tokenizer = train_tokenizer(rows)
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.encode("".join(SPECIAL_TOKENS)).ids, strict=True))
    write_tokenizer(folder, tokenizer)
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(tiny_config(tokenizer.get_vocab_size(), ids)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)  # at the usual scale of initialisation every prompt gets the same answer
        model.lm_head.weight[list(ids.values())] = 0
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
    )
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def train_tokenizer(rows: list[dict[str, str]]) -> Tokenizer:
    """Byte-level BPE of about 2,000 tokens, from the prompts and from words made of random letters."""
    draw = random.Random(0)
    invented = ("".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20_000))
    prompts = [f"Hint: {row['hint']}\nQuestion: {row['question']}\nOptions:\n" for row in rows]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator([*prompts, " ".join(invented)], trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=32768,
        padding_side="left",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    processor = {
        "processor_class": "Qwen2VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 4 * 28 * 28,
        "max_pixels": 16384 * 28 * 28,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n", encoding="utf-8")


def tiny_config(vocabulary: int, ids: dict[str, int]) -> Qwen2VLConfig:
    text: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {"depth": 4, "embed_dim": 128, "num_heads": 4, "hidden_size": 128, "mlp_ratio": 4}
    return Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


if __name__ == "__main__":
    main()
