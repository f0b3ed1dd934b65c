"""The network that the rows make: shapes, paths, dropout, head, refusals, and the whitened start."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from s9.cli.compose import compose_config
from s9.cli.help import groups
from s9.config.model import ModelConfig
from s9.data.image_set import ImageFacts, ImageSet, Split
from s9.data.sources.arrays import image_set_of
from s9.data.sources.cifar10 import FACTS
from s9.models.s9net import Layer, S9Net, build_model, refuse_single_values, rows
from s9.system.compute import Compute
from s9.system.errors import UserError
from tests.conftest import composed

MODELS = groups()["model"]
Rows = dict[str, dict[str, Any]]

# reference.md, row by row: what comes out, and the weights of the convolution.
REFERENCE = [
    ("C1_conv1", (16, 32, 32), 432),
    ("C1_conv2", (32, 32, 32), 4_608),
    ("C1_conv3", (32, 32, 32), 9_216),
    ("C1_conv4", (32, 14, 14), 9_216),
    ("C2_conv1", (32, 14, 14), 9_216),
    ("C2_conv2", (52, 14, 14), 14_976),
    ("C2_conv3", (64, 5, 5), 29_952),
    ("C3_conv1", (64, 5, 5), 64),
    ("C3_conv2", (64, 5, 5), 36_864),
    ("C3_conv3", (64, 4, 4), 4_096),
    ("C4_conv1", (64, 4, 4), 36_864),
    ("C4_conv2", (10, 4, 4), 5_760),
]


@functools.cache
def model_config(name: str) -> ModelConfig:
    return composed(f"model={name}").model


def hand_made(layers: Rows, **settings: Any) -> ModelConfig:
    """One block C1 of these rows, with a head and without dropout unless the settings say otherwise."""
    given: dict[str, Any] = {"dropout": 0.0, "activation": "relu", "whiten": False, "head": True} | settings
    return ModelConfig(name="hand-made", blocks={"C1": dict(layers)}, **given)


def facts(num_classes: int = 10, image_size: int = 32) -> ImageFacts:
    names = tuple(f"class {n}" for n in range(num_classes))
    return replace(FACTS, class_names=names, image_size=image_size)


def network(layers: Rows, num_classes: int = 10, **settings: Any) -> S9Net:
    torch.manual_seed(0)
    return S9Net(hand_made(layers, **settings), facts(num_classes))


def layer_of(model: S9Net, name: str) -> Layer:
    layer = model.layers[name]
    assert isinstance(layer, Layer)
    return layer


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def ins_and_outs(model: S9Net, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """What came into each layer, what each layer made of it, and the logits."""
    ins: list[torch.Tensor] = []
    outs: list[torch.Tensor] = []

    def keep(_: nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
        ins.append(given[0])
        outs.append(made)

    handles = [layer.register_forward_hook(keep) for layer in model.layers.values()]
    with torch.no_grad():
        logits = model(images)
    for handle in handles:
        handle.remove()
    return ins, outs, logits


def random_images(count: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_reference_has_the_reported_parameters() -> None:
    assert sum(p.numel() for p in S9Net(model_config("reference"), FACTS).parameters()) == 162_296


def test_all_parameters_of_the_reference_are_trainable() -> None:
    assert all(p.requires_grad for p in S9Net(model_config("reference"), FACTS).parameters())


def test_reference_has_the_reported_rows_in_their_order() -> None:
    assert list(S9Net(model_config("reference"), FACTS).layers) == [name for name, _, _ in REFERENCE]


def test_reference_has_no_biases_in_its_convolutions() -> None:
    assert all(conv.bias is None for conv in convolutions(S9Net(model_config("reference"), FACTS)))


@pytest.mark.parametrize(("position", "shape"), [(i, shape) for i, (_, shape, _) in enumerate(REFERENCE)])
def test_each_row_of_the_reference_gives_the_reported_shape(position: int, shape: tuple[int, int, int]) -> None:
    _, outs, _ = ins_and_outs(S9Net(model_config("reference"), FACTS).eval(), random_images(1))
    assert outs[position].shape == (1, *shape)


@pytest.mark.parametrize(("name", "weights"), [(name, weights) for name, _, weights in REFERENCE])
def test_each_row_of_the_reference_has_the_reported_weights(name: str, weights: int) -> None:
    layer = S9Net(model_config("reference"), FACTS).layers[name]
    assert sum(conv.weight.numel() for conv in convolutions(layer)) == weights


@pytest.mark.parametrize("name", MODELS)
def test_every_option_runs_forward_and_backward(name: str) -> None:
    torch.manual_seed(0)
    model = S9Net(model_config(name), FACTS)
    F.cross_entropy(model(random_images(2)), torch.tensor([3, 7])).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("num_classes", "image_size"), [(2, 32), (100, 33), (10, 48), (37, 64)])
def test_every_option_takes_other_classes_and_image_sizes(name: str, num_classes: int, image_size: int) -> None:
    model = S9Net(model_config(name), facts(num_classes, image_size)).eval()
    with torch.no_grad():
        assert model(random_images(1, image_size)).shape == (1, num_classes)


def test_frontier_dilated_has_at_every_fourth_pixel_the_numbers_of_its_sparse_form() -> None:
    sparse = composed("model=frontier", "+model.blocks.C1.conv3.dilation=2").model
    of_few, of_all = S9Net(sparse, FACTS).eval(), S9Net(model_config("frontier_dilated"), FACTS).eval()
    of_all.load_state_dict(of_few.state_dict())
    with torch.no_grad():
        few, every = (model.layer_outputs(random_images(2))[-1] for model in (of_few, of_all))
    torch.testing.assert_close(every[:, :, ::4, ::4], few, rtol=1e-4, atol=1e-5)
    assert every.shape[2:] == (32, 32)
    assert not torch.allclose(every[:, :, 1::4, 1::4], few, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_every_option_stores_its_filters_channels_last(name: str) -> None:
    convs = convolutions(S9Net(model_config(name), FACTS))
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convs)


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (network({"conv1": {"channels": 8}}).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


SEPARABLE = {"conv1": {"channels": 6}, "conv2": {"channels": 10, "separable": True, "stride": 2, "dilation": 2}}


def test_a_separable_layer_is_two_convolutions_and_nothing_between() -> None:
    layer = layer_of(network(SEPARABLE), "C1_conv2")
    assert [isinstance(m, nn.Conv2d) for m in layer.conv.children()] == [True, True]


def test_a_separable_layer_starts_depthwise() -> None:
    depthwise, _ = convolutions(network(SEPARABLE).layers["C1_conv2"])
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 6


def test_a_separable_layer_keeps_kernel_stride_and_dilation_in_its_depthwise_part() -> None:
    depthwise, _ = convolutions(network(SEPARABLE).layers["C1_conv2"])
    assert (depthwise.kernel_size, depthwise.stride, depthwise.dilation) == ((3, 3), (2, 2), (2, 2))


def test_a_separable_layer_ends_in_an_ordinary_pointwise_convolution() -> None:
    _, pointwise = convolutions(network(SEPARABLE).layers["C1_conv2"])
    assert (pointwise.kernel_size, pointwise.stride, pointwise.groups) == ((1, 1), (1, 1), 1)
    assert (pointwise.in_channels, pointwise.out_channels) == (6, 10)


@pytest.mark.parametrize("name", MODELS)
def test_every_separable_row_of_every_option_is_depthwise_then_pointwise(name: str) -> None:
    config = model_config(name)
    model = S9Net(config, FACTS)
    for row, layer in rows(config):
        if layer.separable:
            depthwise, pointwise = convolutions(model.layers[row.replace(".", "_")])
            assert depthwise.groups == depthwise.in_channels > 1, row
            assert pointwise.kernel_size == (1, 1), row


@pytest.mark.parametrize("residual", [1, 2, 3])
def test_residual_adds_exactly_what_came_in_so_many_layers_before(residual: int) -> None:
    names = [f"conv{i}" for i in range(1, 6)]
    layers: Rows = {name: {"channels": 8} for name in names}
    layers["conv4"]["residual"] = residual
    ins, outs, _ = ins_and_outs(network(layers).eval(), random_images())
    assert torch.equal(ins[4], outs[3] + ins[4 - residual])


def test_without_residual_a_layer_gets_what_the_one_before_made() -> None:
    ins, outs, _ = ins_and_outs(network({"conv1": {"channels": 8}, "conv2": {"channels": 8}}).eval(), random_images())
    assert torch.equal(ins[1], outs[0])


def test_a_residual_path_can_begin_at_the_image() -> None:
    images = random_images()
    layers: Rows = {"conv1": {"channels": 3}, "conv2": {"channels": 3, "residual": 2}, "conv3": {"channels": 8}}
    ins, outs, _ = ins_and_outs(network(layers).eval(), images)
    assert torch.equal(ins[2], outs[1] + images)


def test_a_residual_path_can_end_at_the_logits() -> None:
    layers: Rows = {"conv1": {"channels": 7}, "conv2": {"channels": None, "residual": 1}}
    ins, outs, logits = ins_and_outs(network(layers, num_classes=7, head=False).eval(), random_images())
    torch.testing.assert_close(logits, (outs[1] + ins[1]).mean(dim=(2, 3)))


def test_residual_counts_across_blocks() -> None:
    blocks: Any = {"C1": {"conv1": {"channels": 8}}, "C2": {"conv1": {"channels": 8, "residual": 1}}}
    config = ModelConfig("two", 0.0, "relu", whiten=False, head=True, blocks=blocks)
    model = S9Net(config, FACTS).eval()
    ins, outs, logits = ins_and_outs(model, random_images())
    torch.testing.assert_close(logits, model.head((outs[1] + ins[1]).mean(dim=(2, 3))))


DROPOUTS: Rows = {
    "conv1": {"channels": 8},
    "conv2": {"channels": 8, "dropout": 0.5},
    "conv3": {"channels": 8, "dropout": 0.0},
}


@pytest.mark.parametrize(("name", "rate"), [("C1_conv1", 0.1), ("C1_conv2", 0.5)])
def test_a_dropout_of_the_row_wins_over_that_of_the_model(name: str, rate: float) -> None:
    dropout = layer_of(network(DROPOUTS, dropout=0.1), name).dropout
    assert isinstance(dropout, nn.Dropout2d)
    assert dropout.p == rate


def test_a_row_without_dropout_has_no_dropout_module() -> None:
    modules = network(DROPOUTS, dropout=0.1).layers["C1_conv3"].modules()
    assert not any(isinstance(m, nn.Dropout2d) for m in modules)


def test_a_model_without_dropout_has_no_dropout_module() -> None:
    assert not any(isinstance(m, nn.Dropout2d) for m in network({"conv1": {"channels": 8}}, dropout=0.0).modules())


def test_dropout_takes_whole_maps_while_training() -> None:
    model = network({"conv1": {"channels": 64}}, dropout=0.5, activation="silu").train()
    out = model.layers["C1_conv1"](random_images())
    zeros = (out == 0).float().mean(dim=(2, 3))  # of each map, the part that is zero
    assert set(zeros.unique().tolist()) == {0.0, 1.0}


def test_dropout_does_nothing_while_testing() -> None:
    layers: Rows = {"conv1": {"channels": 8}, "conv2": {"channels": 8}}
    with_dropout, without = network(layers, dropout=0.5).eval(), network(layers, dropout=0.0).eval()
    with torch.no_grad():
        assert torch.equal(with_dropout(random_images()), without(random_images()))


@pytest.mark.parametrize(("word", "kind"), [("relu", nn.ReLU), ("gelu", nn.GELU), ("silu", nn.SiLU)])
def test_the_activation_is_the_one_that_is_named(word: str, kind: type[nn.Module]) -> None:
    model = network({"conv1": {"channels": 8}, "conv2": {"channels": 8}}, activation=word)
    assert [type(layer_of(model, name).activation) for name in model.layers] == [kind, kind]


HEADLESS: Rows = {"conv1": {"channels": 8}, "conv2": {"channels": None}}


def test_without_a_head_the_logits_are_the_average_of_the_last_maps() -> None:
    _, outs, logits = ins_and_outs(network(HEADLESS, head=False).eval(), random_images())
    torch.testing.assert_close(logits, outs[-1].mean(dim=(2, 3)))


def test_without_a_head_the_last_layer_is_its_convolution_alone() -> None:
    layer = layer_of(network(HEADLESS, head=False, dropout=0.3), "C1_conv2")
    images = torch.randn(2, 8, 16, 16)
    assert torch.equal(layer.train()(images), layer.conv(images))


def test_without_a_head_there_is_no_fully_connected_layer() -> None:
    assert not any(isinstance(m, nn.Linear) for m in network(HEADLESS, head=False).modules())


def test_with_a_head_the_logits_are_its_product_with_the_averages() -> None:
    model = network({"conv1": {"channels": 8}, "conv2": {"channels": 12}}).eval()
    _, outs, logits = ins_and_outs(model, random_images())
    assert isinstance(model.head, nn.Linear)
    by_hand = outs[-1].mean(dim=(2, 3)) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(logits, by_hand)


def test_with_a_head_the_last_layer_has_norm_and_activation() -> None:
    layer = layer_of(network({"conv1": {"channels": 8}}), "C1_conv1")
    assert (type(layer.norm), type(layer.activation)) == (nn.BatchNorm2d, nn.ReLU)


BAD_ROWS: dict[str, tuple[Rows, bool, str]] = {
    "groups that do not divide what comes in": (
        {"conv1": {"channels": 9}, "conv2": {"channels": 8, "groups": 4}},
        True,
        "model.blocks.C1.conv2.groups=4:",
    ),
    "groups that do not divide what goes out": (
        {"conv1": {"channels": 8}, "conv2": {"channels": 9, "groups": 4}},
        True,
        "model.blocks.C1.conv2.groups=4:",
    ),
    "an image shrunk to nothing": (
        {"conv1": {"channels": 8, "stride": 16}, "conv2": {"channels": 8, "padding": 0}},
        True,
        "model.blocks.C1.conv2: leaves no pixel of a 2 x 2 input",
    ),
    "residual between different channels": (
        {"conv1": {"channels": 8}, "conv2": {"channels": 9, "residual": 1}},
        True,
        "model.blocks.C1.conv2.residual=1:",
    ),
    "residual between different sizes": (
        {"conv1": {"channels": 8}, "conv2": {"channels": 8, "residual": 1, "stride": 2}},
        True,
        "model.blocks.C1.conv2.residual=1:",
    ),
    "null channels before the end": (
        {"conv1": {"channels": None}, "conv2": {"channels": None}},
        False,
        "model.blocks.C1.conv1.channels=null: must be a number",
    ),
    "null channels before a head": (
        {"conv1": {"channels": 8}, "conv2": {"channels": None}},
        True,
        "model.blocks.C1.conv2.channels=null: must be a number",
    ),
}


@pytest.mark.parametrize(("layers", "head", "said"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_built_is_named_in_one_line(layers: Rows, head: bool, said: str) -> None:
    with pytest.raises(UserError) as caught:
        network(layers, head=head)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def coloured() -> ImageSet:
    """64 images whose neighbouring pixels and channels go together, as in photographs."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 160, (64, 8, 8, 1)).repeat(4, axis=1).repeat(4, axis=2)
    images = (coarse + rng.integers(0, 96, (64, 32, 32, 3))).astype(np.uint8)
    split = Split(images, np.arange(64) % 10)
    splits = {"train": split, "test": split}
    return image_set_of("coloured noise", "0123456789", splits, val_size=0, seed=0)


