"""Reading a sentencepiece model: token ids as sentencepiece itself gives them, InternLM2's unused tokens included."""

from __future__ import annotations

import base64
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from vlmeval.errors import ModelError
from vlmeval.vlm.internvl2_tokenizer import sentencepiece_tokenizer
from vlmeval.vlm.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, fast_tokenizer
from vlmeval.vlm.sentencepiece_model import read_sentencepiece as read

from .internvl_folders import sentencepiece_file

GOLDEN = Path(__file__).parent / "golden" / "sentencepiece.json"
"""A model that sentencepiece 0.2.3 trained and what it makes of 400 texts, for machines without that package."""

WORDS = """the a cat dog is 3 12 2024 red, blue. Hello world! What 你好 模型 图片 中 的 是 été naïve → ( ) {x} \\n int
main() { return 0; } _ __ ___ question answer Options: A. B. C. D.""".split()
ODD = ["<|im_start|>", "<|im_end|>", "<IMG_CONTEXT>", "<img>", "<s>", "</s>", "<unk>", "<0x0A>", "▁", "aaaa", "   ",
       "\u3000", "🙂", "ｆｕｌｌ", "e\u0301", "\u200b", "\x00", "\r\n", "\t", "[UNUSED_TOKEN_", "]",
       *(f"[UNUSED_TOKEN_{number}]" for number in range(10))]  # fmt: skip
KINDS = [
    {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
    {"add_dummy_prefix": True, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"},
    {"add_dummy_prefix": True, "remove_extra_whitespaces": True, "normalization_rule_name": "nmt_nfkc"},
]


def random_text(rng: random.Random) -> str:
    letters = [*"abcdefghijklm 012  \n.,<>[]_()", *WORDS, *ODD]
    return "".join(rng.choice(letters) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 14)))


def trained(**settings: Any) -> bytes:
    """A small model, trained in a moment. Skips without the package sentencepiece, which only these tests need."""
    sentencepiece = pytest.importorskip("sentencepiece")
    rng, out = random.Random(0), io.BytesIO()
    corpus = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(2000)]
    corpus += ["    indented   code"] * 50 + ["aaaaaa bbbb aaab"] * 50 + ["a\nb\n\nc\t d"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=out,
        vocab_size=480,
        model_type="bpe",
        byte_fallback=True,
        user_defined_symbols=[f"[UNUSED_TOKEN_{number}]" for number in range(8)],
        allow_whitespace_only_pieces=True,
        minloglevel=2,
        **settings,
    )
    return out.getvalue()


@pytest.mark.parametrize("settings", KINDS, ids=["plain", "blank before", "normalised"])
def test_ids_equal_slow_tokenisation_on_4000_texts(settings: dict[str, Any], tmp_path: Path) -> None:
    data = trained(**settings)
    (tmp_path / "tokenizer.model").write_bytes(data)
    slow = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=data)
    size = slow.get_piece_size()
    # As in InternLM2: chat marks over the last unused tokens, image tokens behind all pieces.
    added = {slow.piece_to_id("[UNUSED_TOKEN_6]"): "<|im_end|>", slow.piece_to_id("[UNUSED_TOKEN_7]"): "<|im_start|>",
             size: "<img>", size + 1: "<IMG_CONTEXT>", 1: "<s>", 2: "</s>"}  # fmt: skip
    numbers = {token: number for number, token in added.items()}
    model = read(tmp_path / "tokenizer.model")
    assert [text for text, _, _ in model.pieces] == [slow.id_to_piece(number) for number in range(size)]
    fast = fast_tokenizer(model, {number: special(token) for number, token in added.items()})

    def slowly(text: str) -> list[int]:
        ids: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, numbers)) + ")", text):
            ids += [numbers[part]] if part in numbers else slow.encode(part)
        return ids

    rng = random.Random(1)
    texts = [*ODD, *WORDS, " ".join(WORDS * 20), "", *(random_text(rng) for _ in range(4000))]
    assert sum("[UNUSED_TOKEN_" in text for text in texts) > 500
    different = [text for text in texts if fast.encode(text, add_special_tokens=False).ids != slowly(text)]
    assert different == []


def test_ids_equal_what_sentencepiece_gave_when_the_golden_file_was_written(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.model").write_bytes(base64.b64decode(golden["model"]))
    fast = fast_tokenizer(read(tmp_path / "tokenizer.model"), {})
    different = [text for text, ids in golden["texts"] if fast.encode(text, add_special_tokens=False).ids != ids]
    assert different == []
    assert len(golden["texts"]) == 400


def write_golden() -> None:
    """Write the golden file anew. Needs the package sentencepiece."""
    data, rng = trained(**KINDS[1]), random.Random(2)
    slow = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=data)
    texts = [random_text(rng) for _ in range(400)]
    found = {"model": base64.b64encode(data).decode(), "texts": [[text, slow.encode(text)] for text in texts]}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def special(text: str) -> AddedToken:
    return AddedToken(text, special=True, normalized=False)


