"""The network as data: one class builds whatever rows conf/model/*.yaml lists (C1 C2 C3 C4, average, head)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from s9.config.model import LayerConfig, ModelConfig
from s9.data.image_set import ImageFacts, ImageSet
from s9.models.convolution import Convolution
from s9.system.compute import Compute
from s9.system.errors import UserError

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
WHITENING_PIXELS = 1000 * 32 * 32  # pixels of train, which give about as many patches; more change little


def padding_of(layer: LayerConfig) -> int:
    """The padding in pixels on each side; by default the one that keeps the size at stride 1, of odd kernels."""
    return layer.dilation * (layer.kernel_size - 1) // 2 if layer.padding is None else layer.padding


def rows(config: ModelConfig) -> Iterator[tuple[str, LayerConfig]]:
    """(`C1.conv1`, layer) for each layer, in order. Without a head, the last layer's channels are None: one per class.

    Raises:
        UserError: the channels of another row are null.
    """
    named = [(f"{block}.{name}", layer) for block, layers in config.blocks.items() for name, layer in layers.items()]
    for position, (name, layer) in enumerate(named, start=1):
        if position == len(named) and not config.head:
            yield name, replace(layer, channels=None)
        elif layer.channels is None:
            raise UserError(
                f"model.blocks.{name}.channels=null: must be a number; only the last layer without a head has none"
            )
        else:
            yield name, layer


def _convolution(row: LayerConfig, in_channels: int, channels: int, groups: int) -> Convolution:
    shape = {"stride": row.stride, "padding": padding_of(row), "dilation": row.dilation, "groups": groups}
    return Convolution(in_channels, channels, row.kernel_size, **shape)


class Layer(nn.Module):
    """Convolution, max pooling, batch norm, activation, 2-d dropout. (B, in_channels, H, W) -> (B, channels, H', W').

    With `last`, for the last layer of a network without a head, a convolution alone gives one map per class.
    """

    def __init__(
        self, config: LayerConfig, in_channels: int, channels: int, *, activation: str, dropout: float, last: bool
    ):
        super().__init__()
        self.conv: nn.Module
        if config.separable:  # Howard et al., "MobileNets", 2017, without the norm in between
            depthwise = _convolution(config, in_channels, in_channels, groups=in_channels)
            self.conv = nn.Sequential(depthwise, Convolution(in_channels, channels, 1))
        else:
            self.conv = _convolution(config, in_channels, channels, config.groups)
        self.pool = nn.MaxPool2d(config.pool) if config.pool > 1 else nn.Identity()
        self.norm = nn.Identity() if last else nn.BatchNorm2d(channels)
        self.activation = nn.Identity() if last else ACTIVATIONS[activation]()
        self.dropout = nn.Identity() if last or dropout == 0 else nn.Dropout2d(dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.activation(self.norm(self.pool(self.conv(images)))))


class S9Net(nn.Module):
    """images (B, 3, H, W) -> logits (B, num_classes), for images of the size and classes that `facts` name.

    Raises:
        UserError: names the row that cannot be built: a group count does not divide the channels, the image shrinks to
            nothing, or a residual path joins different shapes.
    """

    def __init__(self, config: ModelConfig, facts: ImageFacts):
        super().__init__()
        self.config = config
        named = list(rows(config))
        shapes = [(3, facts.image_size)]  # the input of each layer: channels, pixels on a side
        self.layers = nn.ModuleDict()
        for name, layer in named:
            last = layer.channels is None
            out = layer_output(f"model.blocks.{name}", layer, shapes, facts.num_classes)
            dropout = config.dropout if layer.dropout is None else layer.dropout
            self.layers[name.replace(".", "_")] = Layer(
                layer, shapes[-1][0], out[0], activation=config.activation, dropout=dropout, last=last
            )
            shapes.append(out)
        self.sizes = [size for _, size in shapes[1:]]  # of each layer's output, pixels on a side
        self.residuals = [layer.residual for _, layer in named]
        self.head = nn.Linear(shapes[-1][0], facts.num_classes) if config.head else nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer_outputs(images)[-1].float().mean(dim=(2, 3)))

    def layer_outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The output (B, channels, H', W') of each layer, residual path added; the head sees the mean of the last."""
        found = [images]
        for layer, residual in zip(self.layers.values(), self.residuals, strict=True):
            out = layer(found[-1])
            found.append(out + found[-residual] if residual else out)
        return found[1:]


