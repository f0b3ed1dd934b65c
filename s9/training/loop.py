"""The training loop as a generator: it trains and yields one record an epoch; the caller logs, saves and stops."""

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
from s9.training.step import compiled, stop_if_not_finite, stop_if_weights_not_finite, train_step

CHECK_EVERY = 20  # steps between looks at the loss on a CPU; elsewhere each look would wait for the device

EpochRecord = dict[str, float]


@dataclass(frozen=True)
class Reached:
    """Where training is, and of an epoch that has just ended its record and its times.

    times: seconds; `time/step_s` is what forward, backward and optimizer took of `time/train_s` (on a GPU: to launch
    them). Apart from the record, since a run that is repeated or resumed gives the same records in other times.
    """

    position: Position
    record: EpochRecord | None = None
    times: EpochRecord = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step that has ended. loss_sum and correct: sums of the epoch on the device; reading them waits for it.

    epoch, batch: counted from 1. batches: of the epoch. images: of this process, seen in this epoch.
    """

    epoch: int
    batch: int
    batches: int
    images: int
    loss_sum: torch.Tensor
    correct: torch.Tensor


class Watch:
    """Is shown every step, and says when `fit` is to yield within an epoch. This one never does."""

    def step(self, done: StepDone) -> None:
        pass

    def due(self) -> bool:
        return False


class _Epoch:
    """The running sums of one epoch of this rank, and the losses that were not looked at yet."""

    def __init__(self, position: Position, compute: Compute, ranks: Ranks):
        self.number, self.step, self.images = position.epoch, position.step, position.images
        self.ranks, self.losses = ranks, list[torch.Tensor]()
        begun = (position.loss_sum, position.correct) if ranks.rank == 0 else (0.0, 0.0)
        # In double precision such sums are exact, so that they do not depend on where a run was cut or shared out.
        exact = torch.float32 if compute.device.type == "mps" else torch.float64
        self.sums = torch.tensor(begun, device=compute.device, dtype=exact)
        self.started, self.step_s = time.perf_counter(), 0.0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.step += 1
        self.losses.append(loss)
        self.images += len(labels) * self.ranks.world
        self.sums += torch.stack([loss * len(labels), (logits.argmax(1) == labels).sum()])

    def stop_if_not_finite(self, last: int, lr: float) -> None:
        """Raises NonFiniteLossError where one of the last so many losses is infinite or NaN. All ranks together."""
        losses = torch.stack(self.losses[-last:])
        stop_if_not_finite(self.ranks.all_sum("losses", losses), self.number, self.step, lr)

    def position(self, batch: int) -> Position:
        """After so many batches of the epoch. All ranks together."""
        loss_sum, correct = self.ranks.all_sum("sums of the epoch", self.sums).tolist()
        at = {"epoch": self.number, "batch": batch, "step": self.step, "images": self.images}
        return Position(**at, loss_sum=loss_sum, correct=correct)

    def record(self, lr: float) -> EpochRecord:
        """Of the whole epoch. All ranks together."""
        loss_sum, correct = self.ranks.all_sum("sums of the epoch", self.sums).tolist()
        means = {"train/loss": loss_sum / self.images, "train/accuracy": correct / self.images}
        return {"epoch": self.number, "step": self.step, "lr": lr, **means}

    def step_done(self, batch: int, batches: int) -> StepDone:
        return StepDone(
            epoch=self.number,
            batch=batch,
            batches=batches,
            images=self.images // self.ranks.world,
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
    """Trains from `start` on. Yields after each epoch, with its record, and after each step that `watch` finds due.

    Among several `ranks` all yield at the same steps, and rank 0 alone scores val.

    What is yielded is all that resuming needs, together with the states of the learner and of the random streams. val
    is scored with the averaged weights where they are kept. Sums stay on the device until something is yielded.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN, or the weights are where something would be yielded.
    """
    ranks = ranks or Ranks()
    forward = ranks.wrapped(learner.model)
    forward = compiled(forward, compute.device) if settings.trainer.compile else forward
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
    """What `fit` was given; forward: the model as it is wrapped and compiled."""

    learner: Learner
    batches: TrainLoader
    data: ImageSet
    compute: Compute
    settings: Config
    ranks: Ranks
    watch: Watch
    forward: nn.Module

    def epoch(self, position: Position) -> Generator[Reached, None, Position]:
        """Trains the rest of an epoch from `position` on; yields where `watch` finds it due, and at its end."""
        epoch, batches = _Epoch(position, self.compute, self.ranks), len(self.batches)
        check_every = CHECK_EVERY if self.compute.device.type == "cpu" else batches
        lr = self.learner.lr
        self.learner.model.train()
        self.batches.start_epoch(epoch.number, position.batch)
        for batch, (raw, labels) in enumerate(self.batches, start=position.batch + 1):
            lr, last = self.learner.lr, batch == batches
            epoch.add(*self._step(epoch, batch, raw, labels), labels)
            self.watch.step(epoch.step_done(batch, batches))
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
            record |= {"val/loss": scores["loss"], "val/accuracy": scores["accuracy"]}
        after = Position(epoch=epoch.number + 1, step=epoch.step)
        yield Reached(after, record, epoch.times(trained))
        return after

    def _step(
        self, epoch: "_Epoch", batch: int, raw: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images = self.compute.normalised(raw, self.data.facts.mean, self.data.facts.std)
        mixed = mix(self.settings.aug.mix, images, labels, (self.settings.seed, epoch.number, batch))
        torch.manual_seed(keys.step_seed(self.settings.seed, epoch.step, self.ranks.rank))
        started = time.perf_counter()
        done = train_step(self.forward, self.learner, mixed, self.settings.trainer, compute=self.compute)
        epoch.step_s += time.perf_counter() - started
        return done
