"""Greedy decoding in which finished rows leave the batch, instead of being computed as padding until the last is done.

    model.generate(**inputs, custom_generate=greedy_leaving)

The steps are those of transformers' own loop (generation/utils.py, `_sample`), with the same processors of scores and
stopping criteria; tokens are the same. It is used where every row can be taken out of all that the model carries along:
decoder-only models whose cache layers grow with the text.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch

LEAVE_SHARE = 0.25
"""Rows leave when this share of those there are is finished: what stays is copied once."""
STEPS_BETWEEN_LOOKS = 4
"""On a card, how many tokens are made before the host looks who is finished: each look waits for the card."""
BY_ROW = frozenset({"attention_mask", "cross_attention_mask", "token_type_ids", "mm_token_type_ids"})
FOR_ALL = frozenset({"image_grid_thw", "video_grid_thw", "pixel_values_videos", "cross_attention_states",
                     "mm_encoder_outputs"})  # fmt: skip
"""Arguments that are read with the prompt only, whose first dimension is not the batch."""


def can_leave(model: Any, generation: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether rows can leave this batch: greedy, one beam, and nothing among the inputs that is not known here."""
    greedy = not generation.get("do_sample") and (generation.get("num_beams") or 1) == 1
    unknown = {name for name, value in inputs.items() if isinstance(value, torch.Tensor)} - BY_ROW - FOR_ALL
    return (
        greedy
        and len(inputs["input_ids"]) > 1
        and not model.config.is_encoder_decoder
        and unknown <= {"input_ids"}
        and not generation.get("return_dict_in_generate")
        and _has_our_steps(type(model))
    )


def _has_our_steps(kind: type) -> bool:
    """Whether this version of transformers has the steps that the loop below is made of."""
    prefill = getattr(kind, "_prefill", None)
    return prefill is not None and "is_first_iteration" in inspect.signature(prefill).parameters


def greedy_leaving(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **model_kwargs: Any,
) -> torch.Tensor:
    """Token ids [batch, prompt + new], rows that ended earlier filled up with padding."""
    model_kwargs.pop("synced_gpus", None)
    model_kwargs.pop("streamer", None)
    rows = _Rows(input_ids, generation_config._pad_token_tensor)
    # A processor of scores (repetition penalty ...) may count the rows, unless it says that it does not.
    may_leave = all(getattr(processor, "lets_rows_leave", False) for processor in logits_processor)
    outputs = model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration=True)
    decoding = getattr(model, "_optimize_model_for_decode", contextlib.nullcontext)
    with decoding():
        while True:
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder=False)
            scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=rows.tokens.device)
            del outputs
            rows.add(torch.argmax(logits_processor(rows.tokens, scores), dim=-1), stopping_criteria)
            if rows.is_time_to_look(stopping_criteria.max_length):
                staying = rows.staying()
                if staying is not None and not len(staying):
                    return rows.all()
                if staying is not None and may_leave and _can_part(model_kwargs["past_key_values"]):
                    rows.leave(staying)
                    _keep_rows(model_kwargs, staying)
            inputs = model.prepare_inputs_for_generation(rows.tokens, next_sequence_length=1, **model_kwargs)
            outputs = model(**inputs, return_dict=True)


class _Rows:
    """The rows that are still in the batch, and what the others ended with."""

    def __init__(self, tokens: torch.Tensor, padding: torch.Tensor | None) -> None:
        self.tokens = tokens
        self._padding = 0 if padding is None else int(padding)
        self._places = torch.arange(len(tokens))
        self._open = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        self._ended: dict[int, torch.Tensor] = {}
        self._steps = 0

    def add(self, new: torch.Tensor, stopping_criteria: Any) -> None:
        """One more token each, padding for those that have ended."""
        new = torch.where(self._open, new, self._padding)
        self.tokens = torch.cat([self.tokens, new[:, None]], dim=-1)
        self._open = self._open & ~stopping_criteria(self.tokens, None)
        self._steps += 1

    def is_time_to_look(self, max_length: int | None) -> bool:
        """Always on a CPU, and at the last token there can be."""
        at_end = max_length is not None and self.tokens.shape[1] >= max_length
        return at_end or self.tokens.device.type == "cpu" or self._steps % STEPS_BETWEEN_LOOKS == 0

    def staying(self) -> torch.Tensor | None:
        """Rows that go on, as indices, where it is worth it to part from the others; none where all have ended."""
        open_rows = self._open.cpu()
        count = int(open_rows.sum())
        if count and len(open_rows) - count < LEAVE_SHARE * len(open_rows):
            return None
        return open_rows.nonzero()[:, 0]

    def leave(self, staying: torch.Tensor) -> None:
        """Keep the rows that stay; the others have ended."""
        stay = set(staying.tolist())
        for row, place in enumerate(self._places.tolist()):
            if row not in stay:
                self._ended[place] = self.tokens[row]
        chosen = staying.to(self.tokens.device)
        self.tokens, self._open, self._places = self.tokens[chosen], self._open[chosen], self._places[staying]

    def all(self) -> torch.Tensor:
        """Every row in the order of the batch, as long as the longest."""
        found = {**self._ended, **dict(zip(self._places.tolist(), self.tokens, strict=True))}
        whole = self.tokens.new_full((len(found), self.tokens.shape[1]), self._padding)
        for place, tokens in found.items():
            whole[place, : len(tokens)] = tokens
        return whole


def _can_part(cache: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    return all(isinstance(layer, DynamicLayer) for layer in getattr(cache, "layers", [None]))


def _keep_rows(model_kwargs: dict[str, Any], staying: torch.Tensor) -> None:
    """Take all other rows out of what the model carries from token to token."""
    for name in BY_ROW & set(model_kwargs):
        if model_kwargs[name] is not None:
            model_kwargs[name] = model_kwargs[name][staying.to(model_kwargs[name].device)]
    positions = model_kwargs.get("position_ids")
    if positions is not None:
        # [batch, tokens], or [kinds of positions, batch, tokens] in Qwen-VL.
        chosen = staying.to(positions.device)
        model_kwargs["position_ids"] = positions[chosen] if positions.dim() == 2 else positions[:, chosen]
    for layer in model_kwargs["past_key_values"].layers:
        if layer.keys is not None:
            layer.batch_select_indices(staying.to(layer.keys.device))
