"""What can be run and how: the registry `supported_VLM`, config files, and the checked settings of one run.

Importing this imports neither torch nor transformers, so that a typo is answered at once.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vlmeval.errors import ConfigError, UnknownNameError, UsageError, several_names
from vlmeval.judging.settings import JudgeSettings
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.checkpoint import read_config
from vlmeval.vlm.placement_request import Placement

MODEL_CLASSES: Mapping[str, str] = {
    "AutoVLM": "vlmeval.vlm.auto:AutoVLM",
    "InternVLChat": "vlmeval.vlm.internvl2:InternVLChat",
    "LLaVA_OneVision": "vlmeval.vlm.llava_onevision:LLaVA_OneVision_HF",
    "LLaVA_OneVision_HF": "vlmeval.vlm.llava_onevision:LLaVA_OneVision_HF",
    "LlamaVision": "vlmeval.vlm.llama_vision:LlamaVision",
    "llama_vision": "vlmeval.vlm.llama_vision:LlamaVision",
    "Qwen2VLChat": "vlmeval.vlm.qwen2_vl:Qwen2VLChat",
    "Qwen2_5_VLChat": "vlmeval.vlm.qwen2_vl:Qwen2_5_VLChat",
    "Qwen3VLChat": "vlmeval.vlm.qwen2_vl:Qwen3VLChat",
}
"""Class names a config may use -> where the class is."""

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

DEMO_FOLDER = Path(__file__).parent / "demo"
MODES = ("all", "infer", "eval")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A named model: a class and its arguments. Calling it makes the model (weights are loaded when first needed)."""

    name: str
    class_path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""

    def __call__(self, **overrides: Any) -> BaseModel:
        """Make the model; `overrides` win over the registered arguments."""
        return load_model_class(self.class_path)(**{**self.arguments, **overrides})

    def check(self) -> None:
        """Raise ConfigError for an argument the class does not take."""
        check_arguments(load_model_class(self.class_path), self.arguments, where=f"model {self.name!r}")

    @property
    def source(self) -> str:
        """Hub id or folder."""
        return str(self.arguments.get("model_path", ""))


def load_model_class(class_path: str) -> type[BaseModel]:
    """The class a name of `MODEL_CLASSES` or a "package.module:Class" stands for. Raises ConfigError."""
    target = MODEL_CLASSES.get(class_path, class_path)
    module_name, _, class_name = target.partition(":")
    if not (module_name and class_name):
        raise UnknownNameError(
            "model class", class_path, MODEL_CLASSES, 'a class of your own is written "my_package.my_module:MyVLM"'
        )
    found = getattr(_import_module(module_name), class_name, None)
    if found is None:
        raise ConfigError(f"{module_name} has no class {class_name!r}")
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise ConfigError(f"{target} is no subclass of vlmeval.vlm.base.BaseModel")
    if found.generate_inner is BaseModel.generate_inner and found.generate_batch is BaseModel.generate_batch:
        raise ConfigError(f"{target} must define generate_inner or generate_batch")
    return found


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"module {name!r} cannot be imported: there is no {error.name!r} in this environment, the working folder "
            "or the config file's folder"
        ) from error
    except SyntaxError as error:
        raise ConfigError(f"module {name!r} cannot be imported: {error}") from error


