"""Loading holds the weights once: measured on a synthetic checkpoint of 1 GB, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

SHARD_BYTES = 128 * 10**6
REPOSITORY = Path(__file__).parents[2]


def write_big(tiny: Path, folder: Path) -> int:
    """The tiny model's family with 270 M parameters in fp32, shard by shard. Returns the bytes of its weights."""
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config: Any = transformers.Qwen2_5_VLConfig.from_pretrained(tiny)
    text = config.text_config
    text.hidden_size = config.vision_config.out_hidden_size = 1024
    text.intermediate_size, text.num_hidden_layers = 4096, 16
    text.num_attention_heads = text.num_key_value_heads = 16
    text.rope_parameters["mrope_section"] = [8, 12, 12]
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = transformers.Qwen2_5_VLForConditionalGeneration(config).state_dict()
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        shard[name] = torch.full(shape.shape, 0.01)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES or name == list(shapes)[-1]:
            file = f"model-{len(set(places.values())):05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return 4 * sum(shape.numel() for shape in shapes.values())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_loading_takes_at_most_a_fifth_more_memory_than_the_weights(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    tiny, big = folder_of("qwen2_5_vl"), tmp_path / "big"
    written = write_big(tiny, big)
    assert written > 10**9
    command = [sys.executable, "-m", "tests.vlm.load_memory", str(big), str(tiny)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    shutil.rmtree(big)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["weight_bytes"] == written
    # In the files' own type the mapped files are the weights; all of them were read.
    assert 0.9 * written < measured["peak_bytes"] <= 1.2 * written, measured
    # In another type the files are mapped beside the weights, which the system takes back when it needs memory.
    assert measured["converted_peak_bytes"] <= 1.2 * measured["converted_bytes"], measured
