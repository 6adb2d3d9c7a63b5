"""The module tree of a model, in the order data flows: what comes before the layers, each layer, what comes behind.

The derivation is the same for every architecture transformers knows: the language model is the module that owns the
input embeddings; everything before it is vision; a piece is one element of a list of layers, or a module named by
`_no_split_modules`; what lies beside the layers (embeddings, norms, mergers, rotary tables, bare parameters such as
`image_newline`) goes with the piece before or behind which it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlmeval.errors import ModelError
from vlmeval.placement.profile import Role

if TYPE_CHECKING:
    import torch

TOWERS_LEFT_WHOLE: Mapping[str, str] = {
    "mllama": "its vision model stacks hidden states of many layers (torch.stack in modeling_mllama.py)",
}
"""model_type -> why its vision tower cannot be cut between two cards."""
BEHIND_THE_LAYERS = ("merger", "post", "head", "pooler", "final", "neck")
"""Parts of a tower with these in their names are used behind its layers, wherever they are defined."""
BEFORE_THE_LAYERS = ("rotary", "rope", "embed")
"""Parts with these in their names are used before the layers, wherever they are defined (but an "embedding_norm")."""
BEHIND_THE_PATCHES = ("post_conv",)
"""So are these: GLM-4V's norm behind the patches' convolution is defined behind the layers."""
FEWEST_LAYERS = 2


@dataclass
class Piece:
    """A block without its sizes: `modules` are its keys of a device_map."""

    name: str
    role: Role
    modules: list[str] = field(default_factory=list)


@dataclass
class _Side:
    """What a walk finds in one part of the model: keys before the layers, the layers, and keys behind them."""

    before: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


def ordered_pieces(model: torch.nn.Module, model_type: str) -> list[Piece]:
    """The pieces that cover every tensor of the model. Raises ModelError where its layers cannot be told."""
    text, embeddings, head = _language_parts(model)
    vision, projector = _Side(), []
    language = _Side()
    tower = _tower_name(model, text)
    for key in _children_outside(model, text, head):
        if tower and (key == tower or key.startswith(tower + ".")):
            _walk(model, key, vision)
        else:
            projector.append(key)
    _walk(model, text, language, skip={embeddings})
    tied = _is_tied(model, embeddings, head)
    pieces = _vision_pieces(model_type, vision, projector)
    # Rotary tables are made of what the embeddings' card has, and brought to the layers with everything else they need;
    # on the first layer's card they would cost two more copies a token where a cut falls in between.
    first = [embeddings, *language.before, *([head] if head and tied else [])]
    pieces.append(Piece("embeddings", "embeddings", first))
    for number, layer in enumerate(language.layers):
        role: Role = "cross_layer" if _is_cross_attention(model, layer) else "layer"
        pieces.append(Piece(f"layer.{number}", role, [layer]))
    behind = [*language.behind, *([head] if head and not tied else [])]
    if not language.layers:
        raise ModelError(f"{type(model).__name__} shows no list of layers under {text!r}, so it cannot be planned")
    pieces.append(Piece("head", "head", behind))
    return [piece for piece in pieces if piece.modules]


def _vision_pieces(model_type: str, vision: _Side, projector: list[str]) -> list[Piece]:
    if model_type in TOWERS_LEFT_WHOLE or not vision.layers:
        whole = Piece("vision tower", "vision_tower", [*vision.before, *vision.layers, *vision.behind])
        return [whole, Piece("projector", "projector", projector)]
    pieces = [Piece("vision entry", "vision_entry", vision.before)]
    pieces += [Piece(f"vision.{i}", "vision_layer", [layer]) for i, layer in enumerate(vision.layers)]
    return [*pieces, Piece("projector", "projector", [*vision.behind, *projector])]


def _language_parts(model: torch.nn.Module) -> tuple[str, str, str]:
    """Names of the language model, its embeddings, and the output layer ("" where the model has none of its own)."""
    names = {id(module): name for name, module in model.named_modules()}
    owner: Any = model
    inputs, outputs = owner.get_input_embeddings(), owner.get_output_embeddings()
    embeddings = names.get(id(inputs), "") if inputs is not None else ""
    if not embeddings or "." not in embeddings:
        raise ModelError(f"{type(model).__name__}: its input embeddings are no module of a language model")
    text = embeddings.rpartition(".")[0]
    # Some keep the embeddings one level below the layers ("language_model.embeddings.word").
    while text and not _layer_lists(model, text):
        text = text.rpartition(".")[0]
    return text, embeddings, names.get(id(outputs), "") if outputs is not None else ""


def _children_outside(model: torch.nn.Module, text: str, head: str) -> list[str]:
    """Keys covering everything but the language model and the output layer, in the module tree's order."""
    keys: list[str] = []

    def visit(name: str) -> None:
        module = model.get_submodule(name)
        keys.extend(_own_tensors(module, name))
        for child, _ in module.named_children():
            full = f"{name}.{child}" if name else child
            if full in (text, head):
                continue
            if any(part and part.startswith(full + ".") for part in (text, head)):
                visit(full)
            elif _has_tensors(model.get_submodule(full)):
                keys.append(full)

    visit("")
    return keys


