"""What planning needs to know of a model, as plain values: its blocks in the order data flows, and its shapes.

`blocks.py` derives it from the module tree; here it is kept, written to JSON and read again without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from vlmeval.errors import ModelError

Role = Literal[
    "vision_entry", "vision_layer", "vision_tower", "projector", "embeddings", "layer", "cross_layer", "head"
]
VISION_ROLES: frozenset[Role] = frozenset({"vision_entry", "vision_layer", "vision_tower", "projector"})
FORMAT = 2
"""Of the JSON; a profile of another format is derived anew."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A unit that is never split. `modules` are its keys of a device_map: modules, bare parameters, bare buffers.

    `linear_parameters` are those a quantiser would shrink, `parameters` all others; `buffer_bytes` keep their type.
    `width` and `widest` are the hidden and the widest inner size of its layers, in elements per token; `routed` is what
    its experts are handed: experts per token x hidden size, 0 without experts.
    """

    name: str
    role: Role
    modules: tuple[str, ...]
    parameters: int
    linear_parameters: int = 0
    buffer_bytes: int = 0
    width: int = 0
    widest: int = 0
    routed: int = 0

    @property
    def is_vision(self) -> bool:
        """Whether it works on pixels rather than on tokens of the language model."""
        return self.role in VISION_ROLES


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes the cost model needs, from the config: those of the language model, and the vision tower's hidden size.

    `writes_scores`: the language model's attention runs without a kernel that spares it to write out every score.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    layers: int
    vision_hidden: int = 0
    vision_layers: int = 0
    writes_scores: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """A model as planning sees it. `ties` are groups of parameters that are one tensor and stay on one card."""

    class_name: str
    model_type: str
    blocks: tuple[Block, ...]
    shapes: Shapes
    ties: tuple[tuple[str, ...], ...] = ()
    transformers: str = ""

    @property
    def parameters(self) -> int:
        """All of them, tied ones once."""
        return sum(block.parameters + block.linear_parameters for block in self.blocks)

    def index(self, role: Role) -> int:
        """Place of the first block of a role. Raises ModelError if there is none."""
        for place, block in enumerate(self.blocks):
            if block.role == role:
                return place
        raise ModelError(f"{self.class_name} has no block of the role {role!r}; its blocks are {self.roles()}")

    def roles(self) -> str:
        """The roles in order, for messages."""
        return ", ".join(dict.fromkeys(block.role for block in self.blocks))

    def joined(self, first: int, last: int, role: Role, name: str) -> ModelProfile:
        """The same model with blocks first..last (inclusive) as one, which is never cut."""
        parts = self.blocks[first : last + 1]
        whole = Block(
            name=name,
            role=role,
            modules=tuple(module for part in parts for module in part.modules),
            parameters=sum(part.parameters for part in parts),
            linear_parameters=sum(part.linear_parameters for part in parts),
            buffer_bytes=sum(part.buffer_bytes for part in parts),
            width=max(part.width for part in parts),
            widest=max(part.widest for part in parts),
            routed=max(part.routed for part in parts),
        )
        return replace(self, blocks=(*self.blocks[:first], whole, *self.blocks[last + 1 :]))


def to_json(profile: ModelProfile) -> str:
    """As JSON. Blocks that differ by their number alone are written once, with `{}` for the number and a count."""
    data = {**asdict(profile), "format": FORMAT, "blocks": list(_runs(profile.blocks))}
    return json.dumps(data, separators=(",", ":"))


def from_json(text: str) -> ModelProfile | None:
    """The profile, or None if the text is not of this format (then it is derived anew)."""
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            return None
        blocks = tuple(block for run in data.pop("blocks") for block in _from_run(run))
        ties = tuple(tuple(group) for group in data.pop("ties"))
        return ModelProfile(**{**data, "blocks": blocks, "ties": ties, "shapes": Shapes(**data.pop("shapes"))})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _runs(blocks: Sequence[Block]) -> Iterable[dict[str, Any]]:
    place = 0
    while place < len(blocks):
        pattern, start = _numberless(blocks[place])
        end = place + 1
        if start is not None:
            while end < len(blocks) and _numberless(blocks[end]) == (pattern, start + end - place):
                end += 1
        if start is None or end - place < 2:
            yield {name: value for name, value in asdict(blocks[place]).items() if value}
            end = place + 1
        else:
            yield {
                **{name: value for name, value in asdict(pattern).items() if value},
                "from": start,
                "count": end - place,
            }
        place = end


def _numberless(block: Block) -> tuple[Block, int | None]:
    """The block with `{}` for its number in name and modules, and the number; None if they do not all end in it."""
    numbers = {tuple(re.findall(r"\d+", name)[-1:]) for name in (block.name, *block.modules)}
    if len(numbers) != 1 or not (found := numbers.pop()):
        return block, None

    def blank(name: str) -> str:
        return re.sub(r"\d+(?!.*\d)", "{}", name)

    return replace(block, name=blank(block.name), modules=tuple(map(blank, block.modules))), int(found[0])


_BLOCK_FIELDS = frozenset(field.name for field in fields(Block))


def _from_run(run: Mapping[str, Any]) -> Iterable[Block]:
    values = {"parameters": 0, **{name: value for name, value in run.items() if name in _BLOCK_FIELDS}}
    if "count" not in run:
        yield Block(**{**values, "modules": tuple(values["modules"])})
        return
    for number in range(run["from"], run["from"] + run["count"]):
        name = values["name"].replace("{}", str(number))
        modules = tuple(module.replace("{}", str(number)) for module in values["modules"])
        yield Block(**{**values, "name": name, "modules": modules})
