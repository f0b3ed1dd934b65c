"""Measurements of `python -m s9.bench`, each a list of rows: augmentation, step, epoch and growth."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from s9.benchmarks.baseline import PlainStep, plain_loader, plain_network
from s9.benchmarks.startup import peak_memory
from s9.benchmarks.timing import Row, row, seconds_in_turns
from s9.config.schema import AugConfig, Config
from s9.data.augmentation.augment import Augment, build_augment
from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.augmentation.mix import mix
from s9.data.image_set import ImageSet, Split
from s9.data.loaders import train_loader
from s9.models.precision import guard_bfloat16
from s9.models.s9net import S9Net
from s9.system.compute import Compute, pick_precision
from s9.system.process import keep_freed_memory
from s9.training import optim
from s9.training.learner import Learner
from s9.training.loop import fit
from s9.training.step import Place, compiled, train_step

AUGMENT_IMAGES = {"device": 12_800, "albumentations": 2_560}  # images per timing; both backends report images/s
SIZES = (5_000, 50_000, 500_000)
BATCHES = (64, 128, 256, 512, 1024, 2048)
GROWTH_BATCH_STEPS = 12
MEGABYTE = 2**20


def batch_of(config: Config) -> int:
    """The batch size, which must be given: trainer.batch_size=null is chosen by the number of images."""
    size = config.trainer.batch_size
    assert size is not None
    return size


def of_size(data: ImageSet, count: int) -> ImageSet:
    """`data` with its training images repeated or cut to `count`, and no val."""
    index = np.arange(count) % len(data.train)
    train = Split(np.asarray(data.train.images)[index], data.train.labels[index])
    return replace(data, train=train, val=train.take(slice(0)))


def augmentation(sets: dict[str, AugConfig], data: ImageSet, device: torch.device, repeats: int) -> list[Row]:
    """Images/s of each set with both backends: on one core of the CPU; `device` on a GPU uses the whole GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = np.asarray(of_size(data, AUGMENT_IMAGES["device"]).train.images)
    rows = []
    for name, config in sets.items():
        per_image = build_augment(replace(config, backend="albumentations"), data.facts, seed=0)
        batched = BatchAugment(config, data.facts, seed=0)
        resident = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        order = torch.randperm(len(images)).to(device).split(128 if device.type == "cpu" else 2048)

        work = {
            "albumentations": partial(_augment_each, per_image, images[: AUGMENT_IMAGES["albumentations"]]),
            "device": partial(_augment_batches, batched, resident, order),
        }
        rates = {
            backend: [AUGMENT_IMAGES[backend] / s for s in seconds]
            for backend, seconds in seconds_in_turns(work, repeats, device).items()
        }
        slow = row("augment", f"aug={name}, albumentations", "images/s", rates["albumentations"])
        rows += [slow, row("augment", f"aug={name}, device", "images/s", rates["device"], than=slow)]
    torch.set_num_threads(threads)
    return rows


def _augment_each(augment: Augment, images: np.ndarray) -> None:
    augment.preview(images, epoch=1)


def _augment_batches(augment: BatchAugment, resident: torch.Tensor, order: tuple[torch.Tensor, ...]) -> None:
    draws = augment.draw(1, len(resident), resident.device)
    for index in order:
        augment(resident.index_select(0, index), draws, index)


class Step:
    """One training step as `s9.training.loop.fit` does it, on uint8 images (B, 3, H, W) on the device."""

    def __init__(self, config: Config, data: ImageSet, device: torch.device, total_steps: int = 10**9):
        self.config, self.data = config, data
        self.compute = Compute(device, pick_precision(config.trainer.precision, device))
        model = S9Net(config.model, data.facts)
        guard_bfloat16(model, data.facts.image_size, self.compute)
        model.to(device).train()
        optimizer = optim.build_optimizer(config.optimizer, model)
        scheduler = optim.build_scheduler(config.scheduler, optimizer, total_steps)
        self.learner = Learner(model=model, optimizer=optimizer, scheduler=scheduler)
        self.forward = compiled(model, device) if config.trainer.compile else model

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        normalised = self.compute.normalised(images, self.data.facts.mean, self.data.facts.std)
        mixed = mix(self.config.aug.mix, normalised, labels, (0, 1, 1))
        at = Place(1, 1, normalised.shape[-1])
        train_step(self.forward, self.learner, mixed, self.config.trainer, compute=self.compute, at=at)


def step(configs: dict[str, Config], data: ImageSet, device: torch.device, repeats: int) -> list[Row]:
    """Images/s of one training step of each network: naive, s9, and s9 compiled; each repeat is one step."""
    rows = []
    for name, config in configs.items():
        size = batch_of(config)
        batch = data.train.take(np.arange(size) % len(data.train))
        raw = torch.from_numpy(np.asarray(batch.images)).permute(0, 3, 1, 2).contiguous().to(device)
        labels = torch.from_numpy(batch.labels).to(device)
        floats = Compute(device, torch.float32).normalised(raw, data.facts.mean, data.facts.std).contiguous()
        naive = PlainStep(plain_network(S9Net(config.model, data.facts)), device)
        ours = Step(replace(config, trainer=replace(config.trainer, compile=False)), data, device)
        compiled = Step(replace(config, trainer=replace(config.trainer, compile=True)), data, device)
        started = time.perf_counter()
        compiled(raw, labels)
        compile_s = time.perf_counter() - started
        work: dict[str, Callable[[], None]] = {
            "naive": partial(naive, floats, labels),
            "s9": partial(ours, raw, labels),
            "s9, compiled": partial(compiled, raw, labels),
        }
        seconds = seconds_in_turns(work, repeats, device, warm_up=5)
        rates = {kind: [size / s for s in values] for kind, values in seconds.items()}
        slow = row("step", f"{name}, batch {size}, naive", "images/s", rates["naive"])
        rows.append(slow)
        rows += [row("step", f"{name}, batch {size}, {k}", "images/s", rates[k], than=slow) for k in list(work)[1:]]
        rows.append(row("step", f"{name}, to compile", "s", [compile_s]))
    return rows


