"""The images of a row: base64, references, lists, files; and rows whose image cannot be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmeval.dataset import Dataset, open_dataset
from vlmeval.errors import ImageError, SampleError
from vlmeval.images import open_image

from .tsv_files import cell, png, row, write_tsv


def opened(tmp_path: Path, *rows: dict[str, str]) -> Dataset:
    return open_dataset(write_tsv(tmp_path / "mine.tsv", rows))


def bytes_of(dataset: Dataset, position: int) -> list[bytes]:
    return [image.read() for image in dataset[position].images]


def test_a_short_cell_is_another_rows_image(tmp_path: Path) -> None:
    dataset = opened(tmp_path, row(10, image=cell(1)), row(1000010, image="10"), row(2000010, image="1000010"))
    assert [bytes_of(dataset, position) for position in range(3)] == [[png(1)]] * 3
    assert len({sample.images[0].digest for sample in dataset}) == 1


@pytest.mark.parametrize("literal", [json.dumps, repr])
def test_a_list_is_several_images_and_may_refer(tmp_path: Path, literal: object) -> None:
    assert callable(literal)
    dataset = opened(
        tmp_path,
        row(1, image=literal([cell(1), cell(2)])),
        row(2, image="1"),
        row(3, image=literal([cell(3), "4", 1])),
        row(4, image=cell(4)),
    )
    assert bytes_of(dataset, 0) == bytes_of(dataset, 1) == [png(1), png(2)]
    assert bytes_of(dataset, 2) == [png(3), png(4), png(1), png(2)]


def test_base64_in_lines_is_read(tmp_path: Path) -> None:
    dataset = opened(tmp_path, row(1, image="\n".join([cell()[:40], cell()[40:], ""])))
    assert bytes_of(dataset, 0) == [png()]


@pytest.mark.parametrize(
    "image, why",
    [
        ("", "it has no image: the cell is empty"),
        ("   ", "it has no image"),
        ("99", r"the image cell '99' \(2 characters\) names another row, and there is none"),
        ("2", "a loop of references: 2 -> 2"),
        ("[]", "an empty list"),
        ("[1, ", "opens like a list and is none: '\\[1,'"),
        ("[" * 5000, "opens like a list and is none"),
        ("[__import__('os').getcwd()]", "opens like a list and is none"),
        ("['', '1']", "entry 1 of 2 in the list is no text"),
        ("[1.5]", "entry 1 of 1 in the list is no text"),
        ("[3, 1]", "that of row 3, which has none: empty cell"),
    ],
)
def test_a_row_without_an_image_stays_and_says_why(tmp_path: Path, image: str, why: str) -> None:
    dataset = opened(tmp_path, row(1), row(2, image=image), row(3, image=""))
    sample = dataset[1]
    assert sample.images == ()
    with pytest.raises(SampleError, match=r"row 2 \(line 3\): .*" + why):
        dataset.build_prompt(sample)
    assert (len(dataset), bytes_of(dataset, 0)) == (3, [png()])


def test_what_is_no_base64_fails_by_name_when_read(tmp_path: Path) -> None:
    dataset = opened(tmp_path, row(1, image="!" * 100), row(2, image=cell()[:-3]), row(3, image="AAAA" * 30), row(4))
    assert [sample.image_error for sample in dataset] == [""] * 4
    for position, why in enumerate([r"row 1: the image is no base64: .*100 characters", "row 2: .*no base64"]):
        with pytest.raises(ImageError, match=why):
            dataset[position].images[0].read()
    with pytest.raises(ImageError, match="row 3: 90 bytes that are no image"):
        open_image(dataset[2].images[0])
    assert open_image(dataset[3].images[0]).size == (8, 8)


def test_references_cannot_be_used_to_make_a_bomb(tmp_path: Path) -> None:
    layers = [row(0)] + [row(number, image=str([str(number - 1)] * 10)) for number in range(1, 8)]
    with pytest.raises(ImageError, match=r"row 7 .*more than 1000 images"):
        raise ImageError(opened(tmp_path, *layers)[7].image_error)
    chain = [row(0)] + [row(number, image=str(number - 1)) for number in range(1, 2000)]
    assert "behind more than 8 references" in opened(tmp_path, *chain)[1999].image_error


def test_image_paths_are_files_under_the_data_root(tmp_path: Path, data_root: Path) -> None:
    folder = data_root / "images" / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(1))
    (folder / "sub" / "b.png").write_bytes(png(2))
    rows = [row(1, image_path="a.png"), row(2, image_path="['a.png', 'sub/b.png']"), row(3, image_path="c.png")]
    for cells in rows:
        del cells["image"]
    dataset = opened(tmp_path, *rows)
    assert bytes_of(dataset, 0) == [png(1)]
    assert bytes_of(dataset, 1) == [png(1), png(2)]
    assert dataset[1].fields["image_path"] == "['a.png', 'sub/b.png']"
    with pytest.raises(ImageError, match=r"c\.png cannot be read: No such file"):
        dataset[2].images[0].read()


def test_image_paths_beside_the_tsv_serve_where_the_data_root_has_none(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "mine"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png(1))
    dataset = opened(tmp_path, row(1, image="", image_path="a.png"), row(2, image=cell(2), image_path="a.png"))
    assert (bytes_of(dataset, 0), bytes_of(dataset, 1)) == ([png(1)], [png(2)])


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "..\\b.png", "C:\\b.png", ".."])
def test_an_image_path_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    dataset = opened(tmp_path, row(1, image="", image_path=name), row(2))
    with pytest.raises(SampleError, match=r"row 1 \(line 2\): the path .* leads out of"):
        dataset.build_prompt(dataset[0])
    assert bytes_of(dataset, 1) == [png()]
