"""A checkpoint that a class of transformers runs: its settings, what planning needs of it, loading."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from vlmeval.errors import ModelError, UsageError
from vlmeval.hardware import cpu_threads
from vlmeval.images import DEFAULT_MAX_IMAGE_PIXELS
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.profile import ModelProfile
from vlmeval.placement.workload import cutting
from vlmeval.vlm.checkpoint import Checkpoint, open_checkpoint
from vlmeval.vlm.generation import generation_settings
from vlmeval.vlm.host_batch import HostBatches
from vlmeval.vlm.loaded import check_complete, check_image_token, one_line
from vlmeval.vlm.patch_embedding import embed_patches_by_product
from vlmeval.vlm.planned import PlannedModel, planned_config
from vlmeval.vlm.precision import Precision, check_precision, choose_precision
from vlmeval.vlm.prompt_length import image_settings, local_folder
from vlmeval.vlm.quantised import check_quantisation, quantisation_method
from vlmeval.vlm.thinking import splitting_wanted


class CheckpointModel(HostBatches):
    """A checkpoint that a class of transformers runs.

    `model_path` is a folder or a hub id, `revision` a commit, branch or tag there. `dtype` and `attention` are chosen
    from the card unless given. `split_thinking` takes what stands before `</think>` off the answer (on; SPLIT_THINK=0
    in the environment turns it off). `allow_pickle` permits weights that are no safetensors and can run code when
    loaded. Every further argument is one of generate()'s.
    """

    class_name: str
    """transformers' class that runs the checkpoint."""
    model_types: ClassVar[tuple[str, ...]]
    """Values of `model_type` in config.json that the class takes."""
    generation_defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 2048}
    flash_attention: ClassVar[bool] = True
    """Whether transformers' class runs with flash-attn at all."""
    trust_remote_code: bool = False
    """Whether the checkpoint's own Python code may be fetched and run; only `AutoVLM` ever does."""

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
        split_thinking: bool | None = None,
        allow_pickle: bool = False,
        **generation: Any,
    ) -> None:
        check_precision(dtype, attention)
        self.model_path = model_path
        self.revision = revision
        self.dtype = dtype
        self.attention = attention
        self.system_prompt = system_prompt
        self.custom_prompts = use_custom_prompt
        self.max_image_pixels = max_image_pixels
        self.split_thinking = splitting_wanted(split_thinking)
        self.allow_pickle = allow_pickle
        self.generation = generation_settings(self.generation_defaults, generation)
        self.asked_generation = frozenset(name for name, value in generation.items() if value is not None)
        self.model: Any = None
        self.processor: Any = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, fetched and checked when first needed."""
        checkpoint = open_checkpoint(
            self.model_path, self.revision, allow_pickle=self.allow_pickle, allow_code=self.trust_remote_code
        )
        self.check_architecture(checkpoint)
        check_quantisation(checkpoint.config, self.model_path)
        return checkpoint

    def check(self) -> None:
        """A checkpoint that lies in a folder is checked before benchmarks are opened."""
        if Path(self.model_path).expanduser().is_dir():
            _ = self.checkpoint

    def check_architecture(self, checkpoint: Checkpoint) -> None:
        """Raise ModelError for a checkpoint that is not of this family."""
        if checkpoint.model_type not in self.model_types:
            raise ModelError(
                f"{checkpoint.folder} holds a {checkpoint.model_type!r} model; {type(self).__name__} runs "
                f"{', '.join(self.model_types)}"
            )

    @cached_property
    def planned(self) -> PlannedModel:
        """What planning needs of the checkpoint."""
        return planned_config(self.checkpoint.config, self.model_path)

    def planning_profile(self) -> ModelProfile | None:
        """The checkpoint's blocks."""
        return self.planned.profile

    def size_config(self) -> Mapping[str, Any]:
        """The checkpoint's config.json."""
        return self.checkpoint.config

    @cached_property
    def _image_settings(self) -> Mapping[str, Any]:
        return image_settings(local_folder(self.model_path, self.revision))

    def image_settings(self) -> Mapping[str, Any]:
        """From the checkpoint's files."""
        return self._image_settings

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn."""
        return bool(self.generation["do_sample"])

    @property
    def most_new_tokens(self) -> int:
        """The longest answer the settings allow."""
        return int(self.generation.get("max_new_tokens") or self.generation.get("max_length") or 512)

    def planning_workload(self) -> Workload:
        """The largest image the settings let through and a text of common length."""
        tokens = cutting(self.planned.config, self.image_limits(None), self.image_settings()).largest(1)
        return Workload(
            image_tokens=tokens.image_tokens,
            vision_tokens=tokens.vision_tokens,
            cross_tokens=tokens.cross_tokens,
            largest_image_tokens=tokens.largest_image_tokens,
            pixel_values=tokens.pixel_values,
            new_tokens=self.generation.get("max_new_tokens", 512),
            dtype="bfloat16" if self.dtype == "auto" else self.dtype,
            quantisation=self.planned.quantisation,
        )

    @cached_property
    def precision(self) -> Precision:
        """Device, number type and attention on this machine. Imports torch."""
        if not self.flash_attention and self.attention.startswith("flash_attention"):
            raise UsageError(f"{self.class_name} does not run with {self.attention}; use sdpa or eager")
        return choose_precision(
            self.run_cards(),
            self.checkpoint.weight_bytes,
            dtype=self.placement.dtype or self.dtype,
            attention=self.placement.attention or self.attention,
            flash=None if self.flash_attention else False,
        )

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
            "split_thinking": self.split_thinking,
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
            "quantisation": quantisation_method(self.checkpoint.config),
            "pickled_weights": self.checkpoint.is_pickled,
            **self.placement_stamp(),
            **self.video_stamp(),
            **self.reuse_stamp(),
        }

    def seed(self, value: int) -> None:
        """Seed torch, which draws the tokens; greedy, nothing is drawn."""
        if not self.generation["do_sample"]:
            return
        import torch

        torch.manual_seed(value)

    def load(self) -> None:
        """Load processor and weights onto the planned cards."""
        if self.model is not None:
            return
        import torch

        folder, chosen = str(self.checkpoint.folder), self.precision
        if chosen.device == "cpu":
            torch.set_num_threads(cpu_threads())
        from huggingface_hub.errors import StrictDataclassError

        try:
            self.processor = self.load_processor()
            check_image_token(self.processor, folder)
            self.processor.tokenizer.padding_side = "left"
            self.store_images()
            self.model = self.load_laid_out(self._load_weights)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, StrictDataclassError) as error:
            raise ModelError(f"{folder} cannot be loaded as {self.class_name}: {one_line(error)}") from error

    def _load_weights(self, device_map: Mapping[str, int | str] | None) -> Any:
        import torch

        model = self.load_model(
            dtype=getattr(torch, self.precision.dtype),
            attn_implementation=self.precision.attention,
            device_map=device_map,
            use_safetensors=not self.checkpoint.is_pickled,
        )
        model.eval()
        embed_patches_by_product(model)
        model.generation_config = self._generation_config(model.generation_config)
        return model

    def load_model(self, **arguments: Any) -> Any:
        """The model, from the checkpoint's folder, with these arguments of from_pretrained()."""
        import transformers

        folder = str(self.checkpoint.folder)
        model, loading = getattr(transformers, self.class_name).from_pretrained(
            folder, output_loading_info=True, **arguments
        )
        check_complete(loading, folder)
        return model

    def load_processor(self) -> Any:
        """Tokenizer and image processor. Families set their pixel or tile limits here."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(self.checkpoint.folder))

    def _generation_config(self, shipped: Any) -> Any:
        """Ours, with only the token ids from the checkpoint: shipped sampling settings shall not leak in."""
        from transformers import GenerationConfig

        return GenerationConfig(**{**self.generation_ids(shipped), **self.generation})

    def generation_ids(self, shipped: Any) -> dict[str, Any]:
        """The token ids that begin, end and pad."""
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        ids = {name: getattr(shipped, name) for name in names}
        if ids["pad_token_id"] is None:
            ids["pad_token_id"] = self.processor.tokenizer.pad_token_id
        return ids
