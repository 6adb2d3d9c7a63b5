"""Tensors that meet on two cards, told with the module, the tensors, their devices, the plan and what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch import nn

from vlmeval.errors import PlacementError

MISMATCH = re.compile(
    r"same device|different devices|different from other tensors|cannot be accessed from Triton", re.IGNORECASE
)
"""How torch, its fake tensors and Triton say it."""
MOST_TENSORS = 6
WHAT_TO_DO = (
    "give the parts that met one card (--device-map FILE), or run on one card (AUTO_SPLIT=0, with --max-pixels or 8 "
    "bit if it is small); this is a fault of the plan or of the model's code, please report it with this message"
)


@contextlib.contextmanager
def explained(model: nn.Module, devices: Mapping[str, torch.device]) -> Iterator[None]:
    """Turn torch's error about two devices into a PlacementError that says where it happened."""
    try:
        yield
    except RuntimeError as error:
        if not is_mismatch(error):
            raise
        raise PlacementError(_explanation(model, devices, error)) from error


def is_mismatch(error: BaseException) -> bool:
    """Whether torch complains that tensors of one operation lie on several devices."""
    return isinstance(error, RuntimeError) and MISMATCH.search(str(error)) is not None


def plan_text(devices: Mapping[str, torch.device]) -> str:
    """A device_map in one line: what each device holds first and last, and how many entries."""
    held: dict[str, list[str]] = {}
    for name, device in devices.items():
        held.setdefault(str(device), []).append(name or "the whole model")
    return "; ".join(
        f"{device} has {names[0]}" + (f" to {names[-1]} ({len(names)} entries)" if len(names) > 1 else "")
        for device, names in held.items()
    )


def _explanation(model: nn.Module, devices: Mapping[str, torch.device], error: RuntimeError) -> str:
    said = str(error).splitlines()[0]
    return f"{_where(model, error.__traceback__)}: {said}; the plan: {plan_text(devices)}; {WHAT_TO_DO}"


def _where(model: nn.Module, traceback: TracebackType | None) -> str:
    """The innermost module of the model that ran, its line, and the tensors it had at hand."""
    names = {module: name for name, module in model.named_modules()}
    innermost: FrameType | None = None
    line = 0
    while traceback is not None:
        if isinstance(own := traceback.tb_frame.f_locals.get("self"), nn.Module) and own in names:
            innermost, line = traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next
    if innermost is None:
        return "tensors of one operation lie on several devices, outside of the model's modules"
    module = innermost.f_locals["self"]
    code = innermost.f_code
    return (
        f"tensors of one operation lie on several devices in {names[module] or 'the model itself'} "
        f"({type(module).__name__}.{code.co_name}, {Path(code.co_filename).name} line {line}): "
        f"{_at_hand(module, innermost)}"
    )


def _at_hand(module: nn.Module, frame: FrameType) -> str:
    tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    tensors |= {name: value for name, value in frame.f_locals.items() if isinstance(value, torch.Tensor)}
    told = [f"{name} {list(tensor.shape)} on {tensor.device}" for name, tensor in tensors.items()]
    more = f" and {len(told) - MOST_TENSORS} more" if len(told) > MOST_TENSORS else ""
    return ", ".join(told[:MOST_TENSORS]) + more
