"""Features of images that come again, for architectures nobody has looked at: used only once they are proved.

What the processor makes of one image alone is given to `get_image_features`, and what comes of several images is put
one behind the other in place of pixels (`mm_encoder_outputs`). Whether that is right depends on the architecture (tiles
padded to the batch, features that depend on neighbours), so the first batches are answered both ways: one difference in
their tokens, or an error, and it is off for good, with the reason in the run's record; so it is where it saved no time
(images that cost next to nothing).

Only batches whose images are kept or come several times in them are answered so; the others cost what they always did.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmeval.vlm.image_store import ImageStore, PreparedImage

if TYPE_CHECKING:
    import torch

    from vlmeval.vlm.image_parts import Features, Part

PROOFS = 3
"""Batches with repeated images whose answers have to be the same both ways."""
LONGEST = 1.0
"""Of the time pixels took, what features may take in these batches to be used; the first, a warm-up, is left out."""
WORTH = 0.5
"""The share of a batch's images that need not be encoded, from which on features are given in place of pixels."""
Alone = Callable[[], Mapping[str, Any]]
"""What the processor makes of an image that is the only one of its prompt."""


class FeatureReuse:
    """Keeps the features of one model's images, and knows whether they may be used."""

    def __init__(self, model: Any, most_bytes: int, off: str = "") -> None:
        self.store = ImageStore(most_bytes)
        self.proofs = 0
        self.off = off or why_not(model)
        """Why it is off; empty while it is on."""
        self._seconds = [0.0, 0.0]
        self._is_list = False
        self._taken = () if self.off else tuple(inspect.signature(model.get_image_features).parameters)

    @property
    def is_proved(self) -> bool:
        """Whether features may be used without looking."""
        return self.proofs >= PROOFS

    @staticmethod
    def prepared(key: str, alone: Alone) -> PreparedImage:
        """An image whose features are made when they are needed."""
        return PreparedImage(key, {}, None, lambda: dict(alone()))

    def is_worth_it(self, images: Sequence[Sequence[PreparedImage]]) -> bool:
        """Whether enough of these images need not be encoded."""
        keys = [image.key for own in images for image in own]
        if self.off or not keys or not all(keys):
            return False
        missing = sum(key not in self.store for key in set(keys))
        return missing <= (1 - WORTH) * len(keys)

    def inputs(
        self, model: Any, inputs: Mapping[str, Any], images: Sequence[Sequence[PreparedImage]], move: Callable[..., Any]
    ) -> dict[str, Any]:
        """Inputs with features in place of pixels; `move` brings inputs to the model's device."""
        import torch

        def encode(parts: list[Part]) -> list[Features]:
            with torch.inference_mode():
                return [self._encoded(model, move(part)) for part in parts]

        listed = [image for own in images for image in own]
        features = self.store.features(listed, encode)
        pooled: Any = [tensor for own in features for tensor in own]
        if not self._is_list:
            pooled = torch.cat(pooled)
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        output: Any = BaseModelOutputWithPooling()
        output.pooler_output = pooled
        _check_count(model.config, inputs["input_ids"], pooled)
        # Positions are computed from the grids, whatever stands for the pixels.
        kept = {name: value for name, value in inputs.items() if name not in self._taken or name.endswith("grid_thw")}
        kept.update({name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs})
        return {**move(kept), "mm_encoder_outputs": {"image": output}}

    def _encoded(self, model: Any, part: Part) -> Features:
        taken = {name: value for name, value in part.items() if name in self._taken}
        output = model.get_image_features(**taken, return_dict=True)
        pooled = output.pooler_output
        self._is_list = not hasattr(pooled, "shape")
        return tuple(pooled) if self._is_list else (pooled,)

    def learn(self, by_pixels: torch.Tensor, by_features: torch.Tensor, seconds: tuple[float, float]) -> str:
        """Token ids of one batch, answered both ways, and how long each took: why it has to be off, "" if not."""
        import torch

        if not torch.equal(by_pixels.cpu(), by_features.cpu()):
            return "answers differed from those to pixels"
        if self.proofs:
            self._seconds = [before + now for before, now in zip(self._seconds, seconds, strict=True)]
        self.proofs += 1
        pixels_s, features_s = self._seconds
        if self.is_proved and features_s > LONGEST * pixels_s:
            return f"it saved no time ({features_s:.2f} s beside {pixels_s:.2f} s)"
        return ""

    def turn_off(self, why: str) -> None:
        """Never use it again."""
        self.off = why
        self.store.clear()

    def stamp(self) -> dict[str, Any]:
        """For the run's record."""
        if self.off:
            return {"image_reuse": f"off: {self.off}"}
        if not self.proofs:
            return {}
        state = "on" if self.is_proved else "not proved yet"
        about = f"{state}: {self.proofs} batches were answered both ways, with the same tokens"
        return {"images": self.store.used, "images_reused": self.store.used - self.store.encoded, "image_reuse": about}


def _check_count(config: Any, input_ids: torch.Tensor, pooled: Any) -> None:
    """Raises ValueError where a prompt has other places for image tokens than there are: a card would not say so."""
    token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    if token is None:
        return
    width = pooled[0].shape[-1] if isinstance(pooled, list) else pooled.shape[-1]
    rows = sum(own.numel() for own in pooled) // width if isinstance(pooled, list) else pooled.numel() // width
    if (places := int((input_ids == token).sum())) != rows:
        raise ValueError(f"{rows} image tokens for {places} places")


def why_not(model: Any) -> str:
    """Why the features of this model's images cannot be given to it, "" if they might."""
    if not hasattr(model, "get_image_features"):
        return "it has no get_image_features()"
    if "mm_encoder_outputs" not in inspect.signature(type(model).forward).parameters:
        return "it takes no features in place of pixels"
    if (getattr(model.generation_config, "num_beams", 1) or 1) > 1:
        return "several beams share an image"
    return ""
