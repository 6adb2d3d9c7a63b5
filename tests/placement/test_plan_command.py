"""`vlmeval plan` as a user runs it: offline, fast, honest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmeval.cli.main import main
from vlmeval.config import DEMO_FOLDER, supported_VLM
from vlmeval.placement.known import known_model


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AUTO_SPLIT", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    _, out, _ = run(capsys, *arguments, "--json")
    return json.loads(out)


def test_the_command_of_the_readme_plans_offline_without_torch() -> None:
    code = (
        "import sys\nfrom vlmeval.cli.main import main\n"
        "main('plan --model Qwen2-VL-72B-Instruct --data MMBench_DEV_EN --cards 8x24'.split())\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "1 replica of 8 cards" in done.stdout
    assert "7 hops" in done.stdout


def test_the_table_has_a_bar_for_each_card(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--model", "Qwen2-VL-7B-Instruct", "--cards", "2x24", "--image", "1024x768")
    assert code == 0
    assert out.count("[#") == 2
    assert "vision entry .. layer" in out
    table = out[out.index("card   ") :]
    assert max(map(len, table.splitlines())) < 80  # the narrowest terminal does not wrap it


def test_json_holds_the_map_and_bytes_that_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--model", "llava_onevision_qwen2_7b_ov", "--cards", "24,12", "--batch-size", "2")
    (replica,) = found["replicas"]
    assert set(replica["device_map"].values()) == {0, 1}
    for card in replica["cards"]:
        kinds = ("weight_bytes", "kv_bytes", "activation_bytes", "reserve_bytes", "free_bytes_after")
        assert sum(card[kind] for kind in kinds) == card["free_bytes_before"]
    assert found["workload"]["batch"] == 2


def test_what_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--model", "Qwen2-VL-72B-Instruct", "--cards", "6x24", "--image", "1024x768")
    assert code == 1
    assert "does not fit: card" in out
    assert "in 8 bit" in out
    assert "one more card of 12 GiB" in out
    assert "--cpu-offload:" in out
    assert "!" in out


def test_what_the_rule_forbids_is_not_advised(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTO_SPLIT", "0")
    model = ["--model", "Qwen2-VL-72B-Instruct", "--data", "MMBench_DEV_EN", "--image", "1024x768"]
    two_small = planned(capsys, *model, "--cards", "2x24")["changes_that_would_fit"]
    assert not any("4 bit" in line for line in two_small), "40 GiB of weights fit no single card of 24"
    assert "one more card of 141 GiB" in two_small
    three_large = planned(capsys, *model, "--cards", "3x80")["changes_that_would_fit"]
    assert three_large[0].startswith("let it be split over all cards: AUTO_SPLIT=1")
    assert "one more card of 8 GiB" not in three_large


def test_a_split_that_would_only_fill_the_fullest_card_more_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--model", "Qwen2-VL-7B-Instruct", "--cards", "24,1")
    assert [card["index"] for card in found["replicas"][0]["cards"]] == [0]
    assert "split over at least two cards" in found["reason"]
    assert found["notes"][0].startswith("on 1 card all the same")


def test_small_numbers_have_small_units(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--model", "Qwen2-VL-Tiny", "--cards", "2x0.02", "--reserve", "0")
    assert " bytes in all" in out and "0.0 KiB" not in out
    _, out, _ = run(capsys, "--model", "Qwen2-VL-Tiny", "--cards", "0.002", "--reserve", "0")
    assert "0.0 GiB" not in out


def test_advice_for_more_replicas_than_fit_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--model", "Qwen2-VL-72B-Instruct", "--cards", "8x80", "--replicas", "8")
    assert found["changes_that_would_fit"][0].startswith("let it be split over all cards")


def test_the_changes_it_names_do_fit(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--model", "Qwen2-VL-7B-Instruct", "--data", "MMBench_DEV_EN"]
    found = planned(capsys, *command, "--cards", "2x24", "--batch-size", "32")
    assert not found["fits"]
    line = next(change for change in found["changes_that_would_fit"] if "--batch-size" in change)
    smaller = line.split()[1]
    assert planned(capsys, *command, "--cards", "2x24", "--batch-size", smaller)["fits"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--cards", "0x24"], "means no cards"),
        (["--cards", "2x24", "--replicas", "3"], "only 2 cards are visible"),
        (["--cards", "2x24", "--cards-per-replica", "4"], "only 2 cards are visible"),
        (["--cards", "2x24", "--replicas", "2"], "--cards-per-replica 1 gives each one card"),
        (["--cards", "2x24", "--reserve", "nan"], "--reserve nan is no number of GiB"),
        (["--cards", "2x24", "--device-map", "m.json", "--cards-per-replica", "1"], "forbids --cards-per-replica"),
        (["--cards", "2x24", "--device-map", "m.json", "--replicas", "2"], "forbids --replicas"),
        (["--cards", "2x24", "--cpu-offload"], "--cpu-offload is a flag of run, not of plan"),
        (["--cards", "2x24", "--max-memory", "0:20"], "is not written card=GiB"),
        (["--cards", "2x24", "--image", "big"], "WIDTHxHEIGHT"),
        (["--cards", "2x24", "--batch-size", "0"], "no whole number from 1"),
        (["--cards", "2x24", "--prompt-tokens", "-4"], "at least 1"),
        (["--cards", "2x24", "--data", "MMBench_DEV_ENN"], "MMBench_DEV_EN"),
        (["--cards", "2x24", "--device-map", "/nowhere.json"], "cannot be read"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    code, _, err = run(capsys, "--model", "Qwen2-VL-7B-Instruct", *arguments)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_missing_model_and_a_banana_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--model is missing" in run(capsys, "--cards", "2x24")[2]
    monkeypatch.setenv("AUTO_SPLIT", "banana")
    code, _, err = run(capsys, "--model", "Qwen2-VL-7B-Instruct", "--cards", "2x24")
    assert code == 2
    assert "AUTO_SPLIT='banana'" in err


def test_a_map_of_ones_own_is_checked_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"model.visual": 1, "model.language_model": 0, "lm_head": 0}')
    found = planned(capsys, "--model", "Qwen2-VL-7B-Instruct", "--cards", "2x24", "--device-map", str(path))
    assert found["replicas"][0]["hops"] == 1
    assert found["replicas"][0]["bytes_per_token"] == 8
    path.write_text('{"model.visual": 1, "model.language_model": 0}')
    assert "'lm_head' is missing" in run(
        capsys, "--model", "Qwen2-VL-7B-Instruct", "--cards", "2x24", "--device-map", str(path)
    )[2]  # fmt: skip


def test_a_folder_is_planned_from_its_config_and_its_profile_is_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "my-model"
    shutil.copytree(DEMO_FOLDER / "Qwen2-VL-Tiny", folder)
    for _ in range(2):
        found = planned(capsys, "--model", str(folder), "--cards", "2x24")
        assert found["fits"]
    assert len(list((tmp_path / "vlmeval" / "profiles").iterdir())) == 1


def test_the_four_families_are_known_offline() -> None:
    names = [
        *(f"Qwen2-VL-{size}-Instruct{kind}" for size in ("2B", "7B", "72B") for kind in ("", "-AWQ", "-GPTQ-Int4")),
        *(f"llava-onevision-qwen2-{size}-ov-hf" for size in ("0.5b", "7b", "72b")),
        *(f"Llama-3.2-{size}-Vision-Instruct" for size in ("11B", "90B")),
        *(f"InternVL2-{size}" for size in ("2B", "8B", "26B", "40B", "76B")),
    ]
    assert [name for name in names if known_model(supported_VLM[name].source) is None] == []