WHITENED: Rows = {"conv1": {"channels": 24}, "conv2": {"channels": 8}}


def whitened(data: ImageSet, channels: int = 24) -> S9Net:
    torch.manual_seed(0)
    layers: Rows = {"conv1": {"channels": channels}, "conv2": {"channels": 8}}
    return build_model(hand_made(layers, whiten=True), data)


def first_filters(model: S9Net) -> torch.Tensor:
    return convolutions(model)[0].weight.detach()


def unpaired(filters: torch.Tensor) -> list[int]:
    """Filters whose exact opposite is not among the others."""
    return [i for i, f in enumerate(filters) if not any(torch.equal(f, -other) for other in filters)]


def test_whitened_filters_come_in_pairs_of_opposite_sign(coloured: ImageSet) -> None:
    assert unpaired(first_filters(whitened(coloured))) == []


def test_of_an_odd_number_of_whitened_filters_one_has_no_opposite(coloured: ImageSet) -> None:
    assert len(unpaired(first_filters(whitened(coloured, channels=9)))) == 1


def test_more_filters_than_patch_directions_are_whitened_in_27_pairs(coloured: ImageSet) -> None:
    assert len(unpaired(first_filters(whitened(coloured, channels=60)))) == 60 - 2 * 27


def test_without_whitening_no_filter_has_an_opposite(coloured: ImageSet) -> None:
    torch.manual_seed(0)
    assert len(unpaired(first_filters(build_model(hand_made(WHITENED), coloured)))) == 24