PIECES = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL),
          *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)), ("▁h", -1.0, NORMAL), ("▁hi", -2.0, NORMAL),
          ("▁", -3.0, NORMAL), ("h", -4.0, NORMAL), ("i", -5.0, NORMAL), ("[UNUSED_TOKEN_0]", 0.0, USER_DEFINED),
          ("[UNUSED_TOKEN_1]", 0.0, USER_DEFINED)]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(dummy_prefix: bool = True, **settings: Any) -> Path:
        (tmp_path / "tokenizer.model").write_bytes(sentencepiece_file(PIECES, dummy_prefix=dummy_prefix))
        basics = {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "tokenizer_class": "InternLM2Tokenizer",
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**basics, **settings}))
        return tmp_path

    return write


def opened(folder: Path) -> PreTrainedTokenizerFast:
    return sentencepiece_tokenizer(folder, json.loads((folder / "tokenizer_config.json").read_text()))


def pieces_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))


def test_the_begin_token_comes_first_unless_it_is_turned_off(folder: Callable[..., Path]) -> None:
    assert pieces_of(opened(folder()), "hi") == ["<s>", "▁hi"]
    assert pieces_of(opened(folder(add_bos_token=False)), "hi") == ["▁hi"]
    assert pieces_of(opened(folder(add_eos_token=True)), "hi") == ["<s>", "▁hi", "</s>"]


def test_what_cannot_be_written_falls_back_to_bytes_and_comes_back(folder: Callable[..., Path]) -> None:
    tokenizer = opened(folder())
    assert pieces_of(tokenizer, "é") == ["<s>", "▁", "<0xC3>", "<0xA9>"]
    for text in ("hi hi", "é 你好 🙂", "  hi  ", "hi\nhi", "[UNUSED_TOKEN_1]hi"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_internlm2_puts_its_blank_after_every_mark_and_llama_need_not(folder: Callable[..., Path]) -> None:
    flags = {"content": "<|x|>", "special": True}
    added = {"added_tokens_decoder": {str(len(PIECES)): flags}, "legacy": False}
    assert pieces_of(opened(folder(**added)), "<|x|>hi")[1:] == ["<|x|>", "▁hi"]
    llama = opened(folder(**added, tokenizer_class="LlamaTokenizer"))
    assert pieces_of(llama, "<|x|>hi")[1:] == ["<|x|>", "h", "i"]
    assert pieces_of(llama, "hi<|x|>hi")[1:] == ["▁hi", "<|x|>", "h", "i"]
    old = opened(folder(**{**added, "legacy": True}, tokenizer_class="LlamaTokenizer"))
    assert pieces_of(old, "<|x|>hi")[1:] == ["<|x|>", "▁hi"]


def test_a_mark_that_strips_what_follows_does_so(folder: Callable[..., Path]) -> None:
    flags = {"content": "<|x|>", "special": True, "rstrip": True}
    tokenizer = opened(folder(added_tokens_decoder={str(len(PIECES)): flags}))
    assert pieces_of(tokenizer, "<|x|> \n hi")[1:] == ["<|x|>", "▁hi"]


def test_older_folders_list_added_tokens_in_a_file_of_their_own(folder: Callable[..., Path]) -> None:
    place = folder(additional_special_tokens=["<IMG_CONTEXT>"])
    (place / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": len(PIECES), "<plain>": len(PIECES) + 1}))
    tokenizer = opened(place)
    ids = tokenizer("<IMG_CONTEXT><plain>", add_special_tokens=False)["input_ids"]
    assert ids == [len(PIECES), len(PIECES) + 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<plain>"


def test_a_mark_takes_the_place_of_an_unused_token(folder: Callable[..., Path]) -> None:
    number = len(PIECES) - 1
    tokenizer = opened(folder(added_tokens_decoder={str(number): {"content": "<|im_start|>", "special": True}}))
    assert tokenizer("<|im_start|>")["input_ids"] == [1, number]
    assert tokenizer("[UNUSED_TOKEN_1]", add_special_tokens=False)["input_ids"][-1] == number
    assert tokenizer.convert_ids_to_tokens([number - 1, number]) == ["[UNUSED_TOKEN_0]", "<|im_start|>"]


@pytest.mark.parametrize("damage", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", b"\x0a\xff"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(damage)
    with pytest.raises(ModelError, match=r"tokenizer\.model is no sentencepiece model"):
        read(tmp_path / "tokenizer.model")


def test_a_model_cut_off_anywhere_is_refused_or_has_fewer_pieces(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    data = sentencepiece_file(PIECES, dummy_prefix=True)
    for length in range(0, len(data) - 1, 97):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read(path)
