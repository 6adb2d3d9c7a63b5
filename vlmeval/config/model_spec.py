"""A named model: a class and its arguments, checked before anything is loaded."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from vlmeval.errors import ConfigError, UnknownNameError
from vlmeval.vlm.base import BaseModel

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


def _import_module(name: str) -> ModuleType:
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
