"""A run scored again: whether its scores equal those of summary.json, and if not, whether rounding explains why."""

from collections.abc import Mapping
from typing import Any

# What a score may depend on besides weights and images; if these are equal, the score is the same to the last bit.
SAME_MACHINE = ("processor", "capability", "device", "system", "threads", "precision", "torch")
# frontier, trained in bfloat16, scored in float32 on another processor, differs by 0.0006 and 0.0002 (15,000 images).
ROUNDING = {"accuracy": 0.003, "accuracy_flip": 0.003, "loss": 0.01}


def compared(
    stored: Mapping[str, Any], scores: Mapping[str, float], split: str, now: Mapping[str, Any]
) -> tuple[list[str], bool]:
    """Lines that compare the scores of a split with summary.json; True if they differ and nothing explains why.

    Args:
        stored: summary.json. now: the machine and its precision, as runtime describes them.
    """
    before = stored.get(split, {})
    differing = [key for key in before if before[key] != scores[key]]
    if not differing:
        return ["the same as in summary.json"], False
    others = other_machine(stored.get("machine", {}), now)
    lines = [f"differs from summary.json in {', '.join(differing)}"]
    if others:
        gaps = {key: abs(before[key] - scores[key]) for key in ROUNDING if key in before}
        within = all(gap <= ROUNDING[key] for key, gap in gaps.items())
        why = "rounding" if within else "more than rounding: are the images and versions the same?"
        points = f"accuracy by {100 * gaps.get('accuracy', 0):.2f} points, loss by {gaps.get('loss', 0):.4f}"
        lines += [f"on another machine: {'; '.join(others)}", f"{points}: {why}"]
    return lines, not others


def other_machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys of SAME_MACHINE that differ between two machines, as `precision bfloat16 then, float32 now`."""
    return [
        f"{key} {_value(then, key)} then, {_value(now, key)} now"
        for key in SAME_MACHINE
        if _value(then, key) != _value(now, key)
    ]


def _value(machine: Mapping[str, Any], key: str) -> Any:
    held = machine.get("versions", {}) if key == "torch" else machine
    return held.get(key, "not recorded")
