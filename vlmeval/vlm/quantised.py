"""Quantised checkpoints: which package reads which method, checked before torch is imported or a weight is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from vlmeval.errors import MissingPackageError, ModelError

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "awq": ("gptqmodel",),
    "gptq": ("optimum", "gptqmodel"),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "fp8": (),
    "mxfp8": (),
    "mxfp4": ("kernels",),
    "aqlm": ("aqlm",),
    "auto-round": ("auto-round",),
    "bitnet": (),
    "eetq": ("kernels",),
    "fbgemm_fp8": ("fbgemm-gpu",),
    "fp_quant": ("fp-quant",),
    "higgs": ("flute-kernel", "fast-hadamard-transform"),
    "hqq": ("hqq",),
    "quanto": ("optimum-quanto",),
    "quark": ("amd-quark",),
    "spqr": ("spqr-quant",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
"""quant_method of config.json -> pip names of what transformers 5 needs for it, besides torch and accelerate."""

_IMPORT_NAMES = {
    "amd-quark": "quark",
    "optimum-quanto": "optimum.quanto",
    "flute-kernel": "flute",
    "fbgemm-gpu": "fbgemm_gpu",
}


def quantisation_method(config: Mapping[str, Any]) -> str:
    """The method a checkpoint is quantised with, "" if it is not. Some configs keep it with the language model."""
    text = config.get("text_config") or config.get("llm_config")
    places = (config, text if isinstance(text, Mapping) else {})
    found = next((p["quantization_config"] for p in places if isinstance(p.get("quantization_config"), Mapping)), None)
    if found is None:
        return ""
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        return "bitsandbytes"
    return str(found.get("quant_method") or "unnamed")


def check_quantisation(config: Mapping[str, Any], where: str) -> None:
    """Raise MissingPackageError for a method whose package is not installed, ModelError for one nobody reads."""
    method = quantisation_method(config)
    if not method:
        return
    if method not in PACKAGES:
        raise ModelError(
            f"{where} is quantised by {method!r}; known are {', '.join(sorted(PACKAGES))}: take the checkpoint that is "
            "not quantised"
        )
    for package in PACKAGES[method]:
        if not _installed(package):
            raise MissingPackageError(package, f"{where}, quantised by {method},")


def _installed(package: str) -> bool:
    name = _IMPORT_NAMES.get(package, package.replace("-", "_"))
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        # The parent of a dotted name is missing.
        return False
