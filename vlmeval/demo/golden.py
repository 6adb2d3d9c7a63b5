"""Golden logits: chosen numbers of fixed samples that show what a score does not.

    python -m vlmeval.demo.golden vlmeval/demo/Qwen2-VL-Tiny tests/demo/golden/qwen2vl.json

One-dimensional positions in place of M-RoPE, swapped vision blocks, a dropped generation prompt or another way of
resizing leave the accuracy of a tiny model almost as it is. They move logits by far more than the tolerance. Rewrite a
file only after retraining or a change that is meant to alter results, and say so in the commit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image

from vlmeval.demo import shapes
from vlmeval.demo.evaluate import BenchRow, Loaded, chat_text, load, model_inputs

TOLERANCE = 1e-3
"""Largest allowed difference of a logit; fp32 on other CPUs stays far below, the known mistakes far above."""

POSITIONS = (-1, -4, -12)
"""Tokens of the prompt, from its end, whose logits are kept: the one that predicts the answer, and two others."""

WORDS = ("red", "blue", "circle", "star", "one", "three", "large", "dark", "left", "bottom")
"""Answer words whose logits are kept."""


@dataclass(frozen=True, kw_only=True)
class GoldenSample:
    """What is kept of one sample: its length in tokens, and logits[position][word]."""

    name: str
    prompt_tokens: int
    logits: list[list[float]]


def samples() -> dict[str, BenchRow]:
    """The fixed samples: two benchmark-like ones, and a wide picture that every family resizes or cuts into tiles."""
    single = shapes.Scene(colour="red", shape="star", count="one", size="large", shade="light", side="left")
    several = shapes.Scene(colour="blue", shape="ring", count="three", size="small", shade="dark", side=None)
    return {
        "single": _sample(single, "side", _picture(single)),
        "several": _sample(several, "count", _picture(several)),
        "wide": _sample(several, "shape", _wide_picture(single, several)),
    }


def _sample(scene: shapes.Scene, question_type: str, picture: Image.Image) -> BenchRow:
    answer = scene.value(question_type)
    options = shapes.VALUES[question_type][: shapes.MAX_OPTIONS]
    if answer not in options:
        options = (*options[:-1], str(answer))
    return BenchRow(
        index=1,
        question=shapes.WORDINGS[question_type][0],
        options=options,
        answer="ABCD"[options.index(str(answer))],
        category=question_type,
        picture=picture,
    )


def _picture(scene: shapes.Scene) -> Image.Image:
    return shapes.render(scene, shapes.benchmark_rng(0))


def _wide_picture(left: shapes.Scene, right: shapes.Scene) -> Image.Image:
    """Two pictures on a grey ground of 300 x 130 pixels: no family's patches, tiles or canvas fit, so all resize it."""
    width, height = 300, 130
    wide = Image.new("RGB", (width, height), (128, 128, 128))
    wide.paste(_picture(left), (0, 0))
    wide.paste(_picture(right), (width - shapes.IMAGE_SIDE, height - shapes.IMAGE_SIDE))
    return wide


def measure(loaded: Loaded, *, generation_prompt: bool = True) -> list[GoldenSample]:
    """The kept numbers as this model gives them now."""
    word_ids = [loaded.processor.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
    measured = []
    for name, row in samples().items():
        text = chat_text(loaded, row, generation_prompt=generation_prompt)
        inputs = model_inputs(loaded, [text], [row.picture])
        with torch.inference_mode():
            logits = loaded.model(**inputs).logits[0].float()
        kept = [[round(logits[position, word_id].item(), 5) for word_id in word_ids] for position in POSITIONS]
        measured.append(GoldenSample(name=name, prompt_tokens=inputs["input_ids"].shape[1], logits=kept))
    return measured


def largest_difference(golden: GoldenSample, measured: GoldenSample) -> float:
    """Largest difference of a kept logit."""
    pairs = zip(golden.logits, measured.logits, strict=True)
    return max(abs(a - b) for left, right in pairs for a, b in zip(left, right, strict=True))


def mismatches(golden: Sequence[GoldenSample], measured: Sequence[GoldenSample]) -> list[str]:
    """One line per sample that differs; empty where all is as it was."""
    lines = []
    for wanted, got in zip(golden, measured, strict=True):
        if wanted.prompt_tokens != got.prompt_tokens:
            lines.append(f"{wanted.name}: {got.prompt_tokens} prompt tokens, golden has {wanted.prompt_tokens}")
        difference = largest_difference(wanted, got)
        if difference > TOLERANCE:
            lines.append(f"{wanted.name}: a logit differs by {difference:.4f}, allowed is {TOLERANCE}")
    return lines


def read_golden(path: Path) -> list[GoldenSample]:
    """The samples of a golden file."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if tuple(stored["words"]) != WORDS or tuple(stored["positions"]) != POSITIONS:
        raise ValueError(f"{path} keeps other words or positions than vlmeval.demo.golden does now; rewrite it")
    return [GoldenSample(**sample) for sample in stored["samples"]]


def write_golden(path: Path, measured: Sequence[GoldenSample]) -> None:
    """Write a golden file."""
    stored = {"words": WORDS, "positions": POSITIONS, "samples": [asdict(sample) for sample in measured]}
    path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="checkpoint folder")
    parser.add_argument("out", type=Path, help="golden file to write")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    measured = measure(load(given.folder))
    write_golden(given.out, measured)
    print(f"{given.out}: {len(measured)} samples, {len(POSITIONS)} positions, {len(WORDS)} words")


if __name__ == "__main__":
    main()
