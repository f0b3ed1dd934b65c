"""The convolution of all networks here: nn.Conv2d, computed in a form for which the processor's library is fast.

oneDNN, which computes on CPUs, has fast kernels for ordinary convolutions only. Dilated and strided, depthwise and
dilated, and in bfloat16 also depthwise strided or larger than 3 x 3: these convolutions fall back to kernels 5 to 100
times slower, above all in the backward pass. An ordinary convolution gives the same numbers; GPUs get the plain form.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 64 * 16 * 16  # pixels per call for the weight gradient: a whole batch of 128 would exceed the cache


class Convolution(nn.Conv2d):
    """A square nn.Conv2d without bias, padded with zeros: (B, in_channels, H, W) -> (B, out_channels, H', W').

    If `in_float32` is set, autocast does not apply to this layer (see precision.py).
    """

    in_float32 = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ):
        shape: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        super().__init__(in_channels, out_channels, kernel_size, bias=False, **shape)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.in_float32:
            with torch.autocast(images.device.type, enabled=False):
                return self.compute(images.float(), self.weight)
        return self.compute(images, self.weight)

    def compute(self, images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The convolution with these weights, by the fastest form that gives the same numbers."""
        stride, dilation = self.stride[0], self.dilation[0]
        pointwise = self.kernel_size[0] == 1
        depthwise = self.groups == self.in_channels > 1
        if images.device.type == "cpu":
            if stride > 1 and (pointwise or dilation % stride == 0):
                return self._of_every_nth_pixel(images, weight)
            if depthwise and dilation > 1 and stride == 1:
                return self._by_phases(images, weight)
            low = images.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
            single = self.in_channels == self.out_channels  # one output a channel, as LargeDepthwise computes
            if depthwise and single and stride == 1 and low and self.kernel_size[0] > 3:
                with torch.autocast("cpu", enabled=False):
                    return LargeDepthwise.apply(images.bfloat16(), weight.bfloat16(), int(self.padding[0]))
            if depthwise and stride > 1 and low:
                with torch.autocast("cpu", enabled=False):
                    return self._plain(images.float(), weight.float())
        return self._plain(images, weight)

    def _plain(self, images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.conv2d(images, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def _of_every_nth_pixel(self, images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """If the dilation is a multiple of the stride n, only every n-th row and column is read."""
        stride, padding = self.stride[0], self.padding[0]
        dilation = self.dilation[0] // stride if self.kernel_size[0] > 1 else 1
        new_padding = -(-int(padding) // stride)
        first = stride * new_padding - int(padding)
        read = images.permute(0, 2, 3, 1)[:, first::stride, first::stride].permute(0, 3, 1, 2)
        out = torch.conv2d(read, weight, None, 1, new_padding, dilation, self.groups)
        return _cropped(out, self._output_size(images.shape[2]), self._output_size(images.shape[3]))

    def _by_phases(self, images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """A convolution of dilation d is an ordinary one on each of the d x d images made of every d-th pixel.

        All permutations go over (B, H, W, C), so that gradients stay channels last.
        """
        d, padding = self.dilation[0], int(self.padding[0])
        batch, channels, height, width = images.shape
        below, right = (-(height + 2 * padding) % d, -(width + 2 * padding) % d)
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding + right, padding, padding + below))
        rows, columns = padded.shape[1] // d, padded.shape[2] // d
        phases = padded.reshape(batch, rows, d, columns, d, channels).permute(0, 2, 4, 1, 3, 5)
        phases = phases.reshape(batch * d * d, rows, columns, channels).permute(0, 3, 1, 2)
        out = torch.conv2d(phases, weight, None, groups=self.groups).permute(0, 2, 3, 1)
        rows, columns, channels = out.shape[1:]
        out = out.reshape(batch, d, d, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
        out = out.reshape(batch, rows * d, columns * d, channels).permute(0, 3, 1, 2)
        return _cropped(out, self._output_size(height), self._output_size(width))

    def _output_size(self, size: int) -> int:
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        return (size + 2 * int(self.padding[0]) - reach) // self.stride[0] + 1


class LargeDepthwise(torch.autograd.Function):
    """A depthwise convolution with a kernel above 3 x 3, whose weight gradient is assembled from 3 x 3 ones.

    Tap (i, j) of the kernel sees the images shifted by (i, j), so nine neighbouring taps are a 3 x 3 kernel on shifted
    images. oneDNN computes the gradient of a 3 x 3 kernel fast.
    """

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        return torch.conv2d(images, weight, None, 1, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = _gradient(gradient, images, weight, padding=ctx.padding, which=0)
        height, width = gradient.shape[2:]
        tile, tiles = torch.zeros_like(weight[:, :, :3, :3]), -(-weight.shape[-1] // 3)
        before, after = ctx.padding, ctx.padding + 3 * tiles - weight.shape[-1]
        exact = torch.promote_types(weight.dtype, torch.float32)
        of_weight = torch.zeros(len(weight), 1, 3 * tiles, 3 * tiles, dtype=exact)
        chunk = max(1, CHUNK // (height * width))
        for some, theirs in zip(images.split(chunk), gradient.split(chunk), strict=True):
            padded = F.pad(some.permute(0, 2, 3, 1), (0, 0, before, after, before, after)).permute(0, 3, 1, 2)
            for y in range(0, 3 * tiles, 3):
                for x in range(0, 3 * tiles, 3):
                    shifted = padded[:, :, y : y + height + 2, x : x + width + 2]
                    of_weight[:, :, y : y + 3, x : x + 3] += _gradient(theirs, shifted, tile, padding=0, which=1)
        return of_images, of_weight[:, :, : weight.shape[-1], : weight.shape[-1]].to(weight.dtype), None


def _gradient(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, *, padding: int, which: int
) -> torch.Tensor:
    """The gradient of the images (which=0) or of the weight (which=1) of an ordinary depthwise convolution."""
    where = ([1, 1], [padding, padding], [1, 1], False, [0, 0], len(weight))
    mask = [which == 0, which == 1, False]
    out: torch.Tensor = torch.ops.aten.convolution_backward(gradient, images, weight, None, *where, mask)[which]
    return out


def _cropped(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if images.shape[2:] == (height, width):
        return images
    return images.permute(0, 2, 3, 1)[:, :height, :width].permute(0, 3, 1, 2)
