"""The keys of a network's configuration, layers as rows. The values are in conf/model/; nothing is stated twice."""

from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s9.system.errors import UserError, nearest, require


@dataclass
class LayerConfig:
    """One row of the network's table: a convolution with norm, activation and dropout."""

    channels: int | None = MISSING  # null: one per class, no norm, activation, dropout (last layer, without a head)
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int | None = None  # null: dilation * (kernel_size - 1) // 2; keeps the size of an odd kernel at stride 1
    groups: int = 1
    separable: bool = False  # a depthwise convolution, then a pointwise one
    pool: int = 1  # max pooling after the convolution: pixels on a side of each window; 1: none
    residual: int = 0  # the residual path over so many layers, this one included; 0: none
    dropout: float | None = None  # null: model.dropout


LAYER = OmegaConf.structured(LayerConfig)


def _typed_layer(key: str, row: Any) -> LayerConfig:
    """The row of conf/model as a LayerConfig. OmegaConf cannot type a mapping of mappings, so this function does."""
    if isinstance(row, LayerConfig):
        return row
    if not isinstance(row, dict):
        raise UserError(f"{key}={row}: must be a row such as {{channels: 32, stride: 2}}")
    known = [f.name for f in fields(LayerConfig)]
    for name, value in row.items():
        if name not in known:
            raise UserError(f"{key}.{name}={value}: there is no such key{nearest(str(name), known)}")
    try:
        layer: Any = OmegaConf.to_object(OmegaConf.merge(LAYER, row))
    except OmegaConfBaseException as error:
        raise UserError(f"{key}.{error.key}={row.get(error.key)}: {str(error).splitlines()[0]}") from None
    return layer


@dataclass
class ModelConfig:
    name: str = MISSING
    dropout: float = MISSING  # 2-d dropout after each layer but the last
    activation: str = MISSING  # relu, gelu or silu
    whiten: bool = MISSING  # first layer starts as a whitening of the training patches
    head: bool = MISSING  # a fully connected layer after the average; false: the last layer gives one map per class
    blocks: dict[str, Any] = MISSING  # C1 to C4, each a map of rows; typed LayerConfig below
    known_weak_points: dict[str, str] = field(default_factory=dict)  # by rule of s9.check: why it is broken on purpose

    def __post_init__(self) -> None:
        require("model.dropout", self.dropout, 0 <= self.dropout < 1, "in [0, 1)")
        require("model.activation", self.activation, self.activation in ("relu", "gelu", "silu"), "relu, gelu or silu")
        position = 0
        for block, layers in self.blocks.items():
            require(f"model.blocks.{block}", layers, isinstance(layers, dict), "a map of rows")
            for name, row in layers.items():
                key = f"model.blocks.{block}.{name}"
                layers[name] = layer = _typed_layer(key, row)
                self._check_layer(key, layer, position)
                position += 1
        require("model.blocks", "{}", position > 0, "at least one layer")

    def _check_layer(self, key: str, layer: LayerConfig, position: int) -> None:
        for attribute in ("kernel_size", "stride", "dilation", "groups", "pool"):
            value = getattr(layer, attribute)
            require(f"{key}.{attribute}", value, value >= 1, "1 or more")
        if layer.channels is not None:
            require(f"{key}.channels", layer.channels, layer.channels >= 1, "1 or more")
        if layer.padding is not None:
            require(f"{key}.padding", layer.padding, layer.padding >= 0, "0 or more")
        if layer.dropout is not None:
            require(f"{key}.dropout", layer.dropout, 0 <= layer.dropout < 1, "in [0, 1)")
        require(f"{key}.residual", layer.residual, 0 <= layer.residual <= position + 1, f"from 0 to {position + 1}")
        require(f"{key}.groups", layer.groups, not layer.separable or layer.groups == 1, "1 where separable is true")
