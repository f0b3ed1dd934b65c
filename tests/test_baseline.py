"""The naive way that s9 is measured against: the same network and images, as the tutorials would have them."""

import copy

import albumentations
import numpy as np
import pytest
import torch
from torch import nn

from s9.benchmarks.baseline import PlainImages, PlainStep, plain_loader, plain_network
from s9.config.schema import AugConfig
from s9.data.augmentation.image_augment import build_transform
from s9.data.image_set import ImageFacts, ImageSet, Split
from s9.models.convolution import Convolution
from s9.models.s9net import S9Net
from s9.system.compute import Compute
from tests.conftest import composed

CPU = Compute(torch.device("cpu"), torch.float32)
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
FACTS = ImageFacts("made up", ("red", "green"), 32, MEAN, STD)
MODELS = ("reference", "strided", "dilated")


@pytest.fixture(scope="module")
def data() -> ImageSet:
    """Forty noisy images whose class is the channel that is bright."""
    labels = np.arange(40, dtype=np.int64) % 2
    images = np.random.default_rng(0).integers(0, 128, (40, 32, 32, 3), dtype=np.uint8)
    images[np.arange(40), :, :, labels] += 100
    split = Split(images, labels)
    return ImageSet(FACTS, split, split.take(slice(0)), split)


def aug_of(name: str) -> AugConfig:
    return composed(f"aug={name}").aug


def network(name: str) -> S9Net:
    """With batch statistics that are not those of the start."""
    torch.manual_seed(0)
    model = S9Net(composed(f"model={name}").model, FACTS)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return model


# The network


@pytest.mark.parametrize("name", MODELS)
def test_the_plain_network_gives_the_same_logits(name: str) -> None:
    model = network(name).eval()
    plain = plain_network(copy.deepcopy(model))
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(plain(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_plain_network_gives_the_same_gradients(name: str) -> None:
    model = network(name).eval()
    plain = plain_network(copy.deepcopy(model))
    images = torch.randn(2, 3, 32, 32)
    for either in (model, plain):
        either(images).square().sum().backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None and (a.grad - b.grad).norm() < 0.01 * a.grad.norm()


@pytest.mark.parametrize("name", MODELS)
def test_the_plain_network_has_the_convolutions_of_torch(name: str) -> None:
    convolutions = [m for m in plain_network(network(name)).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 5 and all(type(m) is nn.Conv2d for m in convolutions)
    assert any(isinstance(m, Convolution) for m in network(name).modules())


@pytest.mark.parametrize("name", MODELS)
def test_the_plain_network_is_nchw_in_memory(name: str) -> None:
    images = torch.randn(2, 3, 32, 32)
    plain = plain_network(network(name))
    outputs: list[torch.Tensor] = []
    plain.layers["C1_conv2"].register_forward_hook(lambda _, __, out: outputs.append(out))
    plain(images)
    assert all(p.is_contiguous() for p in plain.parameters()) and outputs[0].is_contiguous()


# The images


def test_without_augmentation_the_images_are_normalised_and_nothing_else(data: ImageSet) -> None:
    plain = PlainImages(data, aug_of("none"))
    made = torch.stack([plain[i][0] for i in range(len(plain))])
    raw = torch.from_numpy(np.asarray(data.train.images)).permute(0, 3, 1, 2)
    assert made.dtype == torch.float32 and (made - CPU.normalised(raw, MEAN, STD)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["basic", "full", "strong"])
def test_the_images_are_those_of_albumentations_normalised(data: ImageSet, name: str) -> None:
    plain, aug = PlainImages(data, aug_of(name)), aug_of(name)
    fill = tuple(round(255 * channel) for channel in MEAN)
    compose = albumentations.Compose([build_transform(key, t, fill) for key, t in aug.transforms.items()])
    for made_by in (plain.transform, compose):
        made_by.set_random_seed(3)
    for i in range(len(plain)):
        wanted = compose(image=data.train.images[i])["image"]
        exact = ((wanted / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
        assert np.abs(plain[i][0].numpy() - exact).max() < 1e-4


def test_labels_come_with_their_images(data: ImageSet) -> None:
    plain = PlainImages(data, aug_of("none"))
    assert [plain[i][1] for i in range(len(plain))] == data.train.labels.tolist() and len(plain) == 40


def test_an_epoch_has_every_whole_batch_of_shuffled_images(data: ImageSet) -> None:
    batches = list(plain_loader(data, aug_of("none"), 16))
    assert [tuple(images.shape) for images, _ in batches] == [(16, 3, 32, 32)] * 2
    first = {tuple(image.flatten()[:8].tolist()) for images, _ in batches for image in images}
    assert len(first) == 32  # each image once
    assert batches[0][1].tolist() != data.train.labels[:16].tolist()


# The step


def test_steps_learn(data: ImageSet) -> None:
    torch.manual_seed(0)
    step = PlainStep(plain_network(S9Net(composed("model=strided").model, FACTS)), CPU.device)
    plain = PlainImages(data, aug_of("none"))
    images = torch.stack([plain[i][0] for i in range(40)])
    labels = torch.from_numpy(data.train.labels)
    losses = []
    for _ in range(12):
        before = step.loss_sum
        step(images, labels)
        losses.append(step.loss_sum - before)
    assert losses[-1] < losses[0] / 4, losses


def test_steps_count_what_was_right(data: ImageSet) -> None:
    torch.manual_seed(0)
    step = PlainStep(plain_network(S9Net(composed("model=strided").model, FACTS)), CPU.device)
    raw = torch.from_numpy(np.asarray(data.train.images)).permute(0, 3, 1, 2)
    for _ in range(12):
        before = step.correct
        step(CPU.normalised(raw, MEAN, STD), torch.from_numpy(data.train.labels))
    assert step.correct - before == 40
