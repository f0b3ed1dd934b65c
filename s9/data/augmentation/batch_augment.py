"""Augmentation of whole batches on the device that holds them: the same conf/aug/*.yaml, without albumentations.

What image i gets in epoch e is a function of (seed, e, i) and of the transform's name alone: the host draws one table
of uniform numbers per transform and epoch, the same for every device and batch size.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from s9.config.components import build_component, check_component, check_target
from s9.config.schema import AugConfig
from s9.data import keys
from s9.data.augmentation import batch_colour, batch_geometry
from s9.data.augmentation.batch_transform import BatchTransform
from s9.data.image_set import ImageFacts
from s9.system.compute import on_device
from s9.system.errors import UserError

KNOWN = {  # by albumentations' name
    name: f"{module.__name__}.{name}"
    for module in (batch_geometry, batch_colour)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, BatchTransform) and found is not BatchTransform
}
INSTEAD = "aug.backend=device cannot do this; aug.backend=albumentations with data.loader=workers may"

Draws = list[torch.Tensor]  # one table per transform: float32 (N, 1 + draws), in [0, 1)


class BatchAugment:
    """Turns uint8 images (B, 3, H, W) into augmented ones of the same type and shape, on any device.

    The mean colour of `facts`, rounded to whole grey levels, replaces `fill: mean`.

    Raises:
        UserError: a transform has no form for batches, refuses its arguments, or changes the size of the images.
    """

    def __init__(self, config: AugConfig, facts: ImageFacts, seed: int):
        fill = tuple(round(255 * channel) for channel in facts.mean)
        self.seed = seed
        self.transforms: dict[str, BatchTransform] = {
            name: build_batch_transform(name, transform, fill) for name, transform in config.transforms.items()
        }
        blank = torch.zeros(2, 3, facts.image_size, facts.image_size, dtype=torch.uint8)
        out = blank
        for name, transform in self.transforms.items():
            try:
                out = replace(transform, p=1.0)(out, torch.zeros(2, 1 + transform.draws))
            except Exception as error:
                hint = "; `draws` of the class must say how many it reads" if isinstance(error, IndexError) else ""
                raise UserError(f"aug.transforms.{name}: {' '.join(str(error).split())}{hint}") from None
            if out.dtype != torch.uint8:
                raise UserError(f"aug.transforms.{name}: returns {out.dtype} images; they must be torch.uint8")
        if out.shape != blank.shape:
            sizes = " x ".join(map(str, out.shape[2:])), " x ".join(map(str, blank.shape[2:]))
            raise UserError(f"aug={config.name}: makes images of {sizes[0]} from {sizes[1]}; they must keep their size")

    def draw(self, epoch: int, size: int, device: torch.device) -> Draws:
        """The uniform numbers of images 0 to size - 1 in `epoch`, on the device."""
        tables = (
            keys.batch_draws(self.seed, epoch, name, (size, 1 + transform.draws))
            for name, transform in self.transforms.items()
        )
        return [on_device(torch.from_numpy(table), device) for table in tables]

    def __call__(self, images: torch.Tensor, draws: Draws, index: torch.Tensor) -> torch.Tensor:
        """Augments images (B, 3, H, W) whose positions in the split are `index` (B,). May write into `images`."""
        for transform, table in zip(self.transforms.values(), draws, strict=True):
            images = transform(images, table.index_select(0, index))
        return images

    def preview(self, images: np.ndarray, epoch: int) -> np.ndarray:
        """uint8 (N, H, W, 3) -> the same: what images 0 to N - 1 look like in `epoch`."""
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().clone()
        every = torch.arange(len(batch))
        out = self(batch, self.draw(epoch, len(batch), batch.device), every)
        return out.permute(0, 2, 3, 1).contiguous().numpy()


def build_batch_transform(name: str, transform: dict[str, Any], fill: Any) -> BatchTransform:
    """The batched form of one albumentations transform, or a BatchTransform of the user's own.

    Args:
        fill: replaces `fill: mean`.

    Raises:
        UserError: the transform has no batched form, or lacks or refuses an argument.
    """
    key, target = f"aug.transforms.{name}", str(transform["_target_"])
    if target.startswith("albumentations."):
        if target.rpartition(".")[2] not in KNOWN or target.count(".") > 1:
            check_target(key, target, "aug")  # raises if albumentations has no such name either
            raise UserError(f"{key}._target_={target}: {INSTEAD}")
        transform = {**transform, "_target_": KNOWN[target.rpartition(".")[2]]}
    found = check_target(key, transform["_target_"], "aug")
    if not (isinstance(found, type) and issubclass(found, BatchTransform)):
        raise UserError(f"{key}._target_={target}: is no subclass of {BatchTransform.__module__}.BatchTransform")
    try:
        check_component(key, transform, "aug")
    except UserError as error:
        raise UserError(f"{error} ({INSTEAD})" if target.startswith("albumentations.") else str(error)) from None
    replaced = {"fill": fill} if transform.get("fill") == "mean" else {}
    built: BatchTransform = build_component(key, transform, "aug", **replaced)
    return built
