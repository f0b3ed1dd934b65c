"""The training loop as a generator: it trains and yields one record an epoch; the caller logs, saves and stops."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from s9.config import Config, TrainerConfig
from s9.data.image_set import ImageSet
from s9.data.loaders import TrainLoader, to_device
from s9.data.mix import Mixed, mix
from s9.training.checkpoint import Position
from s9.training.distillation import Teacher
from s9.training.evaluation import autocast, predict, score
from s9.training.ranks import Ranks

CHECK_EVERY = 20  # steps between looks at the loss on a CPU; elsewhere each look would wait for the device

ADVICE = "try a smaller optimizer.lr or trainer.clip_norm=1"

TRAIN_KEYS = ("train/loss", "train/accuracy")

EpochRecord = dict[str, float]
Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class NonFiniteLossError(Exception):
    """The loss or the weights became infinite or NaN. Its text names epoch, step and learning rate."""


@dataclass(frozen=True)
class Reached:
    """Where training is, and of an epoch that has just ended its record and its times.

    times: seconds; `time/step_s` is what forward, backward and optimizer took of `time/train_s` (on a GPU: to launch
    them). Apart from the record, since a run that is repeated or resumed gives the same records in other times.
    """

    position: Position
    record: EpochRecord | None = None
    times: EpochRecord = field(default_factory=dict)


class Watcher(Protocol):
    """Is shown every step. The tensors are running sums on the device; reading them waits for it."""

    def step(
        self, epoch: int, batch: int, batches: int, images: int, loss_sum: torch.Tensor, correct: torch.Tensor
    ) -> None: ...


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy whose weights and batch statistics follow the model's as an exponential moving average, or None.

    After n updates the decay is at most (1 + n) / (10 + n): else the mean of a short run is still its first weights.
    Source of that bound: `num_updates` of TensorFlow's ExponentialMovingAverage.
    """
    if decay == 0:
        return None

    @torch.no_grad()
    def follow(means: Tensors, values: Tensors, _: torch.Tensor | int) -> None:
        count = int(average.n_averaged)  # on the host; what is passed was copied to the device, and asking it waits
        share = 1 - min(decay, (1 + count) / (10 + count))
        if means[0].is_floating_point():
            torch._foreach_lerp_(means, values, share)
        else:  # the number of batches that the norms have seen
            torch._foreach_copy_(means, values)

    average = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    return average


