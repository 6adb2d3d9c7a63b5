"""Sizes of the registered models, and the list of models that shows them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlmeval.cli.main import main
from vlmeval.config import supported_VLM
from vlmeval.vlm.weight_sizes import APPROXIMATE_BYTES, weight_size


@pytest.mark.parametrize("name", [name for name, spec in supported_VLM.items() if "/" in spec.source])
def test_every_registered_model_has_a_size(name: str) -> None:
    weight_bytes, _ = weight_size(supported_VLM[name].source)
    assert weight_bytes


def test_size_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"123")
    (tmp_path / "b.safetensors").write_bytes(b"45")
    assert weight_size(str(tmp_path)) == (5, True)
    assert weight_size("nobody/nothing") == (None, False)


def test_size_worked_out_is_that_of_the_model_counted() -> None:
    """Qwen2-VL-72B is transformers' default configuration."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig())
    counted = 2 * sum(parameter.numel() for parameter in model.parameters())
    assert APPROXIMATE_BYTES["Qwen/Qwen2-VL-72B-Instruct"] == pytest.approx(counted, rel=0.005)


def test_quantised_models_weigh_less() -> None:
    sizes = APPROXIMATE_BYTES
    seven = "Qwen/Qwen2-VL-7B-Instruct"
    assert sizes[f"{seven}-AWQ"] < sizes[f"{seven}-GPTQ-Int8"] < sizes[seven]


def test_list_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(supported_VLM)
    row = rows["Qwen2-VL-7B-Instruct"]
    assert (row["family"], row["source"], row["weight_bytes_exact"]) == ("Qwen2-VL", "Qwen/Qwen2-VL-7B-Instruct", False)
    assert rows["Qwen2-VL-Tiny"]["weight_bytes_exact"] is True


def test_list_for_people_marks_what_is_worked_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "~15 GiB" in lines["Qwen2-VL-7B-Instruct"]
    assert " 2.3 MiB" in lines["Qwen2-VL-Tiny"] and "~2.3" not in lines["Qwen2-VL-Tiny"]


def test_list_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from vlmeval.cli.main import main\nmain(['list', 'models', '--json'])\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    torch, transformers = done.stderr.split()
    assert (torch, transformers) == ("False", "False")
