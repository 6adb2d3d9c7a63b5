"""The conversation templates of original InternVL folders: config.json names one, and only remote code has its text.

Facts: internvl/conversation.py of https://github.com/OpenGVLab/InternVL (2024-12). Hermes-2 and internlm2-chat are the
same text; whether a sequence begins with <s> is the tokenizer's business. InternVL2 keeps the system message it was
first evaluated with, although a newer one exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlmeval.errors import ModelError, nearest_names

_INTERNVL2_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_INTERNVL2_5_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


@dataclass(frozen=True, kw_only=True)
class ConversationTemplate:
    """Marks around the turns of a conversation. `separator` closes each turn, and ends the model's answer."""

    system_message: str
    system: str = "<|im_start|>system\n"
    user: str = "<|im_start|>user\n"
    assistant: str = "<|im_start|>assistant\n"
    separator: str = "<|im_end|>"

    @property
    def stop_token(self) -> str:
        """The token that ends an answer."""
        return self.separator.strip()

    def prompt(self, turns: Sequence[tuple[str, str]], system_message: str | None = None) -> str:
        """The prompt of a conversation of (role, text), up to where the model goes on."""
        marks = {"user": self.user, "assistant": self.assistant}
        system = self.system_message if system_message is None else system_message
        spoken = "".join(marks[role] + text + self.separator for role, text in turns)
        return self.system + system + self.separator + spoken + self.assistant


TEMPLATES: Mapping[str, ConversationTemplate] = {
    "Hermes-2": ConversationTemplate(system_message=_INTERNVL2_SYSTEM),
    "internlm2-chat": ConversationTemplate(system_message=_INTERNVL2_SYSTEM),
    "phi3-chat": ConversationTemplate(
        system_message=_INTERNVL2_SYSTEM,
        system="<|system|>\n",
        user="<|user|>\n",
        assistant="<|assistant|>\n",
        separator="<|end|>",
    ),
    "internvl2_5": ConversationTemplate(system_message=_INTERNVL2_5_SYSTEM, separator="<|im_end|>\n"),
}
"""By the name in config.json."""


def find_template(name: object, where: str) -> ConversationTemplate:
    """The template a config.json names. Raises ModelError with the nearest known names."""
    if isinstance(name, str) and name in TEMPLATES:
        return TEMPLATES[name]
    nearest = nearest_names(str(name), TEMPLATES) or list(TEMPLATES)
    raise ModelError(f"{where}: config.json names the conversation template {name!r}, which is not known; nearest: "
                     f"{', '.join(nearest)}")  # fmt: skip
