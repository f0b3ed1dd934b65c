"""The training loop as a generator: it trains and yields one record an epoch; the caller logs, saves and stops."""

import math
import time
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from s9.config import Config, TrainerConfig
from s9.data.image_set import ImageSet
from s9.data.loaders import TrainLoader, to_device
from s9.data.mix import Mixed, mix
from s9.training.evaluation import autocast, predict, score

CHECK_EVERY = 20  # steps between looks at the loss on a CPU; elsewhere each look would wait for the device

ADVICE = "try a smaller optimizer.lr or trainer.clip_norm=1"

EpochRecord = dict[str, float]


class NonFiniteLossError(Exception):
    """The loss or the weights became infinite or NaN. Its text names epoch, step and learning rate."""


class Watcher(Protocol):
    """Is shown every step. The tensors are running sums on the device; reading them waits for it."""

    def step(
        self, epoch: int, batch: int, batches: int, images: int, loss_sum: torch.Tensor, correct: torch.Tensor
    ) -> None: ...


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy whose weights and batch statistics follow the model's as an exponential moving average, or None."""
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


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
) -> Iterator[EpochRecord]:
    """Trains and yields a record after each epoch; val is scored with the averaged weights where they are kept.

    `time/step_s` is what forward, backward and optimizer took of `time/train_s` (on a GPU: to launch them). Sums stay
    on the device until the epoch ends.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN, or the weights are after an epoch.
    """
    trainer = config.trainer
    step = 0
    forward = compiled(model, device) if trainer.compile else model
    check_every = CHECK_EVERY if device.type == "cpu" else len(loader)
    for epoch in range(1, trainer.epochs + 1):
        started = time.perf_counter()
        step_s = 0.0
        model.train()
        loader.start_epoch(epoch)
        losses: list[torch.Tensor] = []
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        images_seen = 0
        lr = float(scheduler.get_last_lr()[0])
        for batch, (raw, labels) in enumerate(loader, start=1):
            lr = float(scheduler.get_last_lr()[0])
            images = to_device(raw, device, data.mean, data.std)
            mixed = mix(config.aug.mix, images, labels, (config.seed, epoch, batch))
            step_started = time.perf_counter()
            loss, logits = train_step(forward, optimizer, mixed, trainer, device, precision)
            step_s += time.perf_counter() - step_started
            scheduler.step()
            if ema is not None:
                ema.update_parameters(model)
            step += 1
            losses.append(loss)
            images_seen += len(labels)
            loss_sum += loss * len(labels)
            correct += (logits.argmax(1) == labels).sum()
            watcher.step(epoch, batch, len(loader), images_seen, loss_sum, correct)
            if batch % check_every == 0 or batch == len(loader):
                stop_if_not_finite(losses[-check_every:], epoch, step, lr)
        if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
            raise NonFiniteLossError(f"weights are not finite after epoch {epoch}, step {step}, lr {lr:.4g}; {ADVICE}")
        record = {
            "epoch": epoch,
            "step": step,
            "lr": lr,
            "train/loss": loss_sum.item() / images_seen,
            "train/accuracy": correct.item() / images_seen,
        }
        trained = time.perf_counter()
        if len(data.val):
            scores = score(predict(ema or model, data.val, data, device, precision), data.val)
            record |= {"val/loss": scores["loss"], "val/accuracy": scores["accuracy"]}
        record["time/step_s"] = step_s
        record["time/train_s"] = trained - started
        record["time/epoch_s"] = time.perf_counter() - started
        yield record


def train_step(
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
    mixed: Mixed,
    config: TrainerConfig,
    device: torch.device,
    precision: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward, backward and optimizer on one batch; (loss, logits (B, num_classes)), both detached, in float32."""
    with autocast(device, precision):
        logits = forward(mixed.images)
    logits = logits.float()
    loss = mixed_loss(logits, mixed, config.label_smoothing)
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
    """Cross entropy with smoothed labels, of both labels by their shares where images are mixed."""
    loss = F.cross_entropy(logits, mixed.labels, label_smoothing=label_smoothing)
    if mixed.share == 1:
        return loss
    other = F.cross_entropy(logits, mixed.partners, label_smoothing=label_smoothing)
    return mixed.share * loss + (1 - mixed.share) * other


def stop_if_not_finite(losses: list[torch.Tensor], epoch: int, step: int, lr: float) -> None:
    """Looks at these losses, of the last steps, in one wait and names the first bad step.

    Raises:
        NonFiniteLossError: one of them is infinite or NaN.
    """
    recent = torch.stack(losses).tolist()
    for back, value in enumerate(recent):
        if not math.isfinite(value):
            at = step - len(recent) + back + 1
            raise NonFiniteLossError(f"loss is {value} in epoch {epoch}, step {at}, near lr {lr:.4g}; {ADVICE}")