def _tower_name(model: torch.nn.Module, text: str) -> str:
    """The part outside the language model with most parameters; one that owns a list of layers goes first."""
    import torch

    parts = {key: named_part(model, key) for key in _children_outside(model, text, "")}
    sizes = {key: _count(part) for key, part in parts.items() if isinstance(part, torch.nn.Module)}
    return max(sizes, key=lambda key: (bool(_layer_lists(model, key)), sizes[key]), default="")


def _walk(model: torch.nn.Module, name: str, side: _Side, skip: Iterable[str] = ()) -> None:
    """Sort what is under `name` into before, layers and behind; whatever is no list of layers stays in one piece."""
    lists = _layer_lists(model, name)
    if not lists:
        side.before.append(name)
        return
    module = model.get_submodule(name)
    side.before.extend(_own_tensors(module, name))
    for child, part in module.named_children():
        full = f"{name}.{child}"
        if full in skip or not _has_tensors(part):
            continue
        if full in lists:
            side.layers.extend(f"{full}.{number}" for number, _ in part.named_children())
        elif any(found.startswith(full + ".") for found in lists):
            _walk(model, full, side, skip)
        elif _is_behind(child, bool(side.layers), bool(skip)):
            side.behind.append(full)
        else:
            side.before.append(full)


def _is_behind(child: str, after_layers: bool, is_language: bool) -> bool:
    """Whether a part beside the layers is used behind them: by the order it is defined in, unless its name tells."""
    is_early = any(word in child for word in BEFORE_THE_LAYERS) and "norm" not in child
    if is_early or any(word in child for word in BEHIND_THE_PATCHES):
        return False
    named = not is_language and any(word in child for word in BEHIND_THE_LAYERS) and "pre" not in child.split("_")
    return after_layers or named


def _layer_lists(model: torch.nn.Module, under: str) -> set[str]:
    """Lists of layers under a module: those whose elements must not be split, else the longest; none inside another."""
    import torch

    unsplit = set(getattr(model, "_no_split_modules", None) or ())
    lists = {
        f"{under}.{name}" if under and name else under or name: module
        for name, module in model.get_submodule(under).named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) >= FEWEST_LAYERS
    }
    named = {name for name, module in lists.items() if type(module[0]).__name__ in unsplit}
    found = named or set(sorted(lists, key=lambda name: -_count(lists[name]))[:1])
    return {name for name in found if not any(name.startswith(other + ".") for other in found)}


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _own_tensors(module: torch.nn.Module, name: str) -> list[str]:
    tensors = {**module._parameters, **module._buffers}
    return [f"{name}.{key}" if name else key for key, value in tensors.items() if value is not None]


def _has_tensors(module: torch.nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _is_tied(model: torch.nn.Module, embeddings: str, head: str) -> bool:
    if not head:
        return False
    own, other = (getattr(model.get_submodule(name), "weight", None) for name in (embeddings, head))
    return own is not None and own is other


def _is_cross_attention(model: torch.nn.Module, layer: str) -> bool:
    return any(name.rpartition(".")[2] == "cross_attn" for name, _ in model.get_submodule(layer).named_modules())


def named_part(model: torch.nn.Module, key: str) -> torch.nn.Module | torch.Tensor:
    """The module, parameter or buffer of that name."""
    owner, _, leaf = key.rpartition(".")
    part: torch.nn.Module | torch.Tensor = getattr(model.get_submodule(owner), leaf)
    return part
