"""Parameter groups, schedules as functions of progress, and Muon: what each step does to the weights."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from s9.cli.help import groups
from s9.config.data import DigitsConfig
from s9.config.model import ModelConfig
from s9.data.image_set import ImageSet
from s9.data.loaders import eval_batches
from s9.data.sources.cifar10 import FACTS
from s9.data.sources.load import load_images
from s9.models.s9net import S9Net
from s9.system.compute import Compute
from s9.system.errors import UserError
from s9.training.muon import Muon, orthogonalise
from s9.training.optim import build_optimizer, build_scheduler, constant, cosine, one_cycle, schedule
from tests.conftest import composed

OPTIMIZERS, SCHEDULERS = groups()["optimizer"], groups()["scheduler"]
PROGRESS = np.linspace(0, 1, 201).tolist()

BLOCKS: Any = {
    "C1": {
        "conv1": {"channels": 12},
        "conv2": {"channels": 12, "stride": 2},
        "conv3": {"channels": 16, "separable": True, "stride": 2},
        "conv4": {"channels": 16, "groups": 4, "stride": 2},
    }
}


def small_network() -> S9Net:
    torch.manual_seed(0)
    return S9Net(ModelConfig("small", 0.0, "relu", whiten=False, head=True, blocks=BLOCKS), FACTS)


def optimizer_config(name: str) -> dict[str, Any]:
    return composed(f"optimizer={name}").optimizer


def is_muons(p: torch.Tensor) -> bool:
    """A convolution that mixes channels: what Muon makes orthogonal."""
    return p.ndim == 4 and p.shape[1] > 1


def moved_without_gradient(name: str) -> dict[str, bool]:
    """Which parameters one step changes though every gradient is zero: those that decay, or are rescaled."""
    model = small_network()
    optimizer = build_optimizer(optimizer_config(name), model)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5) if p.ndim == 1 else p.mul_(3)
            p.grad = torch.zeros_like(p)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step()
    return {n: not torch.equal(p, before[n]) for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_parameter_is_in_exactly_one_group(name: str) -> None:
    model = small_network()
    optimizer = build_optimizer(optimizer_config(name), model)
    counts = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
    assert counts == {id(p): 1 for p in model.parameters()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_and_biases_are_in_groups_without_decay(name: str) -> None:
    optimizer = build_optimizer(optimizer_config(name), small_network())
    decays = [g["weight_decay"] for g in optimizer.param_groups for p in g["params"] if p.ndim == 1]
    assert set(decays) == {0.0}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_else_is_in_groups_with_the_decay_of_the_file(name: str) -> None:
    config = optimizer_config(name)
    optimizer = build_optimizer(config, small_network())
    decays = [
        group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
        if p.ndim > 1 and not (name == "muon" and is_muons(p))  # Muon keeps their norm instead
    ]
    assert set(decays) == {config["weight_decay"]}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_without_gradient_leaves_norms_and_biases_alone(name: str) -> None:
    moved = moved_without_gradient(name)
    shapes = {n: p.ndim for n, p in small_network().named_parameters()}
    assert not any(moved[n] for n, ndim in shapes.items() if ndim == 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_without_gradient_shrinks_all_else(name: str) -> None:
    moved = moved_without_gradient(name)
    shapes = {n: p.ndim for n, p in small_network().named_parameters()}
    assert all(moved[n] for n, ndim in shapes.items() if ndim > 1)


def test_an_optimizer_that_refuses_its_arguments_is_named_in_one_line() -> None:
    config = optimizer_config("sgd") | {"momentum": -1.0}
    with pytest.raises(UserError, match=r"^optimizer.*momentum") as caught:
        build_optimizer(config, small_network())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("warmup", [0.1, 0.25, 1.0])
@pytest.mark.parametrize("start", [0.0, 0.05, 1.0])
def test_one_cycle_begins_at_its_start(warmup: float, start: float) -> None:
    assert one_cycle(0.0, warmup, start) == start


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 1.0])
def test_one_cycle_is_full_at_the_end_of_the_warmup(warmup: float) -> None:
    assert one_cycle(warmup, warmup, 0.05) == 1.0


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25])
def test_one_cycle_ends_at_zero(warmup: float) -> None:
    assert one_cycle(1.0, warmup, 0.05) == 0.0


@pytest.mark.parametrize(("progress", "factor"), [(0.125, 0.525), (0.625, 0.5)])
def test_one_cycle_is_linear_on_both_sides(progress: float, factor: float) -> None:
    assert one_cycle(progress, 0.25, 0.05) == pytest.approx(factor)


@pytest.mark.parametrize("warmup", [0.05, 0.5, 1.0])
def test_cosine_begins_at_zero(warmup: float) -> None:
    assert cosine(0.0, warmup) == 0.0


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_cosine_is_full_at_the_end_of_the_warmup(warmup: float) -> None:
    assert cosine(warmup, warmup) == 1.0


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_cosine_ends_at_zero(warmup: float) -> None:
    assert cosine(1.0, warmup) == 0.0


@pytest.mark.parametrize(("progress", "factor"), [(0.1, 0.5), (0.6, 0.5), (0.4, 0.8535534)])
def test_cosine_is_linear_and_then_half_a_cosine(progress: float, factor: float) -> None:
    assert cosine(progress, 0.2) == pytest.approx(factor)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_constant_is_one_throughout(progress: float) -> None:
    assert constant(progress) == 1.0


SHAPES: dict[str, tuple[Callable[[float], float], float]] = {
    "one_cycle": (partial(one_cycle, warmup=0.25, start=0.05), 0.25),
    "one_cycle without warmup": (partial(one_cycle, warmup=0.0, start=0.05), 0.0),
    "one_cycle all warmup": (partial(one_cycle, warmup=1.0, start=0.05), 1.0),
    "cosine": (partial(cosine, warmup=0.05), 0.05),
    "cosine without warmup": (partial(cosine, warmup=0.0), 0.0),
    "cosine all warmup": (partial(cosine, warmup=1.0), 1.0),
}


@pytest.mark.parametrize(("factor", "warmup"), SHAPES.values(), ids=SHAPES)
def test_a_schedule_rises_while_it_warms_up_and_falls_afterwards(
    factor: Callable[[float], float], warmup: float
) -> None:
    rising = [factor(p) for p in PROGRESS if p <= warmup]
    falling = [factor(p) for p in PROGRESS if p >= warmup]
    assert rising == sorted(set(rising))
    assert falling == sorted(set(falling), reverse=True)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "exponential"])  # that of the range test
def test_the_factor_of_every_schedule_stays_between_zero_and_one(name: str) -> None:
    factor = schedule(composed(f"scheduler={name}").scheduler)
    assert all(0 <= factor(p) <= 1 for p in PROGRESS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_scheduler_scales_the_learning_rate_of_every_group(name: str) -> None:
    config = composed("optimizer=muon", f"scheduler={name}", "optimizer.lr=0.2", "optimizer.other_lr=0.05")
    optimizer = build_optimizer(config.optimizer, small_network())
    own = [group["lr"] for group in optimizer.param_groups]
    scheduler = build_scheduler(config.scheduler, optimizer, total_steps=10)
    factor = schedule(config.scheduler)
    for step in range(11):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([lr * factor(step / 10) for lr in own]), f"step {step}"
        optimizer.step()
        scheduler.step()


def test_muons_groups_have_learning_rates_of_their_own() -> None:
    config = composed("optimizer=muon", "optimizer.lr=0.2", "optimizer.other_lr=0.05")
    optimizer = build_optimizer(config.optimizer, small_network())
    rates = {is_muons(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {True: 0.2, False: 0.05}


def test_steps_beyond_the_last_keep_its_factor() -> None:
    config = composed("optimizer=sgd", "scheduler=onecycle")
    optimizer = build_optimizer(config.optimizer, small_network())
    scheduler = build_scheduler(config.scheduler, optimizer, total_steps=3)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0.0, 0.0]


# A singular value of at least a hundredth of the matrix's norm lands between these after four steps; the smallest of
# the matrices below is 0.2 / 8.
LOW, HIGH = 0.68, 1.21
TALL_WIDE_SQUARE = [(64, 16), (16, 64), (32, 32), (10, 90), (64, 64), (5, 1), (1, 5)]


def random_matrix(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(left, values, right) of a matrix left @ diag(values) @ right.T with singular values from 0.2 to 1."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, rank, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(columns, rank, generator=generator))[0]
    return left, 0.2 + 0.8 * torch.rand(rank, generator=generator), right


@pytest.mark.parametrize(("rows", "columns"), TALL_WIDE_SQUARE)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_four_steps_bring_singular_values_near_one(rows: int, columns: int, scale: float) -> None:
    for seed in range(5):
        left, values, right = random_matrix(rows, columns, seed)
        found = torch.linalg.svdvals(orthogonalise(scale * left @ values.diag() @ right.T))
        assert found.min() > LOW, f"seed {seed}"
        assert found.max() < HIGH, f"seed {seed}"


@pytest.mark.parametrize(("rows", "columns"), TALL_WIDE_SQUARE)
def test_autocast_to_bfloat16_changes_the_iteration_by_little(rows: int, columns: int) -> None:
    left, values, right = random_matrix(rows, columns, seed=0)
    matrix = left @ values.diag() @ right.T
    exact = orthogonalise(matrix)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = orthogonalise(matrix)
    assert low.dtype == torch.float32
    assert 0 < (low - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize(("rows", "columns"), TALL_WIDE_SQUARE)
def test_singular_directions_stay_as_they_are(rows: int, columns: int) -> None:
    left, values, right = random_matrix(rows, columns, seed=0)
    inside = left.T @ orthogonalise(left @ values.diag() @ right.T) @ right
    torch.testing.assert_close(inside, inside.diag().diag(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rows", "columns"), [(64, 16), (16, 64), (32, 32)])
def test_a_matrix_of_zeros_stays_zero(rows: int, columns: int) -> None:
    assert torch.equal(orthogonalise(torch.zeros(rows, columns)), torch.zeros(rows, columns))


def convolution(out_channels: int, in_channels: int, scale: float = 1.0) -> nn.Parameter:
    generator = torch.Generator().manual_seed(3)
    weight = nn.Parameter(scale * torch.randn(out_channels, in_channels, 3, 3, generator=generator))
    weight.grad = torch.randn(weight.shape, generator=generator)
    return weight


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("out_channels", "in_channels"), [(16, 8), (64, 2)])
def test_muon_keeps_filters_at_a_root_mean_square_norm_of_one(
    scale: float, out_channels: int, in_channels: int
) -> None:
    weight = convolution(out_channels, in_channels, scale)
    Muon([{"params": [weight]}], lr=1e-9).step()
    assert weight.norm().item() == pytest.approx(out_channels**0.5, rel=1e-5)


def test_muon_keeps_the_direction_of_the_filters() -> None:
    weight = convolution(16, 8)
    before = weight.detach().clone()
    Muon([{"params": [weight]}], lr=1e-9).step()
    torch.testing.assert_close(weight.detach() / weight.norm(), before / before.norm())


# For 64 filters of 18 weights the update is scaled by (64 / 18) ** 0.5, so that each filter moves as much as elsewhere.
@pytest.mark.parametrize(
    ("out_channels", "in_channels", "scale"), [(16, 8, 1.0), (16, 2, 1.0), (64, 2, (64 / 18) ** 0.5)]
)
def test_muons_update_of_a_convolution_is_orthogonal_up_to_its_scale(
    out_channels: int, in_channels: int, scale: float
) -> None:
    weight = convolution(out_channels, in_channels)
    start = weight.detach() * (out_channels**0.5 / weight.detach().norm())
    Muon([{"params": [weight]}], lr=0.1).step()
    update = (start - weight.detach()).reshape(out_channels, -1) / 0.1
    values = torch.linalg.svdvals(update) / scale
    assert values.min() > LOW
    assert values.max() < HIGH


def test_muons_update_does_not_depend_on_the_size_of_the_gradient() -> None:
    small, large = convolution(16, 8), convolution(16, 8)
    assert large.grad is not None
    large.grad *= 1000
    for weight in (small, large):
        Muon([{"params": [weight]}], lr=0.1).step()
    torch.testing.assert_close(small, large)


def test_muon_leaves_parameters_without_gradient_alone() -> None:
    filters, norm = convolution(16, 8), nn.Parameter(torch.ones(16))
    filters.grad = None
    before = filters.detach().clone()
    optimizer = Muon([{"params": [filters, norm]}], lr=0.1)
    optimizer.step()
    assert torch.equal(filters, before)
    assert torch.equal(norm, torch.ones(16))
    assert not optimizer.state


@pytest.mark.parametrize("shape", [(16,), (10, 16), (16, 1, 3, 3)], ids=["norm", "head", "depthwise"])
def test_muon_treats_all_but_full_convolutions_as_nesterov_sgd(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    muon = Muon([{"params": [ours]}], lr=9.0, other_lr=0.1, other_momentum=0.9, weight_decay=0.01)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        muon.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs)


def test_muon_keeps_filters_channels_last() -> None:
    model = small_network()
    optimizer = build_optimizer(optimizer_config("muon"), model)
    F.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    optimizer.step()
    filters = [p for p in model.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)


@pytest.fixture(scope="module")
def digits_set() -> ImageSet:
    return load_images(DigitsConfig("digits", 150, "resident", workers=0), seed=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_halves_the_loss_on_digits_in_60_steps(name: str, digits_set: ImageSet) -> None:
    raw, labels = next(eval_batches(digits_set.train))
    facts = digits_set.facts
    images = Compute(torch.device("cpu"), torch.float32).normalised(raw, facts.mean, facts.std)
    blocks: Any = {"C1": {f"conv{i}": {"channels": 8 * 2**i, "stride": 2} for i in (1, 2, 3)}}
    torch.manual_seed(0)
    model = S9Net(ModelConfig("quick", 0.0, "relu", whiten=False, head=True, blocks=blocks), facts)
    optimizer = build_optimizer(optimizer_config(name), model)
    scheduler = build_scheduler(composed("scheduler=onecycle").scheduler, optimizer, total_steps=60)
    losses = []
    for step in range(60):
        part = slice(64 * (step % 7), 64 * (step % 7 + 1))
        loss = F.cross_entropy(model(images[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    # Measured over three seeds: from 2.3 to 0.1 with sgd and muon, to 0.8 with adamw, whose learning rate is small.
    assert np.mean(losses[-7:]) < losses[0] / 2


@pytest.mark.parametrize(("form", "fused"), [({}, True), ({"foreach": True}, False), ({"differentiable": True}, False)])
def test_a_form_that_the_configuration_names_is_the_one_used(form: dict[str, bool], fused: bool) -> None:
    """Of its forms an optimizer takes one, and refuses two."""
    optimizer = build_optimizer({"_target_": "torch.optim.SGD", "lr": 0.1} | form, small_network())
    assert bool(optimizer.defaults["fused"]) == fused
    assert all(optimizer.defaults[key] == value for key, value in form.items())
