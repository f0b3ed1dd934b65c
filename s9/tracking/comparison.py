"""A run scored again: whether its scores equal those of summary.json, and if not, whether rounding explains why."""

from collections.abc import Mapping
from typing import Any

# What a score may depend on besides weights and images; if these are equal, the score is the same to the last bit.
SAME_MACHINE = ("processor", "capability", "device", "system", "threads", "precision", "torch")
# frontier, trained in bfloat16, scored in float32 on another processor, differs by 0.0006 and 0.0002 (15,000 images).
ROUNDING = {"accuracy": 0.003, "accuracy_flip": 0.003, "loss": 0.01}
FEW = 2  # images near a tie that rounding may turn in a set of any size: of 100 images, one is 0.01


def compared(
    stored: Mapping[str, Any], scores: Mapping[str, float], split: str, now: Mapping[str, Any]
) -> tuple[list[str], bool]:
    """Lines that compare the scores of a split with summary.json; True if they differ and nothing explains why.

    Args:
        stored: summary.json. now: the machine and its precision, as runtime describes them.
    """
    before, then = stored.get(split, {}), stored.get("machine", {})
    if not before:
        return [f"summary.json has no scores of {split} to compare with"], False
    differing = [key for key in before if before[key] != scores[key]]
    others = other_machine(then, now)
    precisions = f"precision: {_value(then, 'precision')} in the run, {_value(now, 'precision')} here"
    if not differing:
        return ["the same as in summary.json", *([precisions] if others else [])], False
    lines = [f"differs from summary.json in {', '.join(differing)}", precisions]
    if not others:
        return [*lines, f"{_gaps(before, scores)}: on the same machine, in the same precision"], True
    why = "within rounding" if _within_rounding(before, scores) else "more than rounding"
    asked = "" if why == "within rounding" else ": are the images and versions the same?"
    return [*lines, f"on another machine: {'; '.join(others)}", f"{_gaps(before, scores)}: {why}{asked}"], False


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


def _within_rounding(before: Mapping[str, float], scores: Mapping[str, float]) -> bool:
    few = FEW / scores["total"]
    limits = {key: limit if key == "loss" else max(limit, few) for key, limit in ROUNDING.items() if key in before}
    return all(abs(before[key] - scores[key]) <= limit + 1e-9 for key, limit in limits.items())


def _gaps(before: Mapping[str, float], scores: Mapping[str, float]) -> str:
    """`accuracy by 0.05 points (5 of 10,000 images), loss by 0.0001`."""
    accuracy, loss = (abs(before.get(key, scores[key]) - scores[key]) for key in ("accuracy", "loss"))
    total = int(scores["total"])
    images = round(accuracy * total)
    return f"accuracy by {100 * accuracy:.2f} points ({images:,} of {total:,} images), loss by {loss:.4f}"
