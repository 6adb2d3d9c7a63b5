"""A model on meta as ordered blocks with their sizes: what planning needs to know of it, derived from its modules.

Which part of the model is a block, and in which order they run, is told by pieces.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlmeval.errors import ModelError
from vlmeval.placement.pieces import Piece, named_part, ordered_pieces
from vlmeval.placement.profile import Block, ModelProfile, Shapes

if TYPE_CHECKING:
    import torch


def config_of(raw: Mapping[str, Any]) -> Any:
    """transformers' config object of a config.json. Raises ModelError for one that is none."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    values = {name: value for name, value in raw.items() if name != "model_type"}
    try:
        return AutoConfig.for_model(raw["model_type"], **values)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"config.json of {raw.get('model_type')!r} cannot be read: {error}") from error


def meta_model(config: Any, class_name: str) -> torch.nn.Module:
    """The model of a config without memory for a single weight. Raises ModelError for a config that builds none."""
    import torch
    import transformers

    cls = getattr(transformers, class_name, None)
    if cls is None:
        raise ModelError(f"transformers {transformers.__version__} has no class {class_name}")
    try:
        with _without_initialisation(), torch.device("meta"):
            model = cls._from_config(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError) as error:
        raise ModelError(f"the config builds no {class_name}: {error}") from error
    model.tie_weights()
    return model.eval()


@contextlib.contextmanager
def _without_initialisation() -> Iterator[None]:
    from transformers import initialization

    with getattr(initialization, "no_init_weights", contextlib.nullcontext)():
        yield


def derive_profile(model: torch.nn.Module) -> ModelProfile:
    """The profile of a model on meta (or anywhere else)."""
    import transformers

    model_type = str(_config(model).model_type)
    pieces = ordered_pieces(model, model_type)
    sizes = _Sizes(model)
    blocks = tuple(sizes.block(piece) for piece in pieces)
    return ModelProfile(
        class_name=type(model).__name__,
        model_type=model_type,
        blocks=blocks,
        shapes=_shapes(_config(model), blocks),
        ties=sizes.ties,
        transformers=transformers.__version__,
    )


@dataclass
class _Counts:
    linear: int = 0
    other: int = 0
    buffer_bytes: int = 0
    routed: int = 0
    shapes: list[tuple[int, int]] = field(default_factory=list)
    """Inner and outer size of each linear layer."""


class _Sizes:
    """Counts parameters once, tied ones where they come first."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        text = _config(model).get_text_config(decoder=True)
        self.experts = _first(text, "num_experts", "num_local_experts", "n_routed_experts")
        self.experts_per_token = _first(text, "num_experts_per_tok") or 0
        self.expert_width = _first(text, "moe_intermediate_size", "intermediate_size") or 0
        self.routed = self.experts_per_token * (_first(text, "hidden_size", "n_embd", "d_model") or 0)
        self.seen: set[int] = set()
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        self.ties = tuple(tuple(group) for group in names.values() if len(group) > 1)

    def block(self, piece: Piece) -> Block:
        import torch

        found = _Counts()
        for key in piece.modules:
            part = named_part(self.model, key)
            if isinstance(part, torch.nn.Module):
                for module in part.modules():
                    self._count_module(module, found)
            elif isinstance(part, torch.nn.Parameter):
                found.other += self._once(part)
            else:
                found.buffer_bytes += _bytes(part)
        # Quantisers leave vision, embeddings and the output layer as they are.
        packed = found.linear if piece.role in ("layer", "cross_layer") else 0
        return Block(
            name=piece.name,
            role=piece.role,
            modules=tuple(piece.modules),
            parameters=found.other + found.linear - packed,
            linear_parameters=packed,
            buffer_bytes=found.buffer_bytes,
            width=min((inner for inner, _ in found.shapes), default=0),
            widest=_widest(found.shapes),
            routed=found.routed,
        )

    def _count_module(self, module: torch.nn.Module, found: _Counts) -> None:
        """What a module holds itself. Experts are kept as one tensor of three dimensions, without a Linear."""
        import torch

        if isinstance(module, torch.nn.Linear):
            found.shapes.append((module.in_features, module.out_features))
        for name, parameter in module.named_parameters(recurse=False):
            are_experts = self._are_experts(parameter)
            if are_experts:
                found.shapes.append((max(parameter.shape[1:]), self.experts_per_token * self.expert_width))
                found.routed = self.routed
            if are_experts or (isinstance(module, torch.nn.Linear) and name == "weight"):
                found.linear += self._once(parameter)
            else:
                found.other += self._once(parameter)
        found.buffer_bytes += sum(_bytes(tensor) for tensor in module.buffers(recurse=False))

    def _are_experts(self, parameter: torch.Tensor) -> bool:
        # A tower's position embeddings have three dimensions too, the first of them 1.
        if parameter.dim() != 3 or not self.experts_per_token:
            return False
        return self.experts in (None, parameter.shape[0])

    def _once(self, parameter: torch.nn.Parameter) -> int:
        if id(parameter) in self.seen:
            return 0
        self.seen.add(id(parameter))
        return parameter.numel()


def _widest(shapes: Sequence[tuple[int, int]]) -> int:
    """The widest inner size of a layer. Where one linear layer makes gate and up side by side (Phi-3, GLM-4), they take
    twice the inner size and their product once each half: two thirds of three times what that layer gives."""
    widest = max((outer for _, outer in shapes), default=0)
    outers, inners = {outer for _, outer in shapes}, {inner for inner, _ in shapes}
    is_fused = (
        2 * (widest // 2) == widest and widest // 2 in inners and widest // 2 not in outers and widest not in inners
    )
    return -(-2 * widest // 3) if is_fused else widest


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _shapes(config: Any, blocks: Sequence[Block]) -> Shapes:
    text = config.get_text_config(decoder=True)
    vision = getattr(config, "vision_config", None)
    heads = _first(text, "num_attention_heads", "n_head") or 1
    hidden = _first(text, "hidden_size", "n_embd", "d_model") or 0
    return Shapes(
        hidden=hidden,
        heads=heads,
        kv_heads=_first(text, "num_key_value_heads") or heads,
        head_dim=_first(text, "head_dim") or hidden // heads,
        vocabulary=_first(text, "vocab_size") or 0,
        layers=sum(block.role in ("layer", "cross_layer") for block in blocks),
        vision_hidden=_first(vision, "embed_dim", "hidden_size", "width") or 0,
        vision_layers=sum(
            module.rpartition(".")[2].isdigit() for block in blocks if block.is_vision for module in block.modules
        ),
        writes_scores=getattr(text, "_attn_implementation", None) == "eager",
    )


def _config(model: torch.nn.Module) -> Any:
    """The model's configuration; torch's own types know nothing of it."""
    config: Any = model.config
    return config


def _first(config: Any, *names: str) -> int | None:
    for name in names:
        value = getattr(config, name, None) if config is not None else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
