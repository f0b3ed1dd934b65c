"""One training step: forward, backward, optimizer, schedule and average; and checks that the results are finite."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from s9.config.schema import TrainerConfig
from s9.data.augmentation.mix import Mixed
from s9.system.compute import Compute
from s9.training.learner import Learner
from s9.training.resolution import resized

ADVICE = "try a smaller optimizer.lr or trainer.clip_norm=1"


class NonFiniteLossError(Exception):
    """The loss or the weights became infinite or NaN. Its text names epoch, step and learning rate."""


class Place(NamedTuple):
    """view: the epoch whose images these are, which a later epoch may repeat. batch: of that epoch. Both from 1.

    size: of the images that the model sees, in pixels on a side.
    """

    view: int
    batch: int
    size: int


def train_step(
    forward: nn.Module, learner: Learner, mixed: Mixed, trainer: TrainerConfig, *, compute: Compute, at: Place
) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch: forward, backward, optimizer, schedule and moving average.

    Args:
        forward: the learner's model, which may be wrapped for several ranks or compiled.
        at: the place of this batch in the run. The model sees images of that size; a teacher sees whole ones.

    Returns:
        (loss, logits (B, num_classes)), both detached, in float32.
    """
    teacher = learner.teacher
    with compute.autocast():
        logits = forward(resized(mixed.images, at.size))
        wanted = teacher(mixed.images, at.view, at.batch) if teacher else None
    logits = logits.float()
    loss = mixed_loss(logits, mixed, trainer.label_smoothing)
    if teacher and wanted is not None:
        loss = teacher.taught(loss, logits, wanted)
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if trainer.clip_norm is not None:
        nn.utils.clip_grad_norm_(forward.parameters(), trainer.clip_norm)
    with compute.autocast():  # for Muon's matrix products; other optimizers have none
        learner.optimizer.step()
    learner.scheduler.step()
    if learner.ema is not None:
        learner.ema.update_parameters(learner.model)
    return loss.detach(), logits.detach()


def compiled(model: nn.Module, device: torch.device, sizes: int = 1) -> nn.Module:
    """torch.compile; on a GPU with CUDA graphs, since a small network's step is mostly kernel launches.

    Each image size (trainer.resolution) is compiled by itself: for sizes that vary, torch 2.14 fails on dilated layers.

    Args:
        sizes: how many image sizes there are; above its limit, which is 8 at first, torch compiles no more of them. The
            limit is of a process, which may train many runs.
    """
    limits: Any = torch._dynamo.config
    limits.recompile_limit += sizes
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    forward: nn.Module = torch.compile(model, mode=mode, dynamic=False)  # type: ignore[assignment]
    return forward


def mixed_loss(logits: torch.Tensor, mixed: Mixed, label_smoothing: float) -> torch.Tensor:
    """Cross entropy of logits (B, num_classes), in nats, a scalar; of mixed images: of both labels, by their shares.

    label_smoothing: part of each label that is shared out over all classes (Szegedy et al., 2016).
    """
    loss = F.cross_entropy(logits, mixed.labels, label_smoothing=label_smoothing)
    if mixed.share == 1:
        return loss
    other = F.cross_entropy(logits, mixed.partners, label_smoothing=label_smoothing)
    return mixed.share * loss + (1 - mixed.share) * other


def stop_if_weights_not_finite(model: nn.Module, epoch: int, step: int, lr: float) -> None:
    """Raises NonFiniteLossError where a weight or a batch statistic is infinite or NaN."""
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise NonFiniteLossError(f"weights are not finite in epoch {epoch}, step {step}, lr {lr:.4g}; {ADVICE}")


def stop_if_not_finite(losses: torch.Tensor, epoch: int, step: int, lr: float) -> None:
    """Checks the losses of the last steps, waiting for the device once, and names the first bad step.

    Raises:
        NonFiniteLossError: a loss is infinite or NaN.
    """
    recent = losses.tolist()
    for back, value in enumerate(recent):
        if not math.isfinite(value):
            at = step - len(recent) + back + 1
            raise NonFiniteLossError(f"loss is {value} in epoch {epoch}, step {at}, near lr {lr:.4g}; {ADVICE}")
