"""Attention as a card runs it. Without a card torch picks the kernel that writes out every score, 25 % more memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F

aten = torch.ops.aten

HALF = (torch.float16, torch.bfloat16)
WIDEST_HEAD = 256
"""Neither kernel takes wider heads."""
ALIGNMENT = 8
"""Heads and masks are padded to a multiple of this."""


def card_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """scaled_dot_product_attention by the kernel CUDA would take: flash without a mask, else memory-efficient."""
    if query.device.type != "cuda" or query.shape[-1] > WIDEST_HEAD:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    check_one_device(query, key, value, attn_mask)
    if attn_mask is None and query.dtype in HALF:
        return _flash(query, key, value, is_causal, scale)
    if enable_gqa:
        heads = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)
    if attn_mask is not None:
        attn_mask = _as_bias(attn_mask, query, key)
    efficient = aten._scaled_dot_product_efficient_attention
    result: torch.Tensor = efficient(query, key, value, attn_mask, False, 0.0, is_causal, scale=scale)[0]
    return result


def check_one_device(*tensors: torch.Tensor | None) -> None:
    """Raise what torch raises for attention over two cards."""
    devices = {str(tensor.device) for tensor in tensors if tensor is not None}
    if len(devices) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(devices))}! (when running scaled_dot_product_attention)"
        )


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, is_causal: bool, scale: float | None
) -> torch.Tensor:
    width = query.shape[-1]
    if width % ALIGNMENT:
        query, key, value = (F.pad(tensor, (0, -width % ALIGNMENT)) for tensor in (query, key, value))
    result: torch.Tensor = aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, is_causal, False, scale=scale
    )[0]
    return result[..., :width]


def _as_bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """A mask of yes and no becomes one of numbers, its rows aligned, as torch does before the kernel."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    length = mask.shape[-1]
    if length % ALIGNMENT:
        mask = F.pad(mask, (0, -length % ALIGNMENT))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