def build_model(config: ModelConfig, data: ImageSet) -> S9Net:
    """The network for these images; with `whiten`, its first layer starts as a whitening of training patches.

    Raises:
        UserError: names the row that cannot be built.
    """
    model = S9Net(config, data.facts)
    if config.whiten:
        count = max(1, WHITENING_PIXELS // data.facts.image_size**2)
        images = torch.from_numpy(np.asarray(data.examples(count).images)).permute(0, 3, 1, 2)
        host = Compute(torch.device("cpu"), torch.float32)
        whiten_first_layer(model, host.normalised(images, data.facts.mean, data.facts.std))
    return model


def refuse_single_values(model: S9Net, batch_size: int) -> None:
    """Raises UserError if a batch norm would see one value per channel, which has no variance."""
    for (name, layer), size in zip(model.layers.items(), model.sizes, strict=True):
        if batch_size * size**2 == 1 and isinstance(layer.norm, nn.BatchNorm2d):
            raise UserError(
                f"trainer.batch_size=1: batch norm needs more than one value per channel, and {name} gives 1 x 1 "
                "pixels of images this small; set trainer.batch_size=2 or more, or larger images"
            )


def convolved_size(layer: LayerConfig, size: int) -> int:
    """Pixels on a side after the convolution alone, before any pooling, of images of `size` pixels."""
    return (size + 2 * padding_of(layer) - layer.dilation * (layer.kernel_size - 1) - 1) // layer.stride + 1


def layer_output(key: str, layer: LayerConfig, shapes: list[tuple[int, int]], num_classes: int) -> tuple[int, int]:
    """(channels, pixels) of the output of `layer`; `shapes`: the inputs of the layers up to this one.

    Raises:
        UserError: the row cannot be built.
    """
    in_channels, size = shapes[-1]
    channels = num_classes if layer.channels is None else layer.channels
    if in_channels % layer.groups or channels % layer.groups:
        raise UserError(f"{key}.groups={layer.groups}: must divide both {in_channels} and {channels} channels")
    size = convolved_size(layer, size) // layer.pool
    if size < 1:
        raise UserError(
            f"{key}: leaves no pixel of a {shapes[-1][1]} x {shapes[-1][1]} input; pad it or use less stride or pooling"
        )
    if layer.residual and shapes[-layer.residual] != (channels, size):
        before = "{} channels of {} x {}".format(shapes[-layer.residual][0], *[shapes[-layer.residual][1]] * 2)
        raise UserError(f"{key}.residual={layer.residual}: adds {before} to {channels} channels of {size} x {size}")
    return channels, size


def whiten_first_layer(model: S9Net, images: torch.Tensor, epsilon: float = 5e-4) -> None:
    """Starts the first layer as a whitening of the training patches, in pairs of opposite sign; it stays trainable.

    Source: Page, "How to Train Your ResNet 8: Bag of Tricks", 2019; airbench, Jordan, 2024 (there frozen).

    Args:
        images: normalised (N, 3, H, W); a few thousand suffice.
    """
    first = next(iter(model.layers.values())).conv
    if not isinstance(first, nn.Conv2d) or first.groups != 1:
        raise UserError("model.whiten=true: the first layer must be an ordinary convolution")
    count, channels, size, _ = first.weight.shape
    products, patches = torch.zeros(channels * size**2, channels * size**2, dtype=torch.float64), 0
    for some in images.cpu().contiguous().split(max(1, 100 * 32**2 // images[0, 0].numel())):  # 18 MB of patches
        columns = F.unfold(some, size).transpose(1, 2).reshape(-1, channels * size**2)
        products += (columns.T @ columns).double()
        patches += len(columns)
    values, vectors = torch.linalg.eigh(products / patches)
    filters = (vectors.T / torch.sqrt(values[:, None] + epsilon)).flip(0)[: count // 2].float()
    filters = filters.reshape(-1, channels, size, size).to(first.weight)
    with torch.no_grad():
        first.weight[: len(filters)] = filters
        first.weight[len(filters) : 2 * len(filters)] = -filters
