"""Muon for convolutions: momentum whose update is made orthogonal; SGD for all other parameters."""

from collections.abc import Iterable
from typing import Any

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal for each convolution; SGD with momentum for all other parameters.

    Sources: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, and airbench94_muon by the
    same author, which keeps filters at a fixed norm instead of decaying them. torch.optim.Muon takes matrices only.

    Args:
        lr: of the convolutions, relative to their norm: weights (n, ...) are kept at norm sqrt(n), and the update
            before `lr` has that norm too, so that lr=0.05 turns the weights by about a twentieth per step.
        other_lr: of depthwise convolutions, norms, biases and the head.
        weight_decay: of the head and depthwise convolutions.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        *,
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
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure: one gradient per step
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
            for (rows, columns), some in of_shape.items():  # stacked: one is too small to fill a device
                updates = orthogonalise(torch.stack([matrix for _, matrix in some]))
                scale = max(1.0, rows / columns) ** 0.5
                for (p, _), update in zip(some, updates, strict=True):
                    p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)


def orthogonalise(matrices: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Brings the singular values of each (m, n) matrix of (..., m, n) near 1 by Newton-Schulz iteration.

    Source: Jordan et al., 2024: the coefficients, and that bfloat16 suffices; here autocast decides.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    out = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if torch.is_autocast_enabled(out.device.type):
        out = out.to(torch.get_autocast_dtype(out.device.type))
    tall = out.shape[-2] > out.shape[-1]
    if tall:
        out = out.mT
    for _ in range(steps):
        gram = out @ out.mT
        out = a * out + (b * gram + c * gram @ gram) @ out
    return (out.mT if tall else out).to(matrices.dtype)
