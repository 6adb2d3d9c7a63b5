"""Where a prompt meets the model's limits: positions and memory, told with numbers and what to try."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from vlmeval.errors import OutOfMemorySampleError, SampleError

LESS = "try fewer pixels (--max-pixels), fewer images or a shorter text"


def length_note(config: Any, prompt_tokens: int) -> str:
    """A note if the prompt is longer than the positions the model was made for, "" otherwise.

    Rotary positions go on past the limit (worse, but they go on); learned ones have no row to look up, and on a card
    that kills the process: those raise SampleError. Qwen2-VL's three-dimensional positions count a whole image as a
    few, so tokens say nothing about them.
    """
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or prompt_tokens <= limit:
        return ""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    told = f"the prompt has {prompt_tokens:,} tokens, the model {limit:,} positions"
    if not rope and not hasattr(text, "rope_theta"):
        raise SampleError(f"{told}; {LESS}")
    if isinstance(rope, dict) and "mrope_section" in rope:
        return ""
    return told


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a card or the machine had no room: torch has an error of its own only for the cards."""
    torch = sys.modules.get("torch")  # what has not been imported raises nothing
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def out_of_memory(
    error: BaseException, inputs: Mapping[str, Any] | None, max_new_tokens: int
) -> OutOfMemorySampleError:
    """How much was asked of how much room, and what to try. Call it where the error is still being handled: what its
    card holds is looked up. `inputs` None: they did not get that far."""
    rows, tokens = inputs["input_ids"].shape if inputs is not None else (1, 0)
    what = f"{rows} prompt{'s' if rows > 1 else ''} of {tokens:,} tokens with up to {max_new_tokens:,} new ones"
    return _failure(
        error,
        f"out of memory answering {what if inputs is not None else 'a prompt'}: {_reason(error)}; try "
        f"{'--batch-size 1, ' if rows > 1 else ''}--max-pixels 1003520, a smaller --max-tokens or a card with more "
        "memory",
    )


def plain_out_of_memory(error: BaseException, prompts: int) -> OutOfMemorySampleError:
    """The same where nothing is known of the model that ran."""
    told = f"out of memory answering {prompts} prompt{'s' if prompts > 1 else ''}: {_reason(error)}"
    return _failure(error, f"{told}; try smaller images{', --batch-size 1' if prompts > 1 else ''} or a smaller model")


def _reason(error: BaseException) -> str:
    return str(error).split("\n")[0].split("If reserved")[0].strip() or type(error).__name__


_ASKED = re.compile(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)\. GPU (\d+)")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _failure(error: BaseException, text: str) -> OutOfMemorySampleError:
    """With the numbers torch's message has: "Tried to allocate 2.00 GiB. GPU 1 has a total capacity of ..." """
    found = _ASKED.search(str(error))
    if found is None:
        return OutOfMemorySampleError(text)
    card = int(found[3])
    accelerator = sys.modules["torch"].accelerator.current_accelerator()
    module = sys.modules["torch"].get_device_module(accelerator.type if accelerator else "cpu")
    held = int(module.memory_allocated(card)) if hasattr(module, "memory_allocated") else 0
    asked = round(float(found[1]) * _UNITS[found[2]])
    return OutOfMemorySampleError(text, card=card, asked_bytes=asked, held_bytes=held)
