"""Every registered model can be planned from the package alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from vlmeval.config import DEMO_FOLDER, supported_VLM
from vlmeval.placement.known import CONFIGS, PROFILES, known_config, known_configs, known_model
from vlmeval.vlm.weight_sizes import APPROXIMATE_BYTES

NOT_PACKAGED: Mapping[str, str] = {}
"""Registered name -> which of its facts could be found in no source."""
DEMO = ("InternVL-Tiny", "LLaVA-OneVision-Tiny", "Llama-Vision-Tiny", "Qwen2-VL-Tiny")
PLAN_ALL = """
import contextlib, io, json, sys
from vlmeval.cli.main import main
from vlmeval.config import supported_VLM
codes = {}
for name in supported_VLM:
    with contextlib.redirect_stdout(io.StringIO()):
        codes[name] = main(["plan", "--model", name, "--cards", "8x24"])
loaded = [name for name in ("torch", "transformers") if name in sys.modules]
print(json.dumps({"codes": codes, "loaded": loaded}))
"""
TOO_LARGE = {"Qwen3-VL-235B-A22B-Instruct", "Qwen3-VL-235B-A22B-Thinking", "InternVL3_5-241B-A28B-HF"}
"""For eight cards of 24 GiB."""


def test_every_registered_name_has_a_packaged_profile_or_a_reason() -> None:
    found = {name: known_model(spec.source) for name, spec in supported_VLM.items()}
    missing = {name for name, known in found.items() if known is None or known.profile() is None}
    assert missing == set(NOT_PACKAGED)


def test_every_registered_name_is_planned_without_torch_and_without_deriving(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAN_ALL],
        capture_output=True,
        text=True,
        check=True,
        env={"XDG_CACHE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(DEMO_FOLDER.parents[1])},
    )
    told = json.loads(done.stdout)
    assert told["loaded"] == []
    assert {name for name, code in told["codes"].items() if code} == TOO_LARGE
    assert told["codes"].keys() == supported_VLM.keys()
    assert not any(tmp_path.iterdir()), "a profile was derived"


@pytest.mark.parametrize("name", [name for name in known_configs() if name not in DEMO])
def test_a_known_config_has_the_parameters_of_its_model_card(name: str) -> None:
    hub_ids = json.loads((CONFIGS / "models.json").read_text(encoding="utf-8"))
    profile = known_config(name).profile()
    assert profile is not None
    published = [APPROXIMATE_BYTES[hub_id] / 2 for hub_id, config in hub_ids.items() if config == name]
    # Cards round to two or three digits: 0.94, 8.29 and 73.4 billion.
    assert published == pytest.approx([profile.parameters] * len(published), rel=0.007)
    assert published


def test_hub_ids_and_configs_and_profiles_belong_together() -> None:
    hub_ids = json.loads((CONFIGS / "models.json").read_text(encoding="utf-8"))
    assert {*hub_ids.values(), *DEMO} == set(known_configs())
    assert {path.stem for path in PROFILES.glob("*.json")} == set(known_configs())
    registered = {spec.source for spec in supported_VLM.values()}
    assert set(hub_ids) <= registered


@pytest.mark.parametrize("name", DEMO)
def test_a_demo_model_is_known_by_the_content_of_its_config(name: str, tmp_path: Path) -> None:
    assert known_model(str(DEMO_FOLDER / name)) is not None, "run scripts/make_profiles.py"
    folder = tmp_path / name
    folder.mkdir()
    assert known_model(str(folder)) is None
    shutil.copy(DEMO_FOLDER / name / "config.json", folder)
    assert known_model(str(folder)) == known_config(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert known_model(str(folder)) is None
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert known_model(str(folder)) is None


def test_a_quantised_hub_id_is_known_by_what_it_was_made_of() -> None:
    known = known_model("Qwen/Qwen2.5-VL-32B-Instruct-AWQ")
    assert known is not None
    assert (known.name, known.quantisation) == ("Qwen2.5-VL-32B", "awq")
    assert known_model("Qwen/Qwen2.5-VL-32B-Instruct-FP8") is None
