"""The launch environment, the cards and the machine around them, as values.

This room is the only reader of RANK, WORLD_SIZE, CUDA_VISIBLE_DEVICES and their like; everything else is handed the
values. Importing it does not import torch.

launch.py      the environment this process was started with
cards.py       the cards torch can see
card_lists.py  cards as `--cards` describes them
host.py        memory and cores of the machine
"""

from vlmeval.hardware.card_lists import KNOWN_CARDS, parse_cards
from vlmeval.hardware.cards import (
    Card,
    cards_possible,
    has_flash_attention,
    host_card,
    physical_name,
    probed_cards,
    visible_cards,
)
from vlmeval.hardware.host import cpu_cores, cpu_threads, machine, process_memory, usable_memory_bytes
from vlmeval.hardware.launch import (
    LaunchEnvironment,
    auto_split_wanted,
    check_launch,
    launch_environment,
    rank_environment,
    visible_names,
)

__all__ = [
    "KNOWN_CARDS",
    "Card",
    "LaunchEnvironment",
    "auto_split_wanted",
    "cards_possible",
    "check_launch",
    "cpu_cores",
    "cpu_threads",
    "has_flash_attention",
    "host_card",
    "launch_environment",
    "machine",
    "parse_cards",
    "physical_name",
    "probed_cards",
    "process_memory",
    "rank_environment",
    "usable_memory_bytes",
    "visible_cards",
    "visible_names",
]
