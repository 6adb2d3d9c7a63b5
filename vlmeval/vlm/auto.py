"""AutoVLM: any checkpoint that transformers maps to an image-text-to-text class, without a class of ours.

The prompt is the benchmark's own, the turns are worded by the checkpoint's chat template. What was tried, and how it
went, is in docs/auto_architectures.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from vlmeval.errors import ModelError, OutOfMemorySampleError, SampleError
from vlmeval.hardware import Card
from vlmeval.images import image_key
from vlmeval.placement.device_map import DeviceMap
from vlmeval.placement.layout import Layout
from vlmeval.placement.profile import VISION_ROLES, ModelProfile
from vlmeval.types import ImagePart, Message, Task, TextPart
from vlmeval.vlm.architectures import class_for
from vlmeval.vlm.checkpoint import Checkpoint
from vlmeval.vlm.feature_reuse import FeatureReuse
from vlmeval.vlm.host_batch import HostBatch
from vlmeval.vlm.image_store import PreparedImage
from vlmeval.vlm.loaded import one_line
from vlmeval.vlm.precision import Precision
from vlmeval.vlm.transformers_model import TransformersModel

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as PILImage

Wording = Literal["parts", "text", "plain"]
"""How turns become text: the template takes a list of parts, or one text with image tokens in it, or there is none."""

ONE_BY_ONE = frozenset({"kosmos-2.5"})
"""Model types whose processor marks the image's place as if prompts were padded on the right."""

_log = logging.getLogger("vlmeval")
_PROBE = "What is this?"


