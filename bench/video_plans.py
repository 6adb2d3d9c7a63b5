"""Plans for prompts with videos, held against simulated cards of full size: planned peak over measured peak, a card.

python bench/video_plans.py > bench/video_plans.md        (5 minutes; no card, no weights)
"""

from __future__ import annotations

from tests.placement import full_size_models
from vlmeval.hardware import parse_cards
from vlmeval.placement.blocks import config_of
from vlmeval.placement.known import known_config
from vlmeval.placement.policy import Overrides, make_plan
from vlmeval.placement.simulate import checks, prompts
from vlmeval.placement.simulate.prompts import Question

CASES = (
    ("Qwen2-VL-2B", "2x24", Question(frames=16, size=(644, 364))),
    ("Qwen2-VL-2B", "24", Question(frames=64, size=(644, 364))),
    ("Qwen2-VL-2B", "2x24", Question(frames=16, size=(644, 364), batch=4)),
    ("llava-onevision-qwen2-0.5b", "24", Question(frames=32)),
    ("llava-onevision-qwen2-0.5b", "2x24", Question(frames=8, batch=4)),
)


def row(name: str, cards: str, asked: Question) -> str:
    """One line of the table. What breaks its word is named in the last cell."""
    known = known_config(name)
    profile = known.profile()
    if profile is None:
        raise SystemExit(f"no profile of {name} in the package")
    inputs, work = prompts.prompt_inputs(config_of(known.config), asked)
    plan = make_plan(profile, work, parse_cards(cards), None, Overrides(auto_split=True))
    shares = plan.replicas[0].cards
    layout = checks.layout_of(profile, plan.replicas[0].device_map)
    capacities = [share.capacity_bytes for share in shares]
    measured = checks.run_layout(lambda: full_size_models.build(name), profile, layout, inputs, capacities)
    ratios = [f"{share.peak_bytes / peak:.4f}" for share, peak in zip(shares, measured.peak_bytes, strict=True)]
    faults = "; ".join(checks.run_faults(plan, measured)) or "kept"
    cells = (name, cards, asked.frames, asked.batch, f"{work.image_tokens:,}", ", ".join(ratios), faults)
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Print the table."""
    print("# Plans for videos on simulated cards\n\n`bench/video_plans.py`; planned peak / measured peak, a card.\n")
    print("| model | cards | frames | batch | video tokens a prompt | planned / measured | plan |\n|" + "---|" * 7)
    for case in CASES:
        print(row(*case), flush=True)


if __name__ == "__main__":
    main()
