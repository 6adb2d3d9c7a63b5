"""The benchmark file and the command that writes it."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from vlmeval.demo import evaluate, make_bench, shapes


@pytest.fixture(scope="module")
def shipped() -> list[dict[str, str]]:
    with evaluate.BENCH_PATH.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "ShapesBench.tsv"
    make_bench.main([str(path)])
    return path


def test_command_reproduces_the_file_byte_for_byte(remade: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tsv"
    make_bench.main([str(again), "--images", "240", "--seed", "0"])
    assert again.read_bytes() == remade.read_bytes()


def test_shipped_file_is_what_the_command_writes(remade: Path, shipped: list[dict[str, str]]) -> None:
    """Cells and pixels; the bytes of a PNG may change with the zlib that Pillow carries."""
    with remade.open(encoding="utf-8", newline="") as file:
        made = list(csv.DictReader(file, delimiter="\t"))
    without_image = [{**row, "image": ""} for row in made]
    assert without_image == [{**row, "image": ""} for row in shipped]
    for left, right in zip(made, shipped, strict=True):
        assert _pixels(left["image"]) == _pixels(right["image"])


def _pixels(cell: str) -> bytes | str:
    if len(cell) <= 64:
        return cell
    return Image.open(io.BytesIO(base64.b64decode(cell))).tobytes()


def test_another_seed_gives_other_pictures(shipped: list[dict[str, str]]) -> None:
    other = list(make_bench.bench_rows(12, seed=1))
    assert not {row["image"] for row in other if len(row["image"]) > 64} & {row["image"] for row in shipped}


def test_question_types_and_answers_are_balanced(shipped: list[dict[str, str]]) -> None:
    bases = [row for row in shipped if int(row["index"]) < make_bench.ROTATION_STEP]
    assert Counter(row["category"] for row in bases) == dict.fromkeys(shapes.QUESTION_TYPES, 40)
    for question_type, values in shapes.VALUES.items():
        answers = Counter(row[row["answer"]] for row in bases if row["category"] == question_type)
        assert set(answers) == set(values)
        assert max(answers.values()) - min(answers.values()) <= 1


def test_every_rotation_is_a_row_and_keeps_the_answer(shipped: list[dict[str, str]]) -> None:
    groups: dict[str, list[dict[str, str]]] = {}
    for row in shipped:
        groups.setdefault(row["g_index"], []).append(row)
    assert len(groups) == 240 and len(shipped) == 800
    for base_index, rows in groups.items():
        options = [[row[letter] for letter in "ABCD" if row[letter]] for row in rows]
        assert [int(row["index"]) for row in rows] == [int(base_index) + k * 1_000_000 for k in range(len(options[0]))]
        assert options == [options[0][k:] + options[0][:k] for k in range(len(options[0]))]
        assert len({row[row["answer"]] for row in rows}) == 1
        assert len({row["question"] for row in rows}) == 1


def test_only_base_rows_hold_pictures_and_rotations_name_them(shipped: list[dict[str, str]]) -> None:
    for row in shipped:
        if row["index"] == row["g_index"]:
            assert len(row["image"]) > 64
        else:
            assert row["image"] == row["g_index"]


def test_file_is_small() -> None:
    assert evaluate.BENCH_PATH.stat().st_size < 4_000_000


def test_no_pictures_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_bench.main([str(tmp_path / "none.tsv"), "--images", "0"])
    assert "images=0 must be at least 1" in capsys.readouterr().err
