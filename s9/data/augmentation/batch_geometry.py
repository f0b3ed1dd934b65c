"""Batch transforms that move pixels: flip, pad, crop and affine."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from s9.data.augmentation.batch_arguments import (
    Fill,
    both_axes,
    colour,
    colour_of,
    integer,
    interval,
    need,
    padded_index,
    pixels,
    real,
)
from s9.data.augmentation.batch_transform import BatchTransform

CONSTANT, REPLICATE, REFLECT, WRAP, REFLECT_101 = range(5)  # OpenCV's border modes
PAD_MODES = {REPLICATE: "edge", REFLECT: "symmetric", WRAP: "wrap", REFLECT_101: "reflect"}  # numpy.pad's names
SAMPLE_MODES = {CONSTANT: "zeros", REPLICATE: "border", REFLECT: "reflection", REFLECT_101: "reflection"}  # torch's


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip(BatchTransform):
    """Left becomes right."""

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        return images.flip(3)


@dataclass(frozen=True, kw_only=True)
class Pad(BatchTransform):
    """Adds a border. padding: pixels on every side, (left and right, above and below) or (left, top, right, bottom)."""

    padding: int | tuple[int, ...] = 0
    fill: Fill = 0
    border_mode: int = CONSTANT
    p: float = 1.0

    def __post_init__(self) -> None:
        need("p", self.p, self.p in (0, 1), "0 or 1: all images of a batch are of one size")
        sides = self.padding if isinstance(self.padding, list | tuple) else (self.padding,)
        valid = len(sides) in (1, 2, 4) and all(isinstance(side, int) and side >= 0 for side in sides)
        need("padding", self.padding, valid, "pixels, one number, two or four")
        colour_of("fill", self.fill)
        need("border_mode", self.border_mode, self.border_mode in range(5), "from 0 to 4")

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        sides = tuple(self.padding) if isinstance(self.padding, list | tuple) else (self.padding,)
        left, top, right, bottom = (sides * 4)[:4] if len(sides) < 4 else sides
        if self.border_mode == CONSTANT:
            padded = F.pad(images, (left, right, top, bottom))
            inside = F.pad(torch.ones_like(images[:1, :1]), (left, right, top, bottom))
            return torch.where(inside.bool(), padded, colour(self.fill, images))
        mode = PAD_MODES[self.border_mode]
        for dim, before, after in ((2, top, bottom), (3, left, right)):
            index = padded_index(images.shape[dim], before, after, mode=mode, device=images.device)
            images = images.index_select(dim, index)
        return images


@dataclass(frozen=True, kw_only=True)
class RandomCrop(BatchTransform):
    """A window of height x width pixels, placed uniformly."""

    draws: ClassVar[int] = 2
    height: int
    width: int
    p: float = 1.0

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            pixels(name, getattr(self, name))
        need("p", self.p, self.p in (0, 1), "0 or 1: all images of a batch are of one size")

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        rows, columns = images.shape[2] - self.height, images.shape[3] - self.width
        if rows < 0 or columns < 0:
            raise ValueError(f"a crop of {self.height} x {self.width} is larger than the images")
        windows = images.unfold(2, self.height, 1).unfold(3, self.width, 1)
        every = torch.arange(len(images), device=images.device)
        return windows[every, :, integer(uniform[:, 0], 0, rows), integer(uniform[:, 1], 0, columns)]


@dataclass(frozen=True, kw_only=True)
class Affine(BatchTransform):
    """Scales, rotates, shears and shifts, in this order, about the centre; bilinear.

    A single number is a fixed value, a pair is a range, and a mapping sets x and y separately. Shifts are whole pixels.

    Args:
        rotate, shear: degrees. translate_percent: fraction of the side.
        keep_ratio: the same scale for x and y.
    """

    draws: ClassVar[int] = 7
    scale: Any = (1.0, 1.0)
    translate_percent: Any = None
    translate_px: Any = None
    rotate: Any = 0.0
    shear: Any = (0.0, 0.0)
    keep_ratio: bool = False
    border_mode: int = CONSTANT
    fill: Fill = 0

    def __post_init__(self) -> None:
        need("border_mode", self.border_mode, self.border_mode in SAMPLE_MODES, f"one of {[*SAMPLE_MODES]}")
        both = self.translate_percent is not None and self.translate_px is not None
        need("translate_px", self.translate_px, not both, "left out where translate_percent is given")
        for name in ("scale", "shear", "translate_percent", "translate_px"):
            both_axes(name, getattr(self, name), 0)
        for low, high in both_axes("scale", self.scale, 1):
            need("scale", self.scale, low > 0 and high > 0, "more than 0")
        x, y = both_axes("scale", self.scale, 1)
        need("keep_ratio", self.keep_ratio, not self.keep_ratio or x == y, "false where x and y scale differently")
        interval("rotate", self.rotate)
        colour_of("fill", self.fill)

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        return self.warp(images, *self.matrices(uniform, images.shape[2], images.shape[3]))

    def matrices(self, uniform: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 7) -> matrices (B, 2, 2), shifts (B, 2) in (x, y): offset v from the centre becomes matrix v + shift."""
        u = uniform.T
        scale_x, scale_y = both_axes("scale", self.scale, 1)
        sx = real(u[0], scale_x)
        sy = sx if self.keep_ratio else real(u[1], scale_y)
        shears = both_axes("shear", self.shear, 0)
        shear_x, shear_y = (-torch.deg2rad(real(u[2 + axis], shears[axis])) for axis in (0, 1))
        angle = torch.deg2rad(real(u[4], interval("rotate", self.rotate)))
        if self.translate_px is not None:
            ranges = both_axes("translate_px", self.translate_px, 0)
            shifts = [integer(u[5 + axis], *ranges[axis]) for axis in (0, 1)]
        else:
            ranges = both_axes("translate_percent", self.translate_percent, 0)
            shifts = [torch.trunc(real(u[5 + axis], ranges[axis]) * (width, height)[axis]) for axis in (0, 1)]
        cos, sin, tan_x, tan_y = angle.cos(), angle.sin(), shear_x.tan(), shear_y.tan()
        rows = (
            ((cos - tan_x * sin) * sx, (sin + tan_x * cos) * sy),
            ((tan_y * cos - sin) * sx, (tan_y * sin + cos) * sy),
        )
        matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
        return matrix, torch.stack(shifts, 1).to(matrix)

    def warp(self, images: torch.Tensor, matrices: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        """Moves each image by its matrix and shift, in the form that `matrices` returns."""
        batch, _, height, width = images.shape
        inside = self.border_mode != REFLECT  # grid_sample's border: the outer pixels' centres, or their outer edges
        (a, b), (c, d) = matrices[:, 0].T, matrices[:, 1].T
        inverse = torch.stack([d, -b, -c, a], 1) / (a * d - b * c)[:, None]
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        x = torch.arange(width, device=images.device) - centre_x - shifts[:, 0, None]
        y = torch.arange(height, device=images.device) - centre_y - shifts[:, 1, None]
        # Converts to grid_sample's units, in which the centre of the image is 0.
        to_x, to_y = 2 / (width - inside), 2 / (height - inside)
        grid = torch.empty(batch, height, width, 2, device=images.device)
        torch.add(
            (inverse[:, 0, None] * to_x * x)[:, None], (inverse[:, 1, None] * to_x * y)[:, :, None], out=grid[..., 0]
        )
        torch.add(
            (inverse[:, 2, None] * to_y * x)[:, None], (inverse[:, 3, None] * to_y * y)[:, :, None], out=grid[..., 1]
        )
        colours = images.float()
        fill = colour(self.fill, colours) if self.border_mode == CONSTANT else None
        if fill is not None:
            colours = colours - fill  # outside is zero
        mode = SAMPLE_MODES[self.border_mode]
        moved = F.grid_sample(colours, grid, padding_mode=mode, align_corners=inside)
        return (moved if fill is None else moved + fill).add_(0.5).to(torch.uint8)