def check_arguments(cls: type, arguments: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError if `cls` cannot be made with these keyword arguments; names the nearest valid ones."""
    from vlmeval.vlm.generation import GENERATION_ARGUMENTS

    known: set[str] = set()
    open_ended = False
    for ancestor in cls.__mro__:
        parameters = inspect.signature(ancestor).parameters.values() if ancestor is not object else ()
        known |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not (passes_on := any(p.kind is p.VAR_KEYWORD for p in parameters)):
            break
        open_ended = passes_on and not ancestor.__module__.startswith("vlmeval.")
    known -= {"self"}
    for name in arguments:
        if name not in known and name not in GENERATION_ARGUMENTS and not open_ended:
            error = UnknownNameError("key", name, known | GENERATION_ARGUMENTS)
            raise ConfigError(f"{where}: {error}")
    for parameter in inspect.signature(cls).parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and parameter.name not in arguments:
            raise ConfigError(f"{where}: {cls.__name__} needs the key {parameter.name!r}")


def _qwen2_vl() -> Iterator[ModelSpec]:
    sizes = {"2B": True, "7B": True, "72B": False}
    for size, small in sizes.items():
        for variant in ("", "-AWQ", "-GPTQ-Int4", *(["-GPTQ-Int8"] if small else [])):
            name = f"Qwen2-VL-{size}-Instruct{variant}"
            pixels = {"min_pixels": 1280 * 28 * 28, "max_pixels": 16384 * 28 * 28}
            yield ModelSpec(name=name, class_path="Qwen2VLChat", arguments={"model_path": f"Qwen/{name}", **pixels})


def _qwen_relatives() -> Iterator[ModelSpec]:
    pixels = {"min_pixels": 1280 * 28 * 28, "max_pixels": 16384 * 28 * 28}
    for size in ("3B", "7B", "32B", "72B"):
        for name in (f"Qwen2.5-VL-{size}-Instruct", f"Qwen2.5-VL-{size}-Instruct-AWQ"):
            yield ModelSpec(name=name, class_path="Qwen2_5_VLChat", arguments={"model_path": f"Qwen/{name}", **pixels})
    yield ModelSpec(
        name="QVQ-72B-Preview",
        class_path="Qwen2VLChat",
        arguments={
            "model_path": "Qwen/QVQ-72B-Preview",
            **pixels,
            "system_prompt": "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. "
            "You should think step-by-step.",
            "max_new_tokens": 8192,
        },
        notes="reasons at length before it answers",
    )
    for size in ("2B", "4B", "8B", "32B", "30B-A3B", "235B-A22B"):
        for kind, tokens, advice in (
            ("Instruct", 16384, "temperature=0.7, top_p=0.8, top_k=20"),
            ("Thinking", 40960, "temperature=1.0, top_p=0.95, top_k=20"),
        ):
            name = f"Qwen3-VL-{size}-{kind}"
            yield ModelSpec(
                name=name,
                class_path="Qwen3VLChat",
                arguments={"model_path": f"Qwen/{name}", "max_new_tokens": tokens},
                notes=f"greedy here; its makers sample with {advice}",
            )


def _llava_onevision() -> Iterator[ModelSpec]:
    for size in ("0.5b", "7b", "72b"):
        for kind in ("ov", "si"):
            name = f"llava-onevision-qwen2-{size}-{kind}-hf"
            for registered in (name, f"llava_onevision_qwen2_{size}_{kind}"):
                yield ModelSpec(
                    name=registered,
                    class_path="LLaVA_OneVision_HF",
                    arguments={"model_path": f"llava-hf/{name}"},
                    notes="" if registered == name else f"upstream's name for the weights of {name}",
                )


def _llama_vision() -> Iterator[ModelSpec]:
    for size in ("11B", "90B"):
        name = f"Llama-3.2-{size}-Vision-Instruct"
        yield ModelSpec(
            name=name,
            class_path="LlamaVision",
            arguments={"model_path": f"meta-llama/{name}"},
            notes="gated; greedy with the benchmarks' prompts (upstream samples, with chain-of-thought prompts)",
        )


def _internvl() -> Iterator[ModelSpec]:
    original = {
        "InternVL2": ("1B", "2B", "4B", "8B", "8B-MPO", "26B", "40B", "76B"),
        "InternVL2_5": tuple(f"{s}{m}" for s in ("1B", "2B", "4B", "8B", "26B", "38B", "78B") for m in ("", "-MPO")),
        "InternVL3": ("1B", "2B", "8B", "9B", "14B", "38B", "78B"),
    }
    native = {
        "InternVL2_5": ("2B-MPO-hf", "8B-MPO-hf"),
        "InternVL3": tuple(f"{size}-hf" for size in ("1B", "2B", "8B", "14B", "38B", "78B")),
        "InternVL3_5": tuple(f"{size}-HF" for size in ("1B", "2B", "4B", "8B", "14B", "38B", "30B-A3B", "241B-A28B")),
    }
    for layout, note in ((original, "the hub's original layout, without its code"), (native, "transformers' layout")):
        for family, sizes in layout.items():
            for size in sizes:
                name = f"{family}-{size}"
                repo = "InternVL2-Llama3-76B" if name == "InternVL2-76B" else name
                arguments = {"model_path": f"OpenGVLab/{repo}"}
                yield ModelSpec(name=name, class_path="InternVLChat", arguments=arguments, notes=note)


def _demo() -> Iterator[ModelSpec]:
    for name, class_path, parameters in (
        ("Qwen2-VL-Tiny", "Qwen2VLChat", "1.2 M"),
        ("InternVL-Tiny", "InternVLChat", "1.0 M"),
        ("LLaVA-OneVision-Tiny", "LLaVA_OneVision_HF", "1.2 M"),
        ("Llama-Vision-Tiny", "LlamaVision", "1.7 M"),
    ):
        yield ModelSpec(
            name=name,
            class_path=class_path,
            arguments={"model_path": str(DEMO_FOLDER / name), "max_new_tokens": 16},
            notes=f"{parameters} parameters, in the package, trained on ShapesBench",
        )


supported_VLM: dict[str, ModelSpec] = {
    spec.name: spec
    for family in (_demo, _qwen2_vl, _qwen_relatives, _llava_onevision, _llama_vision, _internvl)
    for spec in family()
}
"""Every registered model by name; `supported_VLM["Qwen2-VL-2B-Instruct"]()` makes one."""


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


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """What a --config file asks for: models by name, and datasets by name with their settings ({} = as registered)."""

    models: Mapping[str, ModelSpec]
    datasets: Mapping[str, Mapping[str, Any]]


def read_config_file(path: Path) -> ConfigFile:
    """Read and check a JSON config. Classes of the user's own are looked up beside it and in the working folder.

    Raises ConfigError naming the file, the place in it and the nearest valid names.
    """
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
    for folder in (str(path.parent.resolve()), os.getcwd()):
        if folder not in sys.path:
            sys.path.append(folder)
    models = {name: _model_entry(path, name, entry) for name, entry in _entries(path, data, "model")}
    return ConfigFile(models=models, datasets=dict(_entries(path, data, "data")))


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


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, checked once: what to evaluate on what, and how.

    `limit` counts rows of each dataset from the first; `batch_size` None: as many as fit the cards.
    """

    models: tuple[ModelSpec, ...]
    datasets: tuple[str, ...]
    dataset_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    work_dir: Path = Path("outputs")
    mode: str = "all"
    limit: int | None = None
    batch_size: int | None = None
    seed: int = 0
    reuse: bool = True
    verbose: bool = False
    placement: Placement = field(default_factory=Placement)
    judge: JudgeSettings | None = None
    dry_run: bool = False
    simulate_cards: str = ""
    prediction_format: Literal["xlsx", "tsv", "csv", "json"] = "xlsx"
    evaluation_format: Literal["xlsx", "tsv", "csv", "json"] = "csv"

    def __post_init__(self) -> None:
        if not self.models or not self.datasets:
            missing = "--model" if not self.models else "--data"
            raise UsageError(f"{missing} is missing: name at least one, or give --config a file that does")
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        for name in ("limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed} must be from 0 to 2^63 - 1")
