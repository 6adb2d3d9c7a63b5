"""config.json of an original InternVL folder (model_type `internvl_chat`) as transformers' InternVLConfig."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from vlmeval.errors import ModelError, nearest_names

LANGUAGE_MODELS: Mapping[str, type[PreTrainedConfig]] = {
    "InternLM2ForCausalLM": LlamaConfig,
    "LlamaForCausalLM": LlamaConfig,
    "Phi3ForCausalLM": Phi3Config,
    "Qwen2ForCausalLM": Qwen2Config,
    "Qwen3ForCausalLM": Qwen3Config,
}
"""llm_config.architectures -> the config whose model transformers runs. InternLM2 is Llama under other names."""

_VISION = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "image_size",
           "qkv_bias", "qk_normalization", "norm_type", "layer_norm_eps")  # fmt: skip
_LANGUAGE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def native_config(raw: Mapping[str, Any], *, image_token_id: int, has_output_layer: bool, where: str) -> InternVLConfig:
    """The native configuration of an original folder.

    `has_output_layer` says whether the weight files hold an output layer of their own; a folder without one has it tied
    to the embeddings. Raises ModelError naming the key that is missing or cannot be run.
    """
    _check_vision_settings(raw, where)
    language, vision = _section(raw, "llm_config", _LANGUAGE, where), _section(raw, "vision_config", _VISION, where)
    tied = bool(language.get("tie_word_embeddings", False)) or not has_output_layer
    try:
        return InternVLConfig(
            text_config=_language_config(language, tied, where),
            vision_config=_vision_config(vision),
            image_token_id=image_token_id,
            image_seq_length=tokens_per_tile(raw),
            downsample_ratio=float(raw.get("downsample_ratio", 0.5)),
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            projector_hidden_act="gelu",
            tie_word_embeddings=tied,
        )
    except (StrictDataclassError, TypeError, ValueError) as error:
        # transformers checks each field, and some against each other.
        raise ModelError(f"{where}: config.json describes no model that can be built: {error}") from error


def tile_side(raw: Mapping[str, Any]) -> int:
    """Side of a tile in pixels, 448 in every published checkpoint."""
    return int(raw.get("force_image_size") or raw["vision_config"]["image_size"])


def tokens_per_tile(raw: Mapping[str, Any]) -> int:
    """Image tokens of a tile, 256 in every published checkpoint."""
    patches = tile_side(raw) // int(raw["vision_config"]["patch_size"])
    return int(patches**2 * float(raw.get("downsample_ratio", 0.5)) ** 2)


def _check_vision_settings(raw: Mapping[str, Any], where: str) -> None:
    # Both defaults are those of the original configuration class; what is not written there is meant.
    shuffle = raw.get("ps_version", "v1")
    if shuffle != "v2":
        raise ModelError(
            f"{where}: config.json has ps_version {shuffle!r}; only v2 runs here (v1, of InternVL-Chat 1.x, hands the "
            "image to the language model transposed)"
        )
    layer = raw.get("select_layer", -1)
    if layer != -1:
        raise ModelError(f"{where}: config.json has select_layer {layer}; only -1, the last layer, runs here")


def _section(raw: Mapping[str, Any], name: str, needed: tuple[str, ...], where: str) -> Mapping[str, Any]:
    section = raw.get(name)
    if not isinstance(section, Mapping):
        raise ModelError(f"{where}: config.json has no {name}, so it is no original InternVL checkpoint")
    missing = [key for key in needed if section.get(key) is None]
    if missing:
        raise ModelError(f"{where}: {name} in config.json lacks {', '.join(missing)}")
    return section


def _language_config(language: Mapping[str, Any], tied: bool, where: str) -> PreTrainedConfig:
    names = language.get("architectures") or ["none"]
    cls = LANGUAGE_MODELS.get(names[0])
    if cls is None:
        nearest = nearest_names(names[0], LANGUAGE_MODELS) or list(LANGUAGE_MODELS)
        raise ModelError(f"{where}: the language model {names[0]} cannot be run; nearest: {', '.join(nearest)}")
    # Only fields of the target: the file also holds all the generation settings of transformers 4.37.
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    fields = {field.name for field in dataclasses.fields(cls)} - inherited - {"use_cache"}
    kept = {key: value for key, value in language.items() if key in fields and value is not None}
    for key in ("rope_theta", "rope_scaling"):  # transformers 5 folds these into rope_parameters
        if language.get(key) is not None:
            kept[key] = language[key]
    if names[0] == "InternLM2ForCausalLM":
        kept["attention_bias"] = bool(language.get("bias", False))
    if names[0] == "Phi3ForCausalLM":
        kept.update(_phi3_rope(language))
    return cls(**{**kept, "tie_word_embeddings": tied})


def _phi3_rope(language: Mapping[str, Any]) -> dict[str, Any]:
    """Phi-3's `su` scaling by its later name: transformers 5 checks the name before it would translate it."""
    scaling = language.get("rope_scaling")
    if not scaling or scaling.get("type", scaling.get("rope_type")) not in ("su", "yarn", "longrope"):
        return {}
    factors = {key: value for key, value in scaling.items() if key not in ("type", "rope_type")}
    original = language.get("original_max_position_embeddings", 4096)
    return {"rope_scaling": {**factors, "rope_type": "longrope", "original_max_position_embeddings": original}}


def _vision_config(vision: Mapping[str, Any]) -> InternVLVisionConfig:
    return InternVLVisionConfig(
        hidden_size=vision["hidden_size"],
        intermediate_size=vision["intermediate_size"],
        num_hidden_layers=vision["num_hidden_layers"],
        num_attention_heads=vision["num_attention_heads"],
        attention_bias=vision["qkv_bias"],
        use_qk_norm=vision["qk_normalization"],
        norm_type=vision["norm_type"],
        layer_norm_eps=vision["layer_norm_eps"],
        hidden_act=vision.get("hidden_act", "gelu"),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        num_channels=vision.get("num_channels", 3),
        # Pooling on means: no norm after the last layer, as in the original.
        use_mean_pooling=True,
        use_mask_token=False,
        use_absolute_position_embeddings=True,
    )
