"""The stock forward over rows that hold one picture and several questions about it.

Training on one CPU core is feasible because the picture, the dearest part of a sample, is computed once for several
questions. A row is `prefix | question 1 + answer | question 2 + answer | ...`: each question sees the prefix and
itself, at the positions it would have alone. The mathematics is that of the stock model, batched over pictures of one
size; `vlmeval.demo.train` compares it with the stock forward before the first step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlmeval.demo import checkpoints

GRID = 4
"""Cells along a side of a picture; a cell is one merged image token."""

CELLS = GRID * GRID


class PackedForward(ABC):
    """One family's forward over packed rows; B pictures, L tokens, H hidden width, N image tokens."""

    def __init__(self, family: str, processor: Any, model: Any) -> None:
        self.model = model
        self.language_model = model.model.language_model
        self.image_token_id = checkpoints.image_token_id(family, processor)
        image_processor = processor.image_processor
        self.pixel_mean = np.asarray(image_processor.image_mean, np.float32) * 255
        self.pixel_std = np.asarray(image_processor.image_std, np.float32) * 255

    @abstractmethod
    def pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Pictures, each uint8 [112, 112, 3], to the float tensor that `vision` takes."""

    @abstractmethod
    def vision(self, pixels: Tensor) -> Tensor:
        """Image features [B, N, H] as the language model receives them."""

    def cells(self, features: Tensor) -> Tensor:
        """The features [B, 16, H] of the 4 x 4 cells, row by row, on which the throw-away heads are trained."""
        return features[:, :CELLS]

    def prefix_positions(self, prefix_ids: Sequence[int]) -> Tensor:
        """Positions [axes, tokens] of the prefix; one axis, except for Qwen2-VL's three."""
        return torch.arange(len(prefix_ids))[None]

    def hidden(self, token_ids: Tensor, positions: Tensor, allowed: Tensor, features: Tensor) -> Tensor:
        """Last hidden states [B, L, H].

        `token_ids` [B, L], `positions` [axes, B, L], `allowed` bool [B, 1, L, L]: may the row's token see the column's.
        """
        embeddings = self.language_model.embed_tokens(token_ids)
        start = int((token_ids[0] == self.image_token_id).nonzero()[0])
        end = start + features.shape[1]
        embeddings = torch.cat([embeddings[:, :start], features, embeddings[:, end:]], dim=1)
        states: Tensor = self.language_model(
            inputs_embeds=embeddings,
            position_ids=self._model_positions(positions),
            attention_mask=self._model_mask(allowed),
            use_cache=False,
        ).last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Output layer: [..., H] to [..., vocabulary]."""
        scores: Tensor = self.model.lm_head(states)
        return scores

    def _model_positions(self, positions: Tensor) -> Tensor:
        return positions[0]

    def _model_mask(self, allowed: Tensor) -> Any:
        return allowed

    def _normalised(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """[B, 112, 112, 3], as the image processor normalises."""
        return torch.from_numpy((np.stack(pictures).astype(np.float32) - self.pixel_mean) / self.pixel_std)


class Qwen2VLForward(PackedForward):
    """Qwen2-VL: 64 patches of 14 pixels in merge order, merged two by two; three position axes."""

    def __init__(self, family: str, processor: Any, model: Any) -> None:
        super().__init__(family, processor, model)
        from transformers.vision_utils import get_vision_position_ids

        self.tower = model.model.visual
        self.patch = self.tower.config.patch_size
        patches = 2 * GRID
        self.patch_positions = get_vision_position_ids(torch.tensor([[1, patches, patches]]), 2, kwargs={})

    def pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """[B, 64, 588]: cell by cell, the four patches of a cell together."""
        patch = self.patch
        x = self._normalised(pictures).view(-1, GRID, 2, patch, GRID, 2, patch, 3)
        return x.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(len(pictures), 4 * CELLS, 3 * patch * patch)

    def vision(self, pixels: Tensor) -> Tensor:
        count = pixels.shape[0]
        # The stock convolution spans two frames; those of a still picture are equal, so its two halves add up.
        weight = self.tower.patch_embed.proj.weight.sum(2)
        states = functional.linear(pixels, weight.reshape(weight.shape[0], -1))
        cos, sin = self.tower.rotary_pos_emb(states, self.patch_positions)
        for block in self.tower.blocks:
            states = states + self._attention(block.attn, block.norm1(states), cos, sin)
            states = states + block.mlp(block.norm2(states))
        merged: Tensor = self.tower.merger(states)
        return merged.view(count, CELLS, -1)

    @staticmethod
    def _attention(attention: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The stock vision attention [B, 64, E], where every picture sees only itself."""
        from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

        count, patches, width = states.shape
        query, key, value = attention.qkv(states).view(count, patches, 3, attention.num_heads, -1).unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, cos[None], sin[None])
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        out: Tensor = attention.proj(mixed.transpose(1, 2).reshape(count, patches, width))
        return out

    def prefix_positions(self, prefix_ids: Sequence[int]) -> Tensor:
        """M-RoPE: the 16 cells share one time position and spread over rows and columns; text goes on behind them."""
        start = list(prefix_ids).index(self.image_token_id)
        cell = torch.arange(CELLS)
        image = start + torch.stack([torch.zeros_like(cell), cell // GRID, cell % GRID])
        before = torch.arange(start).expand(3, -1)
        after = (start + GRID + torch.arange(len(prefix_ids) - start - CELLS)).expand(3, -1)
        return torch.cat([before, image, after], dim=1)

    def _model_positions(self, positions: Tensor) -> Tensor:
        return positions

    def _model_mask(self, allowed: Tensor) -> Any:
        return {"full_attention": allowed}


class InternVLForward(PackedForward):
    """InternVL: one tile, pixel-shuffled to 16 tokens; the stock tower already takes batches."""

    def pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """[B, 3, 112, 112]."""
        return self._normalised(pictures).permute(0, 3, 1, 2).contiguous()

    def vision(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.model.model.get_image_features(pixel_values=pixels).pooler_output
        return features.reshape(len(pixels), CELLS, -1)


class LlavaOnevisionForward(InternVLForward):
    """LLaVA-OneVision: the whole picture, then the picture as its only tile with a newline behind every row."""

    def vision(self, pixels: Tensor) -> Tensor:
        """[B, 36, H]: 16 tokens and 4 rows of 4 + 1. At 112 pixels whole and tile are equal: one pass serves both."""
        inner = self.model.model
        states = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        whole: Tensor = inner.multi_modal_projector(states)
        count, _, width = whole.shape
        newline = inner.image_newline.expand(count, GRID, 1, width)
        tile = torch.cat([whole.view(count, GRID, GRID, width), newline], dim=2).flatten(1, 2)
        return torch.cat([whole, tile], dim=1)


class MllamaForward(PackedForward):
    """Llama-3.2-Vision: up to four tiles, seen by cross-attention; a 112-pixel picture fills the first one."""

    def pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """[B, 1 picture, 4 tiles, 3, 112, 112]; unused tiles are zero, as the processor pads them."""
        first = self._normalised(pictures).permute(0, 3, 1, 2)
        tiles = first.new_zeros((len(pictures), 1, self.model.config.vision_config.max_num_tiles, *first.shape[1:]))
        tiles[:, 0, 0] = first
        return tiles

    def vision(self, pixels: Tensor) -> Tensor:
        """[B, 4 * 17, H]: every tile's class token and 16 cells; aspect ratio 1 is a single tile."""
        count, _, tiles = pixels.shape[:3]
        mask = torch.zeros((count, 1, tiles), dtype=torch.long)
        mask[:, :, 0] = 1
        ratio = torch.ones((count, 1), dtype=torch.long)
        inner = self.model.model
        states = inner.vision_model(pixels, aspect_ratio_ids=ratio, aspect_ratio_mask=mask).last_hidden_state
        features: Tensor = inner.multi_modal_projector(states)
        return features.reshape(count, -1, features.shape[-1])

    def cells(self, features: Tensor) -> Tensor:
        return features[:, 1 : 1 + CELLS]  # behind the class token of the first tile

    def hidden(self, token_ids: Tensor, positions: Tensor, allowed: Tensor, features: Tensor) -> Tensor:
        tiles = self.model.config.vision_config.max_num_tiles
        start = int((token_ids[0] == self.image_token_id).nonzero()[0])
        sees_tile = torch.zeros((*token_ids.shape, 1, tiles), dtype=torch.long)
        sees_tile[:, start:, :, 0] = 1
        states: Tensor = self.model.model(
            input_ids=token_ids,
            position_ids=positions[0],
            attention_mask=allowed,
            cross_attention_states=features.view(len(features) * tiles, -1, features.shape[-1]),
            cross_attention_mask=sees_tile,
            use_cache=False,
        ).last_hidden_state
        return states


def packed_forward(family: str, processor: Any, model: Any) -> PackedForward:
    """The packed forward of a family over this model."""
    classes: dict[str, type[PackedForward]] = {
        "qwen2vl": Qwen2VLForward,
        "internvl": InternVLForward,
        "llava_onevision": LlavaOnevisionForward,
        "mllama": MllamaForward,
    }
    return classes[family](family, processor, model)
