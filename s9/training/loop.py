"""The training loop as a generator: it trains and yields one record an epoch; the caller logs, saves and stops."""

import math
import time
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from s9.config import TrainerConfig
from s9.data.image_set import ImageSet
from s9.data.loaders import Batch, KeyedBatches, to_device
from s9.training.evaluation import autocast, predict, score

CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device

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
    loader: DataLoader[Batch],
    batches: KeyedBatches,
    data: ImageSet,
    config: TrainerConfig,
    device: torch.device,
    precision: torch.dtype,
    watcher: Watcher,
) -> Iterator[EpochRecord]:
    """Trains and yields a record after each epoch; val is scored with the averaged weights where they are kept.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN, or the weights are after an epoch.
    """
    step = 0
    forward = torch.compile(model) if config.compile else model
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        model.train()
        batches.epoch = epoch
        losses: list[torch.Tensor] = []
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        images_seen = 0
        lr = float(scheduler.get_last_lr()[0])
        for batch, (raw, labels) in enumerate(loader, start=1):
            lr = float(scheduler.get_last_lr()[0])
            labels = labels.to(device, non_blocking=True)
            with autocast(device, precision):
                logits = forward(to_device(raw, device, data.mean, data.std))
            logits = logits.float()
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            scheduler.step()
            if ema is not None:
                ema.update_parameters(model)
            step += 1
            losses.append(loss.detach())
            images_seen += len(labels)
            loss_sum += losses[-1] * len(labels)
            correct += (logits.argmax(1) == labels).sum()
            watcher.step(epoch, batch, len(batches), images_seen, loss_sum, correct)
            if batch % CHECK_EVERY == 0 or batch == len(batches):
                stop_if_not_finite(losses, epoch, step, lr)
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
        record["time/train_s"] = trained - started
        record["time/epoch_s"] = time.perf_counter() - started
        yield record


def stop_if_not_finite(losses: list[torch.Tensor], epoch: int, step: int, lr: float) -> None:
    """Looks at the last losses in one wait and names the first bad step.

    Raises:
        NonFiniteLossError: one of them is infinite or NaN.
    """
    recent = torch.stack(losses[-CHECK_EVERY:]).tolist()
    for back, value in enumerate(recent):
        if not math.isfinite(value):
            at = step - len(recent) + back + 1
            raise NonFiniteLossError(f"loss is {value} in epoch {epoch}, step {at}, near lr {lr:.4g}; {ADVICE}")
