"""For maintainers: derive the packaged profiles from the packaged configs, and compare with the model cards' sizes.

Run after a change of `vlmeval/placement/blocks.py` or `configs/`: `python scripts/make_profiles.py`.
"""

from __future__ import annotations

from vlmeval.placement.blocks import config_of, derive_profile, meta_model
from vlmeval.placement.known import CONFIGS, PROFILES, known_configs, known_model
from vlmeval.placement.profile import to_json
from vlmeval.vlm.weight_sizes import APPROXIMATE_BYTES


def main() -> None:
    """Write one profile a config and print its parameters beside those of the model card."""
    import json

    hub_ids = json.loads((CONFIGS / "models.json").read_text(encoding="utf-8"))
    PROFILES.mkdir(exist_ok=True)
    for name in known_configs():
        known = known_model(next(hub_id for hub_id, config in hub_ids.items() if config == name))
        if known is None:
            continue
        model = meta_model(config_of(known.config), known.class_name)
        profile = derive_profile(model)
        counted = sum(parameter.numel() for parameter in model.parameters())
        cards = {
            APPROXIMATE_BYTES[i] / 2e9 for i, config in hub_ids.items() if config == name and i in APPROXIMATE_BYTES
        }
        (PROFILES / f"{name}.json").write_text(to_json(profile) + "\n", encoding="utf-8")
        same = "" if counted == profile.parameters else f"  DIFFERS from the model's {counted}"
        print(f"{name:32} {profile.parameters / 1e9:8.3f} billion, cards say {sorted(cards)}{same}")


if __name__ == "__main__":
    main()
