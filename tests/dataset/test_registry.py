"""Finding a benchmark by name, path, stem or config entry; and what a wrong one ends in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import vlmeval
from tests.prompt_parts import text_of
from vlmeval.dataset import (
    dataset_listing,
    dataset_names,
    open_dataset,
    resolve_config,
    resolve_dataset,
    supported_datasets,
)
from vlmeval.dataset.known import traits_of_unknown
from vlmeval.dataset.registry import dataset_classes
from vlmeval.errors import ConfigError, DatasetError, DownloadError, UnknownNameError
from vlmeval.scoring.rules import RULES

from .file_server import FileServer
from .tsv_files import cell, row, tsv_bytes, write_tsv

MMBENCH = [name for name in supported_datasets if name.startswith("MMBench")]


def test_every_entry_is_of_a_class_and_a_rule_of_its_kind() -> None:
    assert len(MMBENCH) == 12
    for name, spec in supported_datasets.items():
        assert (spec.name, dataset_classes[spec.class_name].type, RULES[spec.scoring].type) == (
            name,
            spec.type,
            spec.type,
        )
        by_hand = spec.video is not None
        assert spec.packaged or (len(spec.md5) == 32 and (by_hand or spec.url_path.endswith(".tsv")))
        assert bool(RULES[spec.scoring].judge) == ("judge" in spec.traits)
        default = dataset_classes[spec.class_name].default_traits
        assert not default or default == spec.traits, "an upstream class stands for its benchmark"


def test_rotated_copies_count_as_one_exactly_where_upstreams_rule_on_names_says_so() -> None:
    for name, spec in supported_datasets.items():
        assert spec.packaged or ("circular" in spec.traits) == ("circular" in traits_of_unknown(name)), name


@pytest.mark.parametrize(
    "name, traits",
    [
        ("POPE", "yes_no_suffix"),
        ("HallusionBench", "yes_no_suffix one_word"),
        ("MME", "one_word"),
        ("MMVet", "own_wording judge"),
        ("MathVista_MINI", "reasoning judge"),
        ("OCRBench", "small_images fine_print"),
        ("MMMU_DEV_VAL", "image_markers multi_image"),
        ("TextVQA_VAL", "short_answer"),
        ("ChartQA_TEST", "short_answer chart"),
        ("DocVQA_VAL", "short_answer document"),
        ("InfoVQA_VAL", "short_answer fine_print"),
        ("LLaVABench", "judge detailed"),
        ("AI2D_TEST", ""),
    ],
)
def test_what_families_vary_their_prompts_and_images_by_is_declared(name: str, traits: str) -> None:
    assert supported_datasets[name].traits == set(traits.split())


def test_the_embedded_benchmark_opens_without_a_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMUData", "/nowhere")
    dataset = open_dataset("ShapesBench")
    assert dataset.scorable
    assert dataset.task.traits == {"circular"}
    assert not any(sample.image_error for sample in dataset)


def test_a_known_name_is_fetched_from_the_mirror_and_checked(server: FileServer, data_root: Path) -> None:
    server.files["/VLMEval/MMStar.tsv"] = tsv_bytes([row(1)])
    with pytest.raises(DownloadError, match=f"MMStar: {server.url}/VLMEval/MMStar.tsv has MD5 .* e1ecd214"):
        open_dataset("MMStar", mirror=server.url)
    assert not (data_root / "MMStar.tsv").exists()


def test_where_the_full_mmbench_is_not_to_be_had_the_scorable_split_is_named(server: FileServer) -> None:
    with pytest.raises(DownloadError, match=r"answers 404.*MMBench_DEV_EN is the scorable split"):
        open_dataset("MMBench", mirror=server.url)


def test_where_the_full_mmbench_is_not_to_be_had_its_scorable_split_stands_in(
    server: FileServer, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tsv_bytes([row(1), row(2)])
    server.files["/benchmarks/MMBench/MMBench_DEV_EN.tsv"] = content
    spec = replace(supported_datasets["MMBench_DEV_EN"], md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(supported_datasets, "MMBench_DEV_EN", spec)
    dataset = open_dataset("MMBench", mirror=server.url)
    assert (dataset.name, len(dataset), dataset.scorable) == ("MMBench_DEV_EN", 2, True)
    assert dataset.notes[0].startswith("MMBench cannot be had, going on with MMBench_DEV_EN, its scorable split")
    with pytest.raises(DownloadError, match="answers 404"):
        open_dataset("MMBench_TEST_EN", mirror=server.url)


@pytest.mark.parametrize("name", ["MMBench", "MMBench_TEST_EN"])
def test_answers_that_are_not_public_are_a_note_and_no_error(tmp_path: Path, name: str) -> None:
    dataset = open_dataset(write_tsv(tmp_path / f"{name}.tsv", [row(1, answer=""), row(2)]))
    assert not dataset.scorable
    (note,) = dataset.notes
    assert "column 'answer' is empty in 1 of 2 rows (index 1)" in note
    assert "MMBench_DEV_EN is the scorable split" in note
    assert dataset.build_prompt(dataset[0])


def test_a_path_with_a_known_stem_takes_its_traits_without_its_md5(tmp_path: Path) -> None:
    dataset = open_dataset(write_tsv(tmp_path / "CCBench.tsv", [row(1)]))
    assert (dataset.name, dataset.task.traits, dataset.notes) == ("CCBench", frozenset({"circular"}), ())


@pytest.mark.parametrize("name, traits", [("my_MMBench_v2", {"circular"}), ("mmcr", {"circular"}), ("mine", set())])
def test_an_unknown_tsv_gets_traits_by_upstreams_rule(tmp_path: Path, name: str, traits: set[str]) -> None:
    assert open_dataset(write_tsv(tmp_path / f"{name}.tsv", [row(1)])).task.traits == traits


def test_a_tsv_dropped_into_the_data_root_is_found_by_its_stem(data_root: Path) -> None:
    write_tsv(data_root / "Mine.tsv", [row(1)])
    assert (open_dataset("Mine").name, dataset_names()[-1]) == ("Mine", "Mine")


@pytest.mark.parametrize(
    "cells, kind, why",
    [
        (row(1), "MCQ", "it has option columns"),
        ({"index": "1", "image": "1", "question": "?", "answer": "Yes"}, "Y/N", "its answers are all yes or no"),
        ({"index": "1", "image": "1", "question": "?", "answer": "a cat"}, "VQA", "it has no option columns"),
        ({"index": "1", "image": "1", "question": "?"}, "VQA", "it has no option columns"),
    ],
)
def test_the_kind_of_an_unknown_tsv_is_told_by_its_columns(
    tmp_path: Path, cells: dict[str, str], kind: str, why: str
) -> None:
    dataset = open_dataset(write_tsv(tmp_path / "mine.tsv", [cells]))
    assert dataset.task.type == kind
    assert dataset.notes[0] == f"mine: in no table, taken as {kind} because {why}"


def test_what_the_caller_says_beats_the_table_and_the_guess(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "MMStar.tsv", [row(1)])
    dataset = open_dataset(path, name="other", class_name="ImageVQADataset", traits=["short_answer"])
    assert (dataset.name, dataset.task.type, dataset.task.traits) == ("other", "VQA", frozenset({"short_answer"}))


def test_an_unknown_name_lists_the_nearest(data_root: Path) -> None:
    write_tsv(data_root / "Mine.tsv", [row(1)])
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'MMBnch_DEV_EN'; nearest: MMBench_DEV_EN, .*named by"):
        resolve_dataset("MMBnch_DEV_EN")
    with pytest.raises(UnknownNameError, match="nearest: Mine"):
        resolve_dataset("mines")


def test_resolving_fetches_and_opens_nothing(tmp_path: Path) -> None:
    assert not resolve_dataset("MMStar").on_disk
    path = tmp_path / "mine.tsv"
    path.write_text("not a benchmark")
    assert resolve_dataset(path).on_disk
    with pytest.raises(DatasetError, match="No such file"):
        resolve_dataset("./nowhere.tsv")


def test_a_config_names_a_class_and_a_dataset(data_root: Path) -> None:
    write_tsv(data_root / "Mine.tsv", [row(1)])
    dataset = resolve_config("label", {"class": "ImageMCQDataset", "dataset": "Mine", "traits": ["circular"]}).open()
    assert (dataset.name, dataset.path) == ("label", data_root / "Mine.tsv")
    assert dataset.task.traits == {"circular"}
    assert resolve_config("MMBench_DEV_EN", {}) == resolve_dataset("MMBench_DEV_EN")


def test_a_benchmark_of_ones_own_is_a_file_and_a_few_lines(tmp_path: Path, server: FileServer) -> None:
    rows = [{"index": "1", "image": cell(), "question": "How many?", "truth": "7"}]
    settings: dict[str, object] = {"class": "ImageVQADataset", "scoring": "relaxed_accuracy", "answer_column": "truth"}
    settings["prompt_suffix"] = " In digits."
    write_tsv(tmp_path / "any.tsv", rows)
    server.files["/mine.tsv"] = tsv_bytes(rows)
    for source in ({"path": str(tmp_path / "any.tsv")}, {"url": f"{server.url}/mine.tsv"}):
        dataset = resolve_config("Counting", {**settings, **source}).open()
        assert (dataset.name, dataset.scorable, dataset[0].answer) == ("Counting", True, "7")
        assert text_of(dataset.build_prompt(dataset[0])[-1]) == "How many? In digits."


def test_a_rule_tells_the_kind_where_no_class_does(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [{"index": "1", "image": cell(), "question": "?", "answer": "yes"}])
    dataset = open_dataset(path, scoring="word_match")
    assert dataset.task.type == "VQA"
    assert dataset.notes == ("mine: in no table, taken as VQA because its rule is word_match",)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"clas": "x"}, UnknownNameError, "unknown key in data 'MMStar' 'clas'; nearest: class"),
        ({"class": "ImageMCQ"}, UnknownNameError, "unknown dataset class 'ImageMCQ'; nearest: ImageMCQDataset"),
        ({"class": "MMMUData"}, UnknownNameError, "unknown dataset class 'MMMUData'; nearest: MMMUDataset"),
        ({"scoring": "anls"}, ConfigError, "MMStar is MCQ and the rule anls is for VQA; rules for MCQ: choices"),
        ({"path": "a.tsv", "url": "https://x/a.tsv"}, ConfigError, "path and url name its file more than once"),
        ({"url": "ftp://x/a.tsv"}, ConfigError, "url is 'ftp://x/a.tsv'; give one that begins with https://"),
        ({"url": "https://x/a.tsv"}, ConfigError, "MMStar.*is a benchmark of this kit; rename it"),
        ({"md5": "0" * 32}, ConfigError, "md5 is only checked where a url is given"),
        ({"class": 3}, ConfigError, "data 'MMStar': class is 3; give a text"),
        ({"dataset": "MMSta"}, UnknownNameError, "unknown dataset 'MMSta'; nearest: MMStar"),
        ({"traits": "circular"}, ConfigError, "traits is 'circular'; give a list"),
        ({"traits": ["circle"]}, UnknownNameError, "unknown dataset trait 'circle'; nearest: circular"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(settings: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_config("MMStar", settings).open()


def test_the_listing_says_what_is_on_disk(data_root: Path) -> None:
    write_tsv(data_root / "Mine.tsv", [row(1)])
    entries = {entry["name"]: entry for entry in dataset_listing()}
    assert entries["MMBench_DEV_EN"]["on disk"] == "no"
    assert entries["MMBench_DEV_EN"]["traits"] == ["circular"]
    assert entries["Mine"]["on disk"] == "0.0 MiB"
    assert entries["ShapesBench"]["on disk"] != "no"


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"requests", "torch", "transformers", "PIL", "pandas", "numpy"}
    code = f"import sys, vlmeval.dataset; print(*{heavy} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(Path(vlmeval.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == ""
