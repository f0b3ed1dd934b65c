"""The arguments of batch transforms: intervals and colours as albumentations writes them, checked and sampled."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

Interval = tuple[float, float]
Fill = float | tuple[float, ...]


def real(uniform: torch.Tensor, limits: Interval) -> torch.Tensor:
    """Maps uniform numbers in [0, 1) to the range `limits`."""
    low, high = limits
    return uniform * (high - low) + low


def integer(uniform: torch.Tensor, low: float, high: float | torch.Tensor) -> torch.Tensor:
    """int64, uniform from low to high, both included."""
    return (uniform * (high - low + 1)).long() + int(low)


def hole_size(uniform: torch.Tensor, limits: Interval, side: int, in_pixels: bool) -> torch.Tensor:
    """int64: a hole's height or width in pixels."""
    if in_pixels:
        return integer(uniform, int(limits[0]), int(min(limits[1], side)))
    return (real(uniform, limits) * side).long()


def colour(fill: Fill, images: torch.Tensor) -> torch.Tensor:
    """(1, 3, 1, 1) of the images' type."""
    return _constant(colour_of("fill", fill), images.dtype, images.device)


@lru_cache(maxsize=32)  # so that no step copies anything from the host
def _constant(channels: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(channels, device=device).to(dtype).view(1, 3, 1, 1)


@lru_cache(maxsize=32)
def padded_index(size: int, before: int, after: int, *, mode: str, device: torch.device) -> torch.Tensor:
    """int64 (before + size + after,): for each pixel of a padded side its source, of `size`; mode: numpy.pad's name."""
    return torch.from_numpy(np.pad(np.arange(size), (before, after), mode=mode)).to(device)  # type: ignore[call-overload]


def colour_of(name: str, fill: Any) -> tuple[float, ...]:
    channels = tuple(fill) if isinstance(fill, list | tuple) else (fill,) * 3
    valid = len(channels) == 3 and all(isinstance(v, int | float) and 0 <= v <= 255 for v in channels)
    need(name, fill, valid, "mean, a number from 0 to 255, or three of them")
    return channels


def interval(name: str, value: Any) -> Interval:
    """A pair in rising order; a single number v becomes (v, v)."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    numbers = len(pair) == 2 and all(isinstance(v, int | float) and math.isfinite(v) for v in pair)
    need(name, value, numbers, "a number or a pair of numbers")
    return min(pair), max(pair)


def rising(name: str, value: Any) -> Interval:
    """A pair of numbers above 0, the smaller first."""
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    need(name, value, pair and 0 < value[0] <= value[1] < math.inf, "a pair of numbers above 0, the smaller first")
    return value[0], value[1]


def pixels(name: str, value: Any) -> None:
    need(name, value, isinstance(value, int) and value >= 1, "a whole number of 1 or more")


def symmetric(name: str, value: Any) -> Interval:
    """A pair in rising order; a single number v becomes (-|v|, |v|)."""
    return interval(name, (-value, value) if isinstance(value, int | float) else value)


def both_axes(name: str, value: Any, otherwise: float) -> tuple[Interval, Interval]:
    """The intervals of x and of y; an axis that is None, or missing in a mapping, gets `otherwise`."""
    if not isinstance(value, Mapping):
        value = {"x": value, "y": value}
    need(name, value, set(value) <= {"x", "y"} and value, "a mapping of x and y")
    of = {axis: otherwise if value.get(axis) is None else value[axis] for axis in ("x", "y")}
    return interval(name, of["x"]), interval(name, of["y"])


def need(name: str, value: Any, holds: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value} must be {wanted}")
