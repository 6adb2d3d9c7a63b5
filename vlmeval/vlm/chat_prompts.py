"""From a message to the text that a checkpoint's chat template makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmeval.errors import SampleError, UsageError
from vlmeval.types import Message, Task


class ChatPrompts:
    """A model with a processor whose chat template words its prompts."""

    model_path: str
    processor: Any
    system_prompt: str | None
    takes_video: bool
    custom_prompts: bool

    def use_custom_prompt(self, task: Task) -> bool:
        """Whether the family words such a task itself; `use_custom_prompt=False` leaves it to the benchmark, and so
        does a benchmark that says so. Conversations are worded by the benchmark."""
        return (
            self.custom_prompts and task.type != "MT" and "dataset_prompt" not in task.traits and self.has_prompt(task)
        )

    def has_prompt(self, task: Task) -> bool:
        """Whether the family has a wording of its own for such a task."""
        return False

    def render(self, message: Sequence[Message]) -> str:
        """The prompt text the chat template makes of a message."""
        from jinja2 import TemplateError

        turns = self.conversation(message)
        try:
            return self.processor.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **self.template_arguments()
            )
        except TemplateError as error:
            told = f"the chat template of {self.model_path} refuses this prompt: {error}"
            if self.system_prompt is not None:
                raise UsageError(f"{told}; try without the system prompt") from error
            raise SampleError(told) from error

    def template_arguments(self) -> Mapping[str, Any]:
        """Variables of the family's chat template that shall not be left to it."""
        return {}

    def conversation(self, message: Sequence[Message]) -> list[dict[str, Any]]:
        """Turns for the chat template: neighbouring parts of one role make one turn; the system prompt comes first."""
        turns: list[dict[str, Any]] = []
        if self.system_prompt is not None:
            turns.append({"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        for part in message:
            if part["type"] == "video" and not self.takes_video:
                raise SampleError(f"{type(self).__name__} takes texts and images, no video")
            role = part.get("role", "user")
            if not turns or turns[-1]["role"] != role:
                turns.append({"role": role, "content": []})
            told = {"text": part["value"]} if part["type"] == "text" else {}
            turns[-1]["content"].append({"type": part["type"], **told})
        return turns
