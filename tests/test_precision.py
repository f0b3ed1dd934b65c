"""bfloat16 that can be trusted: what the guard leaves in bfloat16 has right gradients, whatever the processor."""

import pytest
import torch

from s9.cli.compose import compose_config
from s9.cli.help import groups
from s9.data.sources.cifar10 import FACTS
from s9.models.convolution import Convolution
from s9.models.precision import TOLERANCE, gradient_error, guard_bfloat16
from s9.models.s9net import S9Net
from s9.system.compute import Compute
from tests.conftest import composed

CPU = torch.device("cpu")

# (channels, dilation, pixels): shapes that torch 2.15 got wrong on AVX512-BF16, and neighbours that it got right.
SHAPES = [(24, 2, 32), (24, 4, 32), (40, 2, 32), (56, 2, 32), (24, 1, 32), (32, 2, 32), (24, 2, 16)]


def weight_gradient(convolution: Convolution, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    convolution.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        out = convolution(images)
    (out.float() * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
    assert convolution.weight.grad is not None
    return convolution.weight.grad.clone()


@pytest.mark.bf16
@pytest.mark.parametrize(("channels", "dilation", "size"), SHAPES)
@pytest.mark.parametrize("batch", [3, 16])
def test_after_the_guard_every_gradient_is_right(channels: int, dilation: int, size: int, batch: int) -> None:
    torch.manual_seed(0)
    convolution = Convolution(channels, channels, 3, padding=dilation, dilation=dilation)
    convolution.in_float32 = not gradient_error(convolution, size) < TOLERANCE
    images = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last)
    exact = weight_gradient(convolution, images, torch.float32)
    trained = weight_gradient(convolution, images, torch.bfloat16)
    assert (trained - exact).norm() < TOLERANCE * exact.norm()


@pytest.mark.bf16
def test_an_ordinary_convolution_stays_in_bfloat16() -> None:
    assert gradient_error(Convolution(32, 32, 3, padding=1), 32) < 0.01


def test_a_wrong_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = Convolution(8, 8, 3, padding=1)
    right = torch.conv2d

    def wrong(images: torch.Tensor, weight: torch.Tensor, *settings: object) -> torch.Tensor:
        out = right(images, weight, *settings)  # type: ignore[call-overload]
        return out * 2 if images.dtype == torch.bfloat16 else out

    monkeypatch.setattr(torch, "conv2d", wrong)
    assert gradient_error(convolution, 8) == pytest.approx(1, abs=0.05)


def test_a_convolution_kept_in_float32_is_exact_under_autocast() -> None:
    convolution = Convolution(8, 8, 3, padding=1)
    convolution.in_float32 = True
    images = torch.randn(2, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(images)
    assert torch.equal(out, convolution(images))


@pytest.mark.parametrize("name", groups()["model"])
def test_the_guard_moves_nothing(name: str) -> None:
    model = S9Net(composed(f"model={name}").model, FACTS)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stream = torch.get_rng_state()
    guard_bfloat16(model, 32, Compute(CPU, torch.bfloat16))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream) and model.training


def test_float32_needs_no_guard() -> None:
    model = S9Net(compose_config(["model=strided"]).model, FACTS)
    assert guard_bfloat16(model, 32, Compute(CPU, torch.float32)) == []
