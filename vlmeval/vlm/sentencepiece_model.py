"""A sentencepiece BPE model (`tokenizer.model`) as a fast tokenizer, without the packages sentencepiece and protobuf.

The file is a protobuf message of which a few fields matter:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from vlmeval.errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_BPE = 2
_SPACE = "\u2581"


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """What a tokenizer.model says. `pieces` are (text, score, type) in the order of their ids."""

    pieces: tuple[tuple[str, float, int], ...]
    byte_fallback: bool
    dummy_prefix: bool
    collapse_spaces: bool
    character_map: bytes

    @property
    def unknown(self) -> str:
        """The piece for what cannot be written."""
        return next((text for text, _, kind in self.pieces if kind == UNKNOWN), "<unk>")


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a tokenizer.model. Raises ModelError for a file that is none, or of a kind other than BPE."""
    try:
        message = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    pieces, trainer, normaliser = [], b"", b""
    try:
        for number, value in _fields(message):
            if number == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number == 2 and isinstance(value, bytes):
                trainer = value
            elif number == 3 and isinstance(value, bytes):
                normaliser = value
        trained, normal = dict(_fields(trainer)), dict(_fields(normaliser))
    except (ValueError, IndexError, struct.error) as error:
        raise ModelError(f"{path} is no sentencepiece model ({error}); fetch it again") from error
    if not pieces or trained.get(3) != _BPE:
        raise ModelError(f"{path} is no sentencepiece model of the kind BPE ({len(pieces)} pieces)")
    if trained.get(24, 0):
        raise ModelError(f"{path} puts spaces after words (treat_whitespace_as_suffix), which is not supported")
    charmap = normal.get(2, b"")
    return SentencePieceModel(
        pieces=tuple(pieces),
        byte_fallback=bool(trained.get(35, 0)),
        dummy_prefix=bool(normal.get(3, 1)),
        collapse_spaces=bool(normal.get(4, 1)),
        character_map=charmap if isinstance(charmap, bytes) else b"",
    )


def _piece(message: bytes) -> tuple[str, float, int]:
    values = dict(_fields(message))
    text, score, kind = values.get(1, b""), values.get(2, b"\0\0\0\0"), values.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece has fields of other types")
    return text.decode("utf-8"), float(struct.unpack("<f", score)[0]), kind


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protobuf message: an int, or the bytes of anything else."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if wire == 2:
            size, place = _varint(message, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"field of wire type {wire} at byte {place}")
        if place + size > len(message):
            raise ValueError(f"cut off at byte {len(message)}")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError(f"number too long at byte {place}")


def fast_tokenizer(
    model: SentencePieceModel, added: Mapping[int, AddedToken], *, prefix_each_part: bool = True
) -> Tokenizer:
    """The tokenizer of a sentencepiece model and the tokens added to it, by id. Without begin and end tokens.

    An added token may take the place of a piece (InternLM2's `<|im_start|>` that of `[UNUSED_TOKEN_146]`): both texts
    then stand for its id, as in the slow tokenizer. `prefix_each_part` puts sentencepiece's blank before every part
    between added tokens, as slow tokenizers do (what transformers calls legacy); otherwise only before the first.
    """
    ids = {text: number for number, (text, _, _) in reversed(list(enumerate(model.pieces)))}
    replaced = {}
    for number, token in added.items():
        piece = model.pieces[number][0] if number < len(model.pieces) else token.content
        if piece != token.content:
            replaced[piece] = token.content
            ids.pop(piece, None)
        ids[token.content] = number
    defined = [text for text, _, kind in model.pieces if kind == USER_DEFINED]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=_merges(model, without=replaced),
            unk_token=model.unknown,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
            # A piece defined by the user is no product of merges; cut out whole, it is looked up whole.
            ignore_merges=bool(defined),
        )
    )
    renamed = {text: replaced[text] for text in defined if text in replaced}
    tokenizer.normalizer = _normaliser(model, renamed, prefix_each_part)
    splits = _splits(model, [renamed.get(text, text) for text in defined], prefix_each_part)
    if splits:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = _decoder(model)
    tokenizer.add_tokens([token for _, token in sorted(added.items())])
    wrong = {token.content: number for number, token in added.items() if tokenizer.token_to_id(token.content) != number}
    if wrong:
        raise ModelError(f"tokens that cannot have the ids they were given: {wrong}")
    return tokenizer


def _merges(model: SentencePieceModel, without: Container[str]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, best score first."""
    scores = {text: score for text, score, kind in model.pieces if kind == NORMAL and text not in without}
    pairs = [
        (-score, cut, text)
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    return [(text[:cut], text[cut:]) for _, cut, text in sorted(pairs)]


def _normaliser(model: SentencePieceModel, replaced: Mapping[str, str], prefix: bool) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.character_map:
        steps.append(normalizers.Precompiled(model.character_map))
    if model.collapse_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    steps += [normalizers.Replace(piece, content) for piece, content in replaced.items()]
    if model.dummy_prefix and prefix:
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _splits(model: SentencePieceModel, defined: list[str], prefix: bool) -> list[pre_tokenizers.PreTokenizer]:
    splits: list[pre_tokenizers.PreTokenizer] = []
    if model.dummy_prefix and not prefix:
        splits.append(pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="first", split=False))
    if defined:
        longest_first = sorted(defined, key=len, reverse=True)
        splits.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated"))
        # A text that reads like the piece of a byte or of <s> is neither; cut in two, it is not looked up whole.
        reserved = {text for text, _, kind in model.pieces if kind in (UNKNOWN, CONTROL)}
        inner = "|".join(["<0x[0-9A-F]{2}>", *(re.escape(text) for text in sorted(reserved))])
        splits.append(pre_tokenizers.Split(Regex(f"^(?=(?:{inner})$)."), "isolated"))
    return splits


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.dummy_prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    return decoders.Sequence(steps)
