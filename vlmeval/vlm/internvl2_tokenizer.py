"""The tokenizer of an original InternVL folder, without the folder's code.

InternLM2 brings a tokenizer class of its own around a sentencepiece model; read by transformers' LlamaTokenizer its ids
come out wrong, and its backend for any tokenizer drops the begin token. So a sentencepiece model is read here. All
others (Qwen2's and Llama 3's) are transformers' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from vlmeval.errors import ModelError
from vlmeval.vlm.checkpoint import read_json
from vlmeval.vlm.sentencepiece_model import fast_tokenizer, read_sentencepiece

IMAGE_TOKENS = ("<img>", "<IMG_CONTEXT>", "</img>")
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


def load_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; `config` is that of the language model. Raises ModelError without image tokens in it."""
    settings = read_json(folder / "tokenizer_config.json")
    pieces = folder / "tokenizer.model"
    own_class = str(settings.get("tokenizer_class", "")).startswith("InternLM")
    tokenizer: PreTrainedTokenizerBase
    if pieces.is_file() and (own_class or not (folder / "tokenizer.json").is_file()):
        tokenizer = sentencepiece_tokenizer(folder, settings)
    else:
        # The config says which model it is, so that config.json, which asks for remote code, is not read.
        tokenizer = AutoTokenizer.from_pretrained(str(folder), config=config, trust_remote_code=False)
    known = tokenizer.get_vocab()
    missing = [token for token in IMAGE_TOKENS if token not in known]
    if missing:
        raise ModelError(
            f"{folder}: the tokenizer has no {' '.join(missing)}, so no image can be put into a prompt; take the "
            "tokenizer files that belong to this checkpoint (added_tokens.json, tokenizer_config.json)"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def sentencepiece_tokenizer(folder: Path, settings: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer of tokenizer.model and what tokenizer_config.json (or older files) adds to it."""
    model = read_sentencepiece(folder / "tokenizer.model")
    roles = {**read_json(folder / "special_tokens_map.json"), **settings}
    names = {role: _content(roles[role]) for role in _ROLES if roles.get(role)}
    extra = [_content(token) for token in roles.get("additional_special_tokens") or ()]
    tokens = _added_tokens(folder, settings, special={*names.values(), *extra})
    by_text = {text: number for number, (text, _, _) in enumerate(model.pieces)}
    for name in names.values():
        # Of the roles, some are pieces of the model that no file lists as added.
        if name in by_text and all(token.content != name for token in tokens.values()):
            tokens[by_text[name]] = AddedToken(name, special=True, normalized=False)
    # InternLM2's tokenizer pays no heed to `legacy`, although its config may have it.
    modern = str(settings.get("tokenizer_class", "")).startswith("Llama") and settings.get("legacy") is False
    return PreTrainedTokenizerFast(
        tokenizer_object=fast_tokenizer(model, tokens, prefix_each_part=not modern),
        **names,
        additional_special_tokens=extra,
        add_bos_token=bool(settings.get("add_bos_token", True)),
        add_eos_token=bool(settings.get("add_eos_token", False)),
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _added_tokens(folder: Path, settings: Mapping[str, Any], special: set[str]) -> dict[int, AddedToken]:
    """Added tokens by id: from tokenizer_config.json, else from added_tokens.json, where older folders have them."""
    listed = settings.get("added_tokens_decoder")
    if listed:
        return {int(number): _token(entry) for number, entry in listed.items()}
    older = read_json(folder / "added_tokens.json")
    return {
        int(number): AddedToken(content, special=content in special, normalized=False)
        for content, number in older.items()
    }


def _token(entry: Mapping[str, Any]) -> AddedToken:
    flags = {name: bool(entry.get(name, False)) for name in ("lstrip", "rstrip", "single_word", "special")}
    return AddedToken(entry["content"], normalized=False, **flags)


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, Mapping) else token)
