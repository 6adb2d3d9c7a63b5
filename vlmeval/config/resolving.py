"""From what a user calls a model (a registered name, a folder, a hub id) to its class and arguments."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmeval.config.model_spec import ModelSpec
from vlmeval.config.supported import supported_VLM
from vlmeval.errors import UnknownNameError, UsageError, several_names
from vlmeval.vlm.checkpoint import read_config

MODEL_TYPE_CLASSES: Mapping[str, str] = {
    "internvl": "InternVLChat",
    "internvl_chat": "InternVLChat",
    "llava_onevision": "LLaVA_OneVision_HF",
    "mllama": "LlamaVision",
    "qwen2_5_vl": "Qwen2_5_VLChat",
    "qwen2_vl": "Qwen2VLChat",
    "qwen3_vl": "Qwen3VLChat",
    "qwen3_vl_moe": "Qwen3VLChat",
}
"""config.json's model_type -> class, for `--model` given a hub id or a folder; any other goes to AutoVLM."""


def resolve_model(
    name: str,
    extra: Mapping[str, ModelSpec] | None = None,
    *,
    revision: str | None = None,
    trusted: Collection[str] = (),
) -> ModelSpec:
    """The model a name stands for: one of `extra` or registered, a checkpoint folder, or a hub id `owner/name`.

    A hub id may end in `@revision`. The Python code a checkpoint brings is only considered if its name, hub id or
    folder is among the `trusted`.

    Raises UnknownNameError with the nearest names, or ModelError for what is no checkpoint or has an architecture
    that nothing here runs.
    """
    known = {**supported_VLM, **(extra or {})}
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_model_type(path.resolve().name, str(path.resolve()), read_config(path), name, trusted)
    owner, slash, short = name.partition("/")
    if slash and owner and short and "/" not in short and owner not in (".", "..", "~"):
        registered = next((spec for spec in supported_VLM.values() if spec.source == name), None)
        return registered or _from_hub_id(name, revision, trusted)
    if name.startswith((".", "/", "~")):
        raise UsageError(f"model folder {name} does not exist (working folder: {os.getcwd()})")
    hint = several_names(name) or "a hub id owner/name or a checkpoint folder works too"
    raise UnknownNameError("model", name, known, hint)


def _from_hub_id(name: str, revision: str | None, trusted: Collection[str]) -> ModelSpec:
    from vlmeval.vlm.checkpoint import fetch_config

    repo, _, pinned = name.partition("@")
    spec = _from_model_type(name.split("/")[1], repo, fetch_config(repo, pinned or revision), name, trusted)
    return replace(spec, arguments={**spec.arguments, "revision": pinned}) if pinned else spec


def _from_model_type(
    name: str, model_path: str, config: Mapping[str, Any], typed: str, trusted: Collection[str]
) -> ModelSpec:
    """`typed` is how the user named it."""
    found = MODEL_TYPE_CLASSES.get(str(config["model_type"]))
    if found is not None:
        return ModelSpec(name=name, class_path=found, arguments={"model_path": model_path})
    from vlmeval.vlm.architectures import class_for, is_native

    trust = not is_native(config) and bool({name, model_path, typed} & set(trusted))
    class_for(config, typed, trust_remote_code=trust)
    arguments = {"model_path": model_path, **({"trust_remote_code": True} if trust else {})}
    return ModelSpec(name=name, class_path="AutoVLM", arguments=arguments)
