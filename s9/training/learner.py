"""The learner: a network with its moving average, its optimizer, its schedule and its teacher; one state to save."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from s9.training.distillation import Teacher
from s9.training.weights import plain_module

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


@dataclass(kw_only=True)
class Learner:
    """All that a training step reads and changes. ema: the averaged model, scored instead of `model`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    ema: AveragedModel | None = None
    teacher: Teacher | None = None

    @property
    def tested(self) -> nn.Module:
        """The network that is scored on val and test, and saved as weights."""
        return plain_module(self.ema or self.model)

    @property
    def lr(self) -> float:
        """The learning rate of the next step, in the first parameter group."""
        return float(self.scheduler.get_last_lr()[0])

    def state_dict(self) -> dict[str, Any]:
        """The state of each part by name, without the teacher, which does not change."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads a state that `state_dict` returned.

        Raises:
            KeyError, RuntimeError, ValueError: the state is not of such a learner.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts | ({"ema": self.ema} if self.ema else {})


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy whose weights and batch statistics follow the model's as an exponential moving average; None at decay 0.

    After n updates the decay is at most (1 + n) / (10 + n): else a short run's mean stays near its first weights.
    Source of that bound: `num_updates` of TensorFlow's ExponentialMovingAverage.
    """
    if decay == 0:
        return None

    @torch.no_grad()
    def follow(means: Tensors, values: Tensors, _: torch.Tensor | int) -> None:
        count = int(average.n_averaged)  # on the host; the count passed in `_` is on the device, and reading it waits
        share = 1 - min(decay, (1 + count) / (10 + count))
        if means[0].is_floating_point():
            torch._foreach_lerp_(means, values, share)
        else:  # the number of batches that the norms have seen
            torch._foreach_copy_(means, values)

    average = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    return average
