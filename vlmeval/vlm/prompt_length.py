"""How many tokens a prompt has, before a model is loaded: exactly where tokenizer and chat template are at hand.

Neither torch nor transformers is imported: `tokenizers` reads tokenizer.json, jinja2 the chat template. Without a
tokenizer a text counts one token for each byte of its UTF-8. That is a bound and no estimate: byte-level BPE (Qwen,
Llama 3) begins with bytes and only ever merges, and sentencepiece with byte fallback (InternLM2, Llama 2, Phi-3) gives
a character one piece or one for each of its bytes. English has some four bytes a token, so its text is overestimated
some four times; Chinese has three bytes a character and 1 to 1.5 characters a token, so some three to five times.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmeval.vlm.checkpoint import read_json

TEMPLATE_TOKENS = 256
"""Assumed for roles, ends of turns and a default system message, where the chat template is not at hand. InternVL's
system message is the longest of the families' own, some 180 bytes."""
MARKS_AN_IMAGE = 16
"""Assumed around each image where the family is not known: start, end, a line break, a number."""
MARKS: Mapping[str, int] = {"qwen2_vl": -1, "qwen2_5_vl": -1, "qwen3_vl": -1, "qwen3_vl_moe": -1,
                            "llava_onevision": -1, "mllama": -1, "internvl": 1}  # fmt: skip
"""What to add for each image to the tokens of a rendered prompt: its placeholder is among the image tokens already;
InternVL puts `<img>` and `</img>` around."""


def local_folder(model_path: str, revision: str | None = None) -> Path | None:
    """Where the files of a checkpoint lie on this machine; None if they do not. Nothing is fetched."""
    path = Path(model_path).expanduser()
    if path.is_dir():
        return path
    if model_path.count("/") != 1 or model_path.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model_path, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def image_settings(folder: Path | None) -> Mapping[str, Any]:
    """What a checkpoint's files say of its image processor, and under "video_processor" of that for videos; empty where
    there are none. Raises ModelError."""
    if folder is None:
        return {}
    whole = read_json(folder / "processor_config.json")
    own = whole.get("image_processor")
    videos = whole.get("video_processor") or read_json(folder / "video_preprocessor_config.json")
    found = own if isinstance(own, dict) else read_json(folder / "preprocessor_config.json")
    return {**found, "video_processor": videos} if found else {}


class PromptLength:
    """Counts the tokens of prompts of one checkpoint; `folder` is None where it is not at hand."""

    def __init__(self, folder: Path | None, model_type: str, system_prompt: str | None = None) -> None:
        self._folder = folder
        self._model_type = model_type
        self._system_prompt = system_prompt
        self._around: dict[int, int] = {}

    @property
    def is_exact(self) -> bool:
        """Whether texts are counted rather than bounded."""
        return self._tokenizer is not None and self._template is not None

    def bound(self, text: str, images: int) -> int:
        """At least the tokens of a prompt with this text and so many images, image tokens not counted."""
        if images not in self._around:
            self._around[images] = self._outside(images)
        return text_bytes(text) + self._around[images]

    def count(self, text: str, images: int) -> int | None:
        """The tokens of such a prompt, None where they cannot be counted."""
        rendered = self._rendered(text, images)
        if rendered is None or self._tokenizer is None:
            return None
        marks = MARKS.get(self._model_type, MARKS_AN_IMAGE)
        return len(self._tokenizer.encode(rendered).ids) + marks * images

    def _outside(self, images: int) -> int:
        """What a prompt has besides its text. A few more than counted: at the seams tokens may come out otherwise."""
        counted = self.count("", images)
        if counted is not None:
            return counted + 8
        return TEMPLATE_TOKENS + MARKS_AN_IMAGE * images + text_bytes(self._system_prompt or "")

    def _rendered(self, text: str, images: int) -> str | None:
        if self._template is None or self._folder is None:
            return None
        from jinja2 import TemplateError

        content: list[dict[str, str]] = [*([{"type": "image"}] * images), {"type": "text", "text": text}]
        if self._model_type == "llava_onevision":
            # As the family's class writes them.
            content = [{"type": "text", "text": "<image>\n" * images + text}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self._system_prompt is not None:
            turns.insert(0, {"role": "system", "content": self._system_prompt})
        try:
            return str(self._template.render(messages=turns, add_generation_prompt=True, **self._special_tokens))
        except (TemplateError, TypeError, ValueError, KeyError):
            return None  # made for other turns than these: its prompts are bounded

    @cached_property
    def _tokenizer(self) -> Any:
        found = read_json(self._folder / "tokenizer.json") if self._folder else {}
        model = found.get("model")
        # The library raises nothing but Exception for a file it cannot read, so the file is looked at first.
        if not isinstance(model, dict) or not model.get("vocab"):
            return None
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(found))

    @cached_property
    def _template(self) -> Any:
        if self._folder is None or self._model_type == "internvl_chat":
            return None
        source = _template_source(self._folder)
        if source is None:
            return None
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: "26 September 2024"
        try:
            return environment.from_string(source)
        except TemplateError:
            return None

    @cached_property
    def _special_tokens(self) -> Mapping[str, str]:
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        found = read_json(self._folder / "tokenizer_config.json") if self._folder else {}
        tokens = {name: found[name] for name in names if found.get(name)}
        return {name: str(token["content"] if isinstance(token, dict) else token) for name, token in tokens.items()}


def text_bytes(text: str) -> int:
    """Bytes of a text as a tokenizer sees it: normalised texts can be longer."""
    if text.isascii():
        return len(text)
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text))
    return max(len(form.encode("utf-8", "surrogatepass")) for form in forms)


def _template_source(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = read_json(folder / name).get("chat_template")
        if isinstance(found, str):
            return found
    return None


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
