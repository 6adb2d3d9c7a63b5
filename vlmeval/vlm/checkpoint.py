"""A checkpoint on disk or on the hub: found, checked and identified before torch is imported."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmeval.errors import ModelError

_SAMPLED_BYTES = 2**20
DOWNLOADED = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
"""What is fetched from the hub: code and pickled weights only when the user says so."""
PICKLED = ["*.bin", "*.pt", "*.pth"]


@dataclass(frozen=True)
class Checkpoint:
    """A local folder with a config and safetensors weights. `revision` is the hub's commit where it came from there."""

    folder: Path
    config: dict[str, Any] = field(repr=False)
    weight_files: tuple[Path, ...] = field(repr=False)
    revision: str = ""

    @property
    def is_pickled(self) -> bool:
        """Whether the weights are no safetensors, so that loading them may run code."""
        return any(path.suffix != ".safetensors" for path in self.weight_files)

    @property
    def model_type(self) -> str:
        """transformers' name of the architecture."""
        return str(self.config.get("model_type", ""))

    @property
    def weight_bytes(self) -> int:
        """Size of the weight files in bytes."""
        return sum(path.stat().st_size for path in self.weight_files)

    def fingerprint(self) -> str:
        """Identifies the content: every JSON and template file whole, of each weight file its size, head and tail.

        Reading 150 GB to learn whether to resume would take longer than it saves; retraining changes head or tail.
        """
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".json", ".jinja", ".model", ".txt") and path.is_file():
                digest.update(f"{path.name}\0".encode() + path.read_bytes())
        for path in self.weight_files:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLED_BYTES))
                file.seek(max(0, path.stat().st_size - _SAMPLED_BYTES))
                digest.update(file.read(_SAMPLED_BYTES))
        return digest.hexdigest()[:16]


def open_checkpoint(
    model_path: str | Path, revision: str | None = None, *, allow_pickle: bool = False, allow_code: bool = False
) -> Checkpoint:
    """The checkpoint in a folder, or of a hub id (fetched, or found in the hub's cache).

    Pickled weights and Python files are only taken when allowed. Raises ModelError naming what is missing and what
    to try.
    """
    path = Path(model_path).expanduser()
    if path.is_dir():
        return _read_folder(path, "", allow_pickle)
    if _looks_like_folder(str(model_path)):
        raise ModelError(f"model folder {model_path} does not exist")
    patterns = [*DOWNLOADED, *(PICKLED if allow_pickle else ()), *(["*.py"] if allow_code else ())]
    folder = _from_hub(str(model_path), revision, patterns)
    try:
        return _read_folder(folder, folder.name, allow_pickle)
    except ModelError as error:
        raise ModelError(
            f"{model_path}: what the hub's cache holds is not complete: {error}; connect to the hub once, or give "
            "--model a folder that is"
        ) from error


def _looks_like_folder(model_path: str) -> bool:
    return model_path.startswith((".", "/", "~")) or model_path.count("/") != 1


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises ModelError if there is none, or it is no JSON object with a model_type."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} has no config.json, so it is no checkpoint folder; {_contents(folder)}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict) or not config.get("model_type"):
        raise ModelError(f"{path} names no model_type")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint, empty if there is no such file. Raises ModelError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object")
    return found


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    nested = sorted(str(path.parent) for path in folder.glob("*/config.json"))
    if nested:
        return f"but {', '.join(nested[:3])} has one"
    return f"it holds {len(names)} files" + (f": {', '.join(names[:5])}" if names else "")


def _read_folder(folder: Path, revision: str, allow_pickle: bool) -> Checkpoint:
    config = read_config(folder)
    return Checkpoint(folder=folder, config=config, weight_files=_weight_files(folder, allow_pickle), revision=revision)


def _weight_files(folder: Path, allow_pickle: bool) -> tuple[Path, ...]:
    if (index := folder / "model.safetensors.index.json").exists():
        return _indexed(folder, index)
    if files := tuple(sorted(folder.glob("*.safetensors"))):
        return files
    if allow_pickle and (index := folder / "pytorch_model.bin.index.json").exists():
        return _indexed(folder, index)
    pickled = sorted(path for pattern in PICKLED for path in folder.glob(pattern))
    if allow_pickle and pickled:
        return tuple(pickled)
    if pickled:
        raise ModelError(
            f"{folder} has only pickled weights ({', '.join(path.name for path in pickled[:3])}), which can run code "
            "when loaded; convert them to safetensors, or allow them with --allow-pickled-weights"
        )
    raise ModelError(f"{folder} has no weights: neither model.safetensors nor model.safetensors.index.json")


def _indexed(folder: Path, index: Path) -> tuple[Path, ...]:
    """The weight files an index names, all of them there."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is no index of weight files: {error!r}") from error
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ModelError(f"{index} names a file outside the folder: {outside[0]!r}")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} of {len(names)} weight files are missing: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; fetch them again, or finish the copy"
        )
    return tuple(folder / name for name in names)


def fetch_config(repo: str, revision: str | None = None) -> dict[str, Any]:
    """config.json of a hub id, fetched or from the cache. Raises ModelError."""
    return read_config(_from_hub(repo, revision, ["config.json"]))


def _from_hub(repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise ModelError(f"{repo!r} is no hub id: {error}") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{repo} is gated: accept its licence on the hub's page of the model, then log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no model {repo!r}, or it is private: check the name, or `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        # The hub's client refuses a snapshot it holds in part; what is there may be all we need, or tells what lacks.
        config = try_to_load_from_cache(repo, "config.json", revision=revision)
        if isinstance(config, str):
            return Path(config).parent
        raise ModelError(
            f"{repo} is not in the hub's cache and the hub cannot be reached; connect once, or give --model a folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{repo} cannot be fetched: {type(error).__name__}: {error}") from error
