"""Progressive resizing: a run begins with smaller images, whose steps cost less, and ends with whole ones.

Source: Howard, "Training Imagenet in 3 hours for USD 25; and CIFAR10 for USD 0.26", fast.ai, 2018.
"""

from bisect import bisect_right
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from s9.config.schema import ResolutionConfig, TrainerConfig

GRAIN = 4  # pixels: between the first size and the whole one, images grow in such steps


def size_at(resolution: ResolutionConfig, progress: float, image_size: int) -> int:
    """The images' side in pixels at `progress` in [0, 1] of the run.

    The side is `start` x image_size until `hold`, and image_size from `full` on. Between, the side grows in equal
    times, GRAIN pixels at a time.
    """
    if progress >= resolution.full:
        return image_size
    first = max(1, round(resolution.start * image_size))
    if progress < resolution.hold:
        return first
    between = range(first + GRAIN, image_size, GRAIN)
    done = (progress - resolution.hold) / (resolution.full - resolution.hold)
    return between[int(done * len(between))] if between else first


def sizes(trainer: TrainerConfig, image_size: int, *, steps: int, total_steps: int) -> Iterator[tuple[int, int]]:
    """(side in pixels, number of steps) of the first `steps` steps of a run of `total_steps`; in order of time."""
    step = 0
    while step < steps:
        size = size_at(trainer.resolution, step / total_steps, image_size)
        # Sizes only grow, so the end of this one is searched for, not walked to: a run may have a million steps.
        end = bisect_right(
            range(steps), size, lo=step, key=lambda at: size_at(trainer.resolution, at / total_steps, image_size)
        )
        yield size, end - step
        step = end


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """float images (B, 3, H, W) -> (B, 3, size, size), channels last: means of neighbouring pixels, so no aliasing."""
    if images.shape[-1] == size:
        return images
    smaller = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return smaller.contiguous(memory_format=torch.channels_last)