def fit(
    model: nn.Module,
    ema: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    loader: TrainLoader,
    data: ImageSet,
    config: Config,
    device: torch.device,
    precision: torch.dtype,
    watcher: Watcher,
    start: Position | None = None,
    due: Callable[[], bool] = lambda: False,
    ranks: Ranks | None = None,
    teacher: Teacher | None = None,
) -> Iterator[Reached]:
    """Trains from `start` on. Yields after each epoch, with its record, and after each step at which `due()` says so.

    Among several `ranks` all yield at the same steps, and rank 0 alone scores val.

    What is yielded is all that is needed to go on from there, together with the states of model, ema, optimizer,
    scheduler and the random streams. val is scored with the averaged weights where they are kept. Sums stay on the
    device until something is yielded.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN, or the weights are where something would be yielded.
    """
    trainer, ranks = config.trainer, ranks or Ranks()
    position = start or Position()
    step = position.step
    forward = ranks.wrapped(model)
    forward = compiled(forward, device) if trainer.compile else forward
    check_every = CHECK_EVERY if device.type == "cpu" else len(loader)
    while position.epoch <= trainer.epochs:
        epoch = position.epoch
        started, step_s = time.perf_counter(), 0.0
        model.train()
        loader.start_epoch(epoch, position.batch)
        losses: list[torch.Tensor] = []
        begun = (position.loss_sum, position.correct) if ranks.rank == 0 else (0.0, 0.0)
        # In double precision such sums are exact, so that they do not depend on where a run was cut or shared out.
        sums = torch.tensor(begun, device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)
        images_seen = position.images
        lr = float(scheduler.get_last_lr()[0])
        for batch, (raw, labels) in enumerate(loader, start=position.batch + 1):
            lr = float(scheduler.get_last_lr()[0])
            images = to_device(raw, device, data.mean, data.std)
            mixed = mix(config.aug.mix, images, labels, (config.seed, epoch, batch))
            torch.manual_seed(step_key(config.seed, step, ranks.rank))
            step_started = time.perf_counter()
            loss, logits = train_step(forward, optimizer, mixed, trainer, device, precision, teacher)
            step_s += time.perf_counter() - step_started
            scheduler.step()
            if ema is not None:
                ema.update_parameters(model)
            step += 1
            losses.append(loss)
            images_seen += len(labels) * ranks.world
            sums += torch.stack([loss * len(labels), (logits.argmax(1) == labels).sum()])
            watcher.step(epoch, batch, len(loader), images_seen // ranks.world, sums[0], sums[1])
            if batch % check_every == 0 or batch == len(loader):
                stop_if_not_finite(ranks.sum(torch.stack(losses[-check_every:])), epoch, step, lr)
            if batch < len(loader) and ranks.any(due()):
                stop_if_not_finite(ranks.sum(torch.stack(losses[-check_every:])), epoch, step, lr)
                stop_if_weights_not_finite(model, epoch, step, lr)
                yield Reached(Position(epoch, batch, step, images_seen, *ranks.sum(sums).tolist()))
                model.train()
        stop_if_weights_not_finite(model, epoch, step, lr)
        record = {
            "epoch": epoch,
            "step": step,
            "lr": lr,
            **{key: total / images_seen for key, total in zip(TRAIN_KEYS, ranks.sum(sums).tolist(), strict=True)},
        }
        trained = time.perf_counter()
        if len(data.val) and ranks.rank == 0:
            scores = score(predict(ema or model, data.val, data, device, precision), data.val)
            record |= {"val/loss": scores["loss"], "val/accuracy": scores["accuracy"]}
        times = {
            "time/step_s": step_s,
            "time/train_s": trained - started,
            "time/epoch_s": time.perf_counter() - started,
        }
        position = Position(epoch + 1, 0, step)
        yield Reached(position, record, times)


def stop_if_weights_not_finite(model: nn.Module, epoch: int, step: int, lr: float) -> None:
    """Raises NonFiniteLossError where a weight or a batch statistic is infinite or NaN."""
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise NonFiniteLossError(f"weights are not finite in epoch {epoch}, step {step}, lr {lr:.4g}; {ADVICE}")


def train_step(
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
    mixed: Mixed,
    config: TrainerConfig,
    device: torch.device,
    precision: torch.dtype,
    teacher: Teacher | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward, backward and optimizer on one batch; (loss, logits (B, num_classes)), both detached, in float32."""
    with autocast(device, precision):
        logits = forward(mixed.images)
        wanted = teacher(mixed.images) if teacher else None
    logits = logits.float()
    loss = mixed_loss(logits, mixed, config.label_smoothing)
    if teacher and wanted is not None:
        loss = teacher.taught(loss, logits, wanted)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(forward.parameters(), config.clip_norm)
    optimizer.step()
    return loss.detach(), logits.detach()


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """torch.compile; on a GPU with CUDA graphs, since a step of a small network is mostly the launching of it."""
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    forward: nn.Module = torch.compile(model, mode=mode)  # type: ignore[assignment]
    return forward


def mixed_loss(logits: torch.Tensor, mixed: Mixed, label_smoothing: float) -> torch.Tensor:
    """Cross entropy of logits (B, num_classes), in nats, a scalar; of both labels by their shares if images are mixed.

    label_smoothing: part of each label that is shared out over all classes (Szegedy et al., 2016).
    """
    loss = F.cross_entropy(logits, mixed.labels, label_smoothing=label_smoothing)
    if mixed.share == 1:
        return loss
    other = F.cross_entropy(logits, mixed.partners, label_smoothing=label_smoothing)
    return mixed.share * loss + (1 - mixed.share) * other


def step_key(seed: int, step: int, rank: int) -> int:
    """What dropout draws in a step is a function of (seed, step, rank), as all randomness here; not of a stream."""
    return (seed * 1_000_003 + step) * 4096 + rank


def stop_if_not_finite(losses: torch.Tensor, epoch: int, step: int, lr: float) -> None:
    """Looks at these losses, of the last steps, in one wait and names the first bad step.

    Raises:
        NonFiniteLossError: one of them is infinite or NaN.
    """
    recent = losses.tolist()
    for back, value in enumerate(recent):
        if not math.isfinite(value):
            at = step - len(recent) + back + 1
            raise NonFiniteLossError(f"loss is {value} in epoch {epoch}, step {at}, near lr {lr:.4g}; {ADVICE}")
