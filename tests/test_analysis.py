"""The layer table against the built network: parameters, multiplies, shapes, and the footprint of the gradient."""

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from s9.cli.help import groups
from s9.config.model import LayerConfig, ModelConfig
from s9.data.sources.cifar10 import FACTS
from s9.models.analysis import TABLE_COLUMNS, LayerRow, describe, layer_table, model_facts, table_cells, table_lines
from s9.models.s9net import S9Net
from s9.system.errors import UserError
from tests.conftest import composed

MODELS = groups()["model"]
FACTS_64 = replace(FACTS, image_size=64)
Rows = dict[str, dict[str, Any]]


@functools.cache
def model_config(name: str) -> ModelConfig:
    return composed(f"model={name}").model


def hand_made(layers: Rows, head: bool = True) -> ModelConfig:
    blocks: Any = {"C1": dict(layers)}
    return ModelConfig("hand-made", 0.0, "relu", whiten=False, head=head, blocks=blocks)


def random_config(seed: int) -> ModelConfig:
    """Two to five rows of random kernels, strides, dilations, paddings and kinds, for images of 64 pixels or more."""
    rng = np.random.default_rng(seed)
    while True:
        layers: Rows = {}
        for position in range(rng.integers(2, 6)):
            row = {
                "channels": 4,
                "kernel_size": int(rng.integers(1, 6)),
                "stride": int(rng.choice([1, 1, 2, 3])),
                "dilation": int(rng.choice([1, 1, 2, 3])),
                "separable": bool(rng.integers(2)),
                "pool": int(rng.choice([1, 1, 2, 3])),
            }
            if rng.integers(2):
                row["padding"] = int(rng.integers(3))
            if not row["separable"] and position and rng.integers(2):
                row["groups"] = int(rng.choice([2, 4]))
            layers[f"conv{position + 1}"] = row
        config = hand_made(layers)
        with suppress(UserError):  # some leave no pixel
            last = layer_table(config, 10, image_size=64)[-3]
            if last.receptive_field <= 100 and last.jump <= 16:
                return config


