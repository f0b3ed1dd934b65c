"""The training loop as a generator: it trains and yields one record per epoch; the caller logs, saves and stops."""

import time
from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from torch import nn

from s9.config.schema import Config
from s9.data import keys
from s9.data.augmentation.mix import mix
from s9.data.image_set import ImageSet
from s9.data.loaders import TrainLoader
from s9.system.compute import Compute
from s9.training.checkpoint import Position
from s9.training.evaluation import predict, score
from s9.training.learner import Learner
from s9.training.ranks import Ranks
from s9.training.resolution import size_at, sizes
from s9.training.step import Place, compiled, stop_if_not_finite, stop_if_weights_not_finite, train_step

CHECK_EVERY = 20  # steps between checks of the loss on a CPU; elsewhere each check would wait for the device

EpochRecord = dict[str, float]


@dataclass(frozen=True)
class Reached:
    """Where training is and, if an epoch has just ended, the record and the times of that epoch.

    times: seconds; `time/step_s` is the part of `time/train_s` for forward, backward and optimizer (on a GPU: to launch
    them). Times are not in the record, since a repeated or resumed run gives the same records in other times.
    """

    position: Position
    record: EpochRecord | None = None
    times: EpochRecord = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step that has ended. loss_sum, correct: sums of the epoch, on the device; reading one waits for the device.

    epoch, batch: counted from 1. batches: per epoch. images: seen by this process in this epoch. size: of the images
    that the network saw, in pixels on a side.
    """

    epoch: int
    batch: int
    batches: int
    images: int
    size: int
    loss_sum: torch.Tensor
    correct: torch.Tensor


class Watch:
    """Sees every step and decides when `fit` yields within an epoch. This base class never asks for it."""

    def step(self, done: StepDone) -> None:
        pass

    def due(self) -> bool:
        return False


class _Epoch:
    """This rank's running sums of one epoch, and the losses to check."""

    def __init__(self, position: Position, compute: Compute, ranks: Ranks):
        self.number, self.step, self.images = position.epoch, position.step, position.images
        self.ranks, self.losses = ranks, list[torch.Tensor]()
        begun = (position.loss_sum, position.correct) if ranks.rank == 0 else (0.0, 0.0)
        # Sums in double precision are exact, so they do not depend on where a run was cut or how it was shared out.
        exact = torch.float32 if compute.device.type == "mps" else torch.float64
        self.sums = torch.tensor(begun, device=compute.device, dtype=exact)
        self.started, self.step_s = time.perf_counter(), 0.0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.step += 1
        self.losses.append(loss)
        self.images += len(labels) * self.ranks.world
        self.sums += torch.stack([loss * len(labels), (logits.argmax(1) == labels).sum()])

    def stop_if_not_finite(self, last: int, lr: float) -> None:
        """Raises NonFiniteLossError if one of the `last` newest losses is not finite. All ranks call this together."""
        losses = torch.stack(self.losses[-last:])
        stop_if_not_finite(self.ranks.all_sum("losses", losses), self.number, self.step, lr)

    def position(self, batch: int) -> Position:
        """The position after `batch` batches of the epoch. All ranks call this together."""
        loss_sum, correct = self.ranks.all_sum("sums of the epoch", self.sums).tolist()
        at = {"epoch": self.number, "batch": batch, "step": self.step, "images": self.images}
        return Position(**at, loss_sum=loss_sum, correct=correct)

    def record(self, lr: float) -> EpochRecord:
        """The record of the whole epoch. All ranks call this together."""
        loss_sum, correct = self.ranks.all_sum("sums of the epoch", self.sums).tolist()
        means = {"train/loss": loss_sum / self.images, "train/accuracy": correct / self.images}
        return {"epoch": self.number, "step": self.step, "lr": lr, **means}

    def step_done(self, batch: int, batches: int, size: int) -> StepDone:
        return StepDone(
            epoch=self.number,
            batch=batch,
            batches=batches,
            images=self.images // self.ranks.world,
            size=size,
            loss_sum=self.sums[0],
            correct=self.sums[1],
        )

    def times(self, trained: float) -> EpochRecord:
        train_s, epoch_s = trained - self.started, time.perf_counter() - self.started
        return {"time/step_s": self.step_s, "time/train_s": train_s, "time/epoch_s": epoch_s}


