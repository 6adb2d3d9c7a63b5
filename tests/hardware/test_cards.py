"""Whether there can be a card, told without torch, and what a card is called."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vlmeval.hardware import cards, cards_possible, physical_name


def test_a_machine_without_device_files_has_no_cards_and_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "CARD_FILES", ("/dev/no-such-card*",))
    monkeypatch.setattr(cards, "entry_points", lambda group: ())
    monkeypatch.setattr(sys, "platform", "linux")
    assert not cards_possible()
    monkeypatch.setattr(cards, "CARD_FILES", ("/dev/null",))
    assert cards_possible()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not cards_possible()


def test_counting_cores_and_cards_imports_no_torch() -> None:
    code = (
        "import sys; from vlmeval import hardware; from vlmeval.hardware import cards; cards.CARD_FILES = ()\n"
        "print(hardware.visible_cards(), hardware.cpu_cores() > 0, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "() True False"


def test_a_card_is_called_what_it_is_outside_the_process() -> None:
    assert physical_name(1, None) == ""
    assert physical_name(0, ("4", "6")) == "4"
    assert physical_name(0, ("0", "6")) == ""
    assert physical_name(1, ("0", "GPU-8932")) == "GPU-8932"
