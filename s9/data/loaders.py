"""Batches for training and evaluation: which images, in which order, as which tensors.

`data.loader=resident`: the split is one tensor on the device, and batches are gathered there. `data.loader=workers`:
the processes of a DataLoader read whole batches, and augment them with aug.backend=albumentations. For the same seed
both give the same images and labels in the same order, so `data.loader=auto` may choose by the memory that is free.
"""

import math
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from s9.config.schema import Config
from s9.data.augmentation.augment import Augment
from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.batches import Key, KeyedBatches, usual_batch_size
from s9.data.image_set import CHUNK, Split
from s9.system.compute import on_device
from s9.system.errors import UserError
from s9.system.interrupt import shielded
from s9.system.memory import free_memory

if TYPE_CHECKING:
    from s9.data.augmentation.image_augment import ImageAugment

Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 images (B, 3, H, W), int64 labels (B,)
IndexedBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # a Batch, and int64 places (B,) in the epoch

RESIDENT_PART = 1 / 3  # of the free memory that train may take with data.loader=auto
EVAL_BATCH = 500  # images; fixed, so that a run scored again gives the same number to the last digit
EVAL_SIZE = 32  # pixels: of larger images a batch has fewer, so that they take as much memory


class TrainLoader:
    """One pass is one epoch of augmented batches on the device.

    Args:
        source: gives the epoch's batches, each with the places of its images.
        augment: the augmentation of whole batches; None if the source has augmented each image.
        said: why `data.loader=auto` does not keep the images on the device; None: nothing to say.
    """

    def __init__(
        self,
        source: Iterable[IndexedBatch],
        batches: KeyedBatches,
        augment: BatchAugment | None,
        device: torch.device,
        *,
        said: str | None = None,
    ):
        self.source, self.batches, self.augment, self.device, self.said = source, batches, augment, device, said

    def __len__(self) -> int:
        return len(self.batches)

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Makes the next pass that of `epoch`, which counts from 1, without its first `first_batch` batches."""
        self.batches.epoch, self.batches.first = epoch, first_batch

    def __iter__(self) -> Iterator[Batch]:
        draws = self.augment.draw(self.batches.epoch, self.batches.places, self.device) if self.augment else []
        for images, labels, places in self.source:
            yield (self.augment(images, draws, places) if self.augment else images), labels

    def close(self) -> None:
        """Ends the worker processes, if there are any."""
        if isinstance(self.source, WorkerBatches):
            self.source.close()


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
        order = self.batches.order()
        device, at = self.images.device, self.batches.images_at(order)
        for places, index in zip(*(torch.from_numpy(of).to(device) for of in (order, at)), strict=True):
            yield self.images.index_select(0, index), self.labels.index_select(0, index), places


class WorkerBatches:
    """Batches built by worker processes while earlier steps are computed; on CUDA the host does not wait for a copy."""

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
                images, labels, places = (on_device(part, self.device) for part in batch)
                yield images, labels, places
        except RuntimeError:  # a worker died; another, asked to end during a batch, may print a traceback
            for process in getattr(batches, "_workers", []):
                process.kill()
            raise

    def close(self) -> None:
        """Ends the workers. Python waits for them at its exit, and they take no signal that asks them to end.

        torch ends them by itself when the garbage collector finds its iterator, which may be never.
        """
        batches, self.loader._iterator = self.loader._iterator, None
        if batches is not None:
            batches._shutdown_workers()  # type: ignore[attr-defined]  # waits five seconds at most for each
            for process in batches._workers:  # type: ignore[attr-defined]
                process.kill()


class AugmentedImages(Dataset[IndexedBatch]):
    """A split whose items are whole batches, so that a worker sends one tensor instead of many."""

    def __init__(self, split: Split, augment: "ImageAugment | None"):
        self.split, self.augment = split, augment

    def __getitem__(self, keys: list[Key]) -> IndexedBatch:
        index, places = (np.array([key[part] for key in keys]) for part in (2, 1))
        if self.augment is None:
            images = self.split.images[index]
        else:
            images = np.stack([self.augment(self.split.images[i], epoch, place) for epoch, place, i in keys])
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return batch, torch.from_numpy(self.split.labels[index]), torch.from_numpy(places)


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
    batches = KeyedBatches(
        len(split),
        trainer.batch_size or usual_batch_size(len(split), world),
        config.seed,
        steps=trainer.steps_per_epoch,
        rank=rank,
        world=world,
        balanced=split.labels if config.data.balance else None,
    )
    if world > 1 and batches.batch_size % (2 * world):
        raise UserError(
            f"trainer.batch_size={batches.batch_size}: must be a multiple of {2 * world} for {world} devices"
        )
    on_batches, on_images = (augment, None) if isinstance(augment, BatchAugment) else (None, augment)
    loader, said = chosen_loader(config, split, device, world=world)
    source: Iterable[IndexedBatch]
    if loader == "resident":
        source = ResidentBatches(split, batches, device)
    else:
        source = WorkerBatches(split, batches, on_images, device, workers=config.data.workers)
    return TrainLoader(source, batches, on_batches, device, said=said)


def chosen_loader(config: Config, split: Split, device: torch.device, *, world: int = 1) -> tuple[str, str | None]:
    """What `data.loader` means here, and for `auto` a line that says why it is not resident."""
    data = config.data
    if data.loader != "auto":
        return data.loader, None
    if config.aug.backend == "albumentations" or data.workers:  # as asked
        return "workers", None
    free = free_memory(device)
    taken = math.prod(split.images.shape) * (1 if device.type == "cuda" else world)  # on a CPU each rank has a copy
    if free is None or taken < free * RESIDENT_PART:
        return "resident", None
    sizes = f"train takes {taken / 10**9:.1f} GB of {free / 10**9:.1f} GB free"
    return "workers", f"{sizes}: batches are read from the cache (data.loader=workers)"


def eval_batches(split: Split) -> Iterator[Batch]:
    """The whole split, in order and not augmented."""
    size = split.images.shape[1]
    batch = max(1, EVAL_BATCH * EVAL_SIZE**2 // max(size, EVAL_SIZE) ** 2)
    for start in range(0, len(split), batch):
        images = torch.from_numpy(np.asarray(split.images[start : start + batch])).permute(0, 3, 1, 2)
        yield images, torch.from_numpy(split.labels[start : start + batch])
