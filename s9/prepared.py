"""What trains: data, batches, network, optimizer, schedule and checkpoints, made from the configuration.

Each rank makes them for itself. Everything heavy is imported inside.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s9.config import Config, FolderConfig
from s9.errors import UserError
from s9.process import keep_freed_memory

if TYPE_CHECKING:
    import torch
    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR
    from torch.optim.swa_utils import AveragedModel

    from s9.data.augment import Augment
    from s9.data.image_set import ImageFacts, ImageSet
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


def prepare(config: Config, folder: Path, ranks: "Ranks", known: "ImageFacts | None" = None) -> Prepared:
    """Data, model, optimizer and schedule; nothing is written.

    Args:
        known: of the images that a resumed run has trained on.

    Raises:
        UserError: the machine or the data cannot do what was asked.
    """
    from s9 import runtime
    from s9.data import sources
    from s9.data.augment import build_augment
    from s9.data.loaders import train_loader
    from s9.models.precision import guard_bfloat16
    from s9.models.s9net import build_model, refuse_single_values
    from s9.tracking import record
    from s9.training import loop, optim
    from s9.training.checkpoint import Checkpoints
    from s9.training.weights import load_mean_weights

    precision = runtime.pick_precision(config.trainer.precision, ranks.device)
    begun, taught = sources_of(config)  # before the data, which may have to be downloaded
    runtime.seed_everything(config.seed)
    keep_freed_memory()  # here too: not every run comes through a door, and ranks come through none
    data = sources.load(config.data, config.seed)
    if known:
        refuse_changed_images(folder, known, data)
        data = data.as_known_to(known)
    for source in (*begun, *taught):
        source.refuse_other_images(data)
    augment = build_augment(config.aug, data.mean, config.seed, data.image_size)
    loader = train_loader(config, data.train, augment, ranks.device, ranks.rank, ranks.world)
    model = build_model(config.model, data)
    refuse_single_values(model, loader.batches.batch_size // ranks.world)
    if begun:
        load_mean_weights(model, [(source.network(data), source.weights) for source in begun])
    guard_bfloat16(model, data.image_size, ranks.device, precision)
    model.to(ranks.device)
    optimizer = optim.build_optimizer(config.optimizer, model)
    scheduler = optim.build_scheduler(config.scheduler, optimizer, len(loader) * config.trainer.epochs)
    averaged = loop.averaged(model, config.trainer.ema_decay)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, **({"ema": averaged} if averaged else {})}
    identity = record.as_dict(config) | {"images": data.facts.fingerprint, "class names": list(data.class_names)}
    identity |= {"weights of the teacher": digests(taught)} if taught else {}
    checkpoints = Checkpoints(folder, parts, identity, ranks.world, config.trainer.save_every)
    made = (data, augment, loader, model, optimizer, scheduler, averaged)
    teacher = load_teacher(config, data, ranks.device, taught) if taught else None
    return Prepared(*made, ranks.device, precision, checkpoints, config, ranks, teacher)


def refuse_changed_images(folder: Path, known: "ImageFacts", data: "ImageSet") -> None:
    """Raises UserError where the images are not those that the run has begun with, and names what has changed."""
    from s9.data.image_set import in_short

    changes = known.changes(data.facts)
    if changes:
        raise UserError(
            f"resume={folder}: the images have changed since the run began: {in_short(changes)}; "
            "bring them back as they were, or start a new run"
        )


def load_teacher(config: Config, data: "ImageSet", device: "torch.device", sources: "list[Source]") -> "Teacher":
    """The networks of other runs, with their weights.

    Raises:
        UserError: its weights are not those of its configuration, or of another number of classes.
    """
    from s9.training.distillation import Teacher
    from s9.training.weights import load_weights

    models: list[Module] = []
    for source in sources:
        model = source.network(data)
        load_weights(model, source.weights)
        models.append(model.to(device))
    return Teacher(models, config.distillation)


def digests(sources: "list[Source]") -> str:
    """The sha256 of each one's weights, joined as `teacher=` joins them."""
    return os.pathsep.join(source.digest for source in sources)


