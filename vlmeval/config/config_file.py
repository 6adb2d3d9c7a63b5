"""--config files: models and benchmarks with their settings, in upstream's form."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmeval.config.model_spec import ModelSpec
from vlmeval.config.resolving import resolve_model
from vlmeval.errors import ConfigError, UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """What a --config file asks for: models by name, and datasets by name with their settings ({} = as registered)."""

    models: Mapping[str, ModelSpec]
    datasets: Mapping[str, Mapping[str, Any]]


def read_config_file(path: Path) -> ConfigFile:
    """Read and check a JSON config. Classes of the user's own are looked up beside it and in the working folder.

    Raises ConfigError naming the file, the place in it and the nearest valid names.
    """
    data = _read_object(path)
    for folder in (str(path.parent.resolve()), os.getcwd()):
        if folder not in sys.path:
            sys.path.append(folder)
    models = {name: _model_entry(path, name, entry) for name, entry in _entries(path, data, "model")}
    return ConfigFile(models=models, datasets=dict(_entries(path, data, "data")))


def read_config_datasets(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The "data" of a JSON config, for what runs no model: its models are neither imported nor looked up.

    Raises ConfigError.
    """
    return dict(_entries(path, _read_object(path), "data"))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"config file {path} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f'{path}: a config is an object with "model" and "data", not {type(data).__name__}')
    for key in data:
        if key not in ("model", "data"):
            raise ConfigError(f"{path}: {UnknownNameError('key', key, ('model', 'data'))}")
    return data


def _entries(path: Path, data: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    section = data.get(key, {})
    if not isinstance(section, dict):
        raise ConfigError(f'{path}: "{key}" is an object of names, not {type(section).__name__}')
    for name, entry in section.items():
        if not isinstance(entry, dict):
            raise ConfigError(f"{path}: {key} {name!r} is an object of settings ({{}} = as registered), not {entry!r}")
        yield name, entry


def _model_entry(path: Path, name: str, entry: dict[str, Any]) -> ModelSpec:
    try:
        if "class" not in entry:
            trusted = (name,) if entry.get("trust_remote_code") is True else ()
            spec = replace(resolve_model(name, revision=entry.get("revision"), trusted=trusted), name=name)
            spec = replace(spec, arguments={**spec.arguments, **entry})
        else:
            arguments = {key: value for key, value in entry.items() if key != "class"}
            spec = ModelSpec(name=name, class_path=str(entry["class"]), arguments=arguments)
        spec.check()
    except UsageError as error:
        raise ConfigError(f"{path}: {error}") from error
    return spec
