"""An optimizer: steps of the same size in every weight."""

from collections.abc import Iterable
from typing import Any

import torch


class SignDescent(torch.optim.Optimizer):
    """The sign of the gradient times `lr`."""

    def __init__(self, params: Iterable[Any], lr: float):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.add_(weight.grad.sign(), alpha=-group["lr"])
