"""What is checked of a checkpoint once it is loaded: no weight made up, an image token that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmeval.errors import ModelError


def one_line(error: Exception) -> str:
    """What an error says, without the line breaks that transformers frames it with."""
    return " ".join(str(error).split())


def check_complete(loading: Mapping[str, Any], folder: str) -> None:
    """Raise ModelError for weights that the files lack: transformers fills them with random numbers and goes on."""
    missing = sorted(loading["missing_keys"])
    if missing:
        unused = sorted(loading["unexpected_keys"])
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of the model ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}) and has {len(unused)} that it does not know"
            f"{' (' + ', '.join(unused[:3]) + ')' if unused else ''}: the files are of another model or incomplete"
        )


def check_image_token(processor: Any, where: str) -> None:
    """Raise ModelError if the tokenizer lacks the token that stands for an image: the model would see none."""
    token = getattr(processor, "image_token", None)
    if not isinstance(token, str):
        return
    found = processor.tokenizer.convert_tokens_to_ids(token)
    if found is None or (found == processor.tokenizer.unk_token_id and token != processor.tokenizer.unk_token):
        raise ModelError(
            f"{where}: the tokenizer has no image token {token!r}, though its {type(processor).__name__} puts it where "
            "an image goes; take the tokenizer files that belong to this checkpoint"
        )