@dataclass(frozen=True)
class Source:
    """A finished run that another one starts or learns from.

    said: how it was named, as teacher=<folder>. images: those it was trained on; None where an older run does not say.
    """

    said: str
    config: Config
    weights: Path
    images: "ImageFacts | None"

    @property
    def digest(self) -> str:
        """sha256 of its weights' file."""
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def network(self, data: "ImageSet") -> "S9Net":
        """One for these images, its weights not yet loaded."""
        from s9.models.s9net import S9Net

        return S9Net(self.config.model, len(data.class_names), data.image_size)

    def refuse_other_images(self, data: "ImageSet") -> None:
        """Raises UserError where its images are known to be others: what is val here may have been train there."""
        from s9.data.image_set import in_short

        changes = self.images.changes(data.facts, ("train", "val")) if self.images else []
        if changes:
            raise UserError(f"{self.said}: is of other images than this run's: {in_short(changes)}")


def sources_of(config: Config) -> tuple[list[Source], list[Source]]:
    """What `init_from` and `teacher` name, none or more each. Raises as `source_of`; no image is read."""
    begun, taught = (
        [source_of(key, run, config) for run in ([] if given is None else runs_of(given))]
        for key, given in (("init_from", config.init_from), ("teacher", config.teacher))
    )
    return begun, taught


def runs_of(given: str) -> list[str]:
    """The runs that are joined in `given` as in PATH; a part that is a path only together with the next stays whole."""
    parts, runs = given.split(os.pathsep), []
    while parts:
        joined = [os.pathsep.join(parts[:count]) for count in range(len(parts), 0, -1)]
        runs.append(next((path for path in joined if Path(path).expanduser().exists()), parts[0]))
        parts = parts[runs[-1].count(os.pathsep) + 1 :]
    return runs


def source_of(key: str, given: str, config: Config) -> Source:
    """The run that `key=given` names, by its folder or by a file of its weights.

    Raises:
        UserError: there is no such run, it has not finished, it is of other data, or it has seen what is val here.
    """
    from s9.tracking import record

    said, named = f"{key}={given}", Path(given).expanduser()
    weights = named if named.suffix == ".safetensors" else named / record.FINAL
    folder = weights.parent.parent
    for path in (folder / record.CONFIG, folder / record.FINAL, folder / record.SUMMARY, weights):
        if not path.is_file():
            raise UserError(f"{said}: there is no {path}; give the folder of a finished run")
    try:
        theirs = record.read_config(folder)
        record.read_summary(folder)
        images = record.read_images(folder)
    except UserError as error:
        raise UserError(f"{said}: {error}") from None
    _refuse_difference(f"{said}: is of other images", _which_images(theirs, images), _which_images(config, images))
    given_val = images is not None and "val" in images.contents  # a folder of its own: compared with the images
    if config.data.val_size and not given_val:
        _refuse_difference(f"{said}: has seen images that are val here", _which_val(theirs), _which_val(config))
    return Source(said, theirs, weights, images)


def _which_images(config: Config, known: "ImageFacts | None") -> dict[str, object]:
    """By key, what tells before any image is read; a folder may have moved, so its name counts only without facts."""
    data = config.data
    found: dict[str, object] = {"data.name": data.name}
    if isinstance(data, FolderConfig):
        found["data.image_size"] = data.image_size
        if known is None:
            found["data.root"] = Path(data.root).name
    return found


def _which_val(config: Config) -> dict[str, object]:
    return {"data.val_size": config.data.val_size, "data.val_seed": config.data.val_seed_of(config.seed)}


def _refuse_difference(why: str, there: dict[str, object], here: dict[str, object]) -> None:
    for key, value in here.items():
        if there.get(key) != value:
            raise UserError(f"{why}; it was trained with {key}={there.get(key)}, this run has {value}")
