"""Models on the meta device with the sizes of the published checkpoints, and a prompt with one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

TEXT_TOKENS = 100
TILES = 5
"""Of an InternVL picture: four and the thumbnail."""
VISION_300M = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
VISION_6B = {
    "hidden_size": 3200,
    "num_hidden_layers": 45,
    "num_attention_heads": 25,
    "intermediate_size": 12800,
    "use_qk_norm": True,
    "norm_type": "rms_norm",
}


def _text(hidden: int, feed_forward: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
    }


def _qwen2vl(text: dict[str, Any]) -> Any:
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    return transformers.Qwen2VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config={"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": text["hidden_size"]},
    )


def _llava_onevision(text: dict[str, Any]) -> Any:
    siglip = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16}
    return transformers.LlavaOnevisionConfig(
        text_config={**text, "model_type": "qwen2"},
        vision_config={
            **siglip,
            "model_type": "siglip_vision_model",
            "patch_size": 14,
            "image_size": 384,
            "vision_use_head": False,
        },
        image_token_index=151646,
        vision_feature_layer=-1,
    )


def _mllama(text: dict[str, Any]) -> Any:
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }
    cross = list(range(3, text["num_hidden_layers"], 5))
    return transformers.MllamaConfig(
        text_config={**text, "cross_attention_layers": cross, "rope_parameters": rope},
        vision_config={"image_size": 560, "vision_output_dim": 7680},
    )


def _internvl(vision: Mapping[str, Any], text: dict[str, Any]) -> Any:
    return transformers.InternVLConfig(
        vision_config={**vision, "image_size": 448, "patch_size": 14, "attention_bias": vision is VISION_300M},
        text_config={**text, "model_type": "llama"},
        image_token_id=text["vocab_size"] - 7,
        image_seq_length=256,
    )


CONFIGS: Mapping[str, Callable[[], Any]] = {
    "Qwen2-VL-7B": lambda: _qwen2vl(_text(3584, 18944, 28, 28, 4, 152064)),
    "Qwen2-VL-72B": lambda: _qwen2vl(_text(8192, 29568, 80, 64, 8, 152064)),
    "LLaVA-OneVision-7B": lambda: _llava_onevision(_text(3584, 18944, 28, 28, 4, 152000)),
    "LLaVA-OneVision-72B": lambda: _llava_onevision(_text(8192, 29568, 80, 64, 8, 152000)),
    "Llama-3.2-11B-Vision": lambda: _mllama(_text(4096, 14336, 40, 32, 8, 128256)),
    "Llama-3.2-90B-Vision": lambda: _mllama(_text(8192, 28672, 100, 64, 8, 128256)),
    "InternVL2-8B": lambda: _internvl(VISION_300M, _text(4096, 14336, 32, 32, 8, 92553)),
    "InternVL2-26B": lambda: _internvl(VISION_6B, _text(6144, 16384, 48, 48, 8, 92553)),
    "InternVL2-76B": lambda: _internvl(VISION_6B, _text(8192, 28672, 80, 64, 8, 128265)),
}


def build(name: str) -> Any:
    """The model in bf16 on meta."""
    config = CONFIGS[name]()
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model_class = getattr(transformers, type(config).__name__.replace("Config", "ForConditionalGeneration"))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = model_class(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def inputs(model: Any) -> dict[str, torch.Tensor]:
    """One picture and some text: token ids with their numbers, pixels as a shape."""
    kind, config = type(model.config).__name__, model.config
    pixels, more, image_tokens = {
        "Qwen2VLConfig": ((5120, 1176), {"image_grid_thw": torch.tensor([[1, 64, 80]])}, 1280),
        "LlavaOnevisionConfig": ((1, 2, 3, 384, 384), {"image_sizes": torch.tensor([[384, 384]])}, 729 + 27 * 28),
        "InternVLConfig": ((TILES, 3, 448, 448), {}, 256 * TILES),
        "MllamaConfig": ((1, 1, 4, 3, 560, 560), _mllama_inputs(), 1),
    }[kind]
    image_token = config.image_token_id if hasattr(config, "image_token_id") else config.image_token_index
    if kind == "MllamaConfig":
        image_token = config.text_config.vocab_size - 1
    ids = torch.full((1, TEXT_TOKENS + image_tokens), 11)
    ids[0, 20 : 20 + image_tokens] = image_token
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}
    if kind == "Qwen2VLConfig":
        made["mm_token_type_ids"] = (ids == image_token).int()
    return {**made, "pixel_values": torch.empty(pixels, dtype=torch.bfloat16, device="meta")}


def _mllama_inputs() -> dict[str, torch.Tensor]:
    return {
        "aspect_ratio_ids": torch.tensor([[6]]),
        "aspect_ratio_mask": torch.ones(1, 1, 4, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, TEXT_TOKENS + 1, 1, 4, dtype=torch.long),
    }
