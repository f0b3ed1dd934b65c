"""Optimizers and per-step schedules: parameter groups, Muon for convolutions, and the learning rate as a function."""

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from s9.components import build_component, check_target


def build_optimizer(config: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `config` over the model's parameters; norms and biases are not decayed.

    One that has a fused form uses it where the device has it, unless the configuration names a form itself.
    """
    target = check_target("optimizer", config["_target_"], "optimizer")
    on = next(model.parameters()).device.type
    names_form = config.get("foreach") or config.get("differentiable")
    if not names_form and "fused" in inspect.signature(target).parameters and on in ("cpu", "cuda"):
        config = {"fused": True, **config}
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer = build_component("optimizer", config, "optimizer", groups)
    return optimizer


def build_scheduler(
    config: dict[str, Any], optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Scales every group's own learning rate by the schedule's factor, once a step."""
    factor = schedule(config)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(min(1.0, step / total_steps)))


def schedule(config: dict[str, Any]) -> Callable[[float], float]:
    """progress in [0, 1] -> factor of the learning rate."""
    target = check_target("scheduler", config["_target_"], "scheduler")
    return partial(target, **{k: v for k, v in config.items() if k != "_target_"})


def one_cycle(progress: float, warmup: float, start: float) -> float:
    """Linear from `start` to 1 over the first `warmup` part, then linear to 0. Smith and Topin, 2018."""
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return (1 - progress) / (1 - warmup) if warmup < 1 else 1.0


def cosine(progress: float, warmup: float) -> float:
    """Linear from 0 to 1 over the first `warmup` part, then half a cosine to 0. Loshchilov and Hutter, 2017."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) if warmup < 1 else 1.0


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal for each convolution; SGD with momentum for all else.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, and airbench94_muon of the
    same author, from which comes that filters are kept at a fixed norm instead of being decayed. torch.optim.Muon takes
    matrices only.

    Args:
        lr: of the convolutions, as a part of their norm: the weights (n, ...) are kept at norm sqrt(n), and the update
            before `lr` has that norm too, so that 0.05 turns them by about a twentieth a step.
        other_lr: of depthwise convolutions, norms, biases and the head.
        weight_decay: of the head and depthwise convolutions.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        other_lr: float = 0.1,
        momentum: float = 0.6,
        other_momentum: float = 0.9,
        weight_decay: float = 0.0,
    ):
        groups = []
        for group in params:
            decay = group.get("weight_decay", weight_decay)
            filters = [p for p in group["params"] if p.ndim == 4 and p.shape[1] > 1]
            others = [p for p in group["params"] if not (p.ndim == 4 and p.shape[1] > 1)]
            if filters:
                groups.append({"params": filters, "lr": lr, "momentum": momentum, "muon": True, "weight_decay": 0.0})
            if others:
                groups.append(
                    {"params": others, "lr": other_lr, "momentum": other_momentum, "muon": False, "weight_decay": decay}
                )
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure: one gradient a step
        for group in self.param_groups:
            of_shape: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad if not group["weight_decay"] else p.grad.add(p, alpha=group["weight_decay"])
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(grad)
                update = grad.add(buffer, alpha=group["momentum"])  # Nesterov
                if group["muon"]:
                    p.mul_(len(p) ** 0.5 / p.norm().clamp_min(1e-7))
                    matrix = update.reshape(len(p), -1)
                    of_shape.setdefault((matrix.shape[0], matrix.shape[1]), []).append((p, matrix))
                else:
                    p.add_(update, alpha=-group["lr"])
            for (rows, columns), some in of_shape.items():  # at once, since each is too small to fill a device
                updates = orthogonalise(torch.stack([matrix for _, matrix in some]))
                scale = max(1.0, rows / columns) ** 0.5
                for (p, _), update in zip(some, updates, strict=True):
                    p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)


def orthogonalise(matrices: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Brings the singular values of each of (..., m, n) near 1 by Newton-Schulz iteration.

    Source: the coefficients of Jordan et al., 2024.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    out = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = out.shape[-2] > out.shape[-1]
    if tall:
        out = out.mT
    for _ in range(steps):
        gram = out @ out.mT
        out = a * out + (b * gram + c * gram @ gram) @ out
    return out.mT if tall else out
