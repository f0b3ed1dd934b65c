"""What trains: data, batches, network, optimizer, schedule and checkpoints, made from the configuration.

Each rank makes them for itself. Everything heavy is imported inside.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s9.config import Config

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
        return loop.fit(*trained, self.config, self.device, self.precision, watcher, start, due, self.ranks)


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

    precision = runtime.pick_precision(config.trainer.precision, ranks.device)
    runtime.seed_everything(config.seed)
    runtime.keep_freed_memory()
    data = sources.load(config.data, config.seed)
    augment = build_augment(config.aug, data.mean, config.seed, data.image_size)
    loader = train_loader(config, data.train, augment, ranks.device, ranks.rank, ranks.world)
    model = build_model(config.model, data)
    guard_bfloat16(model, data.image_size, ranks.device, precision)
    model.to(ranks.device)
    optimizer = optim.build_optimizer(config.optimizer, model)
    scheduler = optim.build_scheduler(config.scheduler, optimizer, len(loader) * config.trainer.epochs)
    averaged = loop.averaged(model, config.trainer.ema_decay)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, **({"ema": averaged} if averaged else {})}
    checkpoints = Checkpoints(folder, parts, record.as_dict(config), ranks.world, config.trainer.save_every)
    made = (data, augment, loader, model, optimizer, scheduler, averaged)
    return Prepared(*made, ranks.device, precision, checkpoints, config, ranks)