def epoch(config: Config, data: ImageSet, device: torch.device, *, repeats: int, images: int) -> list[Row]:
    """Images/s of whole epochs in turns, and the time that s9 spends outside forward, backward and optimizer.

    Each way has its own process, as in real use: the memory use of one way must not help or hinder another.
    """
    data = of_size(data, images)
    compiled = replace(config, trainer=replace(config.trainer, compile=True))
    ways = {"naive": (_naive_epochs, config), "s9": (_own_epochs, config), "s9, compiled": (_own_epochs, compiled)}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
            for name in ways
        }
        for name, (make, of) in ways.items():
            processes[name].submit(_begin, make, of, data, device, repeats + 1).result()
        kept: list[dict[str, float]] = []

        def turn(name: str) -> None:
            record = processes[name].submit(_next_epoch).result()
            if name == "s9":
                kept.append(record)

        seconds = seconds_in_turns({name: partial(turn, name) for name in ways}, repeats, device)
    batches = images // batch_of(config) * batch_of(config)
    rates = {name: [batches / s for s in values] for name, values in seconds.items()}
    what = f"{config.model.name}, aug={config.aug.name}, {images:,} images"
    slow = row("epoch", f"{what}, naive", "images/s", rates["naive"])
    ours = [row("epoch", f"{what}, {name}", "images/s", rates[name], than=slow) for name in list(ways)[1:]]
    other = [100 * (1 - record["time/step_s"] / record["time/train_s"]) for record in kept[1:]]
    return [slow, *ours, row("epoch", "s9, outside forward, backward and optimizer", "% of the epoch", other)]


_EPOCHS: list[Iterator[dict[str, float]]] = []  # in a process that `epoch` has started


def _begin(make: Callable[..., Iterator[dict[str, float]]], *arguments: object) -> None:
    _EPOCHS.append(make(*arguments))


def _next_epoch() -> dict[str, float]:
    return next(_EPOCHS[0])


def _naive_epochs(config: Config, data: ImageSet, device: torch.device, epochs: int) -> Iterator[dict[str, float]]:
    naive = PlainStep(plain_network(S9Net(config.model, data.facts)), device)
    loader = plain_loader(data, config.aug, batch_of(config))
    for _ in range(epochs):
        for x, y in loader:
            naive(x, y)
        yield {}


def _own_epochs(config: Config, data: ImageSet, device: torch.device, epochs: int) -> Iterator[dict[str, float]]:
    keep_freed_memory()  # as s9.train does
    return epochs_of(config, data, device, epochs)


def epochs_of(config: Config, data: ImageSet, device: torch.device, epochs: int) -> Iterator[dict[str, float]]:
    """The times of each epoch of `fit` itself, with everything that `fit` does."""
    config = replace(config, trainer=replace(config.trainer, epochs=epochs, steps_per_epoch=None))
    augment = build_augment(config.aug, data.facts, config.seed)
    loader = train_loader(config, data.train, augment, device)
    one = Step(config, data, device, len(loader) * epochs)
    reached = fit(learner=one.learner, batches=loader, data=data, compute=one.compute, settings=config)
    return (at.times for at in reached)


def growth(config: Config, data: ImageSet, device: torch.device) -> list[Row]:
    """Time and peak memory of one epoch of 5,000 to 500,000 images, and of batches of 64 to 2,048; once each.

    Each measurement has its own process, since a process's peak memory never falls.
    """
    rows = []
    for count in SIZES:
        seconds, peak = _alone(config, of_size(data, min(count, len(data.train))), device, count)
        rows.append(row("growth", f"{config.model.name}, epoch of {count:,}", "s", [seconds]))
        rows.append(row("growth", f"{config.model.name}, epoch of {count:,}, peak memory", "MB", [peak]))
    for size in BATCHES:
        batch = replace(config, trainer=replace(config.trainer, batch_size=size))
        count = size * GROWTH_BATCH_STEPS
        seconds, peak = _alone(batch, of_size(data, min(count, len(data.train))), device, count)
        rows.append(row("growth", f"{config.model.name}, batch {size}", "images/s", [count / seconds]))
        rows.append(row("growth", f"{config.model.name}, batch {size}, peak memory", "MB", [peak]))
    return rows


def _alone(config: Config, data: ImageSet, device: torch.device, count: int) -> tuple[float, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_one_epoch, config, data, device, count).result()


def _one_epoch(config: Config, data: ImageSet, device: torch.device, count: int) -> tuple[float, float]:
    """(seconds, peak MB) of an epoch, measured after a first epoch that warms up on a few images."""
    keep_freed_memory()  # as s9.train does
    next(epochs_of(config, of_size(data, 4 * batch_of(config)), device, 1))
    record = next(epochs_of(config, of_size(data, count), device, 1))
    if device.type == "cuda":
        return record["time/train_s"], torch.cuda.max_memory_allocated(device) / MEGABYTE
    return record["time/train_s"], peak_memory("self")
