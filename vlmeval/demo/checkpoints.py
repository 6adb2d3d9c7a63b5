"""Tokenizer, processor and randomly initialised tiny model of each family, all made offline.

The classes are the stock ones of transformers; only the sizes are tiny. What a folder needs for `AutoProcessor` and the
model class is what `save_checkpoint` writes.
"""

from __future__ import annotations

import copy
import functools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vlmeval.demo import chat_templates, prompts, shapes

TILE_SIDE = shapes.IMAGE_SIDE
"""Side in pixels of what the vision towers take at once: a benchmark picture fits without resizing."""

IMAGE_TOKENS = 16
"""Image tokens of one tile in every family: a grid of 4 x 4 cells of 28 x 28 pixels."""

MAX_WORD_PIECES = 632
"""Limit of the learned vocabulary; the corpus runs out of merges before it."""

MAX_TOKENS = 2048

WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How text is cut into words before merging, as all four families cut it. A newline always ends a word."""

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPECIAL_TOKENS = {
    "qwen2vl": (*CHATML, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    "internvl": (*CHATML, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    "llava_onevision": (*CHATML, "<image>", "<video>"),
    # The image token comes last: Mllama's output layer has no row for it.
    "mllama": (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
        "<|finetune_right_pad_id|>",
        "<|image|>",
    ),
}
IMAGE_TOKEN = {
    "qwen2vl": "<|image_pad|>",
    "internvl": "<IMG_CONTEXT>",
    "llava_onevision": "<image>",
    "mllama": "<|image|>",
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and depths of a tiny model; some 1.2 million parameters, 2.4 MB in fp16."""

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 256
    vision_hidden: int = 96
    vision_layers: int = 3
    vision_heads: int = 3
    rope_theta: float = 100.0
    initial_std: float = 0.05


def build(family: str, sizes: Sizes | None = None) -> tuple[Any, Any]:
    """The processor and the randomly initialised fp32 model of a family, in that order."""
    prompts.check_family(family)
    makers = {
        "qwen2vl": _qwen2vl,
        "internvl": _internvl,
        "llava_onevision": _llava_onevision,
        "mllama": _mllama,
    }
    processor, model = makers[family](sizes or Sizes())
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    return processor, model


def save_checkpoint(folder: Path, processor: Any, model: Any) -> None:
    """Write fp16 weights, configuration and processor files; the model that was passed stays fp32."""
    half = copy.deepcopy(model).to(torch.float16)
    for config in (half.config, half.config.text_config, half.config.vision_config):
        config.dtype = torch.float16
    half.save_pretrained(folder)
    processor.save_pretrained(folder)
    # safetensors makes its files readable for their owner only; a package's data is for everyone.
    (folder / "model.safetensors").chmod(0o644)


def image_token_id(family: str, processor: Any) -> int:
    """Id of the token that stands for one piece of an image."""
    token_id: int = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN[family])
    return token_id


def _tokenizer_corpus() -> Iterator[str]:
    """Text in which every prompt word is frequent and every answer word becomes a single token."""
    rng = random.Random(0)
    answers = [answer for values in shapes.VALUES.values() for answer in values]
    for _ in range(500):
        scene = shapes.random_scene(rng)
        for question_type in scene.defined_types():
            question = shapes.ask(scene, question_type, rng)
            for family in prompts.FAMILIES:
                yield prompts.multiple_choice(family, question.text, question.options)
                yield prompts.short_answer(family, question.text)
        for answer in answers * 4:
            yield f"{answer}\n"
        yield from ["system\nYou are a helpful assistant.\nuser\nassistant\n\n"] * 4


@functools.cache
def _trained_bpe() -> str:
    """Byte-level BPE trained on the corpus, without special tokens, as the JSON of `tokenizers`; trained once."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    trained.decoder = decoders.ByteLevel()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_WORD_PIECES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(_tokenizer_corpus(), trainer)
    return trained.to_str()


def _qwen_tokenizer(family: str, extra: Any) -> Any:
    """A Qwen2 tokenizer with the family's special tokens behind the learned vocabulary."""
    model = json.loads(_trained_bpe())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]  # pairs are what it takes; its annotation says strings
    return transformers.Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=extra,
        model_max_length=MAX_TOKENS,
        padding_side="left",
    )


def _llama_tokenizer() -> Any:
    """A generic fast tokenizer that, like Llama 3's, puts <|begin_of_text|> before what it encodes."""
    special = SPECIAL_TOKENS["mllama"]
    trained = Tokenizer.from_str(_trained_bpe())
    trained.add_special_tokens(list(special))
    begin = special[0]
    trained.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin} $B",
        special_tokens=[(begin, trained.token_to_id(begin))],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token=begin,
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        model_max_length=MAX_TOKENS,
        padding_side="left",
    )


def _text_config(sizes: Sizes, tokenizer: Any, **more: Any) -> dict[str, Any]:
    """What the language models of all families share."""
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.feed_forward,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.heads,
        "max_position_embeddings": MAX_TOKENS,
        "rms_norm_eps": 1e-6,
        "initializer_range": sizes.initial_std,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_theta},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return {**config, **more}


