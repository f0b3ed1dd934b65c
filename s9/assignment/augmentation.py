"""The assignment's demands on the augmentation (number 6 of its list), measured on the transforms' output."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from s9.assignment.rule import Rule
from s9.config.schema import AugConfig
from s9.data.augmentation.augment import Augment, build_augment, built_transforms
from s9.data.image_set import ImageFacts

TRIES = 40  # images tried, so that holes of every size and place occur

# Values that leave an image in place, by transform and argument; an argument that is not given has its default.
STILL = {
    "Affine": ({"translate_percent": 0, "translate_px": 0}, {"scale": 1}, {"rotate": 0}),
    "ShiftScaleRotate": ({"shift_limit": 0}, {"scale_limit": 0}, {"rotate_limit": 0}),
}


def augmentation_rules(config: AugConfig, images: ImageFacts) -> list[Rule]:
    """A flip, a shift-scale-rotate, and a hole of the right shape whose filling is zero once normalised."""
    fires = {n: t for n, t in config.transforms.items() if t.get("p", 1) > 0}
    kinds = {n: str(t["_target_"]).rpartition(".")[2] for n, t in fires.items()}
    flips = [n for n, kind in kinds.items() if kind == "HorizontalFlip"]
    affine = [n for n, kind in kinds.items() if kind in STILL and _moves(kind, fires[n])]
    dropouts = {n: t for n, t in fires.items() if kinds[n] == "CoarseDropout"}
    # Holes are counted from the arguments: in 32 x 32 pixels two holes of 16 x 16 always touch.
    built = built_transforms(replace(config, transforms=dropouts), fill=0)
    counts = [transform.num_holes_range for transform in built.values()]
    shape, value = "none", float("nan")
    if dropouts:
        shape, value = measure_holes(replace(config, transforms=fires), list(dropouts), images)
    limit = max(
        0.5 / 255 / s for s in images.std
    )  # `fill` is in whole grey levels, so half a level is as near as it gets
    masks = [t["fill_mask"] for t in dropouts.values() if t.get("fill_mask") is not None]
    holes = " and ".join(str(low) if low == high else f"{low} to {high}" for low, high in counts) or "none"
    return [
        Rule("flip", "a horizontal flip", ", ".join(flips) or "none", bool(flips)),
        Rule("shift_scale_rotate", "shift, scale and rotation", ", ".join(affine) or "none", bool(affine)),
        Rule("one_hole", "coarse dropout with exactly one hole", holes, holes == "1"),
        Rule("hole_size", "16 x 16 pixels", shape, shape == "16 x 16"),
        Rule(
            "hole_fill", f"zero once normalised, within {limit:.4f} (half a grey level)", f"{value:.4f}", value <= limit
        ),
        Rule("mask_fill", "none", ", ".join(map(str, masks)) or "none", not masks),
    ]


def _moves(kind: str, transform: dict[str, Any]) -> bool:
    """Whether an affine transform does all three: shifts, scales and rotates."""
    given = kind == "ShiftScaleRotate"  # the defaults of ShiftScaleRotate do all three, those of Affine none
    return all(
        any(_numbers(transform[k]) - {still} for k, still in one_of.items() if k in transform)
        if one_of.keys() & transform.keys()
        else given
        for one_of in STILL[kind]
    )


def _numbers(value: Any) -> set[float]:
    """The numbers in a number, a range or a mapping of ranges."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return set().union(*map(_numbers, value))
    return set() if value is None else {value}


def measure_holes(config: AugConfig, dropouts: list[str], images: ImageFacts) -> tuple[str, float]:
    """(sizes of the holes, largest normalised value inside), with every transform applied to every image.

    A hole is where filling with black and with white gives different pixels for the same draws, so changes of borders
    and colours by other transforms are not counted as holes.
    """
    always = {n: {**t, "p": 1.0} for n, t in config.transforms.items()}

    def filled(fill: dict[str, Any]) -> Augment:
        transforms = {n: {**t, **fill} if n in dropouts else t for n, t in always.items()}
        return build_augment(replace(config, transforms=transforms), images, seed=0)

    given, black, white = filled({}), filled({"fill": 0}), filled({"fill": 255})
    plain = np.full((TRIES, images.image_size, images.image_size, 3), 128, np.uint8)
    sizes, largest = set(), 0.0
    for image, dark, light in zip(*(augment.preview(plain, epoch=1) for augment in (given, black, white)), strict=True):
        hole = (dark != light).any(axis=2)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(hole.astype(np.uint8))
        sizes |= {f"{box[cv2.CC_STAT_HEIGHT]} x {box[cv2.CC_STAT_WIDTH]}" for box in boxes[1:]}
        if hole.any():
            inside = (image[hole] / 255 - np.array(images.mean)) / np.array(images.std)
            largest = max(largest, float(np.abs(inside).max()))
    return ", ".join(sorted(sizes)) or "none", largest
