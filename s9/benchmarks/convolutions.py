"""Forward and backward of single convolutions: the form that s9 uses on a CPU against torch's own."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from s9.benchmarks.timing import Row, row, seconds_in_turns
from s9.models.convolution import Convolution

BATCH = 32
CASES = {  # channels, pixels, kernel, stride, dilation, groups
    "3 x 3, stride 2, dilation 2": (32, 32, 3, 2, 2, 1),
    "depthwise 3 x 3, dilation 2": (96, 16, 3, 1, 2, 96),
    "depthwise 3 x 3, stride 2": (96, 16, 3, 2, 1, 96),
    "depthwise 5 x 5": (96, 16, 5, 1, 1, 96),
}


def convolutions(repeats: int, precisions: tuple[torch.dtype, ...]) -> Iterator[Row]:
    """Milliseconds per batch of 32 in each precision; torch and s9 take turns."""
    cpu = torch.device("cpu")
    for precision in precisions:
        name = str(precision).removeprefix("torch.")
        for case, (channels, pixels, kernel, stride, dilation, groups) in CASES.items():
            padding = dilation * (kernel - 1) // 2
            shape = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            ours = Convolution(channels, channels, kernel, **shape)
            ours.to(memory_format=torch.channels_last)
            images = torch.randn(BATCH, channels, pixels, pixels).to(memory_format=torch.channels_last)
            work = {
                "torch": partial(_there_and_back, ours, nn.Conv2d.forward, images, precision),
                "s9": partial(_there_and_back, ours, Convolution.forward, images, precision),
            }
            seconds = seconds_in_turns(work, repeats, cpu, warm_up=3)
            times = {way: [1000 * s for s in values] for way, values in seconds.items()}
            own = row("convolution", f"{case}, {name}, torch", "ms", times["torch"])
            yield own
            yield row("convolution", f"{case}, {name}, s9", "ms", times["s9"], than=own)


def _there_and_back(
    convolution: Convolution, forward: Callable[..., torch.Tensor], images: torch.Tensor, precision: torch.dtype
) -> None:
    images = images.detach().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        out = forward(convolution, images)
    out.float().sum().backward()