def _qwen2vl(sizes: Sizes) -> tuple[Any, Any]:
    special = SPECIAL_TOKENS["qwen2vl"]
    tokenizer = _qwen_tokenizer("qwen2vl", list(special[1:2] + special[3:]))
    # Equal limits: a picture of any size is brought to the area that the model knows.
    pixels = {"shortest_edge": TILE_SIDE**2, "longest_edge": TILE_SIDE**2}
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(size=pixels),
        chat_template=chat_templates.QWEN2_VL,
    )
    half_head = sizes.hidden // sizes.heads // 2
    spatial = (half_head - max(1, half_head // 6)) // 2
    rope = {
        "rope_type": "default",
        "rope_theta": sizes.rope_theta,
        "mrope_section": [half_head - 2 * spatial, spatial, spatial],
    }
    token_id = tokenizer.convert_tokens_to_ids
    config = transformers.Qwen2VLConfig(
        text_config=_text_config(sizes, tokenizer, rope_parameters=rope),
        vision_config={
            "depth": sizes.vision_layers,
            "embed_dim": sizes.vision_hidden,
            "hidden_size": sizes.hidden,
            "num_heads": sizes.vision_heads,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": sizes.initial_std,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return processor, transformers.Qwen2VLForConditionalGeneration(config)


def _internvl(sizes: Sizes) -> tuple[Any, Any]:
    extra = {
        "turn_start_token": "<|im_start|>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _qwen_tokenizer("internvl", extra)
    tile = {"height": TILE_SIDE, "width": TILE_SIDE}
    image_processor = transformers.GotOcr2ImageProcessor(
        size=tile,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        crop_to_patches=True,
        min_patches=1,
        max_patches=6,
    )
    processor = transformers.InternVLProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=transformers.InternVLVideoProcessor(size=tile),
        image_seq_length=IMAGE_TOKENS,
        chat_template=chat_templates.INTERNVL,
    )
    config = transformers.InternVLConfig(
        text_config=_text_config(sizes, tokenizer, model_type="qwen2"),
        vision_config={
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": 4 * sizes.vision_hidden,
            "num_hidden_layers": sizes.vision_layers,
            "num_attention_heads": sizes.vision_heads,
            "image_size": TILE_SIDE,
            "patch_size": 14,
            "attention_bias": True,
            "initializer_range": sizes.initial_std,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
    )
    return processor, transformers.InternVLForConditionalGeneration(config)


def _llava_onevision(sizes: Sizes) -> tuple[Any, Any]:
    special = SPECIAL_TOKENS["llava_onevision"]
    tokenizer = _qwen_tokenizer("llava_onevision", list(special[1:2] + special[3:]))
    tile = {"height": TILE_SIDE, "width": TILE_SIDE}
    pinpoints = [[height * TILE_SIDE, width * TILE_SIDE] for height in (1, 2) for width in (1, 2)]
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(size=tile, image_grid_pinpoints=pinpoints),
        tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=tile),
        num_image_tokens=IMAGE_TOKENS,
        vision_feature_select_strategy="full",
        chat_template=chat_templates.LLAVA_ONEVISION,
    )
    config = transformers.LlavaOnevisionConfig(
        text_config=_text_config(sizes, tokenizer, model_type="qwen2"),
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": 4 * sizes.vision_hidden,
            "num_hidden_layers": sizes.vision_layers,
            "num_attention_heads": sizes.vision_heads,
            "image_size": TILE_SIDE,
            "patch_size": 28,
            "vision_use_head": False,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=True,
    )
    return processor, transformers.LlavaOnevisionForConditionalGeneration(config)


def _mllama(sizes: Sizes) -> tuple[Any, Any]:
    tokenizer = _llama_tokenizer()
    processor = transformers.MllamaProcessor(
        image_processor=transformers.MllamaImageProcessor(
            size={"height": TILE_SIDE, "width": TILE_SIDE}, max_image_tiles=4
        ),
        tokenizer=tokenizer,
        chat_template=chat_templates.MLLAMA,
    )
    # The image token has an input row behind the vocabulary (Mllama adds eight) but no output row.
    vocabulary_size = tokenizer.convert_tokens_to_ids("<|image|>")
    text_config = _text_config(
        sizes,
        tokenizer,
        vocab_size=vocabulary_size,
        num_hidden_layers=sizes.layers + 2,
        cross_attention_layers=[1, 3],
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
    )
    config = transformers.MllamaConfig(
        text_config=text_config,
        vision_config={
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": 4 * sizes.vision_hidden,
            "num_hidden_layers": sizes.vision_layers,
            "num_global_layers": 1,
            "attention_heads": sizes.vision_heads,
            "image_size": TILE_SIDE,
            "patch_size": 28,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 2 * sizes.vision_hidden,
            "initializer_range": sizes.initial_std,
        },
        image_token_index=vocabulary_size,
    )
    model = transformers.MllamaForConditionalGeneration(config)
    # Stock gates start at zero, for grafting vision onto a trained language model; ours must see from the first step.
    with torch.no_grad():
        for index in text_config["cross_attention_layers"]:
            model.model.language_model.layers[index].cross_attn_attn_gate.fill_(1.0)
            model.model.language_model.layers[index].cross_attn_mlp_gate.fill_(1.0)
    return processor, model
