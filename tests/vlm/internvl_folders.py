"""Tiny InternVL folders in OpenGVLab's layout, for every language model and vision tower, written in a second.

A folder is made from a native model whose configuration is written out here by hand, so that it owes nothing to the
code that reads it. The names and the order of rows are those of OpenGVLab's remote code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

LANGUAGES = ("internlm2", "qwen2", "phi3", "llama")
VISIONS = ("300M", "6B")
SIDE, PATCH = 56, 14
TOKENS_PER_TILE = 4
HIDDEN, HEADS, GROUPS = 32, 4, 2
IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>"]
TEMPLATE = {"internlm2": "internlm2-chat", "qwen2": "Hermes-2", "phi3": "phi3-chat", "llama": "Hermes-2",
            "qwen3": "internvl2_5"}  # fmt: skip
ARCHITECTURE = {"internlm2": "InternLM2ForCausalLM", "qwen2": "Qwen2ForCausalLM", "phi3": "Phi3ForCausalLM",
                "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}  # fmt: skip
NEW_ENOUGH = tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (5, 9)
"""Whether this transformers can read original folders at all."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def write_folder(folder: Path, language: str, vision: str = "300M", shards: int = 1) -> Any:
    """Write an original folder and return the native model that it holds, in fp32."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = _WRITE_TOKENIZER[language](folder)
    model = native_model(language, vision, vocabulary=tokens["size"], image_token_id=tokens["image"])
    (folder / "config.json").write_text(json.dumps(raw_config(language, vision, tokens["size"])), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0], "temperature": 0.3}))
    save_weights(folder, original_weights(model, language), shards)
    return model


def save_weights(folder: Path, weights: Mapping[str, torch.Tensor], shards: int = 1) -> None:
    """Write safetensors files, and the index if there are several."""
    if shards == 1:
        save_file(dict(weights), str(folder / "model.safetensors"), metadata={"format": "pt"})
        return
    place = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: weights[key] for key in sorted(weights)[number::shards]}
        save_file(part, str(folder / name), metadata={"format": "pt"})
        place.update(dict.fromkeys(part, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))


def native_model(language: str, vision: str, *, vocabulary: int, image_token_id: int) -> Any:
    """A random native model, with weights large enough that its answers depend on what it sees."""
    torch.manual_seed(sum(map(ord, language + vision)))
    config = transformers.InternVLConfig(
        text_config=_text_config(language, vocabulary),
        vision_config=transformers.InternVLVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            attention_bias=vision == "300M",
            use_qk_norm=vision == "6B",
            norm_type="layer_norm" if vision == "300M" else "rms_norm",
            image_size=[SIDE, SIDE],
            patch_size=[PATCH, PATCH],
        ),
        image_token_id=image_token_id,
        image_seq_length=TOKENS_PER_TILE,
        tie_word_embeddings=False,
    )
    model = transformers.InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.1 * torch.randn_like(weight))
            else:
                weight.copy_(0.2 * torch.randn_like(weight))
    return model.eval()


def _text_config(language: str, vocabulary: int) -> Any:
    shared: dict[str, Any] = {"vocab_size": vocabulary, "hidden_size": HIDDEN, "intermediate_size": 48,
                              "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS,
                              "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "bos_token_id": 1,
                              "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": False}  # fmt: skip
    if language == "phi3":
        factor = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
        rope = {**factor, "rope_theta": 10000.0, "original_max_position_embeddings": 1024}
        return transformers.Phi3Config(
            **shared, rope_parameters=rope, original_max_position_embeddings=1024, sliding_window=2047
        )
    if language == "internlm2":
        rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000.0}
        return transformers.LlamaConfig(**shared, rope_parameters=rope)
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    if language == "qwen3":
        return transformers.Qwen3Config(**shared, rope_parameters=rope, head_dim=16)
    cls = transformers.Qwen2Config if language == "qwen2" else transformers.LlamaConfig
    return cls(**shared, rope_parameters=rope)


def raw_config(language: str, vision: str, vocabulary: int) -> dict[str, Any]:
    """config.json as the hub has it, with the settings of transformers 4.37 that say nothing about the model."""
    noise = {"add_cross_attention": False, "bad_words_ids": None, "chunk_size_feed_forward": 0, "do_sample": False,
             "diversity_penalty": 0.0, "finetuning_task": None, "id2label": {"0": "LABEL_0"}, "length_penalty": 1.0,
             "max_length": 20, "num_beams": 1, "output_attentions": False, "return_dict": True, "temperature": 1.0,
             "top_k": 50, "torch_dtype": "bfloat16", "torchscript": False, "use_bfloat16": True,
             "transformers_version": "4.37.2", "attn_implementation": "flash_attention_2"}  # fmt: skip
    llm: dict[str, Any] = {**noise, "architectures": [ARCHITECTURE[language]], "model_type": language,
           "auto_map": {"AutoConfig": "configuration_nowhere.NoConfig"}, "vocab_size": vocabulary,
           "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": HEADS,
           "num_key_value_heads": GROUPS, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
           "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": False,
           "use_cache": False, "initializer_range": 0.02, "rope_scaling": None, "rope_theta": 500000.0}  # fmt: skip
    if language == "internlm2":
        llm |= {"bias": False, "rope_theta": 1000000, "rope_scaling": {"factor": 2.0, "type": "dynamic"}}
    if language == "qwen3":
        del llm["tie_word_embeddings"]
        llm["head_dim"] = 16
    if language == "phi3":
        factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
        llm |= {"rope_scaling": {**factors, "type": "su"}, "original_max_position_embeddings": 1024,
                "rope_theta": 10000.0, "sliding_window": 2047, "resid_pdrop": 0.0}  # fmt: skip
    tower = {**noise, "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_size": 24,
             "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": PATCH,
             "image_size": SIDE, "qkv_bias": vision == "300M", "qk_normalization": vision == "6B",
             "norm_type": "layer_norm" if vision == "300M" else "rms_norm", "layer_norm_eps": 1e-6,
             "hidden_act": "gelu", "num_channels": 3, "initializer_factor": 0.1, "use_flash_attn": True}  # fmt: skip
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_nowhere.NoConfig", "AutoModel": "modeling_nowhere.NoModel"},
        "model_type": "internvl_chat",
        "llm_config": llm,
        "vision_config": tower,
        "force_image_size": SIDE,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "template": TEMPLATE[language],
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "max_dynamic_patch": 12,
        "torch_dtype": "bfloat16",
        "transformers_version": None,
    }


_VISION_NAMES = {
    "attention.projection_layer": "attn.proj",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_INTERNLM2_NAMES = {
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def original_weights(model: Any, language: str) -> dict[str, torch.Tensor]:
    """The weights of a native model under OpenGVLab's names."""
    native = {key: value.detach() for key, value in model.state_dict().items()}
    tower, projector, text = "model.vision_tower.", "model.multi_modal_projector.", "model.language_model."
    weights = {
        "vision_model.embeddings.class_embedding": native[tower + "embeddings.cls_token"],
        "vision_model.embeddings.position_embedding": native[tower + "embeddings.position_embeddings"],
    }
    for end in ("weight", "bias"):
        source = f"{tower}embeddings.patch_embeddings.projection.{end}"
        weights[f"vision_model.embeddings.patch_embedding.{end}"] = native[source]
        for number, name in enumerate(("layer_norm", "linear_1", None, "linear_2")):
            if name:
                weights[f"mlp1.{number}.{end}"] = native[f"{projector}{name}.{end}"]
    for layer in range(2):
        _vision_layer(native, weights, f"{tower}encoder.layer.{layer}.", f"vision_model.encoder.layers.{layer}.")
        _text_layer(native, weights, f"{text}layers.{layer}.", f"language_model.model.layers.{layer}.", language)
    internlm2 = language == "internlm2"
    embeddings = "tok_embeddings" if internlm2 else "embed_tokens"
    weights[f"language_model.model.{embeddings}.weight"] = native[text + "embed_tokens.weight"]
    weights["language_model.model.norm.weight"] = native[text + "norm.weight"]
    weights[f"language_model.{'output' if internlm2 else 'lm_head'}.weight"] = native["lm_head.weight"]
    return {key: value.clone().contiguous() for key, value in weights.items()}


