"""No step of training on a GPU meets a tensor that was left on the host, checked with torch's fake tensors.

A fake tensor has a shape, a type and a device, here a made-up `cuda`, but no values, so no GPU is needed; torch refuses
to mix it with a tensor of the host. Not tried so: the backward pass, for which autograd asks the driver, and the
average of the weights, whose count has to be read.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from s9.cli.help import groups
from s9.config.schema import AugConfig, Config, MixConfig
from s9.data.augmentation import batch_arguments
from s9.data.augmentation.batch_augment import BatchAugment
from s9.data.augmentation.batch_transform import BatchTransform
from s9.data.augmentation.mix import mix
from s9.data.image_set import ImageFacts
from s9.models.s9net import S9Net
from s9.system import compute
from s9.system.compute import Compute
from s9.training import optim
from s9.training.distillation import Teacher
from s9.training.resolution import resized
from s9.training.step import mixed_loss
from tests.conftest import composed

CUDA = torch.device("cuda")
FACTS = ImageFacts("made up", tuple("abcdefghij"), 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
BATCH = 4
KEPT = (compute._shift_and_scale, batch_arguments._constant, batch_arguments.padded_index)  # constants, by device


@pytest.fixture(scope="module")
def gpu() -> Iterator[FakeTensorMode]:
    """One mode for all tests, since kept constants are fake tensors of one mode; none is left to other tests."""
    for constants in KEPT:
        constants.cache_clear()
    yield FakeTensorMode()
    for constants in KEPT:
        constants.cache_clear()


def on_gpu(module: torch.nn.Module) -> None:
    """Gives the module made-up parameters and buffers, since Module.to does not work with a made-up device."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(torch.empty(value.shape, device=CUDA))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA)


def network(name: str) -> S9Net:
    """Of conf/model, with made-up weights; called inside the mode, outside which the network is built."""
    with unset_fake_temporarily():
        model = S9Net(composed(f"model={name}").model, FACTS)
    on_gpu(model)
    return model


@contextmanager
def bfloat16() -> Iterator[None]:
    """What torch.autocast does inside its `with` block, which it leaves out where the driver finds no GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def raw_images() -> torch.Tensor:
    return torch.empty(BATCH, 3, 32, 32, dtype=torch.uint8, device=CUDA)


def labels() -> torch.Tensor:
    return torch.empty(BATCH, dtype=torch.int64, device=CUDA)


def augmented(config: AugConfig) -> torch.Tensor:
    """Called inside the mode, outside which the augmentation is built: it tries each transform on the host."""
    with unset_fake_temporarily():
        augment = BatchAugment(config, FACTS, seed=0)
    draws = augment.draw(1, 100, CUDA)
    return augment(raw_images(), draws, torch.arange(BATCH, device=CUDA))


@pytest.mark.parametrize("name", groups()["model"])
def test_the_forward_pass_of_a_network_stays_on_the_gpu(gpu: FakeTensorMode, name: str) -> None:
    with gpu, torch.no_grad(), bfloat16():
        images = Compute(CUDA, torch.float32).normalised(raw_images(), FACTS.mean, FACTS.std)
        logits = network(name)(images)
        assert (logits.device.type, tuple(logits.shape)) == ("cuda", (BATCH, 10))


def test_smaller_images_of_a_runs_beginning_stay_on_the_gpu(gpu: FakeTensorMode) -> None:
    with gpu:
        images = resized(torch.empty(BATCH, 3, 32, 32, device=CUDA), 20)
        assert (images.device.type, tuple(images.shape)) == ("cuda", (BATCH, 3, 20, 20))


@pytest.mark.parametrize("name", groups()["aug"])
def test_an_augmentation_stays_on_the_gpu(gpu: FakeTensorMode, name: str) -> None:
    with gpu:
        images = augmented(composed("data=digits", f"aug={name}").aug)
        assert (images.device.type, images.dtype) == ("cuda", torch.uint8)


@pytest.mark.parametrize("name", ["cutmix", "mixup"])
def test_mixed_images_and_their_loss_stay_on_the_gpu(gpu: FakeTensorMode, name: str) -> None:
    with gpu:
        images = torch.empty(BATCH, 3, 32, 32, device=CUDA)
        mixed = mix(MixConfig(name=name, alpha=1.0, p=1.0), images, labels(), (0, 1, 1))
        loss = mixed_loss(torch.empty(BATCH, 10, device=CUDA), mixed, 0.1)
        assert (mixed.images.device.type, mixed.partners.device.type, loss.device.type) == ("cuda",) * 3


@pytest.mark.parametrize("optimizer", groups()["optimizer"])
@pytest.mark.parametrize("model", groups()["model"])
def test_the_step_of_an_optimizer_stays_on_the_gpu(gpu: FakeTensorMode, model: str, optimizer: str) -> None:
    settings = optimizer_of(composed(f"optimizer={optimizer}"))
    with gpu:
        of = network(model)
        built = optim.build_optimizer(settings, of)
        for _ in range(2):  # the first makes the state, the second reads it
            for parameter in of.parameters():
                parameter.grad = torch.zeros_like(parameter)
            torch.nn.utils.clip_grad_norm_(of.parameters(), 1.0)
            built.step()
        state = [v for kept in built.state.values() for v in kept.values() if torch.is_tensor(v) and v.ndim]
        assert {value.device.type for value in state} == {"cuda"}


def optimizer_of(config: Config) -> dict[str, object]:
    """torch has no fake kernel for fused SGD."""
    return config.optimizer | ({"fused": False} if config.optimizer["_target_"] == "torch.optim.SGD" else {})


def test_a_teachers_loss_stays_on_the_gpu(gpu: FakeTensorMode) -> None:
    config = composed()
    with gpu, torch.no_grad():
        teacher = Teacher([network(config.model.name)] * 2, config.distillation)
        wanted = teacher(torch.empty(BATCH, 3, 32, 32, device=CUDA), 1, 1)
        loss = teacher.taught(torch.zeros((), device=CUDA), torch.empty(BATCH, 10, device=CUDA), wanted)
        assert loss.device.type == "cuda"


class FromTheHost(BatchTransform):
    """Adds a tensor that was made without a device, which works on a CPU."""

    def apply(self, images: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        return images + torch.ones(images.shape[1:], dtype=torch.uint8)


def test_a_tensor_left_on_the_host_is_found(gpu: FakeTensorMode) -> None:
    with gpu, pytest.raises(RuntimeError, match="devices"):
        FromTheHost()(raw_images(), torch.empty(BATCH, 1, device=CUDA))