def constant_network(config: ModelConfig, image_size: int) -> S9Net:
    """Built with every weight of a filter equal and positive: no path from a pixel to an output cancels another."""
    model = S9Net(config, replace(FACTS, image_size=image_size)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
    for layer in model.layers.values():
        if isinstance(layer.pool, nn.MaxPool2d):  # whose gradient goes to one pixel of the window that its value is of
            layer.pool = nn.AvgPool2d(layer.pool.kernel_size)
    return model


def maps_of(model: S9Net, images: torch.Tensor) -> list[torch.Tensor]:
    """What each layer gives, residual paths included, without the average."""
    ins = [images]
    for layer, residual in zip(model.layers.values(), model.residuals, strict=True):
        maps = layer(ins[-1])
        ins.append(maps + ins[-residual] if residual else maps)
    return ins[1:]


Box = tuple[int, int, int, int]  # first row, last row, first column, last column


def footprint(images: torch.Tensor, of: torch.Tensor) -> Box:
    """The pixels that `of` (one number) depends on, which must lie inside the image."""
    (gradient,) = torch.autograd.grad(of, images, retain_graph=True)
    touched = gradient[0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero().ravel().tolist(), touched.any(0).nonzero().ravel().tolist()
    box = (rows[0], rows[-1], columns[0], columns[-1])
    assert min(box) > 0, "the image is too small for this test"
    assert max(box) < images.shape[2] - 1, "the image is too small for this test"
    return box


def side_lengths(box: Box) -> tuple[int, int]:
    return box[1] - box[0] + 1, box[3] - box[2] + 1


def roomy_size(row: LayerRow, positions: int = 1) -> int:
    """Pixels that hold the footprint of some middle positions and their neighbours, away from the borders."""
    return row.receptive_field + (8 + positions) * row.jump + 8


def before_average(config: ModelConfig) -> LayerRow:
    return next(row for row in reversed(layer_table(config, 10, 64)) if row.name not in ("average", "head"))


def middle_footprints(config: ModelConfig) -> tuple[Box, Box, Box]:
    """Footprints of a middle position of the last maps, of the one below it and of the one to its right."""
    size = roomy_size(before_average(config))
    images = torch.ones(1, 3, size, size, requires_grad=True)
    maps = maps_of(constant_network(config, size), images)[-1].sum(1)[0]
    middle = maps.shape[0] // 2
    below, right = maps[middle + 1, middle], maps[middle, middle + 1]
    return footprint(images, maps[middle, middle]), footprint(images, below), footprint(images, right)


CONFIGS = {name: model_config(name) for name in MODELS} | {f"random {seed}": random_config(seed) for seed in range(24)}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@every_config
def test_receptive_field_is_the_side_of_the_footprint_of_the_gradient(config: ModelConfig) -> None:
    field = model_facts(config, FACTS_64).receptive_field
    assert side_lengths(middle_footprints(config)[0]) == (field, field)


@every_config
def test_jump_is_the_shift_of_the_footprint_between_neighbours(config: ModelConfig) -> None:
    here, below, right = middle_footprints(config)
    jump = before_average(config).jump
    assert (below[0] - here[0], right[2] - here[2]) == (jump, jump)


@pytest.mark.parametrize("seed", range(8))
def test_receptive_field_of_each_row_is_the_footprint_of_that_row(seed: int) -> None:
    config = random_config(seed)
    size = roomy_size(before_average(config))
    images = torch.ones(1, 3, size, size, requires_grad=True)
    sides = []
    for maps in maps_of(constant_network(config, size), images):
        middle = maps.shape[2] // 2
        sides.append(side_lengths(footprint(images, maps[0, :, middle, middle].sum()))[0])
    rows = [row for row in layer_table(config, 10, size) if row.name not in ("average", "head")]
    assert sides == [row.receptive_field for row in rows]


@pytest.mark.parametrize("seed", range(8))
def test_receptive_field_of_the_average_is_that_of_all_its_positions_together(seed: int) -> None:
    config = random_config(seed)
    last, average, _ = layer_table(config, 10, 64)[-3:]
    size = roomy_size(last, last.size)
    images = torch.ones(1, 3, size, size, requires_grad=True)
    maps = maps_of(constant_network(config, size), images)[-1]
    start = (maps.shape[2] - last.size) // 2
    positions = slice(start, start + last.size)
    assert side_lengths(footprint(images, maps[:, :, positions, positions].sum()))[0] == average.receptive_field


@every_config
def test_parameters_are_those_of_the_built_network(config: ModelConfig) -> None:
    built = sum(p.numel() for p in S9Net(config, FACTS_64).parameters())
    assert model_facts(config, FACTS_64).parameters == built


@every_config
def test_parameters_of_each_row_are_those_of_its_layer(config: ModelConfig) -> None:
    model = S9Net(config, FACTS_64)
    table = {row.name: row.parameters for row in layer_table(config, 10, 64)}
    built = {name.replace("_", "."): sum(p.numel() for p in m.parameters()) for name, m in model.layers.items()}
    assert {name: table[name] for name in built} == built


def counted(config: ModelConfig, image_size: int) -> tuple[dict[str, int], dict[str, tuple[int, int, int]]]:
    """Multiplies and output shape of each layer, counted by hooks while one image passes."""
    multiplies: dict[str, int] = {}
    shapes: dict[str, tuple[int, int, int]] = {}

    def count(name: str) -> Any:
        def hook(module: nn.Module, _: Any, out: torch.Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                each = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            else:
                assert isinstance(module, nn.Linear)
                each = module.in_features
            multiplies[name] = multiplies.get(name, 0) + each * out[0].numel()

        return hook

    def shape(name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: torch.Tensor) -> None:
            shapes[name] = (out.shape[1], out.shape[2], out.shape[3])

        return hook

    model = S9Net(config, replace(FACTS, image_size=image_size)).eval()
    for key, layer in [*model.layers.items(), ("head", model.head)]:
        if key != "head":
            layer.register_forward_hook(shape(key.replace("_", ".")))
        for module in layer.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count(key.replace("_", ".")))
    with torch.no_grad():
        model(torch.zeros(1, 3, image_size, image_size))
    return multiplies, shapes


@every_config
def test_multiplies_of_each_row_are_those_that_hooks_count(config: ModelConfig) -> None:
    multiplies, _ = counted(config, 64)
    table = {row.name: row.multiplies for row in layer_table(config, 10, 64) if row.name != "average"}
    assert table == multiplies


@every_config
def test_multiplies_in_all_are_those_that_hooks_count(config: ModelConfig) -> None:
    assert model_facts(config, FACTS_64).multiplies == sum(counted(config, 64)[0].values())


@every_config
def test_output_shapes_are_those_that_hooks_see(config: ModelConfig) -> None:
    _, shapes = counted(config, 64)
    table = {row.name: (row.channels, row.size, row.size) for row in layer_table(config, 10, 64)}
    assert {name: table[name] for name in shapes} == shapes


@pytest.mark.parametrize("name", MODELS)
def test_the_table_lists_the_rows_then_the_average_and_the_head_where_there_is_one(name: str) -> None:
    config = model_config(name)
    names = [f"{block}.{row}" for block, layers in config.blocks.items() for row in layers]
    assert [row.name for row in layer_table(config, 10, 32)] == [*names, "average", *(["head"] if config.head else [])]


def test_the_last_layer_without_a_head_has_a_channel_for_each_class() -> None:
    assert layer_table(model_config("reference"), 37, 32)[-2].channels == 37


def test_facts_count_the_reference_as_reported() -> None:
    assert model_facts(model_config("reference"), FACTS).parameters == 162_296


@pytest.mark.parametrize(
    ("what", "megabytes"),
    [("input", "0.01"), ("forward and backward", "2.55"), ("parameters", "0.62"), ("together", "3.18")],
)
def test_the_sizes_of_the_reference_are_as_reported(what: str, megabytes: str) -> None:
    sizes = table_lines(model_facts(model_config("reference"), FACTS), 32)[-1]
    assert f"{what} {megabytes} MB" in sizes


@pytest.mark.parametrize("name", MODELS)
def test_the_values_of_a_row_are_those_of_the_outputs_that_its_modules_have(name: str) -> None:
    config = model_config(name)
    model, counts = S9Net(config, FACTS).eval(), dict[str, int]()

    def count_into(row: str) -> Callable[..., None]:
        def count(_: nn.Module, __: object, output: torch.Tensor) -> None:
            counts[row] = counts.get(row, 0) + output.numel()

        return count

    for key, layer in model.layers.items():
        for part in ("conv", "pool", "norm", "activation"):
            if not isinstance(module := layer.get_submodule(part), nn.Identity):
                module.register_forward_hook(count_into(key.replace("_", ".")))
    model(torch.zeros(1, 3, 32, 32))
    table = {row.name: row.values for row in layer_table(config, 10, 32)}
    assert counts and {row: table[row] for row in counts} == counts


def test_the_printed_table_closes_with_the_totals() -> None:
    facts = model_facts(model_config("reference"), FACTS)
    totals = table_lines(facts, 32)[-2]
    assert totals == (
        f"total: 162,296 parameters, all trainable; {facts.multiplies:,} multiplies per image; "
        f"receptive field {facts.receptive_field}"
    )


def test_the_lines_of_the_printed_table_are_equally_long() -> None:
    lines = table_lines(model_facts(model_config("reference"), FACTS), 32)[:-2]
    assert len({len(line) for line in lines}) == 1


def test_the_cells_of_a_row_stand_under_the_columns() -> None:
    row = table_cells(layer_table(model_config("reference"), 10, 32))[3]
    assert dict(zip(TABLE_COLUMNS, row, strict=True)) == {
        "layer": "C1.conv4",
        "what": "3x3, stride 2, dilation 2, padding 0",
        "output": "32 x 14 x 14",
        "parameters": "9,280",
        "multiplies": "1,806,336",
        "receptive field": "11",
        "jump": "2",
    }


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (LayerConfig(8), "3x3"),
        (LayerConfig(8, kernel_size=1, groups=4), "1x1, groups 4"),
        (LayerConfig(8, separable=True, dilation=2, residual=2), "3x3 separable, dilation 2, +2"),
        (LayerConfig(8, stride=2, padding=0), "3x3, stride 2, padding 0"),
    ],
)
def test_a_row_is_described_without_its_defaults(layer: LayerConfig, words: str) -> None:
    assert describe(layer) == words


UNBUILDABLE: dict[str, tuple[Rows, bool]] = {
    "groups that do not divide": ({"conv1": {"channels": 8}, "conv2": {"channels": 9, "groups": 4}}, True),
    "an image shrunk to nothing": ({"conv1": {"channels": 8, "kernel_size": 65, "padding": 0}}, True),
    "residual between different shapes": ({"conv1": {"channels": 8}, "conv2": {"channels": 9, "residual": 1}}, True),
    "null channels before the end": ({"conv1": {"channels": None}, "conv2": {"channels": None}}, False),
    "null channels before a head": ({"conv1": {"channels": 8}, "conv2": {"channels": None}}, True),
}


@pytest.mark.parametrize(("layers", "head"), UNBUILDABLE.values(), ids=UNBUILDABLE)
def test_the_table_refuses_what_the_network_refuses_in_the_same_words(layers: Rows, head: bool) -> None:
    with pytest.raises(UserError) as built:
        S9Net(hand_made(layers, head), FACTS)
    with pytest.raises(UserError) as tabled:
        layer_table(hand_made(layers, head), 10, 32)
    assert str(tabled.value) == str(built.value)
