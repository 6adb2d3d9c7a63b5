"""Number type and attention by card."""

from __future__ import annotations

import pytest

from vlmeval.errors import UsageError
from vlmeval.hardware import Card
from vlmeval.vlm.precision import SMALL_WEIGHT_BYTES, choose_precision


def card(capability: tuple[int, int] | None, kind: str = "cuda", name: str = "Card") -> Card:
    return Card(index=0, kind=kind, name=name, total_bytes=2**34, free_bytes=2**34, capability=capability)


@pytest.mark.parametrize(
    ("capability", "flash", "expected"),
    [
        ((7, 0), True, ("float16", "sdpa")),
        ((7, 5), True, ("float16", "sdpa")),
        ((8, 0), True, ("bfloat16", "flash_attention_2")),
        ((8, 0), False, ("bfloat16", "sdpa")),
        ((9, 0), True, ("bfloat16", "flash_attention_2")),
        ((12, 0), False, ("bfloat16", "sdpa")),
    ],
)
def test_cuda_by_capability(capability: tuple[int, int], flash: bool, expected: tuple[str, str]) -> None:
    chosen = choose_precision([card(capability)], 0, flash=flash)
    assert (chosen.dtype, chosen.attention) == expected
    assert chosen.device == "cuda:0"


def test_reason_names_the_card_and_what_it_lacks() -> None:
    assert "V100 is SM70: no bfloat16" in choose_precision([card((7, 0), name="V100")], 0, flash=True).reason
    assert choose_precision([card((8, 6), name="RTX")], 0, flash=False).reason == "RTX; without flash-attn"


def test_cpu_runs_small_models_in_float32_and_large_ones_in_bfloat16() -> None:
    assert choose_precision([], SMALL_WEIGHT_BYTES, flash=True).dtype == "float32"
    assert choose_precision([], SMALL_WEIGHT_BYTES + 1, flash=True).dtype == "bfloat16"
    assert choose_precision([], 0, flash=True).attention == "sdpa"


def test_other_accelerators_take_no_flash_attention() -> None:
    chosen = choose_precision([card(None, kind="mps")], 0, flash=True)
    assert (chosen.device, chosen.dtype, chosen.attention) == ("mps:0", "bfloat16", "sdpa")


def test_what_the_caller_says_wins_and_is_told() -> None:
    chosen = choose_precision([card((7, 0))], 0, dtype="float32", attention="eager", flash=True)
    assert (chosen.dtype, chosen.attention) == ("float32", "eager")
    assert chosen.reason.startswith("as asked")
    assert choose_precision([card((9, 0))], 0, dtype="float16", flash=False).attention == "sdpa"


@pytest.mark.parametrize("arguments", [{"dtype": "fp8"}, {"attention": "flash"}])
def test_unknown_names(arguments: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="is not known; use one of auto, "):
        choose_precision([], 0, **arguments)  # type: ignore[arg-type]
