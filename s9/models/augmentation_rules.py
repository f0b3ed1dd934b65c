"""The assignment's demands on the augmentation (number 6 of its list), measured on what the transforms really do."""

from typing import Any

import cv2
import numpy as np

from s9.config import AugConfig
from s9.data.augment import Augment
from s9.models.analysis import Rule

TRIES = 40  # keys tried, so that each transform fires at least once


def augmentation_rules(config: AugConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> list[Rule]:
    """A flip, a shift-scale-rotate, and a hole of the right shape whose filling is zero once normalised."""
    kinds = {n: str(t["_target_"]).rpartition(".")[2] for n, t in config.transforms.items()}
    flips = [n for n, kind in kinds.items() if kind == "HorizontalFlip"]
    affine = [n for n, kind in kinds.items() if kind in ("Affine", "ShiftScaleRotate") and _moves(config.transforms[n])]
    dropouts = [t for n, t in config.transforms.items() if kinds[n] == "CoarseDropout"]
    holes, shape, value = measure_holes(config, mean, std) if dropouts else (0, "none", float("nan"))
    limit = max(0.5 / 255 / s for s in std)  # `fill` is in whole grey levels, so half a level is as near as it gets
    masks = [t["fill_mask"] for t in dropouts if t.get("fill_mask") is not None]
    return [
        Rule("flip", "a horizontal flip", ", ".join(flips) or "none", bool(flips)),
        Rule("shift_scale_rotate", "shift, scale and rotation", ", ".join(affine) or "none", bool(affine)),
        Rule("one_hole", "coarse dropout with exactly one hole", str(holes), len(dropouts) == 1 and holes == 1),
        Rule("hole_size", "16 x 16 pixels", shape, shape == "16 x 16"),
        Rule(
            "hole_fill", f"zero once normalised, within {limit:.4f} (half a grey level)", f"{value:.4f}", value <= limit
        ),
        Rule("mask_fill", "none", ", ".join(map(str, masks)) or "none", not masks),
    ]


def _moves(transform: dict[str, Any]) -> bool:
    """An affine transform that does all three: shifts, scales and rotates."""
    if str(transform["_target_"]).endswith("ShiftScaleRotate"):
        return True
    return all(transform.get(k) not in (None, 0, 1) for k in ("translate_percent", "scale", "rotate"))


def measure_holes(config: AugConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[int, str, float]:
    """(most holes in an image, their size, largest normalised value inside), of a set whose every transform fires.

    Measured on a plain white image: whatever flips, moves or greys it leaves it white, so what is not white is a hole.
    """
    always = {n: {**t, "p": 1.0} for n, t in config.transforms.items()}
    augment = Augment(AugConfig(config.name, always), (mean[0], mean[1], mean[2]), seed=0)
    white = np.full((32, 32, 3), 255, np.uint8)
    most, sizes, largest = 0, set(), 0.0
    for index in range(TRIES):
        image = augment(white, epoch=1, index=index)
        hole = (image != 255).any(axis=2).astype(np.uint8)
        count, _, boxes, _ = cv2.connectedComponentsWithStats(hole)
        most = max(most, count - 1)
        sizes |= {f"{box[cv2.CC_STAT_HEIGHT]} x {box[cv2.CC_STAT_WIDTH]}" for box in boxes[1:]}
        if hole.any():
            inside = (image[hole.astype(bool)] / 255 - np.array(mean)) / np.array(std)
            largest = max(largest, float(np.abs(inside).max()))
    return most, ", ".join(sorted(sizes)) or "none", largest
