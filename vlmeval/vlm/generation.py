"""Generation settings: greedy unless the caller says otherwise, every argument of generate() open to override."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmeval.errors import UnknownNameError, UsageError

GENERATION_ARGUMENTS = frozenset(
    """max_new_tokens min_new_tokens max_length min_length max_time stop_strings do_sample num_beams num_beam_groups
    early_stopping penalty_alpha temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff
    diversity_penalty repetition_penalty encoder_repetition_penalty length_penalty no_repeat_ngram_size bad_words_ids
    renormalize_logits forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty
    suppress_tokens begin_suppress_tokens sequence_bias guidance_scale use_cache cache_implementation cache_config
    prefill_chunk_size prompt_lookup_num_tokens eos_token_id pad_token_id bos_token_id dola_layers""".split()
)
"""Names of transformers' GenerationConfig, written out so that a typo is found without importing transformers."""

GREEDY: Mapping[str, Any] = {"do_sample": False}


def generation_settings(defaults: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one model: greedy, then its `defaults`, then what the caller `asked`.

    Asking for a temperature above 0 turns sampling on unless `do_sample` is given as well; 0 means greedy, as in
    every served model.

    Raises UnknownNameError for an argument generate() does not have, UsageError for a value it cannot take.
    """
    for name in asked:
        if name not in GENERATION_ARGUMENTS:
            raise UnknownNameError("generation argument", name, GENERATION_ARGUMENTS)
    settings = {**GREEDY, **defaults, **{name: value for name, value in asked.items() if value is not None}}
    _check_numbers(settings)
    if "do_sample" not in asked and asked.get("temperature") is not None:
        settings["do_sample"] = float(asked["temperature"]) > 0
    if not settings["do_sample"]:
        for name in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
            settings.pop(name, None)
    return settings


def _check_numbers(settings: Mapping[str, Any]) -> None:
    limits = {"max_new_tokens": (1, None), "temperature": (0, None), "top_p": (0, 1), "top_k": (0, None),
              "repetition_penalty": (0, None), "num_beams": (1, None)}  # fmt: skip
    for name, (low, high) in limits.items():
        value = settings.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{name}={value!r} is no number")
        if value < low or (high is not None and value > high):
            raise UsageError(f"{name}={value} is out of range; it takes {low} to {'any' if high is None else high}")


def cut_at_stop(text: str, stop_strings: str | Sequence[str] | None) -> str:
    """The text before the first stop string: generate() stops after one, with it or the token it ends in still there.

    >>> cut_at_stop("B\\n\\nQuestion: next", ["Question:", "\\n\\n"])
    'B'
    """
    stops = [stop_strings] if isinstance(stop_strings, str) else stop_strings or ()
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
