"""Batches for training and evaluation: which images, in which order, as which tensors.

`data.loader=resident`: the split is one tensor on the device, and batches are gathered there. `data.loader=workers`:
the processes of a DataLoader read whole batches, and augment them with aug.backend=albumentations. For the same seed
both give the same images and labels in the same order.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from s9.config.schema import Config
from s9.data import keys
from s9.data.augmentation.augment import Augment
from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.image_set import CHUNK, Split
from s9.system.errors import UserError
from s9.system.interrupt import shielded

if TYPE_CHECKING:
    from s9.data.augmentation.image_augment import ImageAugment

Key = tuple[int, int]  # (epoch, index): an augmented image is a function of its key
Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 images (B, 3, H, W), int64 labels (B,)
IndexedBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # a Batch, and its images' int64 index (B,) in the split

EVAL_BATCH = 500  # images; fixed, so that a run scored again gives the same number to the last digit


class KeyedBatches(Sampler[list[Key]]):
    """Lists of (epoch, index), shuffled by (seed, epoch). `epoch` counts from 1 and is set before each pass.

    `first` is the first batch of the pass, above 0 when an epoch is resumed. Each of `world` ranks gets its part of
    every batch; images i and B - 1 - i stay on one rank, since mixing pairs them.

    The last batch of an epoch is dropped if it is not full, since batch norm on a few images is noise.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, *, steps: int | None = None, rank: int = 0, world: int = 1
    ):
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.batch_size = min(batch_size, size)
        whole = size // self.batch_size
        self.steps = whole if steps is None else min(steps, whole)
        self.epoch, self.first = 1, 0

    def __len__(self) -> int:
        return self.steps

    def order(self) -> np.ndarray:
        """int64 (steps - first, batch_size / world): the images of each batch of this pass."""
        order = keys.data_order(self.seed, self.epoch, self.size)
        batches = order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)[self.first :]
        if self.world == 1:
            return batches
        ahead = np.arange(self.rank, self.batch_size // 2, self.world)
        return batches[:, np.concatenate([ahead, self.batch_size - 1 - ahead[::-1]])]

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.order():
            yield [(self.epoch, int(index)) for index in batch]


class TrainLoader:
    """One pass is one epoch of augmented batches on the device.

    Args:
        source: gives the epoch's batches, each with the indices of its images.
        augment: the augmentation of whole batches; None if the source has augmented each image.
    """

    def __init__(
        self, source: Iterable[IndexedBatch], batches: KeyedBatches, augment: BatchAugment | None, device: torch.device
    ):
        self.source, self.batches, self.augment, self.device = source, batches, augment, device

    def __len__(self) -> int:
        return len(self.batches)

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Makes the next pass that of `epoch`, which counts from 1, without its first `first_batch` batches."""
        self.batches.epoch, self.batches.first = epoch, first_batch

    def __iter__(self) -> Iterator[Batch]:
        draws = self.augment.draw(self.batches.epoch, self.batches.size, self.device) if self.augment else []
        for images, labels, index in self.source:
            yield (self.augment(images, draws, index) if self.augment else images), labels


class ResidentBatches:
    """Batches gathered from one uint8 tensor on the device; each epoch copies only its order to the device."""

    def __init__(self, split: Split, batches: KeyedBatches, device: torch.device):
        size = split.images.shape[1]
        self.images = torch.empty(len(split), 3, size, size, dtype=torch.uint8, device=device)
        for start in range(0, len(split), CHUNK):  # so that the split is never in memory twice
            some = torch.from_numpy(np.asarray(split.images[start : start + CHUNK]))
            self.images[start : start + CHUNK] = some.permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.batches = batches

    def __iter__(self) -> Iterator[IndexedBatch]:
        for index in torch.from_numpy(self.batches.order()).to(self.images.device):
            yield self.images.index_select(0, index), self.labels.index_select(0, index), index


class WorkerBatches:
    """Batches built by worker processes, and copied to the device while the previous step is computed."""

    def __init__(
        self,
        split: Split,
        batches: KeyedBatches,
        augment: "ImageAugment | None",
        device: torch.device,
        *,
        workers: int = 0,
        start_method: str | None = None,
    ):
        self.device = device
        self.loader = DataLoader(
            AugmentedImages(split, augment),
            batch_size=None,  # the sampler already names whole batches
            sampler=batches,
            num_workers=workers,
            multiprocessing_context=multiprocessing.get_context(start_method) if workers else None,
            worker_init_fn=_begin_worker,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # Nothing draws from it; without a generator, DataLoader takes a seed from torch's global stream each epoch.
            generator=torch.Generator().manual_seed(0),
        )

    def __iter__(self) -> Iterator[IndexedBatch]:
        with shielded():
            batches = iter(self.loader)  # starts the workers
        try:
            for batch in batches:
                images, labels, index = (part.to(self.device, non_blocking=True) for part in batch)
                yield images, labels, index
        except RuntimeError:  # a worker died; another, asked to end during a batch, may print a traceback
            for process in getattr(batches, "_workers", []):
                process.kill()
            raise


class AugmentedImages(Dataset[IndexedBatch]):
    """A split whose items are whole batches, so that a worker sends one tensor instead of many."""

    def __init__(self, split: Split, augment: "ImageAugment | None"):
        self.split, self.augment = split, augment

    def __getitem__(self, keys: list[Key]) -> IndexedBatch:
        index = np.array([i for _, i in keys])
        if self.augment is None:
            images = self.split.images[index]
        else:
            images = np.stack([self.augment(self.split.images[i], epoch, i) for epoch, i in keys])
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return batch, torch.from_numpy(self.split.labels[index]), torch.from_numpy(index)


def _begin_worker(_: int) -> None:
    """One thread; and no traceback of its own: torch hands on what a worker raises, and the run says it in one line."""
    torch.set_num_threads(1)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # for as long as the worker lives


def train_loader(
    config: Config, split: Split, augment: Augment, device: torch.device, *, rank: int = 0, world: int = 1
) -> TrainLoader:
    """The part of `rank` of each augmented batch of `split`, on the device, by the loader of `config.data.loader`.

    Raises:
        UserError: a batch cannot be shared out evenly.
    """
    trainer = config.trainer
    steps = trainer.steps_per_epoch
    batches = KeyedBatches(len(split), trainer.batch_size, config.seed, steps=steps, rank=rank, world=world)
    if world > 1 and batches.batch_size % (2 * world):
        raise UserError(
            f"trainer.batch_size={batches.batch_size}: must be a multiple of {2 * world} for {world} devices"
        )
    on_batches, on_images = (augment, None) if isinstance(augment, BatchAugment) else (None, augment)
    source: Iterable[IndexedBatch]
    if config.data.loader == "resident":
        source = ResidentBatches(split, batches, device)
    else:
        source = WorkerBatches(split, batches, on_images, device, workers=config.data.workers)
    return TrainLoader(source, batches, on_batches, device)


def eval_batches(split: Split) -> Iterator[Batch]:
    """The whole split, in order and not augmented."""
    for start in range(0, len(split), EVAL_BATCH):
        images = torch.from_numpy(np.asarray(split.images[start : start + EVAL_BATCH])).permute(0, 3, 1, 2)
        yield images, torch.from_numpy(split.labels[start : start + EVAL_BATCH])