def _vision_layer(native: Any, weights: dict[str, torch.Tensor], source: str, target: str) -> None:
    for end in ("weight", "bias"):
        parts = [native.get(f"{source}attention.{part}_proj.{end}") for part in "qkv"]
        if parts[0] is not None:
            weights[f"{target}attn.qkv.{end}"] = torch.cat(parts)
    _rename(native, weights, source, target, _VISION_NAMES)


def _text_layer(native: Any, weights: dict[str, torch.Tensor], source: str, target: str, language: str) -> None:
    if language != "internlm2":
        weights.update({target + key[len(source) :]: value for key, value in native.items() if key.startswith(source)})
        return
    query, key, value = (native[f"{source}self_attn.{part}_proj.weight"] for part in "qkv")
    size, rows = HIDDEN // HEADS, []
    for group in range(GROUPS):
        for head in range(group * HEADS // GROUPS, (group + 1) * HEADS // GROUPS):
            rows.append(query[head * size : (head + 1) * size])
        rows.append(key[group * size : (group + 1) * size])
        rows.append(value[group * size : (group + 1) * size])
    weights[f"{target}attention.wqkv.weight"] = torch.cat(rows)
    _rename(native, weights, source, target, _INTERNLM2_NAMES)


def _rename(native: Any, weights: dict[str, torch.Tensor], source: str, target: str, names: Mapping[str, str]) -> None:
    for old, new in names.items():
        for end in ("", ".weight", ".bias"):
            if (value := native.get(f"{source}{old}{end}")) is not None:
                weights[f"{target}{new}{end}"] = value


def sentencepiece_file(pieces: list[tuple[str, float, int]], *, dummy_prefix: bool) -> bytes:
    """A tokenizer.model of these pieces, of the kind BPE with bytes, that changes no character and no blank."""

    def field(number: int, value: int | bytes | float) -> bytes:
        if isinstance(value, bytes):
            return _varint(number << 3 | 2) + _varint(len(value)) + value
        if isinstance(value, float):
            return _varint(number << 3 | 5) + struct.pack("<f", value)
        return _varint(number << 3) + _varint(value)

    message = b""
    for text, score, kind in pieces:
        message += field(1, field(1, text.encode()) + field(2, float(score)) + field(3, kind))
    message += field(2, field(3, 2) + field(35, 1))
    return message + field(3, field(1, b"identity") + field(3, int(dummy_prefix)) + field(4, 0) + field(5, 1))


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _pieces() -> list[tuple[str, float, int]]:
    merged = ["▁t", "he", "▁the", "in", "an", "▁a", "er", "on", "▁▁", "ag", "em", "Im", "ag", "▁is", "at", "us"]
    letters = sorted(set("▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'-()"))
    pieces: list[tuple[str, float, int]] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    pieces += [(text, -float(rank), NORMAL) for rank, text in enumerate([*dict.fromkeys(merged), *letters])]
    return pieces


def _write_internlm2(folder: Path) -> dict[str, int]:
    unused = [(f"[UNUSED_TOKEN_{number}]", 0.0, USER_DEFINED) for number in range(6)]
    pieces = _pieces() + unused
    (folder / "tokenizer.model").write_bytes(sentencepiece_file(pieces, dummy_prefix=True))
    # The chat marks take the places of the last two unused pieces; the image tokens come behind the pieces.
    added = {len(pieces) - 2: "<|im_end|>", len(pieces) - 1: "<|im_start|>"}
    added |= {len(pieces) + number: token for number, token in enumerate(IMAGE_TOKENS)}
    _write_settings(folder, {0: "<unk>", 1: "<s>", 2: "</s>", **added}, "InternLM2Tokenizer", legacy=False)
    return {"size": len(pieces) + len(IMAGE_TOKENS), "image": len(pieces) + IMAGE_TOKENS.index("<IMG_CONTEXT>")}


def _write_phi3(folder: Path) -> dict[str, int]:
    pieces = _pieces()
    (folder / "tokenizer.model").write_bytes(sentencepiece_file(pieces, dummy_prefix=True))
    marks = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", *IMAGE_TOKENS]
    added = {len(pieces) + number: token for number, token in enumerate(marks)}
    _write_settings(folder, {0: "<unk>", 1: "<s>", 2: "</s>", **added}, "LlamaTokenizer", legacy=False)
    return {"size": len(pieces) + len(marks), "image": len(pieces) + marks.index("<IMG_CONTEXT>")}


def _write_settings(folder: Path, added: dict[int, str], tokenizer_class: str, legacy: bool) -> None:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(number): {"content": token, **flags} for number, token in added.items()},
        "additional_special_tokens": [token for number, token in added.items() if number > 2],
        "auto_map": {"AutoTokenizer": ["tokenization_nowhere.NoTokenizer", None]},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "legacy": legacy,
        "tokenizer_class": tokenizer_class,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _byte_level() -> dict[str, int]:
    from tokenizers.pre_tokenizers import ByteLevel

    return {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}


def _write_qwen2(folder: Path) -> dict[str, int]:
    vocabulary = _byte_level()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "added_tokens_decoder": {str(256 + n): {"content": token, **flags} for n, token in enumerate(marks)},
        "additional_special_tokens": marks[1:],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return {"size": 256 + len(marks), "image": 256 + marks.index("<IMG_CONTEXT>")}


def _write_llama(folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    tokenizer = Tokenizer(models.BPE(vocab=_byte_level(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(marks)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{marks[0]} $A", special_tokens=[(marks[0], tokenizer.token_to_id(marks[0]))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": marks[0], "eos_token": marks[1], "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return {"size": 256 + len(marks), "image": 256 + marks.index("<IMG_CONTEXT>")}


_WRITE_TOKENIZER = {"internlm2": _write_internlm2, "qwen2": _write_qwen2, "qwen3": _write_qwen2, "phi3": _write_phi3,
                    "llama": _write_llama}  # fmt: skip
