"""What the models that run in transformers share: settings, loading, a batch from prompts to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from vlmeval.errors import ModelError, SampleError
from vlmeval.hardware import cpu_threads, visible_cards
from vlmeval.images import DEFAULT_MAX_IMAGE_PIXELS, open_image
from vlmeval.types import Answer, Message, Task
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.checkpoint import Checkpoint, open_checkpoint
from vlmeval.vlm.generation import generation_settings
from vlmeval.vlm.precision import Precision, choose_precision

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as PILImage


class TransformersModel(BaseModel):
    """A checkpoint that a class of transformers runs.

    `model_path` is a folder or a hub id, `revision` a commit, branch or tag there. `dtype` and `attention` are chosen
    from the card unless given. Every further argument is one of generate()'s.
    """

    class_name: ClassVar[str]
    """transformers' class that runs the checkpoint."""
    model_types: ClassVar[tuple[str, ...]]
    """Values of `model_type` in config.json that the class takes."""
    generation_defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 2048}

    def __init__(
        self,
        model_path: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        attention: str = "auto",
        system_prompt: str | None = None,
        use_custom_prompt: bool = True,
        max_image_pixels: int = DEFAULT_MAX_IMAGE_PIXELS,
        **generation: Any,
    ) -> None:
        self.model_path = model_path
        self.revision = revision
        self.dtype = dtype
        self.attention = attention
        self.system_prompt = system_prompt
        self.custom_prompts = use_custom_prompt
        self.max_image_pixels = max_image_pixels
        self.generation = generation_settings(self.generation_defaults, generation)
        self.model: Any = None
        self.processor: Any = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, fetched and checked when first needed."""
        checkpoint = open_checkpoint(self.model_path, self.revision)
        if checkpoint.model_type not in self.model_types:
            raise ModelError(
                f"{checkpoint.folder} holds a {checkpoint.model_type!r} model; {type(self).__name__} runs "
                f"{', '.join(self.model_types)}"
            )
        return checkpoint

    @cached_property
    def precision(self) -> Precision:
        """Device, number type and attention on this machine. Imports torch."""
        return choose_precision(
            visible_cards(), self.checkpoint.weight_bytes, dtype=self.dtype, attention=self.attention
        )

    def use_custom_prompt(self, task: Task) -> bool:
        """Whether the family words such a task itself; `use_custom_prompt=False` leaves it to the benchmark."""
        return self.custom_prompts and self.has_prompt(task)

    def has_prompt(self, task: Task) -> bool:
        """Whether the family has a wording of its own for such a task."""
        return False

    def settings(self) -> Mapping[str, Any]:
        """Everything asked for that may change an answer. What the card decides is in `stamp`."""
        return {
            **super().settings(),
            "revision": self.checkpoint.revision or self.revision or "",
            "checkpoint": self.checkpoint.fingerprint(),
            "dtype": self.dtype,
            "attention": self.attention,
            "system_prompt": self.system_prompt,
            "use_custom_prompt": self.custom_prompts,
            "max_image_pixels": self.max_image_pixels,
            **{f"generation.{name}": value for name, value in sorted(self.generation.items())},
        }

    def stamp(self) -> Mapping[str, Any]:
        """Where the weights are from; device, number type and attention, and why."""
        chosen = self.precision
        return {
            "model_path": self.model_path,
            "device": chosen.device,
            "dtype": chosen.dtype,
            "attention": chosen.attention,
            "precision_reason": chosen.reason,
        }

    def seed(self, value: int) -> None:
        """Seed torch, which draws the tokens."""
        import torch

        torch.manual_seed(value)

    def load(self) -> None:
        """Load processor and weights onto the chosen device."""
        if self.model is not None:
            return
        import torch
        import transformers

        folder, chosen = str(self.checkpoint.folder), self.precision
        if chosen.device == "cpu":
            torch.set_num_threads(cpu_threads())
        try:
            self.processor = self.load_processor()
            self.model = getattr(transformers, self.class_name).from_pretrained(
                folder,
                dtype=getattr(torch, chosen.dtype),
                attn_implementation=chosen.attention,
                device_map={"": chosen.device} if chosen.device != "cpu" else None,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise ModelError(f"{folder} cannot be loaded as {self.class_name}: {error}") from error
        self.model.eval()
        self.processor.tokenizer.padding_side = "left"
        self.model.generation_config = self._generation_config(self.model.generation_config)

    def load_processor(self) -> Any:
        """Tokenizer and image processor. Families set their pixel or tile limits here."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(self.checkpoint.folder))

    def _generation_config(self, shipped: Any) -> Any:
        """Ours, with only the token ids from the checkpoint: shipped sampling settings shall not leak in."""
        from transformers import GenerationConfig

        ids = {name: getattr(shipped, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        if ids["pad_token_id"] is None:
            ids["pad_token_id"] = self.processor.tokenizer.pad_token_id
        return GenerationConfig(**{**ids, **self.generation})

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        """One answer per prompt, in order. Prompts of different lengths are padded on the left."""
        import torch

        self.load()
        inputs = self.prepare(batch)
        with torch.inference_mode():
            output = self.model.generate(**inputs, **self._call_arguments())
        return self._answers(output, inputs["attention_mask"])

    def prepare(self, batch: Sequence[list[Message]]) -> dict[str, torch.Tensor]:
        """Prompts as model inputs on the model's device: `input_ids` [batch, tokens], pixels as the family has them."""
        texts = [self.render(message) for message in batch]
        images = [self._image(part) for message in batch for part in message if part["type"] == "image"]
        inputs = self.processor(text=texts, images=images or None, padding=True, return_tensors="pt")
        return {name: self._to_model(value) for name, value in inputs.items()}

    def render(self, message: Sequence[Message]) -> str:
        """The prompt text the chat template makes of a message."""
        turns = self.conversation(message)
        return self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def conversation(self, message: Sequence[Message]) -> list[dict[str, Any]]:
        """Turns for the chat template: neighbouring parts of one role make one turn; the system prompt comes first."""
        turns: list[dict[str, Any]] = []
        if self.system_prompt is not None:
            turns.append({"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        for part in message:
            if part["type"] == "video":
                raise SampleError(f"{type(self).__name__} takes texts and images, no video")
            role = part.get("role", "user")
            if not turns or turns[-1]["role"] != role:
                turns.append({"role": role, "content": []})
            is_text = part["type"] == "text"
            turns[-1]["content"].append({"type": "text", "text": part["value"]} if is_text else {"type": "image"})
        return turns

    def _image(self, part: Message) -> PILImage:
        return open_image(part["value"], self.max_image_pixels)

    def _to_model(self, value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else value.dtype)

    def _call_arguments(self) -> dict[str, Any]:
        # generate() matches stop strings in text, so it needs the tokenizer.
        return {"tokenizer": self.processor.tokenizer} if self.generation.get("stop_strings") else {}

    def _answers(self, output: torch.Tensor, attention_mask: torch.Tensor) -> list[Answer]:
        new_tokens = output[:, attention_mask.shape[1] :]
        texts = self.processor.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        pad = self.model.generation_config.pad_token_id
        return [
            Answer(
                text=text,
                prompt_tokens=int(mask.sum()),
                new_tokens=int((tokens != pad).sum()) if pad is not None else tokens.numel(),
            )
            for text, tokens, mask in zip(texts, new_tokens, attention_mask, strict=True)
        ]
