"""Optimizers and per-step schedules: parameter groups, and the learning rate as a function of progress."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from s9.config.components import build_component, check_component, check_target
from s9.system.errors import is_number, require
from s9.training.muon import Muon as Muon  # stored configurations name Muon by this module


def check_settings(optimizer: dict[str, Any], scheduler: dict[str, Any]) -> None:
    """Raises UserError unless the targets of both are allowed, exist, and know every argument that they are given."""
    check_component("optimizer", optimizer, "optimizer")
    check_component("scheduler", scheduler, "scheduler")
    for key in ("low", "high"):
        value = scheduler.get(key, 1)
        require(f"scheduler.{key}", value, is_number(value) and value > 0, "a number more than 0")


def at_rate(config: dict[str, Any], rate: float) -> dict[str, Any]:
    """The optimizer's arguments with all learning rates (`lr`, and Muon's `other_lr`) multiplied by `rate`."""
    return config | {key: config[key] * rate for key in ("lr", "other_lr") if rate != 1 and key in config}


def build_optimizer(config: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `config` over the model's parameters; norms and biases are not decayed.

    The fused implementation is used where optimizer and device have one, unless the configuration names another.
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
    """Scales every group's own learning rate by the schedule's factor, once per step."""
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


def exponential(progress: float, low: float, high: float) -> float:
    """From `low` to `high`, by the same factor each step: the range test of Smith, 2015 (arXiv 1506.01186)."""
    return low * (high / low) ** progress