def fit(
    *,
    learner: Learner,
    batches: TrainLoader,
    data: ImageSet,
    compute: Compute,
    settings: Config,
    ranks: Ranks | None = None,
    start: Position | None = None,
    watch: Watch | None = None,
) -> Generator[Reached]:
    """Trains from `start` on. Yields after each epoch, with its record, and after each step at which `watch` is due.

    Several `ranks` all yield at the same steps, and only rank 0 scores val.

    Resuming needs only what is yielded and the states of the learner and of the random streams. val is scored with the
    averaged weights, if there are any. Sums stay on the device until `fit` yields.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN, or the weights are when `fit` is about to yield.
    """
    ranks = ranks or Ranks()
    forward = ranks.wrapped(learner.model)
    if settings.trainer.compile:
        steps = settings.trainer.epochs * len(batches)
        seen = sizes(settings.trainer, data.facts.image_size, steps=steps, total_steps=steps)
        forward = compiled(forward, compute.device, sizes=len(list(seen)))
    training = _Training(
        learner=learner,
        batches=batches,
        data=data,
        compute=compute,
        settings=settings,
        ranks=ranks,
        watch=watch or Watch(),
        forward=forward,
    )
    position = start or Position()
    while position.epoch <= settings.trainer.epochs:
        position = yield from training.epoch(position)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """The arguments of `fit`. forward: the model as wrapped and compiled."""

    learner: Learner
    batches: TrainLoader
    data: ImageSet
    compute: Compute
    settings: Config
    ranks: Ranks
    watch: Watch
    forward: nn.Module

    def epoch(self, position: Position) -> Generator[Reached, None, Position]:
        """Trains the rest of an epoch from `position` on; yields when `watch` is due, and at the end of the epoch."""
        epoch, batches = _Epoch(position, self.compute, self.ranks), len(self.batches)
        check_every = CHECK_EVERY if self.compute.device.type == "cpu" else batches
        lr = self.learner.lr
        self.learner.model.train()
        view = self._view(epoch.number)
        self.batches.start_epoch(view, position.batch)
        for batch, (raw, labels) in enumerate(self.batches, start=position.batch + 1):
            lr, last, size = self.learner.lr, batch == batches, self._size(epoch.step)
            epoch.add(*self._step(epoch, raw, labels, Place(view, batch, size)), labels)
            self.watch.step(epoch.step_done(batch, batches, size))
            if batch % check_every == 0 or last:
                epoch.stop_if_not_finite(check_every, lr)
            if not last and self.ranks.any_of_all("due", self.watch.due()):
                epoch.stop_if_not_finite(check_every, lr)
                stop_if_weights_not_finite(self.learner.model, epoch.number, epoch.step, lr)
                yield Reached(epoch.position(batch))
                self.learner.model.train()
        stop_if_weights_not_finite(self.learner.model, epoch.number, epoch.step, lr)
        record, trained = epoch.record(lr), time.perf_counter()
        if len(self.data.val) and self.ranks.rank == 0:
            probs = predict(self.learner.ema or self.learner.model, self.data.val, self.data.facts, self.compute)
            scores = score(probs, self.data.val)
            record |= {f"val/{key}": scores[key] for key in ("loss", "accuracy", "balanced_accuracy")}
        after = Position(epoch=epoch.number + 1, step=epoch.step)
        yield Reached(after, record, epoch.times(trained))
        return after

    def _view(self, epoch: int) -> int:
        """The epoch whose order, augmentation and mixing `epoch` has: with distillation.views, one of the first."""
        views = self.settings.distillation.views
        return epoch if views is None else (epoch - 1) % views + 1

    def _size(self, step: int) -> int:
        """Of the images of this step, which counts from 0, in pixels on a side."""
        progress = step / (self.settings.trainer.epochs * len(self.batches))
        return size_at(self.settings.trainer.resolution, progress, self.data.facts.image_size)

    def _step(
        self, epoch: "_Epoch", raw: torch.Tensor, labels: torch.Tensor, at: Place
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images = self.compute.normalised(raw, self.data.facts.mean, self.data.facts.std)
        mixed = mix(self.settings.aug.mix, images, labels, (self.settings.seed, at.view, at.batch))
        torch.manual_seed(keys.step_seed(self.settings.seed, epoch.step, self.ranks.rank))
        started = time.perf_counter()
        done = train_step(self.forward, self.learner, mixed, self.settings.trainer, compute=self.compute, at=at)
        epoch.step_s += time.perf_counter() - started
        return done
