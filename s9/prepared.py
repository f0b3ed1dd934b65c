"""What trains: data, batches, network, optimizer, schedule and checkpoints, made from the configuration.

Each rank makes them for itself. Everything heavy is imported inside.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s9.config import Config
from s9.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR
    from torch.optim.swa_utils import AveragedModel

    from s9.data.augment import Augment
    from s9.data.image_set import ImageSet
    from s9.data.loaders import TrainLoader
    from s9.models.s9net import S9Net
    from s9.training.checkpoint import Checkpoints, Position
    from s9.training.distillation import Teacher
    from s9.training.loop import Reached, Watcher
    from s9.training.ranks import Ranks


@dataclass
class Prepared:
    """All that trains: what each rank makes for itself from the configuration."""

    data: "ImageSet"
    augment: "Augment"
    loader: "TrainLoader"
    model: "S9Net"
    optimizer: "Optimizer"
    scheduler: "LambdaLR"
    averaged: "AveragedModel | None"
    device: "torch.device"
    precision: "torch.dtype"
    checkpoints: "Checkpoints"
    config: Config
    ranks: "Ranks"
    teacher: "Teacher | None" = None

    @property
    def tested(self) -> "Module":
        """What val and test see, and what is saved."""
        from s9.training.weights import plain_module

        return plain_module(self.averaged or self.model)

    def fit(
        self, watcher: "Watcher", start: "Position | None" = None, due: Callable[[], bool] = lambda: False
    ) -> "Iterator[Reached]":
        """Trains from `start` on; see loop.fit."""
        from s9.training import loop

        trained = (self.model, self.averaged, self.optimizer, self.scheduler, self.loader, self.data)
        how = (self.config, self.device, self.precision)
        return loop.fit(*trained, *how, watcher, start, due, self.ranks, self.teacher)


def prepare(config: Config, folder: Path, ranks: "Ranks") -> Prepared:
    """Data, model, optimizer and schedule; nothing is written.

    Raises:
        UserError: the machine or the data cannot do what was asked.
    """
    from s9 import runtime
    from s9.data import sources
    from s9.data.augment import build_augment
    from s9.data.loaders import train_loader
    from s9.models.precision import guard_bfloat16
    from s9.models.s9net import build_model
    from s9.tracking import record
    from s9.training import loop, optim
    from s9.training.checkpoint import Checkpoints
    from s9.training.weights import load_weights

    precision = runtime.pick_precision(config.trainer.precision, ranks.device)
    begun = source_of("init_from", config.init_from, config)  # before the data, which may have to be downloaded
    taught = source_of("teacher", config.teacher, config)
    runtime.seed_everything(config.seed)
    runtime.keep_freed_memory()
    data = sources.load(config.data, config.seed)
    augment = build_augment(config.aug, data.mean, config.seed, data.image_size)
    loader = train_loader(config, data.train, augment, ranks.device, ranks.rank, ranks.world)
    model = build_model(config.model, data)
    if begun:
        load_weights(model, begun.weights)
    guard_bfloat16(model, data.image_size, ranks.device, precision)
    model.to(ranks.device)
    optimizer = optim.build_optimizer(config.optimizer, model)
    scheduler = optim.build_scheduler(config.scheduler, optimizer, len(loader) * config.trainer.epochs)
    averaged = loop.averaged(model, config.trainer.ema_decay)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, **({"ema": averaged} if averaged else {})}
    checkpoints = Checkpoints(folder, parts, record.as_dict(config), ranks.world, config.trainer.save_every)
    made = (data, augment, loader, model, optimizer, scheduler, averaged)
    teacher = load_teacher(config, data, ranks.device, taught) if taught else None
    return Prepared(*made, ranks.device, precision, checkpoints, config, ranks, teacher)


def load_teacher(config: Config, data: "ImageSet", device: "torch.device", source: "Source") -> "Teacher":
    """The network of another run, with its weights.

    Raises:
        UserError: its weights are not those of its configuration, or of other classes.
    """
    from s9.models.s9net import S9Net
    from s9.training.distillation import Teacher
    from s9.training.weights import load_weights

    model = S9Net(source.config.model, len(data.class_names), data.image_size)
    load_weights(model, source.weights)
    return Teacher(model.to(device), config.distillation)


@dataclass(frozen=True)
class Source:
    """A finished run that another one starts or learns from: its configuration, and the file of its weights."""

    config: Config
    weights: Path


def source_of(key: str, given: str | None, config: Config) -> Source | None:
    """The run that `key=given` names, by its folder or by a file of its weights; None where none is named.

    Raises:
        UserError: there is no such run, it has not finished, it is of other data, or it has seen what is val here.
    """
    from s9.tracking import record

    if given is None:
        return None
    weights = Path(given) if Path(given).suffix == ".safetensors" else Path(given) / record.FINAL
    folder = weights.parent.parent
    for name in (record.CONFIG, record.FINAL):
        if not (folder / name).is_file():
            raise UserError(f"{key}={given}: there is no {folder / name}; give the folder of a finished run")
    theirs = record.read_config(folder)
    of_images = ["data.name", *(f"data.{name}" for name in ("root", "image_size") if hasattr(config.data, name))]
    of_val = ["data.val_size", "seed"] if config.data.val_size else []
    for name in of_images + of_val:
        there, here = (_value(of, name) for of in (theirs, config))
        if there != here:
            why = "has seen images that are val here" if name in of_val else "is of other images"
            raise UserError(f"{key}={given}: {why}; it was trained with {name}={there}, this run has {here}")
    return Source(theirs, weights)


def _value(config: Config, key: str) -> object:
    """One value; of a path its last part, since a folder may have moved."""
    value: object = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return Path(str(value)).name if key == "data.root" else value
