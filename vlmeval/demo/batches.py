"""Scenes to training batches: packed rows for the language model, cell labels for the throw-away heads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmeval.demo import prompts, shapes
from vlmeval.demo.packed_forward import CELLS, GRID, PackedForward

NOT_ASKED = -100
"""Label of a cell that a head is not asked about; `cross_entropy` ignores it."""

OBJECT_PIXELS = 20
"""A cell of 28 x 28 pixels shows an object when at least so many of them differ from the background."""

LOCAL_TYPES = ("colour", "shape", "size", "side")
"""Question types that only a cell showing an object can answer; count and shade are asked of every cell."""


class PromptEncoder:
    """Token ids of the family's prompts; encodes line by line and remembers the lines.

    Line by line equals the whole text because a newline always ends a word of the tokenizers (tested).
    """

    def __init__(self, family: str, processor: Any) -> None:
        self.family = family
        self._tokenizer = processor.tokenizer
        self._lines: dict[str, list[int]] = {}
        marker = "@@"
        content = [{"type": "image"}, {"type": "text", "text": marker}]
        rendered = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        self.prefix_text, self.suffix_text = rendered.split(marker)
        picture = shapes.render(shapes.random_scene(random.Random(0)), random.Random(0))
        encoded = processor(text=[self.prefix_text], images=[picture], add_special_tokens=False)
        self.prefix_ids: list[int] = list(encoded["input_ids"][0])
        self.suffix_ids: list[int] = self._tokenizer(self.suffix_text, add_special_tokens=False)["input_ids"]
        self.end_id: int = processor.tokenizer.eos_token_id
        self.pad_id: int = processor.tokenizer.pad_token_id
        self.answer_ids = {answer: self._single(answer) for values in shapes.VALUES.values() for answer in values}

    def encode(self, text: str) -> list[int]:
        """Ids of the text without special tokens put before it."""
        ids: list[int] = []
        for line in text.splitlines(keepends=True):
            if line not in self._lines:
                self._lines[line] = self._tokenizer(line, add_special_tokens=False)["input_ids"]
            ids += self._lines[line]
        return ids

    def prompt_text(self, question: shapes.Question, *, with_options: bool) -> str:
        """What the kit sends for the question, before the chat template."""
        if with_options:
            return prompts.multiple_choice(self.family, question.text, question.options)
        return prompts.short_answer(self.family, question.text)

    def _single(self, answer: str) -> int:
        ids = self.encode(answer)
        if len(ids) != 1:
            raise ValueError(f"the answer {answer!r} takes {len(ids)} tokens, but must take 1; was the corpus changed?")
        return ids[0]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture and its questions: for each question the ids of prompt and suffix, and the id of the answer."""

    question_ids: list[list[int]]
    answer_ids: list[int]
    kinds: list[tuple[str, str]]
    """`open` or `options`, and the question type."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B packed rows of L tokens with T targets: every answer word, and the end of turn behind it."""

    token_ids: Tensor  # [B, L]
    positions: Tensor  # [axes, B, L]
    allowed: Tensor  # bool [B, 1, L, L]
    target_index: Tensor  # [T] into B * L: where the target is predicted
    target_ids: Tensor  # [T]
    kinds: list[tuple[str, str] | None]  # per target; None for an end of turn


def cell_labels(scene: shapes.Scene, picture: np.ndarray) -> Tensor:
    """[16, question types]: the answer's number for every cell of the picture uint8 [112, 112, 3], or NOT_ASKED."""
    numbers = []
    for question_type in shapes.QUESTION_TYPES:
        answer = scene.value(question_type)
        numbers.append(NOT_ASKED if answer is None else shapes.VALUES[question_type].index(answer))
    labels = torch.tensor(numbers).repeat(CELLS, 1)
    differs = (picture != picture[5, 5]).any(-1)  # pixel (5, 5) is background: frame and objects keep off it
    differs[:3] = differs[-3:] = differs[:, :3] = differs[:, -3:] = False
    cell = shapes.IMAGE_SIDE // GRID
    empty = differs.reshape(GRID, cell, GRID, cell).sum((1, 3)).reshape(CELLS) < OBJECT_PIXELS
    local = [shapes.QUESTION_TYPES.index(question_type) for question_type in LOCAL_TYPES]
    for row in np.flatnonzero(empty):
        labels[row, local] = NOT_ASKED
    return labels


def draw_scenes(count: int, rng: random.Random) -> tuple[list[shapes.Scene], list[np.ndarray], Tensor]:
    """Random scenes, their pictures and their cell labels [count, 16, question types]."""
    scenes = [shapes.random_scene(rng) for _ in range(count)]
    pictures = [np.array(shapes.render(scene, rng)) for scene in scenes]
    labels = torch.stack([cell_labels(scene, picture) for scene, picture in zip(scenes, pictures, strict=True)])
    return scenes, pictures, labels


def draw_row(scene: shapes.Scene, encoder: PromptEncoder, rng: random.Random, *, open_: int, options: int) -> Row:
    """`open_` open questions of different types and `options` questions with options, about one scene."""
    defined = scene.defined_types()
    plan = [(question_type, False) for question_type in rng.sample(defined, open_)]
    plan += [(question_type, True) for question_type in rng.choices(defined, k=options)]
    row = Row(question_ids=[], answer_ids=[], kinds=[])
    for question_type, with_options in plan:
        question = shapes.ask(scene, question_type, rng)
        text = encoder.prompt_text(question, with_options=with_options)
        row.question_ids.append(encoder.encode(text) + encoder.suffix_ids)
        row.answer_ids.append(encoder.answer_ids[question.answer])
        row.kinds.append(("options" if with_options else "open", question_type))
    return row


def pack(rows: Sequence[Row], encoder: PromptEncoder, forward: PackedForward) -> Batch:
    """Lay the rows out behind the common prefix, padded to the longest."""
    prefix = torch.tensor(encoder.prefix_ids)
    prefix_positions = forward.prefix_positions(encoder.prefix_ids)
    start, count = len(prefix), len(rows)
    length = start + max(sum(len(ids) + 1 for ids in row.question_ids) for row in rows)
    token_ids = torch.full((count, length), encoder.pad_id)
    token_ids[:, :start] = prefix
    positions = prefix_positions[:, -1:, None].repeat(1, count, length)
    positions[:, :, :start] = prefix_positions[:, None]
    block = torch.full((count, length), -1)
    block[:, :start] = 0
    target_index: list[int] = []
    target_ids: list[int] = []
    kinds: list[tuple[str, str] | None] = []
    for i, row in enumerate(rows):
        at = start
        for number, (ids, answer_id) in enumerate(zip(row.question_ids, row.answer_ids, strict=True), 1):
            end = at + len(ids) + 1
            token_ids[i, at:end] = torch.tensor([*ids, answer_id])
            positions[:, i, at:end] = prefix_positions[:, -1:] + 1 + torch.arange(end - at)
            block[i, at:end] = number
            target_index += [i * length + end - 2, i * length + end - 1]
            target_ids += [answer_id, encoder.end_id]
            kinds += [row.kinds[number - 1], None]
            at = end
    order = torch.arange(length)
    causal = order[None] <= order[:, None]
    same_or_prefix = (block[:, None] == 0) | (block[:, None] == block[:, :, None])
    return Batch(
        token_ids=token_ids,
        positions=positions,
        allowed=(causal[None] & same_or_prefix)[:, None],
        target_index=torch.tensor(target_index),
        target_ids=torch.tensor(target_ids),
        kinds=kinds,
    )
