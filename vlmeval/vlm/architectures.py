"""Which architectures the installed transformers can run as a VLM, read from its source: importing it costs seconds.

transformers keeps the mapping model_type -> class as literal lists in models/auto/modeling_auto.py.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlmeval.errors import ModelError, nearest_names

_MAPPING = "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"
_MORE = {"phi4_multimodal": "Phi4MultimodalForCausalLM"}
"""Takes images and text but is listed elsewhere, since it takes sound as well."""
_NO_CHAT = frozenset({"diffusion_gemma", "evolla", "pi0", "pp_formulanet", "udop", "vision-encoder-decoder"})
"""In the mapping, but what they take is no image with a question: proteins, robot states, words with boxes."""
_REMOTE_CLASSES = ("AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForCausalLM", "AutoModel")


@cache
def image_text_classes() -> Mapping[str, str]:
    """model_type -> name of transformers' class that answers a question about an image. Imports no transformers."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return {}
    try:
        text = (Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"transformers' list of architectures cannot be read: {error}") from error
    found = {**dict(_literal_pairs(text)), **_MORE}
    return {model_type: name for model_type, name in found.items() if model_type not in _NO_CHAT}


def _literal_pairs(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == _MAPPING for target in targets):
            for pair in ast.walk(node):
                if isinstance(pair, ast.Tuple) and len(pair.elts) == 2:
                    model_type, name = ast.literal_eval(pair)
                    yield model_type, name


def is_native(config: Mapping[str, Any]) -> bool:
    """Whether transformers has a class for it."""
    return str(config["model_type"]) in image_text_classes()


def class_for(config: Mapping[str, Any], where: str, *, trust_remote_code: bool = False) -> str:
    """The class that runs a checkpoint: transformers' own, else an auto class that loads the checkpoint's code.

    Raises ModelError if there is none, or if the checkpoint's code would be needed and is not trusted.
    """
    model_type = str(config["model_type"])
    classes = image_text_classes()
    if model_type in classes:
        return classes[model_type]
    remote = config["auto_map"] if isinstance(config.get("auto_map"), Mapping) else {}
    offered = [name for name in _REMOTE_CLASSES if name in remote]
    if offered and trust_remote_code:
        return "AutoModelForImageTextToText" if offered[0] == "AutoModelForVision2Seq" else offered[0]
    if offered:
        raise ModelError(
            f"{where} is a {model_type!r} model, which transformers {installed_version()} has no class for: it brings "
            f"Python code of its own ({remote[offered[0]]}), which would run on this machine with your rights; if you "
            f"have read and trust it, add --trust-remote-code {where}"
        )
    near = nearest_names(model_type, classes, limit=4)
    raise ModelError(
        f"{where} has the architecture (model_type in config.json) {model_type!r}, which is not supported"
        f"{'; nearest: ' + ', '.join(near) if near else ''}. Any of the {len(classes)} that transformers "
        f"{installed_version()} maps to an image-text-to-text class runs; this one would need such a class in "
        "transformers (a newer one may have it), or a class of your own in a --config file"
    )


def installed_version() -> str:
    """The version of transformers, without importing it."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return "(not installed)"