def test_whitened_responses_on_the_training_patches_are_decorrelated(coloured: ImageSet) -> None:
    pairs = first_filters(whitened(coloured))[:12]
    raw = torch.from_numpy(coloured.train.images).permute(0, 3, 1, 2)
    host = Compute(torch.device("cpu"), torch.float32)
    images = host.normalised(raw, coloured.facts.mean, coloured.facts.std)
    responses = F.conv2d(images, pairs).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(torch.cov(responses), torch.eye(12).double(), atol=0.02, rtol=0)


def test_whitened_filters_stay_trainable(coloured: ImageSet) -> None:
    model = whitened(coloured)
    before = first_filters(model).clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(random_images()), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    assert not torch.equal(first_filters(model), before)


def test_whitening_keeps_filters_channels_last(coloured: ImageSet) -> None:
    assert convolutions(whitened(coloured))[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_whitening_refuses_a_first_layer_that_is_not_ordinary(coloured: ImageSet) -> None:
    config = hand_made({"conv1": {"channels": 8, "separable": True}}, whiten=True)
    with pytest.raises(UserError, match=r"^model\.whiten=true: .*ordinary convolution$"):
        build_model(config, coloured)


def test_build_model_takes_classes_and_image_size_from_the_data(coloured: ImageSet) -> None:
    three = replace(coloured, facts=facts(num_classes=3))
    assert whitened(three)(random_images(2)).shape == (2, 3)


@pytest.mark.parametrize("name", MODELS)
def test_build_model_whitens_the_options_that_ask_for_it(name: str, coloured: ImageSet) -> None:
    config = model_config(name)
    torch.manual_seed(0)
    paired = len(unpaired(first_filters(build_model(config, coloured)))) <= 1
    assert paired == config.whiten


def test_head_false_alone_makes_the_last_layer_give_a_map_a_class() -> None:
    config = compose_config(["model=strided", "model.head=false"]).model
    model = S9Net(config, facts(num_classes=7))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert isinstance(model.head, nn.Identity)


@pytest.mark.parametrize(("batch_size", "image_size", "refused"), [(1, 8, True), (2, 8, False), (1, 32, False)])
def test_a_batch_norm_of_a_single_value_is_refused_with_what_to_set(
    batch_size: int, image_size: int, refused: bool
) -> None:
    model = S9Net(compose_config(["data=digits", "model=strided"]).model, facts(image_size=image_size))
    images = torch.randn(batch_size, 3, image_size, image_size)
    if refused:
        with pytest.raises(UserError, match=r"C3_conv3 gives 1 x 1 pixels .*; set trainer.batch_size=2 or more"):
            refuse_single_values(model, batch_size)
        with pytest.raises(ValueError, match="more than 1 value per channel"):  # what torch says of it
            model.train()(images)
    else:
        refuse_single_values(model, batch_size)
        assert torch.isfinite(model.train()(images)).all()
