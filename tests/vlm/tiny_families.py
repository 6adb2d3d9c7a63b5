"""Tiny random checkpoints of every family, written in seconds, in the layout of the hub."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from vlmeval.demo import chat_templates, checkpoints

HIDDEN, VISION_HIDDEN = 64, 48


@functools.cache
def _qwen_tokenizer() -> Any:
    return checkpoints.build("qwen2vl")[0].tokenizer


def _qwen_processor(processor_class: Any, patch_size: int) -> Any:
    """Qwen2-VL's tokenizer and image processor as a relative uses them; small pictures keep their own sizes."""
    side = 2 * patch_size
    size = {"shortest_edge": 4 * side**2, "longest_edge": 16 * side**2}
    return processor_class(
        image_processor=transformers.Qwen2VLImageProcessor(size=size, patch_size=patch_size),
        tokenizer=_qwen_tokenizer(),
        video_processor=transformers.Qwen2VLVideoProcessor(size=size, patch_size=patch_size),
        chat_template=chat_templates.QWEN2_VL,
    )


def _qwen_config(config_class: Any, tokenizer: Any, text: Mapping[str, Any], vision: Mapping[str, Any]) -> Any:
    token_id = tokenizer.convert_tokens_to_ids
    return config_class(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "initializer_range": 0.1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **text,
        },
        vision_config={
            "depth": 2,
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": 96,
            "num_heads": 3,
            "out_hidden_size": HIDDEN,
            "initializer_range": 0.1,
            **vision,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def _qwen2_5_vl() -> tuple[Any, Any]:
    processor = _qwen_processor(transformers.Qwen2_5_VLProcessor, 14)
    # Windows of two by two merged patches, and one layer that sees the whole picture.
    vision = {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    config = _qwen_config(transformers.Qwen2_5_VLConfig, processor.tokenizer, {}, vision)
    return processor, transformers.Qwen2_5_VLForConditionalGeneration(config)


_QWEN3_VISION = {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}


def _qwen3_text() -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    return {"head_dim": 16, "rope_parameters": rope}


def _qwen3_vl() -> tuple[Any, Any]:
    processor = _qwen_processor(transformers.Qwen3VLProcessor, 16)
    config = _qwen_config(transformers.Qwen3VLConfig, processor.tokenizer, _qwen3_text(), _QWEN3_VISION)
    return processor, transformers.Qwen3VLForConditionalGeneration(config)


def _qwen3_vl_moe() -> tuple[Any, Any]:
    processor = _qwen_processor(transformers.Qwen3VLProcessor, 16)
    text = {**_qwen3_text(), "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = _qwen_config(transformers.Qwen3VLMoeConfig, processor.tokenizer, text, _QWEN3_VISION)
    return processor, transformers.Qwen3VLMoeForConditionalGeneration(config)


def _demo(family: str) -> Callable[[], tuple[Any, Any]]:
    return lambda: checkpoints.build(family)


BUILDERS: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "qwen2_vl": _demo("qwen2vl"),
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe,
    "llava_onevision": _demo("llava_onevision"),
    "mllama": _demo("mllama"),
    "internvl": _demo("internvl"),
}
"""model_type -> processor and random model."""


def write(family: str, folder: Path) -> Path:
    """Write a family's checkpoint into a folder, in fp32."""
    torch.manual_seed(0)
    processor, model = BUILDERS[family]()
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = transformers.GenerationConfig(
        # What shipped checkpoints have, and what must not leak into an evaluation.
        do_sample=True,
        temperature=0.7,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
