"""Batch transforms that change colours: grey, brightness and contrast, and holes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from s9.data.augmentation.batch_arguments import (
    Fill,
    Interval,
    colour,
    colour_of,
    hole_size,
    integer,
    need,
    pixels,
    real,
    rising,
    symmetric,
)
from s9.data.augmentation.batch_transform import BatchTransform


@dataclass(frozen=True, kw_only=True)
class ToGray(BatchTransform):
    """Grey by the luma weights (0.299, 0.587, 0.114), in all three channels, with OpenCV's fixed-point constants."""

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        red, green, blue = images.int().unbind(1)
        grey = (9798 * red + 19235 * green + 3735 * blue + 16384) >> 15
        return grey.to(torch.uint8)[:, None].expand(images.shape)


@dataclass(frozen=True, kw_only=True)
class RandomBrightnessContrast(BatchTransform):
    """Multiplies every value by 1 + contrast and adds 255 * brightness."""

    draws: ClassVar[int] = 2
    brightness_limit: Any = (-0.2, 0.2)
    contrast_limit: Any = (-0.2, 0.2)

    def __post_init__(self) -> None:
        for name in ("brightness_limit", "contrast_limit"):
            symmetric(name, getattr(self, name))

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        contrast = 1 + real(uniform[:, 0], symmetric("contrast_limit", self.contrast_limit))
        brightness = 255 * real(uniform[:, 1], symmetric("brightness_limit", self.brightness_limit))
        changed = images.float().mul_(contrast.view(-1, 1, 1, 1)).add_(brightness.view(-1, 1, 1, 1))
        return changed.clamp_(0, 255).to(torch.uint8)  # truncated, not rounded, as albumentations does


@dataclass(frozen=True, kw_only=True)
class CoarseDropout(BatchTransform):
    """Rectangular holes, placed uniformly inside the image. Sizes are pixels, or below 1 fractions of the side."""

    num_holes_range: tuple[int, int] = (1, 2)
    hole_height_range: Interval = (0.1, 0.2)
    hole_width_range: Interval = (0.1, 0.2)
    fill: Fill = 0
    fill_mask: None = None

    def __post_init__(self) -> None:
        for holes in rising("num_holes_range", self.num_holes_range):
            pixels("num_holes_range", holes)
        for name in ("hole_height_range", "hole_width_range"):
            rising(name, getattr(self, name))
        need("fill_mask", self.fill_mask, self.fill_mask is None, "null")
        colour_of("fill", self.fill)

    @property
    def draws(self) -> int:  # type: ignore[override]
        return 1 + 4 * self.num_holes_range[1]

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        holes = integer(uniform[:, 0], *self.num_holes_range)
        # The height's range decides whether both sizes are pixels or fractions, as in albumentations.
        in_pixels = self.hole_height_range[1] >= 1
        for name, side in (("hole_height_range", height), ("hole_width_range", width)):
            low = getattr(self, name)[0]
            need(name, getattr(self, name), not in_pixels or low <= side, f"at most the image's {side} pixels")
        for hole, u in enumerate(uniform[:, 1:].T.split(4)):
            h, w = (
                hole_size(v, r, side, in_pixels)
                for v, r, side in ((u[0], self.hole_height_range, height), (u[1], self.hole_width_range, width))
            )
            h = torch.where(holes > hole, h, 0)
            top, left = integer(u[2], 0, height - h), integer(u[3], 0, width - w)
            images = erase(images, top=top, left=left, height=h, width=w, fill=self.fill)
        return images


@dataclass(frozen=True, kw_only=True)
class Erasing(BatchTransform):
    """One rectangle of random area and shape. Zhong et al., "Random Erasing Data Augmentation", 2017.

    Args:
        scale: area as a fraction of the image's area. ratio: width / height.
    """

    draws: ClassVar[int] = 4
    scale: Interval = (0.02, 0.33)
    ratio: Interval = (0.3, 3.3)
    fill: Fill = 0
    fill_mask: None = None

    def __post_init__(self) -> None:
        for name in ("scale", "ratio"):
            rising(name, getattr(self, name))
        need("fill_mask", self.fill_mask, self.fill_mask is None, "null")
        colour_of("fill", self.fill)

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        low, high = self.ratio
        largest = min(self.scale[1] * height * width, *(min(r * height**2, width**2 / r) for r in self.ratio))
        if largest < self.scale[0] * height * width:
            return images
        area = real(uniform[:, 0], (self.scale[0] * height * width, largest))
        ratio_low, ratio_high = (area / height**2).clamp_min(low), (width**2 / area).clamp_max(high)
        ratio = ratio_low + uniform[:, 1] * (ratio_high - ratio_low)
        h, w = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
        top, left = integer(uniform[:, 2], 0, height - h), integer(uniform[:, 3], 0, width - w)
        return erase(images, top=top, left=left, height=h, width=w, fill=self.fill)


def erase(
    images: torch.Tensor,
    *,
    top: torch.Tensor,
    left: torch.Tensor,
    height: torch.Tensor,
    width: torch.Tensor,
    fill: Fill,
) -> torch.Tensor:
    """Fills a rectangle of each image; all sizes int64 (B,), in pixels."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    hole = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    return torch.where(hole, colour(fill, images), images)
