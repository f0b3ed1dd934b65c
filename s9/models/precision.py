"""Keeps in float32 each convolution whose bfloat16 gradient the processor's library gets wrong.

Why: torch 2.15 (oneDNN) on processors with AVX512-BF16 gives wrong weight gradients, some of them from memory that was
never written, for padded dilated convolutions of 24, 40, 56 or 72 channels on 32 x 32 images. Nothing warns: such a
network learns badly, or its loss is NaN after some hundred steps. So each convolution is tried once before training.
"""

import logging
from collections.abc import Iterator

import torch
from torch import nn

from s9.models.convolution import Convolution
from s9.system.compute import Compute

log = logging.getLogger("s9")

TOLERANCE = 0.05  # relative error of a gradient; bfloat16 itself makes 0.002, the fault 0.8
TRIAL_IMAGES = 2  # the fault shows with any batch size


def guard_bfloat16(model: nn.Module, image_size: int, compute: Compute) -> list[str]:
    """Tries each convolution at its own size; returns the names of those whose gradient is wrong: they stay float32."""
    if compute.device.type != "cpu" or compute.precision != torch.bfloat16:
        return []
    kept = []
    for name, convolution, size in _convolutions(model, image_size):
        if convolution.in_float32:  # since another image size
            continue
        error = gradient_error(convolution, size)
        convolution.in_float32 = not error < TOLERANCE
        if convolution.in_float32:
            log.warning("%s stays in float32: its bfloat16 gradient is off by %.0f %% here", name, 100 * error)
            kept.append(name)
    return kept


@torch.no_grad()
def _convolutions(model: nn.Module, image_size: int) -> Iterator[tuple[str, Convolution, int]]:
    """(name, convolution, pixels of its input) for each convolution; found by one forward pass that changes nothing."""
    sizes: dict[Convolution, int] = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, Convolution):
            sizes[module] = inputs[0].shape[-1]

    found = [(name, m) for name, m in model.named_modules() if isinstance(m, Convolution)]
    hooks = [m.register_forward_pre_hook(note) for _, m in found]
    training = model.training
    model.eval()(torch.zeros(1, 3, image_size, image_size))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return iter([(name, m, sizes[m]) for name, m in found])


@torch.enable_grad()
def gradient_error(convolution: Convolution, size: int) -> float:
    """Largest relative error of the bfloat16 gradients against the float32 ones of the same rounded numbers.

    Args:
        size: pixels on a side of the input. A local generator draws the numbers, so no stream of the run advances.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (TRIAL_IMAGES, convolution.in_channels, size, size)
    images = torch.randn(shape, generator=generator).bfloat16().to(memory_format=torch.channels_last)
    weight = convolution.weight.detach().cpu().bfloat16()
    gradients: list[tuple[torch.Tensor, ...]] = []
    out_gradient = torch.empty(0)
    for dtype in (torch.float32, torch.bfloat16):
        x, w = images.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
        out = convolution.compute(x, w)
        if not len(out_gradient):
            out_gradient = torch.randn(out.shape, generator=generator).bfloat16()
        gradients.append(torch.autograd.grad(out, (x, w), out_gradient.to(out.dtype)))
    pairs = zip(*gradients, strict=True)
    errors = [((low.float() - exact).norm() / exact.norm().clamp_min(1e-12)).item() for exact, low in pairs]
    return max(errors, key=lambda error: error if error == error else float("inf"))  # NaN is the largest
