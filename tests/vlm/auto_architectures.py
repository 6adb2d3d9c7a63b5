"""Architectures of transformers, each built tiny and random with its own processor, and put through AutoVLM.

`python -m tests.vlm.auto_architectures > docs/auto_architectures.md` writes the table. Nothing is fetched: one
byte-level tokenizer serves all of them; the processors and configs are transformers' own classes with small numbers.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from vlmeval.errors import VLMEvalError
from vlmeval.types import ImagePart, Message, TextPart
from vlmeval.vlm.architectures import image_text_classes
from vlmeval.vlm.auto import ONE_BY_ONE, AutoVLM

tf: Any = transformers
SIDE, PATCH = 28, 14
Pair = tuple[Any, Any]
"""A processor and a config."""


def tokenizer(*special: str, **named: str) -> Any:
    """Bytes as tokens, these special tokens behind them; `image_token="<image>"` also gives it that attribute."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *alphabet])}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    found = tf.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens=named, padding_side="left", model_max_length=4096,
    )  # fmt: skip
    found.add_tokens([token for token in special if token not in found.get_vocab()], special_tokens=True)
    return found


def template(image: str) -> str:
    """Turns as `role: parts`, an image part as this text."""
    return (
        "{% for m in messages %}{{ m.role }}: {% for part in m.content %}"
        "{% if part.type == 'image' %}"
        + image
        + "{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )


def text(words: Any, model_type: str | None = "llama", **more: Any) -> dict[str, Any]:
    """A language model of two layers."""
    kind = {"model_type": model_type} if model_type else {}
    sizes = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
    }  # fmt: skip
    return {**kind, **sizes, **more}


def tower(model_type: str | None = "clip_vision_model", **more: Any) -> dict[str, Any]:
    """A vision tower of two layers."""
    kind = {"model_type": model_type} if model_type else {}
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": PATCH, "initializer_range": 0.3,
    }  # fmt: skip
    return {**kind, **sizes, **more}


def ids(words: Any, **tokens: str) -> dict[str, int]:
    """`image_token_id="<image>"` as ids."""
    return {name: words.convert_tokens_to_ids(token) for name, token in tokens.items()}


SQUARE = {"height": SIDE, "width": SIDE}


def _llava_processor(kind: Any, image_processor: Any, words: Any, **more: Any) -> Any:
    return kind(
        image_processor=image_processor, tokenizer=words, patch_size=PATCH, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=template("<image>"), **more,
    )  # fmt: skip


def llava() -> Pair:
    words = tokenizer("<image>")
    pictures = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    config = tf.LlavaConfig(vision_config=tower(), text_config=text(words), **ids(words, image_token_index="<image>"))
    return _llava_processor(tf.LlavaProcessor, pictures, words), config


def vipllava() -> Pair:
    words = tokenizer("<image>")
    pictures = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    config = tf.VipLlavaConfig(
        vision_config=tower(), text_config=text(words), vision_feature_layers=[-1, -2],
        **ids(words, image_token_index="<image>"),
    )  # fmt: skip
    return _llava_processor(tf.LlavaProcessor, pictures, words), config


def llava_next() -> Pair:
    words, pinpoints = tokenizer("<image>"), [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    pictures = tf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=SQUARE, image_grid_pinpoints=pinpoints
    )
    config = tf.LlavaNextConfig(
        vision_config=tower(), text_config=text(words), image_grid_pinpoints=pinpoints,
        **ids(words, image_token_index="<image>"),
    )  # fmt: skip
    return _llava_processor(tf.LlavaNextProcessor, pictures, words), config


