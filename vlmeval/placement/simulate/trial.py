"""One prompt and a few tokens on full-size simulated cards: what a plan costs before any card is touched."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vlmeval.placement.dispatch import PIXELS
from vlmeval.placement.simulate.full_size import full_size_cards

DECODED_TOKENS = 3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Bytes by card, copies between cards."""

    weight_bytes: Mapping[int, int]
    peak_bytes: Mapping[int, int]
    peak_at: Mapping[int, str]
    """Card -> the module that ran at the peak."""
    prompt_copies: int
    prompt_copied_bytes: int
    token_copies: int
    """Copies for one decoded token, the logits' way back included."""


def try_out(
    model: Any,
    device_map: Mapping[str, Any],
    inputs: Mapping[str, torch.Tensor],
    dispatcher: Callable[[Any, Mapping[str, Any]], object],
    *,
    input_card: int = 0,
    pixel_card: int | None = None,
    capacities: Mapping[int, int] | None = None,
) -> Trial:
    """Generate three tokens with a meta model. Raises what the cards would raise. The model is used up.

    Inputs lie on `input_card`, those whose names begin as pixels' on `pixel_card` if it is given.
    """
    with full_size_cards(capacities) as cards:
        ledger = cards.ledger
        cards.place(model, device_map)
        weights = dict(ledger.live_bytes)
        dispatcher(model, device_map)
        marks: list[tuple[int, int]] = []
        first = _first_module(model)
        first.register_forward_pre_hook(
            lambda *_: marks.append((ledger.card_copies(), ledger.card_copied_bytes())), prepend=True
        )
        pixels = {name for name in inputs if name.startswith(PIXELS) and pixel_card is not None}
        fakes = cards.inputs({name: inputs[name] for name in inputs if name not in pixels}, input_card)
        fakes |= cards.inputs({name: inputs[name] for name in pixels}, pixel_card or 0)
        length = fakes["input_ids"].shape[1]
        settings = {"min_length": length + DECODED_TOKENS, "max_new_tokens": DECODED_TOKENS, "do_sample": False}
        tokens = model.generate(**fakes, **settings, pad_token_id=0)
        del tokens, fakes
        trial = Trial(
            weight_bytes=weights,
            peak_bytes=dict(ledger.peak_bytes),
            peak_at=dict(ledger.peak_at),
            prompt_copies=marks[1][0] - marks[0][0],
            prompt_copied_bytes=marks[1][1] - marks[0][1],
            token_copies=marks[2][0] - marks[1][0],
        )
        del model
    gc.collect()
    return trial


def _first_module(model: Any) -> nn.Module:
    """What runs first in every forward, of the prompt and of a token: the embeddings."""
    embeddings: nn.Module = model.get_input_embeddings()
    return embeddings
