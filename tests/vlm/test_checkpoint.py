"""Checkpoints: what is missing from a folder, what the hub refuses, what an offline machine lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmeval.config import resolve_model
from vlmeval.errors import MissingPackageError, ModelError
from vlmeval.vlm.checkpoint import open_checkpoint
from vlmeval.vlm.quantised import check_quantisation, quantisation_method

from .hub_server import COMMIT, hub

CONFIG = {"model_type": "qwen2_vl"}


def write(folder: Path, config: Any = CONFIG, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def index(*names: str) -> str:
    return json.dumps({"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}})


def test_single_file_checkpoint(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write(tmp_path, model__safetensors="12345"))
    assert (checkpoint.model_type, checkpoint.weight_bytes, checkpoint.revision) == ("qwen2_vl", 5, "")
    assert [path.name for path in checkpoint.weight_files] == ["model.safetensors"]
    assert not checkpoint.is_pickled


def test_index_names_the_weight_files_and_others_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, a__safetensors="12", b__safetensors="3", other__safetensors="9999")
    (tmp_path / "model.safetensors.index.json").write_text(index("a.safetensors", "b.safetensors", "a.safetensors"))
    assert open_checkpoint(tmp_path).weight_bytes == 3


def test_missing_shards_are_named_and_counted(tmp_path: Path) -> None:
    names = [f"model-{i:05}-of-00007.safetensors" for i in range(1, 8)]
    write(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index(*names))
    (tmp_path / names[0]).write_text("1")
    with pytest.raises(ModelError, match=r"6 of 7 weight files are missing: model-00002-of-00007.* \.\.\.; fetch"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '{"weight_map": 3}'])
def test_broken_index(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match="is no index of weight files"):
        open_checkpoint(tmp_path)


def test_index_may_not_name_files_outside(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index("../evil.safetensors"))
    with pytest.raises(ModelError, match="outside the folder"):
        open_checkpoint(tmp_path)


def test_no_weights_and_no_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no weights"):
        open_checkpoint(write(tmp_path))
    with pytest.raises(ModelError, match=r"no config.json.*sub has one"):
        outer = tmp_path / "outer"
        write(outer, None)
        write(outer / "sub")
        open_checkpoint(outer)
    with pytest.raises(ModelError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("config", [[], {}, {"model_type": ""}, "text"])
def test_config_without_a_model_type(tmp_path: Path, config: Any) -> None:
    with pytest.raises(ModelError, match="names no model_type"):
        open_checkpoint(write(tmp_path, config, model__safetensors=""))


def test_config_that_is_no_json(tmp_path: Path) -> None:
    write(tmp_path, None, config__json="{", model__safetensors="")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        open_checkpoint(tmp_path)


def test_pickled_weights_are_refused_unless_allowed(tmp_path: Path) -> None:
    write(tmp_path, pytorch_model__bin="1234")
    with pytest.raises(ModelError, match=r"can run code when loaded.*--allow-pickled-weights"):
        open_checkpoint(tmp_path)
    allowed = open_checkpoint(tmp_path, allow_pickle=True)
    assert allowed.is_pickled
    assert allowed.weight_bytes == 4


def test_safetensors_win_over_pickles_even_if_allowed(tmp_path: Path) -> None:
    write(tmp_path, pytorch_model__bin="1234", model__safetensors="1")
    assert not open_checkpoint(tmp_path, allow_pickle=True).is_pickled


def test_sharded_pickles(tmp_path: Path) -> None:
    write(tmp_path, a__bin="1", training_args__bin="1")
    (tmp_path / "pytorch_model.bin.index.json").write_text(index("a.bin", "b.bin"))
    with pytest.raises(ModelError, match=r"1 of 2 weight files are missing: b\.bin"):
        open_checkpoint(tmp_path, allow_pickle=True)


def test_fingerprint_changes_with_config_and_with_either_end_of_the_weights(tmp_path: Path) -> None:
    size = 3 * 2**20
    write(tmp_path)
    weights = tmp_path / "model.safetensors"

    def fingerprint(content: bytes) -> str:
        weights.write_bytes(content)
        return open_checkpoint(tmp_path).fingerprint()

    base = fingerprint(bytes(size))
    assert fingerprint(bytes(size)) == base
    assert fingerprint(b"x" + bytes(size - 1)) != base
    assert fingerprint(bytes(size - 1) + b"x") != base
    assert fingerprint(bytes(size + 1)) != base
    weights.write_bytes(bytes(size))
    write(tmp_path, {**CONFIG, "changed": 1})
    assert open_checkpoint(tmp_path).fingerprint() != base


@pytest.mark.parametrize(
    ("config", "method", "package"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq", "gptqmodel"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq", "optimum"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes", "bitsandbytes"),
        ({"text_config": {"quantization_config": {"quant_method": "compressed-tensors"}}}, "compressed-tensors",
         "compressed-tensors"),
    ],
)  # fmt: skip
def test_quantised_checkpoint_names_the_package_it_needs(
    tmp_path: Path, config: dict[str, Any], method: str, package: str
) -> None:
    folder = write(tmp_path, {**CONFIG, **config}, model__safetensors="")
    assert quantisation_method({**CONFIG, **config}) == method
    with pytest.raises(MissingPackageError, match=f"quantised by {method}, needs the package '{package}'") as caught:
        resolve_model(str(folder))().settings()
    assert "\n" not in str(caught.value)


def test_quantised_checkpoint_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": "awq"}}
    folder = write(tmp_path, config, model__safetensors="")
    code = (
        "import sys\nfrom vlmeval.cli.main import main\n"
        f"main(['run', '--model', {str(folder)!r}, '--data', 'ShapesBench', '--work-dir', {str(tmp_path / 'out')!r}])\n"
        "print('torch imported:', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install gptqmodel" in done.stderr
    assert done.stdout.endswith("torch imported: False\n")


def test_quantisation_nobody_reads_and_none_at_all() -> None:
    with pytest.raises(ModelError, match="quantised by 'magic'; known are aqlm, "):
        check_quantisation({"quantization_config": {"quant_method": "magic"}}, "x")
    check_quantisation({"quantization_config": {"quant_method": "fp8"}}, "x")
    check_quantisation(CONFIG, "x")


REPO = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors.index.json": index("model-1.safetensors", "model-2.safetensors").encode(),
    "model-1.safetensors": b"1234",
    "model-2.safetensors": b"56",
    "evil.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "README.md": b"long",
}
HUB = {"someone/good": REPO, "someone/gated": REPO}


def ask(code: str, home: Path, **environment: str) -> str:
    """What a fresh process with an empty cache prints: the value of `code`, or the error."""
    program = (
        "from vlmeval.errors import VLMEvalError\nfrom vlmeval.vlm.checkpoint import *\n"
        f"try:\n print({code})\nexcept VLMEvalError as error:\n print(type(error).__name__ + ':', error)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY") and not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        env={**clean, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return done.stdout.strip()


def test_hub_checkpoint_is_fetched_without_code_and_pickles(tmp_path: Path) -> None:
    with hub(HUB) as (endpoint, asked):
        code = "(lambda c: (c.weight_bytes, c.revision, sorted(p.name for p in c.folder.iterdir())))"
        found = ask(f"{code}(open_checkpoint('someone/good'))", tmp_path, HF_ENDPOINT=endpoint)
        names = ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
        assert found == str((6, COMMIT, names))
        assert not any(word in line for line in asked for word in ("evil", "pytorch_model"))
        before = len(asked)
        again = ask(f"{code}(open_checkpoint('someone/good'))", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
        assert (again, len(asked)) == (found, before)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("open_checkpoint('someone/gated')", "someone/gated is gated: accept its licence on the hub's page of the"),
        ("fetch_config('someone/gated')", "log in with `hf auth login`"),
        ("open_checkpoint('someone/absent')", "the hub has no model 'someone/absent', or it is private"),
        ("open_checkpoint('someone/good', 'v9')", "someone/good has no revision 'v9'"),
        ("open_checkpoint('some one/good')", "'some one/good' is no hub id"),
    ],
)
def test_what_the_hub_refuses(tmp_path: Path, call: str, expected: str) -> None:
    with hub(HUB) as (endpoint, _):
        told = ask(call, tmp_path, HF_ENDPOINT=endpoint)
    assert told.startswith("ModelError: ")
    assert expected in told


def test_offline_with_nothing_cached(tmp_path: Path) -> None:
    told = ask("open_checkpoint('someone/good')", tmp_path, HF_HUB_OFFLINE="1")
    assert "someone/good is not in the hub's cache and the hub cannot be reached" in told


def test_unreachable_hub_with_nothing_cached(tmp_path: Path) -> None:
    told = ask("open_checkpoint('someone/good')", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert told.startswith("ModelError: someone/good ")


def test_offline_with_an_incomplete_cache_names_what_is_missing(tmp_path: Path) -> None:
    with hub(HUB) as (endpoint, _):
        ask("fetch_config('someone/good')", tmp_path, HF_ENDPOINT=endpoint)
        told = ask("open_checkpoint('someone/good')", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
        assert "what the hub's cache holds is not complete" in told and "has no weights" in told
        ask("open_checkpoint('someone/good')", tmp_path, HF_ENDPOINT=endpoint)
        next(tmp_path.rglob("snapshots/*/model-2.safetensors")).unlink()
        told = ask("open_checkpoint('someone/good')", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
    assert "1 of 2 weight files are missing: model-2.safetensors" in told
    assert "connect to the hub once" in told


def test_revision_is_part_of_a_hub_id_or_an_argument(tmp_path: Path) -> None:
    with hub(HUB) as (endpoint, asked):
        code = "(__import__('vlmeval.config').config.resolve_model('someone/good@{}').arguments)"
        told = ask(code.format(COMMIT), tmp_path, HF_ENDPOINT=endpoint)
        assert told == str({"model_path": "someone/good", "revision": COMMIT})
        assert any(COMMIT in line for line in asked)
        assert "no revision 'v9'" in ask(code.format("v9"), tmp_path, HF_ENDPOINT=endpoint)
