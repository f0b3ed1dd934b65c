"""The convolution gives the numbers of nn.Conv2d, whatever form it takes."""

import itertools

import pytest
import torch
from torch import nn

from s9.models.convolution import CHUNK, Convolution, LargeDepthwise

SETTINGS = [
    (kernel, stride, dilation, padding, groups, size)
    for kernel, stride, dilation, padding, groups, size in itertools.product(
        (1, 3, 5, 7), (1, 2, 3), (1, 2, 4), (0, 1, 2, 3), (1, 2, 8), (9, 12, 13)
    )
    if size + 2 * padding > dilation * (kernel - 1)
]


def plain(convolution: Convolution, images: torch.Tensor) -> torch.Tensor:
    return nn.Conv2d.forward(convolution, images)


def test_every_combination_of_settings_gives_what_torch_gives() -> None:
    torch.manual_seed(0)
    images = {size: torch.randn(2, 8, size, size, dtype=torch.float64) for size in (9, 12, 13)}
    for kernel, stride, dilation, padding, groups, size in SETTINGS:
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        convolution = Convolution(8, 8, kernel, **settings).double()
        out, wanted = convolution(images[size]), plain(convolution, images[size])
        where = (kernel, settings, size)
        assert out.shape == wanted.shape, where
        assert torch.allclose(out, wanted, rtol=1e-12, atol=1e-12), where


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding", "groups"),
    [
        *[(3, 2, 2, 0, 1), (1, 2, 1, 1, 1), (3, 1, 4, 4, 8), (3, 2, 1, 1, 8), (3, 3, 3, 2, 2)],
        *[(5, 1, 1, 2, 8), (7, 1, 1, 0, 8), (7, 1, 1, 3, 8), (9, 1, 1, 4, 8), (5, 1, 2, 4, 8), (6, 1, 1, 2, 8)],
    ],
)
def test_gradients_are_those_of_torch(kernel: int, stride: int, dilation: int, padding: int, groups: int) -> None:
    torch.manual_seed(0)
    convolution = Convolution(8, 8, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups).double()
    images = torch.randn(2, 8, 14, 11, dtype=torch.float64, requires_grad=True)
    out, wanted = convolution(images), plain(convolution, images)
    weights = torch.randn_like(out)
    for got, exact in zip(
        torch.autograd.grad((out * weights).sum(), (images, convolution.weight)),
        torch.autograd.grad((wanted * weights).sum(), (images, convolution.weight)),
        strict=True,
    ):
        assert torch.allclose(got, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", [0, 2])
def test_a_large_kernel_with_two_outputs_a_channel_computes_in_bfloat16(padding: int) -> None:
    torch.manual_seed(0)
    convolution, images = Convolution(8, 16, 5, groups=8, padding=padding), torch.randn(2, 8, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(images)
    out.float().sum().backward()
    torch.testing.assert_close(out.float(), plain(convolution, images), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(2, 2, 1), (1, 2, 16)])
def test_gradients_stay_channels_last(stride: int, dilation: int, groups: int) -> None:
    convolution = Convolution(16, 16, 3, stride=stride, padding=2, dilation=dilation, groups=groups)
    images = torch.randn(2, 16, 12, 12).to(memory_format=torch.channels_last).requires_grad_()
    convolution(images).sum().backward()
    assert images.grad is not None
    assert images.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (5, 2), (5, 0), (6, 2), (7, 3), (9, 4), (5, 6)])
def test_the_gradients_of_a_large_depthwise_kernel_are_those_of_torch(kernel: int, padding: int) -> None:
    """Of more images than are taken at once, and of a last part with fewer; no square ones."""
    torch.manual_seed(0)
    images = torch.randn(CHUNK // 16**2 + 30, 3, 14, 11, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    out = LargeDepthwise.apply(images, weight, padding)
    wanted = torch.conv2d(images, weight, None, 1, padding, 1, 3)
    assert torch.equal(out, wanted)
    factors = torch.randn_like(out)
    for got, exact in zip(
        torch.autograd.grad((out * factors).sum(), (images, weight)),
        torch.autograd.grad((wanted * factors).sum(), (images, weight)),
        strict=True,
    ):
        assert torch.allclose(got, exact, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("kernel", [5, 7])
def test_a_large_depthwise_kernel_in_bfloat16(kernel: int, autocast: bool) -> None:
    torch.manual_seed(0)
    convolution = Convolution(16, 16, kernel, padding=kernel // 2, groups=16)
    images = torch.randn(4, 16, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    exact = torch.autograd.grad(plain(convolution, images).square().sum(), (images, convolution.weight))
    if not autocast:
        convolution, images = convolution.bfloat16(), images.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = convolution(images)
    assert out.dtype == torch.bfloat16 and type(out.grad_fn).__name__ == "LargeDepthwiseBackward"
    got = torch.autograd.grad(out.float().square().sum(), (images, convolution.weight))
    for some, wanted in zip(got, exact, strict=True):
        assert some.dtype == (torch.float32 if autocast else torch.bfloat16)
        assert (some.float() - wanted).norm() < 0.01 * wanted.norm()