class AutoVLM(TransformersModel):
    """Any architecture of transformers' image-text-to-text mapping.

    `trust_remote_code` permits the Python code a checkpoint brings, where transformers has no class for it.
    """

    model_types = ()
    _reuse: FeatureReuse | None = None

    def __init__(self, model_path: str, *, trust_remote_code: bool = False, **arguments: Any) -> None:
        super().__init__(model_path, **arguments)
        self.trust_remote_code = trust_remote_code
        self.wording: Wording = "parts"

    def check_architecture(self, checkpoint: Checkpoint) -> None:
        """Find the class that runs it. Raises ModelError if there is none, or it needs code that is not trusted."""
        self.class_name = class_for(checkpoint.config, self.model_path, trust_remote_code=self.trust_remote_code)

    @property
    def runs_remote_code(self) -> bool:
        """Whether the checkpoint's own Python code runs."""
        if not self.trust_remote_code:
            return False
        _ = self.checkpoint  # `class_name` is found when it is opened
        return self.class_name.startswith("AutoModel")

    def planning_profile(self) -> ModelProfile | None:
        """Blocks derived from the model on meta; None where the checkpoint's own code runs: it is not looked into."""
        return None if self.runs_remote_code else super().planning_profile()

    def _build_device_map(self, layout: Layout, cards: Sequence[Card]) -> DeviceMap:
        """As `blocks.derive_profile` found the model on meta: vision with the embeddings where that is no fuller, cut
        between the elements of its list of layers where it is; a tower without such a list stays whole.
        """
        return layout.over(cards, on_entry_card=VISION_ROLES)

    def settings(self) -> Mapping[str, Any]:
        """The shared settings, and whose code runs."""
        return {**super().settings(), "remote_code": self.runs_remote_code}

    def stamp(self) -> Mapping[str, Any]:
        """The shared facts, the class that runs, and whose code that is."""
        return {**super().stamp(), "architecture": self.class_name, "remote_code": self.runs_remote_code}

    @cached_property
    def precision(self) -> Precision:
        """As for every model; where the class lacks the attention kernel that would be chosen, the next best."""
        chosen = super().precision
        if self.attention != "auto" or self.runs_remote_code:
            return chosen
        import transformers

        architecture = getattr(transformers, self.class_name)
        for attention, trait in (("flash_attention_2", "_supports_flash_attn"), ("sdpa", "_supports_sdpa")):
            if chosen.attention == attention and not getattr(architecture, trait, False):
                lower = "sdpa" if attention == "flash_attention_2" else "eager"
                reason = f"{chosen.reason}; {self.class_name} has no {attention}"
                chosen = replace(chosen, attention=lower, reason=reason)
        return chosen

    def load(self) -> None:
        """Load processor and weights, and find out how the checkpoint words a prompt."""
        if self.model is not None:
            return
        super().load()
        self.wording = self._find_wording()
        if self.wording != "parts":
            _log.warning("%s: %s", self.model_path, _WORDING_NOTES[self.wording])

        off = "answers are drawn" if self.draws else ""
        self._reuse = FeatureReuse(self.model, self._feature_bytes(), off)

    # Images that come again

    def most_kept_bytes(self) -> int:
        """Whether they are used at all shows only later."""
        return self._feature_bytes()

    def kept_bytes(self) -> int:
        """Of images that may come again."""
        return self._reuse.store.kept_bytes if self._reuse is not None else 0

    def prepare_on_host(self, batch: Sequence[list[Message]], task: Task | None = None) -> HostBatch:
        """Prompts as inputs, and their images by name. A begin token that the template wrote is not put there a second
        time."""
        self._special_tokens = not self._begins(self.render(batch[0]))
        host = super().prepare_on_host(batch, task)
        if self._reuse is None or self._reuse.off:
            return host
        share = self.pixel_share
        images = [[part for part in message if part["type"] == "image"] for message in batch]
        return replace(host, images=[[self._named(part, share) for part in own] for own in images])

    def _named(self, image: ImagePart, share: float) -> PreparedImage:
        message: list[Message] = [image, TextPart(type="text", value=_PROBE)]
        name = image_key(image["value"])
        alone = super().prepare_on_host
        return FeatureReuse.prepared(f"{name} {share}" if name else "", lambda: alone([message]).inputs)

    def to_model(self, host: HostBatch, model: Any = None) -> dict[str, Any]:
        """Features in place of pixels where the batch still names its images, see `_generate`."""
        if model is not None or self._reuse is None or not any(host.images):
            return super().to_model(replace(host, images=[]), model)
        return self._reuse.inputs(self.model, host.inputs, host.images, self.moved)

    def _generate(self, host: HostBatch, task: Task | None) -> torch.Tensor:
        """By features where that is proved and saves work; else by pixels, and at first both ways."""
        reuse, by_pixels = self._reuse, replace(host, images=[])
        if reuse is None or self.watch.is_on or self.pixel_share < 1 or not reuse.is_worth_it(host.images):
            return super()._generate(by_pixels, task)
        started = time.perf_counter()
        found = None if reuse.is_proved else super()._generate(by_pixels, task)
        middle = time.perf_counter()
        try:
            again = super()._generate(host, task)
        except OutOfMemorySampleError:
            if found is None:
                raise
            return found
        except (SampleError, RuntimeError, AttributeError, TypeError, KeyError) as error:
            self._no_reuse(f"{type(error).__name__}: {one_line(error)}")
            return super()._generate(by_pixels, task) if found is None else found
        if found is None:
            return again
        if why := reuse.learn(found, again, (middle - started, time.perf_counter() - middle)):
            self._no_reuse(why)
        return found

    def _no_reuse(self, why: str) -> None:
        if self._reuse is not None:
            self._reuse.turn_off(why)
            _log.warning("%s: images that come again are encoded again: %s", self.model_path, why)

    def forget_features(self) -> None:
        """The model lies elsewhere now."""
        super().forget_features()
        if self._reuse is not None:
            self._reuse.store.clear()

    def reuse_stamp(self) -> dict[str, Any]:
        """Whether features of images were reused, and of how many."""
        return {} if self._reuse is None else self._reuse.stamp()

    def load_processor(self) -> Any:
        """The checkpoint's processor. Raises ModelError if it has no tokenizer or no image processor."""
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(str(self.checkpoint.folder), trust_remote_code=self.runs_remote_code)
        lacking = [part for part in ("tokenizer", "image_processor") if not hasattr(processor, part)]
        if lacking:
            raise ModelError(
                f"{self.checkpoint.folder}: what its processor files describe is a {type(processor).__name__} without "
                f"{' and '.join(lacking)}; a VLM needs both (processor_config.json, preprocessor_config.json)"
            )
        return processor

    def load_model(self, **arguments: Any) -> Any:
        """The model; with the checkpoint's own code only where that was found to be needed."""
        if self.runs_remote_code:
            arguments["trust_remote_code"] = True
        return super().load_model(**arguments)

    def generation_ids(self, shipped: Any) -> dict[str, Any]:
        """Token ids of the checkpoint; a chat model ends a turn with its tokenizer's end token as well."""
        ids = super().generation_ids(shipped)
        ends = ids["eos_token_id"]
        ends = list(ends) if isinstance(ends, (list, tuple)) else [ends] if ends is not None else []
        own = self.processor.tokenizer.eos_token_id
        ids["eos_token_id"] = [*ends, *([own] if own is not None and own not in ends else [])] or None
        if ids["pad_token_id"] is None:
            ids["pad_token_id"] = own
        return ids

    def groups(self, batch: Sequence[list[Message]]) -> Iterable[Sequence[int]]:
        """Prompts with and without images are never put into one call."""
        if self.checkpoint.model_type in ONE_BY_ONE:
            yield from ([place] for place in range(len(batch)))
            return
        with_image = [any(part["type"] == "image" for part in message) for message in batch]
        for kind in (True, False):
            if places := [place for place, has in enumerate(with_image) if has is kind]:
                yield places

    def arrange_images(self, images: list[list[PILImage]]) -> Any:
        """A list for each prompt, as the processors' own apply_chat_template hands them over."""
        return images if any(images) else None

    def processor_arguments(self, task: Task | None) -> dict[str, Any]:
        """Only what has to be said."""
        return {} if self._special_tokens else {"add_special_tokens": False}

    def _begins(self, text: str) -> bool:
        begin = self.processor.tokenizer.bos_token
        return begin is not None and text.startswith(begin)

    def render(self, message: Sequence[Message]) -> str:
        """The prompt text, worded as the checkpoint can."""
        return self._word(self.conversation(message), self.wording)

    def _find_wording(self) -> Wording:
        """Try the template on an image and a question."""
        owner = self._template_owner()
        if owner is None:
            return "plain"
        turns = self.conversation([ImagePart(type="image", value=""), TextPart(type="text", value=_PROBE)])
        marker = self._marker()
        for wording in ("parts", "text"):
            try:
                text = self._word(turns, wording)
            except SampleError:
                continue
            # A template made for texts prints the list of parts, or leaves the image out.
            if _PROBE in text and "'type'" not in text and (not marker or marker in text):
                return wording
        raise ModelError(
            f"{self.checkpoint.folder}: its chat template words neither a list of parts nor a text with "
            f"{marker or 'an image token'} in it; is it the template of this model?"
        )

    def _template_owner(self) -> Any:
        for owner in (self.processor, self.processor.tokenizer):
            if getattr(owner, "chat_template", None):
                return owner
        return None

    def _marker(self) -> str:
        """What stands for an image in a prompt, "" where the processor puts it there itself."""
        names = ("boi_token", "image_token") if hasattr(self.processor, "full_image_sequence") else ("image_token",)
        for owner in (self.processor, self.processor.tokenizer):
            for name in names:
                if token := getattr(owner, name, None):
                    return str(token)
        return ""

    def _word(self, turns: list[dict[str, Any]], wording: Wording) -> str:
        if wording == "plain":
            return self._plain(turns)
        from jinja2 import TemplateError

        if wording == "text":
            turns = [{"role": turn["role"], "content": self._joined(turn["content"])} for turn in turns]
        try:
            return self._template_owner().apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **self.template_arguments()
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise SampleError(f"the chat template of {self.model_path} refuses this prompt: {error}") from error

    def _joined(self, content: Sequence[Mapping[str, Any]]) -> str:
        return "".join(part["text"] if part["type"] == "text" else self._marker() for part in content)

    def _plain(self, turns: Sequence[Mapping[str, Any]]) -> str:
        """Images and texts in order and nothing else; roles are named only where someone has spoken before."""
        if len(turns) == 1:
            return self._joined(turns[0]["content"])
        lines = [f"{turn['role'].title()}: {self._joined(turn['content'])}" for turn in turns]
        return "\n".join([*lines, "Assistant:"])


_WORDING_NOTES = {
    "text": "its chat template takes text only; image tokens are put into the text",
    "plain": "it has no chat template; the prompt is the image tokens and the text, without turns",
}