QWEN = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
QWEN_VISION = ("<|vision_start|>", "<|vision_end|>")
QWEN_TEMPLATE = template("<|vision_start|><|image_pad|><|vision_end|>")
PIXELS = {"shortest_edge": 16 * SIDE**2 // 4, "longest_edge": 16 * SIDE**2}


def _qwen_ids(words: Any) -> dict[str, int]:
    return ids(
        words, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>", vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )  # fmt: skip


def _qwen_processor(kind: Any, words: Any, video: Any = None, **sizes: Any) -> Any:
    return kind(
        image_processor=tf.Qwen2VLImageProcessor(size=PIXELS, **sizes), tokenizer=words,
        video_processor=(video or tf.Qwen2VLVideoProcessor)(size=PIXELS, **sizes), chat_template=QWEN_TEMPLATE,
    )  # fmt: skip


MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def qwen2_5_vl() -> Pair:
    words = tokenizer(*QWEN_VISION, **QWEN)
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
        "fullatt_block_indexes": [1], "window_size": 56, "patch_size": 14,
    }  # fmt: skip
    config = tf.Qwen2_5_VLConfig(
        text_config=text(words, None, rope_parameters=MROPE), vision_config=vision, **_qwen_ids(words)
    )
    return _qwen_processor(tf.Qwen2_5_VLProcessor, words), config


def _qwen3_vision() -> dict[str, Any]:
    return {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
        "patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip


def qwen3_vl() -> Pair:
    words = tokenizer(*QWEN_VISION, **QWEN)
    config = tf.Qwen3VLConfig(
        text_config=text(words, None, rope_parameters=MROPE), vision_config=_qwen3_vision(), **_qwen_ids(words)
    )
    return _qwen_processor(tf.Qwen3VLProcessor, words, tf.Qwen3VLVideoProcessor, patch_size=16), config


MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def qwen3_vl_moe() -> Pair:
    words = tokenizer(*QWEN_VISION, **QWEN)
    config = tf.Qwen3VLMoeConfig(
        text_config=text(words, None, rope_parameters=MROPE, **MOE), vision_config=_qwen3_vision(), **_qwen_ids(words)
    )
    return _qwen_processor(tf.Qwen3VLProcessor, words, tf.Qwen3VLVideoProcessor, patch_size=16), config


def qwen3_5() -> Pair:
    words = tokenizer(*QWEN_VISION, **QWEN)
    linear = {
        "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    }  # fmt: skip
    vision = {k: v for k, v in _qwen3_vision().items() if k != "deepstack_visual_indexes"}
    rope = {**MROPE, "partial_rotary_factor": 1.0, "mrope_interleaved": True}
    config = tf.Qwen3_5Config(
        text_config=text(words, None, rope_parameters=rope, **linear), vision_config=vision, **_qwen_ids(words)
    )
    return _qwen_processor(tf.Qwen3VLProcessor, words, tf.Qwen3VLVideoProcessor, patch_size=16), config


IDEFICS = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<image>")


def idefics2() -> Pair:
    words = tokenizer(*IDEFICS)
    pictures = tf.Idefics2ImageProcessor(size={"longest_edge": 56, "shortest_edge": SIDE}, do_image_splitting=False)
    processor = tf.Idefics2Processor(pictures, words, image_seq_len=4, chat_template=template("<image>"))
    perceiver = {
        "hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 4,
        "resampler_head_dim": 8, "num_key_value_heads": 2,
    }  # fmt: skip
    config = tf.Idefics2Config(
        text_config=text(words, "mistral"), vision_config=tower(None, image_size=56), perceiver_config=perceiver,
        **ids(words, image_token_id="<image>"),
    )  # fmt: skip
    return processor, config


def idefics3() -> Pair:
    words = tokenizer(*IDEFICS)
    pictures = tf.Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": SIDE})
    processor = tf.Idefics3Processor(pictures, words, image_seq_len=1, chat_template=template("<image>"))
    config = tf.Idefics3Config(
        text_config=text(words), vision_config=tower(None), scale_factor=2, **ids(words, image_token_id="<image>")
    )
    return processor, config


def smolvlm() -> Pair:
    words = tokenizer(
        *IDEFICS, image_token="<image>", fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>", end_of_utterance_token="<end_of_utterance>",
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": SIDE}}
    processor = tf.SmolVLMProcessor(
        tf.SmolVLMImageProcessor(**sizes), words, tf.SmolVLMVideoProcessor(**sizes), image_seq_len=1,
        chat_template=template("<image>"),
    )  # fmt: skip
    config = tf.SmolVLMConfig(
        text_config=text(words), vision_config=tower(None), scale_factor=2, **ids(words, image_token_id="<image>")
    )
    return processor, config


def gemma3() -> Pair:
    words = tokenizer(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>")
    pictures = tf.Gemma3ImageProcessor(size=SQUARE, do_pan_and_scan=False)
    processor = tf.Gemma3Processor(
        pictures, words, image_seq_length=4, chat_template="{{ bos_token }}" + template("<start_of_image>")
    )
    config = tf.Gemma3Config(
        text_config=text(words, None, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
        vision_config=tower(None), mm_tokens_per_image=4,
        **ids(words, image_token_index="<image_soft_token>", boi_token_index="<start_of_image>",
              eoi_token_index="<end_of_image>"),
    )  # fmt: skip
    return processor, config


def mistral3() -> Pair:
    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    pictures = tf.PixtralImageProcessor(size={"longest_edge": 56}, patch_size=PATCH)
    processor = tf.PixtralProcessor(
        pictures, words, patch_size=PATCH, spatial_merge_size=2, chat_template=template("[IMG]")
    )
    config = tf.Mistral3Config(
        text_config=text(words, "mistral"), vision_config=tower("pixtral", head_dim=8, image_size=56),
        spatial_merge_size=2, **ids(words, image_token_index="[IMG]"),
    )  # fmt: skip
    return processor, config


def pixtral() -> Pair:
    """Pixtral 12B: the same pictures in a LLaVA."""
    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    pictures = tf.PixtralImageProcessor(size={"longest_edge": 56}, patch_size=PATCH)
    processor = tf.PixtralProcessor(pictures, words, patch_size=PATCH, chat_template=template("[IMG]"))
    config = tf.LlavaConfig(
        text_config=text(words, "mistral"), vision_config=tower("pixtral", head_dim=8, image_size=56),
        vision_feature_layer=-1, vision_feature_select_strategy="full", **ids(words, image_token_index="[IMG]"),
    )  # fmt: skip
    return processor, config


def paligemma() -> Pair:
    words = tokenizer(*(f"<loc{i:04}>" for i in range(4)), image_token="<image>")
    pictures = tf.SiglipImageProcessor(size=SQUARE)
    pictures.image_seq_length = 4
    config = tf.PaliGemmaConfig(
        text_config=text(words, "gemma"), vision_config=tower("siglip_vision_model", num_image_tokens=4),
        projection_dim=32, **ids(words, image_token_index="<image>"),
    )  # fmt: skip
    return tf.PaliGemmaProcessor(pictures, words), config


def aya_vision() -> Pair:
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "<image>")
    words = tokenizer(*marks, "TILE", "TILE_GLOBAL")
    pictures = tf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=2)
    processor = tf.AyaVisionProcessor(
        pictures, words, patch_size=PATCH, img_size=SIDE, downsample_factor=2, chat_template=template("<image>")
    )
    config = tf.AyaVisionConfig(
        text_config=text(words, "cohere2"), vision_config=tower("siglip_vision_model"), downsample_factor=2,
        adapter_layer_norm_eps=1e-6, alignment_intermediate_size=64, **ids(words, image_token_index="<|IMG_PATCH|>"),
    )  # fmt: skip
    return processor, config


def cohere2_vision() -> Pair:
    words = tokenizer(
        image_token="<|IMG_PATCH|>", boi_token="<|START_OF_IMG|>", eoi_token="<|END_OF_IMG|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )  # fmt: skip
    pictures = tf.Cohere2VisionImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=2, patch_size=1)
    processor = tf.Cohere2VisionProcessor(pictures, words, chat_template=template("<|IMG_PATCH|>"))
    config = tf.Cohere2VisionConfig(
        text_config=text(words, "cohere2"), vision_config=tower("siglip_vision_model"), downsample_factor=2,
        alignment_intermediate_size=64, **ids(words, image_token_id="<|IMG_PATCH|>"),
    )  # fmt: skip
    return processor, config


GLM = {"image_token": "<|image|>", "video_token": "<|video|>"}
GLM_MARKS = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>")


def _glm_ids(words: Any) -> dict[str, int]:
    return ids(
        words, image_token_id="<|image|>", video_token_id="<|video|>", image_start_token_id="<|begin_of_image|>",
        image_end_token_id="<|end_of_image|>", video_start_token_id="<|begin_of_video|>",
        video_end_token_id="<|end_of_video|>",
    )  # fmt: skip


def _glm_processor(name: str, words: Any) -> Any:
    sizes = {"size": {"shortest_edge": SIDE**2, "longest_edge": 16 * SIDE**2}}
    return getattr(tf, f"{name}Processor")(
        image_processor=getattr(tf, f"{name}ImageProcessor")(**sizes), tokenizer=words,
        video_processor=getattr(tf, f"{name}VideoProcessor")(**sizes),
        chat_template=template("<|begin_of_image|><|image|><|end_of_image|>"),
    )  # fmt: skip


def _glm_vision() -> dict[str, Any]:
    return {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
        "image_size": 56, "patch_size": 14,
    }  # fmt: skip


def glm4v() -> Pair:
    words = tokenizer(*GLM_MARKS, **GLM)
    config = tf.Glm4vConfig(
        text_config=text(words, None, rope_parameters=MROPE), vision_config=_glm_vision(), **_glm_ids(words)
    )
    return _glm_processor("Glm4v", words), config


WHOLE = {**MROPE, "partial_rotary_factor": 1.0}


def glm4v_moe() -> Pair:
    words = tokenizer(*GLM_MARKS, **GLM)
    moe = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
    config = tf.Glm4vMoeConfig(
        text_config=text(words, None, rope_parameters=WHOLE, n_shared_experts=1, n_group=1, topk_group=1, **moe),
        vision_config=_glm_vision(), **_glm_ids(words),
    )  # fmt: skip
    return _glm_processor("Glm4v", words), config


def glm46v() -> Pair:
    words = tokenizer(*GLM_MARKS, **GLM)
    config = tf.Glm46VConfig(
        text_config=text(words, "glm4v_text", rope_parameters=WHOLE),
        vision_config={"model_type": "glm4v_vision", **_glm_vision()}, **_glm_ids(words),
    )  # fmt: skip
    return _glm_processor("Glm46V", words), config


def ovis2() -> Pair:
    words = tokenizer("<image>", "<IMG_ATOM>", *(f"<IMG_{i}>" for i in range(5)))
    marks = [words.convert_tokens_to_ids(f"<IMG_{i}>") for i in range(5)]
    pictures = tf.Ovis2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=2)
    processor = tf.Ovis2Processor(pictures, words, image_seq_length=1, chat_template=template("<image>"))
    vision = tower(None, vocab_size=40, hidden_stride=2, num_visual_indicator_tokens=5)
    config = tf.Ovis2Config(
        text_config=text(words, "qwen2"), vision_config=vision, visual_indicator_token_ids=marks, hidden_size=32,
        vocab_size=len(words), **ids(words, image_token_id="<IMG_ATOM>"),
    )  # fmt: skip
    return processor, config


def lfm2_vl() -> Pair:
    words = tokenizer(
        image_token="<image>", image_start_token="<|image_start|>", image_end_token="<|image_end|>",
        image_thumbnail="<|img_thumbnail|>",
    )  # fmt: skip
    pictures = tf.Lfm2VlImageProcessor(
        encoder_patch_size=PATCH, tile_size=56, min_image_tokens=1, max_image_tokens=16, max_num_patches=64,
        do_image_splitting=False,
    )  # fmt: skip
    vision = tower("siglip2_vision_model", num_patches=16)
    config = tf.Lfm2VlConfig(
        text_config=text(words, "lfm2", layer_types=["conv", "full_attention"]), vision_config=vision,
        downsample_factor=2, projector_hidden_size=32, **ids(words, image_token_id="<image>"),
    )  # fmt: skip
    return tf.Lfm2VlProcessor(pictures, words, chat_template=template("<image>")), config


def fast_vlm() -> Pair:
    words = tokenizer("<image>")
    pictures = tf.CLIPImageProcessor(size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128})
    processor = tf.LlavaProcessor(
        pictures, words, patch_size=32, vision_feature_select_strategy="full", chat_template=template("<image>")
    )
    vision = {
        "model_type": "timm_wrapper", "architecture": "fastvit_mci0", "do_pooling": True, "global_pool": "avg",
        "hidden_size": 1024, "image_size": 128, "model_args": {"inference_mode": True},
    }  # fmt: skip
    config = tf.FastVlmConfig(
        text_config=text(words, "qwen2"), vision_config=vision, **ids(words, image_token_id="<image>")
    )
    return processor, config


def deepseek_vl() -> Pair:
    words = tokenizer(image_token="<image_placeholder>")
    pictures = tf.DeepseekVLImageProcessor(size=SQUARE)
    processor = tf.DeepseekVLProcessor(
        pictures, words, num_image_tokens=4, chat_template=template("<image_placeholder>")
    )
    config = tf.DeepseekVLConfig(
        text_config=text(words), vision_config=tower("siglip_vision_model"),
        **ids(words, image_token_id="<image_placeholder>"),
    )  # fmt: skip
    return processor, config


def ernie4_5_vl_moe() -> Pair:
    words = tokenizer(
        image_token="<|IMAGE_PLACEHOLDER|>", image_start_token="<|IMAGE_START|>", image_end_token="<|IMAGE_END|>",
        video_token="<|VIDEO_PLACEHOLDER|>", video_start_token="<|VIDEO_START|>", video_end_token="<|VIDEO_END|>",
    )  # fmt: skip
    sizes = {"size": {"shortest_edge": SIDE**2, "longest_edge": 16 * SIDE**2}}
    processor = tf.Ernie4_5_VLMoeProcessor(
        tf.Ernie4_5_VLMoeImageProcessor(**sizes), words, tf.Ernie4_5_VLMoeVideoProcessor(draw_on_frames=False, **sizes),
        chat_template=template("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"),
    )  # fmt: skip
    moe = {
        "moe_intermediate_size": [32, 32], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1,
        "mlp_layer_types": ["dense", "sparse"], "rope_parameters": {**MROPE, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 14,
        "spatial_merge_size": 2,
    }  # fmt: skip
    config = tf.Ernie4_5_VLMoeConfig(
        text_config=text(words, None, **moe), vision_config=vision,
        **ids(words, image_token_id="<|IMAGE_PLACEHOLDER|>", image_start_token_id="<|IMAGE_START|>",
              image_end_token_id="<|IMAGE_END|>", video_token_id="<|VIDEO_PLACEHOLDER|>",
              video_start_token_id="<|VIDEO_START|>", video_end_token_id="<|VIDEO_END|>"),
    )  # fmt: skip
    return processor, config


def internvl() -> Pair:
    words = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    processor = tf.InternVLProcessor(
        tf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=2), words,
        tf.InternVLVideoProcessor(size=SQUARE), image_seq_length=1, chat_template=template("<IMG_CONTEXT>"),
    )  # fmt: skip
    config = tf.InternVLConfig(
        text_config=text(words, "qwen2"), vision_config=tower(None, image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]),
        image_seq_length=1, **ids(words, image_token_id="<IMG_CONTEXT>"),
    )  # fmt: skip
    return processor, config


def phi4_multimodal() -> Pair:
    words = tokenizer(image_token="<|image|>", audio_token="<|audio|>")
    pictures = tf.Phi4MultimodalImageProcessor(size={"height": 448, "width": 448}, patch_size=PATCH, dynamic_hd=2)
    processor = tf.Phi4MultimodalProcessor(
        pictures, tf.Phi4MultimodalFeatureExtractor(), words, chat_template=template("<|image|>")
    )
    vision = tower(None, image_size=448, crop_size=448, feature_layer=-2, **ids(words, image_token_id="<|image|>"))
    audio = {
        "hidden_size": 32, "intermediate_size": 32, "num_blocks": 1, "num_attention_heads": 4, "ext_pw_out_channel": 32,
        "nemo_conv_channels": 16, **ids(words, audio_token_id="<|audio|>"),
    }  # fmt: skip
    config = tf.Phi4MultimodalConfig(**text(words, None), vision_config=vision, audio_config=audio)
    return processor, config


def kosmos2_5() -> Pair:
    words = tokenizer(image_token="<image_patch>", boi_token="<image>", eoi_token="</image>")
    pictures = tf.Kosmos2_5ImageProcessor(max_patches=16)
    processor = tf.Kosmos2_5Processor(pictures, words, num_image_tokens=4)
    config = tf.Kosmos2_5Config(
        text_config={
            "vocab_size": len(words), "embed_dim": 32, "layers": 2, "ffn_dim": 64, "attention_heads": 4,
            "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "init_std": 0.3,
        },
        vision_config={
            "hidden_size": 32, "patch_embed_hidden_size": 768, "intermediate_size": 64, "head_dim": 32,
            "num_hidden_layers": 1, "num_attention_heads": 1, "max_num_patches": 4096,
        },
        latent_query_num=4,
    )  # fmt: skip
    return processor, config


def llama4() -> Pair:
    words = tokenizer(
        "<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>",
    )  # fmt: skip
    pictures = tf.Llama4ImageProcessor(size=SQUARE, max_patches=2, resize_to_max_canvas=False)
    processor = tf.Llama4Processor(
        pictures, words, patch_size=PATCH, pixel_shuffle_ratio=0.5, chat_template=template("<|image|>")
    )
    vision = tower(
        None, vision_output_dim=32, projector_input_dim=32, projector_output_dim=32, pixel_shuffle_ratio=0.5,
        intermediate_size=128,
    )  # fmt: skip
    moe = {"intermediate_size_mlp": 64, "num_local_experts": 2, "interleave_moe_layer_step": 1}
    config = tf.Llama4Config(
        text_config=text(words, None, **moe), vision_config=vision, **ids(words, image_token_index="<|patch|>")
    )
    return processor, config


BUILDERS: dict[str, Callable[[], Pair]] = {
    "Aya Vision": aya_vision, "Cohere2 Vision": cohere2_vision, "DeepSeek-VL": deepseek_vl,
    "ERNIE 4.5 VL": ernie4_5_vl_moe, "FastVLM": fast_vlm, "Gemma 3": gemma3, "GLM-4.1V": glm4v, "GLM-4.5V": glm4v_moe,
    "GLM-4.6V": glm46v, "Idefics2": idefics2, "Idefics3": idefics3, "InternVL 3 (-hf)": internvl,
    "Kosmos-2.5": kosmos2_5, "LFM2-VL": lfm2_vl, "Llama 4": llama4, "LLaVA 1.5": llava, "LLaVA-NeXT": llava_next,
    "Mistral Small 3.1": mistral3, "Ovis2": ovis2, "PaliGemma": paligemma, "Phi-4 multimodal": phi4_multimodal,
    "Pixtral": pixtral, "Qwen2.5-VL": qwen2_5_vl, "Qwen3-VL": qwen3_vl, "Qwen3-VL-MoE": qwen3_vl_moe,
    "Qwen3.5": qwen3_5, "SmolVLM": smolvlm, "VipLLaVA": vipllava,
}  # fmt: skip
"""Name people know -> what builds it."""


@dataclass(frozen=True)
class Outcome:
    """How one architecture did. `failure` is empty if it answered."""

    name: str
    model_type: str = "?"
    class_name: str = "?"
    template: str = ""
    sees_image: bool = False
    batch_equal: bool = False
    seconds: float = 0.0
    failure: str = ""


def build(name: str, folder: Path) -> None:
    """Write the tiny checkpoint."""
    processor, config = BUILDERS[name]()
    torch.manual_seed(0)
    classes = image_text_classes()
    model = getattr(tf, classes[config.model_type])(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # As drawn, a signal fades in tens of small layers, and gates that start at zero would hide the image.
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            elif not parameter.any():
                parameter.normal_(0, 0.3)
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def picture(seed: int, width: int = 70, height: int = 56) -> Image.Image:
    """Coloured squares."""
    data = torch.randint(0, 256, (4, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(data.numpy()).resize((width, height), Image.Resampling.NEAREST)


def question(seed: int, words: str) -> list[Message]:
    """One image and one question."""
    return [ImagePart(type="image", value=picture(seed)), TextPart(type="text", value=words)]


def attempt(name: str, folder: Path) -> Outcome:
    """Build it, load it with AutoVLM, answer, and look whether the image counts and a batch answers alike."""
    started = time.perf_counter()
    try:
        build(name, folder)
        model = AutoVLM(str(folder), max_new_tokens=4, min_new_tokens=4)
        short, long = question(1, "What is this?"), question(2, "How many things are there in this picture?")
        one_by_one = [model.generate(short), model.generate(long)]
        together = [answer.text for answer in model.generate_batch([short, long])]
        logits = [first_logits(model, question(seed, "What is this?")) for seed in (1, 2)]
    except (VLMEvalError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, ImportError) as error:
        return Outcome(name, failure=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - started)
    return Outcome(
        name,
        model_type=model.checkpoint.model_type,
        class_name=model.class_name,
        template=model.wording,
        sees_image=not torch.allclose(logits[0], logits[1], atol=1e-5),
        batch_equal=one_by_one == together,
        seconds=time.perf_counter() - started,
    )


def first_logits(model: AutoVLM, message: list[Message]) -> torch.Tensor:
    """What the model makes of a prompt, for the first new token."""
    found = model.model.generate(
        **model.prepare([message]), max_new_tokens=1, min_new_tokens=1, return_dict_in_generate=True, output_logits=True
    )
    return found.logits[0]


PACKAGES = {"FastVLM": "timm", "SmolVLM": "num2words"}
"""What transformers itself needs for an architecture, besides torch and torchvision."""

HEADER = """\
# What runs through `--model <hub id or folder>` without a class of its own

Written by `python -m tests.vlm.auto_architectures > docs/auto_architectures.md` on {date} with transformers {version},
torch {torch}, on a CPU in fp32. Each architecture was built tiny and random with its own processor and a plain chat
template, saved, loaded again by `AutoVLM`, and asked one question about one picture. *Sees* says that another picture
gives other logits; *batch* that two prompts of different length answered at once answer as one by one. Random weights
and a stand-in template say nothing about the quality of real ones, and real
checkpoints were not at hand. {works} of {tried} work.

| architecture | model_type | class in transformers | prompt | answers | sees | batch | note |
|---|---|---|---|---|---|---|---|
"""
PROMPTS = {"parts": "chat template", "text": "chat template, texts only", "plain": "no template: image, text"}


def markdown(outcomes: list[Outcome]) -> str:
    """The table, and below it what transformers maps and nobody here has tried."""
    header = HEADER.format(
        date=datetime.date.today(), version=tf.__version__, torch=torch.__version__.split("+")[0], tried=len(outcomes),
        works=sum(not outcome.failure for outcome in outcomes),
    )  # fmt: skip
    tried = {outcome.model_type for outcome in outcomes}
    rest = sorted(set(image_text_classes()) - tried)
    footer = (
        f"\nMapped as well and not tried in this table ({len(rest)}; Qwen2-VL, LLaVA-OneVision and Llama-3.2-Vision "
        f"have classes of their own): {', '.join(f'`{name}`' for name in rest)}.\n"
    )
    return header + "".join(_row(outcome) for outcome in outcomes) + footer


def _row(outcome: Outcome) -> str:
    yes = {True: "yes", False: "**no**"}
    note = f"needs the package `{PACKAGES[outcome.name]}`" if outcome.name in PACKAGES else ""
    if outcome.failure:
        return f"| {outcome.name} | | | | **no** | | | {' '.join(outcome.failure.split())[:300]} |\n"
    if outcome.model_type in ONE_BY_ONE:
        note = "prompts are answered one at a time: its processor marks the image's place for right padding"
    cells = (
        outcome.name, f"`{outcome.model_type}`", f"`{outcome.class_name}`", PROMPTS[outcome.template], "yes",
        yes[outcome.sees_image], yes[outcome.batch_equal], note,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Try all of them and print the table; a line each on stderr."""
    tf.logging.set_verbosity_error()
    tf.utils.logging.disable_progress_bar()
    outcomes = []
    for name in BUILDERS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(attempt(name, Path(folder)))
        print(f"{name}: {outcomes[-1].failure or 'works'} ({outcomes[-1].seconds:.1f} s)", file=sys.stderr, flush=True)
    print(markdown(outcomes), end="")


if __name__ == "__main__":
    main()
