"""Configs and profiles of the registered models, in the package: planning works offline and without torch.

`configs/models.json` says which config a hub id has; `configs/*.json` hold the facts (with their source); `profiles/`
what `blocks.derive_profile` makes of each. A folder has a packaged config if it bears its name and its config.json says
the same (the demo models). A profile that was derived here is kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from vlmeval.errors import StorageError
from vlmeval.placement.profile import FORMAT, ModelProfile, from_json, to_json
from vlmeval.storage import cache_folder, replace_file

CONFIGS = Path(__file__).parent / "configs"
PROFILES = Path(__file__).parent / "profiles"
QUANTISED_SUFFIXES: Mapping[str, str] = {"-AWQ": "awq", "-GPTQ-Int4": "gptq", "-GPTQ-Int8": "gptq-int8"}


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model the package knows. `config` is in transformers' own layout; `class_name` transformers' class."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    quantisation: str = ""

    def profile(self) -> ModelProfile | None:
        """Its packaged profile, None if there is none of this format."""
        try:
            return from_json((PROFILES / f"{self.name}.json").read_text(encoding="utf-8"))
        except OSError:
            return None


def known_model(source: str) -> KnownModel | None:
    """What the package knows of a hub id, quantised ones by the model they were made of, or folder; None if nothing."""
    suffix = next((suffix for suffix in QUANTISED_SUFFIXES if source.endswith(suffix)), "")
    name = _names().get(source.removesuffix(suffix))
    if name is None:
        return _known_folder(Path(source).expanduser())
    return replace(known_config(name), quantisation=QUANTISED_SUFFIXES.get(suffix, ""))


def known_config(name: str) -> KnownModel:
    """The packaged config of this name, one of `known_configs`."""
    data = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    return KnownModel(name=name, class_name=data["class_name"], config=data["config"])


def _known_folder(folder: Path) -> KnownModel | None:
    if folder.name not in known_configs():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = known_config(folder.name)
    # A model trained anew, or another one in a folder of this name, is looked at for what it is.
    return known if known.config == config else None


def known_configs() -> tuple[str, ...]:
    """Names of the packaged configs."""
    return tuple(sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem != "models"))


@cache
def _names() -> Mapping[str, str]:
    return json.loads((CONFIGS / "models.json").read_text(encoding="utf-8"))


def cache_path(config: Mapping[str, Any], class_name: str, transformers: str) -> Path:
    """Where the profile of a config is kept: by its content and the version that built the model."""
    text = json.dumps([FORMAT, class_name, transformers, config], sort_keys=True, default=str)
    return cache_folder("profiles") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def read_cached(path: Path) -> ModelProfile | None:
    """The profile kept there, None if there is none that can be read."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def write_cached(path: Path, profile: ModelProfile) -> None:
    """Keep a profile; where the cache cannot be written, it is derived again next time."""
    with contextlib.suppress(StorageError):
        replace_file(path, to_json(profile).encode())
