"""Cutting images into tiles: the same grid and the same pixels as InternVL's own rule."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from vlmeval.vlm.internvl2 import IMAGENET_MEAN, IMAGENET_STD

from .internvl_folders import NEW_ENOUGH

if not NEW_ENOUGH:
    pytest.skip("original folders need transformers 5.9", allow_module_level=True)

from transformers import GotOcr2ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas


def best_grid(width: int, height: int, most: int, side: int = 448) -> tuple[int, int]:
    """Columns and rows by the rule as the paper tells it.

    Of all grids of at most `most` tiles, fewest tiles first and then fewest columns, take the one whose shape is
    nearest to the image's; among equally near ones a later one wins if the image has more than half of its pixels.
    """
    grids = [(columns, tiles // columns) for tiles in range(1, most + 1) for columns in range(1, tiles + 1)
             if tiles % columns == 0]  # fmt: skip
    chosen, distance = (1, 1), float("inf")
    for columns, rows in grids:
        away = abs(width / height - columns / rows)
        if away < distance:
            chosen, distance = (columns, rows), away
        elif away == distance and width * height * 2 > side * side * columns * rows:
            chosen = columns, rows
    return chosen


def random_size(rng: random.Random) -> tuple[int, int]:
    if rng.random() < 0.5:
        return rng.randint(1, 4000), rng.randint(1, 4000)
    unit = rng.randint(1, 900)  # shapes for which several grids are equally near
    return unit * rng.randint(1, 8), unit * rng.randint(1, 8)


def test_the_grid_equals_the_rules_on_20000_random_sizes() -> None:
    rng = random.Random(7)
    seen = set()
    for _ in range(20_000):
        (width, height), most = random_size(rng), rng.choice([1, 2, 3, 5, 6, 12, 18, 24])
        grid = get_optimal_tiled_canvas((height, width), (448, 448), 1, most)
        assert grid == best_grid(width, height, most), (width, height, most)
        seen.add(grid)
    assert len(seen) > 60


@pytest.mark.parametrize("most", [1, 6, 12])
def test_pixels_equal_resize_crop_and_normalise_bit_for_bit(most: int) -> None:
    side, rng = 56, random.Random(most)
    processor = GotOcr2ImageProcessorPil(
        size={"height": side, "width": side}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    for _ in range(40):
        width, height = rng.randint(5, 400), rng.randint(5, 400)
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        columns, rows = best_grid(width, height, most, side)
        whole = image.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
        tiles = [
            whole.crop((side * column, side * row, side * (column + 1), side * (row + 1)))
            for row in range(rows)
            for column in range(columns)
        ]
        if len(tiles) > 1:
            tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
        made = processor([image], crop_to_patches=True, min_patches=1, max_patches=most, return_tensors="pt")
        assert torch.equal(made["pixel_values"], torch.stack([normalised(tile) for tile in tiles]))


def normalised(tile: Image.Image) -> torch.Tensor:
    """Bytes to [0, 1], then ImageNet's mean and deviation, in single precision."""
    values = torch.from_numpy(np.array(tile)).permute(2, 0, 1).float().div(255)
    mean, deviation = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return (values - mean) / deviation
