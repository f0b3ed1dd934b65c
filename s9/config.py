"""What a run may contain: types, units and ranges. The values are in conf/, neither stands twice.

Every dataclass checks its own ranges when it is made, so a `Config` that exists is a valid one.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s9.components import build_batch_transform, build_transform, check_component, check_has_target
from s9.data_config import DATA_CONFIGS
from s9.data_config import Cifar10Config as Cifar10Config
from s9.data_config import DataConfig as DataConfig
from s9.data_config import DigitsConfig as DigitsConfig
from s9.data_config import FolderConfig as FolderConfig
from s9.errors import UserError, is_number, nearest, require


@dataclass
class MixConfig:
    """Mixing the images of a batch with each other."""

    name: str = MISSING  # cutmix or mixup
    alpha: float = MISSING  # of the Beta distribution of the shares
    p: float = MISSING  # part of the batches

    def __post_init__(self) -> None:
        require("aug.mix.name", self.name, self.name in ("cutmix", "mixup"), "cutmix or mixup")
        require("aug.mix.alpha", self.alpha, 0 < self.alpha < math.inf, "more than 0")
        require("aug.mix.p", self.p, 0 <= self.p <= 1, "a probability from 0 to 1")


@dataclass
class AugConfig:
    """A map of albumentations transforms, applied in order; `fill: mean` stands for the data set's mean colour."""

    name: str = MISSING
    backend: str = MISSING  # device: batched tensor code where the images are; albumentations: per image, by workers
    transforms: dict[str, Any] = MISSING
    mix: MixConfig = MISSING

    def __post_init__(self) -> None:
        require("aug.backend", self.backend, self.backend in BACKENDS, " or ".join(BACKENDS))
        for name, transform in self.transforms.items():
            check_has_target(f"aug.transforms.{name}", transform)
            if "p" in transform:
                p = transform["p"]
                require(f"aug.transforms.{name}.p", p, is_number(p) and 0 <= p <= 1, "a probability from 0 to 1")
            if self.backend == "device":
                build_batch_transform(name, transform, fill=0)  # the transforms judge the values
            else:
                check_component(f"aug.transforms.{name}", transform, "aug")
                build_transform(name, transform, fill=0)


BACKENDS = ("device", "albumentations")


@dataclass
class LayerConfig:
    """One row of the network's table: a convolution with norm, activation and dropout."""

    channels: int | None = MISSING  # null: one a class, without norm, activation and dropout (last, without a head)
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int | None = None  # null: dilation * (kernel_size - 1) / 2, which keeps the size at stride 1
    groups: int = 1
    separable: bool = False  # a depthwise convolution, then a pointwise one
    residual: int = 0  # add what came in so many layers before; 0: no residual path
    dropout: float | None = None  # null: model.dropout


def _typed_layer(key: str, row: Any) -> LayerConfig:
    """A row of conf/model as a LayerConfig. OmegaConf cannot type a mapping of mappings, so it is done here."""
    if isinstance(row, LayerConfig):
        return row
    if not isinstance(row, dict):
        raise UserError(f"{key}={row}: must be a row such as {{channels: 32, stride: 2}}")
    known = [f.name for f in fields(LayerConfig)]
    for name, value in row.items():
        if name not in known:
            raise UserError(f"{key}.{name}={value}: there is no such key{nearest(str(name), known)}")
        try:
            OmegaConf.merge(OmegaConf.structured(LayerConfig), {name: value})
        except OmegaConfBaseException as error:
            raise UserError(f"{key}.{name}={value}: {str(error).splitlines()[0]}") from None
    layer: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LayerConfig), row))
    return layer


@dataclass
class ModelConfig:
    name: str = MISSING
    dropout: float = MISSING  # 2-d dropout after each layer but the last
    activation: str = MISSING  # relu, gelu or silu
    whiten: bool = MISSING  # first layer starts as a whitening of the training patches
    head: bool = MISSING  # a fully connected layer after the average; false: the last layer gives a map a class
    blocks: dict[str, Any] = MISSING  # C1 to C4, each a map of rows; typed LayerConfig below
    known_weak_points: dict[str, str] = field(default_factory=dict)  # rule of s9.check: why it is broken on purpose

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
        for attribute in ("kernel_size", "stride", "dilation", "groups"):
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


@dataclass
class TrainerConfig:
    epochs: int = MISSING
    batch_size: int = MISSING  # images
    steps_per_epoch: int | None = MISSING  # null: all of train
    label_smoothing: float = MISSING
    ema_decay: float = MISSING  # per step; 0: off
    clip_norm: float | None = MISSING  # null: no clipping
    device: str = MISSING
    devices: int = MISSING  # that train together, each with its part of every batch
    threads: int | None = None  # that compute on a CPU, of each process; null: one a core, shared out over devices
    precision: str = MISSING
    compile: bool = MISSING
    save_every: float = MISSING  # seconds between checkpoints within an epoch; each epoch ends with one anyway

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "steps_per_epoch", "threads"):
            value, null = getattr(self, key), ", or null" if key in ("steps_per_epoch", "threads") else ""
            require(f"trainer.{key}", value, value is None or value >= 1, f"1 or more{null}")
        require("trainer.label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "in [0, 1)")
        require("trainer.ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "in [0, 1)")
        if self.clip_norm is not None:
            require("trainer.clip_norm", self.clip_norm, 0 < self.clip_norm < math.inf, "more than 0, or null")
        require("trainer.save_every", self.save_every, self.save_every >= 0, "0 (after every step) or more seconds")
        require("trainer.precision", self.precision, self.precision in PRECISIONS, " or ".join(PRECISIONS))
        kind, _, index = self.device.partition(":")
        valid = kind in ("auto", "cpu", "cuda", "mps") and (not index or (kind == "cuda" and index.isdigit()))
        require("trainer.device", self.device, valid, "auto, cpu, cuda, cuda:<number> or mps")
        require("trainer.devices", self.devices, 1 <= self.devices <= 64, "from 1 to 64")
        one = self.devices == 1 or not index
        require("trainer.device", self.device, one, "cuda, without a number, where trainer.devices is more than 1")


PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass
class WandbConfig:
    mode: str = MISSING
    project: str | None = MISSING
    entity: str | None = MISSING
    group: str | None = MISSING
    tags: list[str] = MISSING
    job_type: str | None = MISSING
    timeout: float = MISSING  # seconds

    def __post_init__(self) -> None:
        modes = ("auto", "online", "offline", "disabled")
        require("wandb.mode", self.mode, self.mode in modes, ", ".join(modes))
        require("wandb.timeout", self.timeout, 0 < self.timeout <= 20, "more than 0 and at most 20 seconds")


@dataclass
class DistillationConfig:
    """How much a teacher counts, where there is one. The values here stand for runs that are older than these keys."""

    share: float = 0.7  # of the loss; the rest is the true labels'
    temperature: float = 2.0  # that softens the probabilities of both

    def __post_init__(self) -> None:
        require("distillation.share", self.share, 0 < self.share <= 1, "more than 0, at most 1")
        require("distillation.temperature", self.temperature, 0.1 <= self.temperature <= 100, "from 0.1 to 100")


@dataclass
class Config:
    """The whole of one run."""

    data: DataConfig = MISSING
    aug: AugConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: dict[str, Any] = MISSING  # _target_, lr, weight_decay and what the target knows
    scheduler: dict[str, Any] = MISSING  # _target_ and what the target knows
    trainer: TrainerConfig = MISSING
    wandb: WandbConfig = MISSING
    init_from: str | None = None  # weights to start from: a finished run's folder, or a file of its weights/
    teacher: str | None = None  # to learn from; of both, several are joined as in PATH, by os.pathsep
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    name: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for key, value in vars(self.distillation).items():
            alone = getattr(DistillationConfig, key)
            used = self.teacher is not None or value == alone
            require(f"distillation.{key}", value, used, f"{alone} without a teacher; add teacher=<a run>")
        require("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")
        fits = self.aug.backend == "device" or self.data.loader == "workers"
        wanted = "device with data.loader=resident; add data.loader=workers (and data.workers=2, say)"
        require("aug.backend", self.aug.backend, fits, wanted)
        check_component("optimizer", self.optimizer, "optimizer")
        check_component("scheduler", self.scheduler, "scheduler")
        for key, low_allowed in (("lr", False), ("weight_decay", True)):
            value = self.optimizer.get(key, MISSING if key == "lr" else 0)
            holds = is_number(value) and (0 < value < math.inf or (low_allowed and value == 0))
            require(f"optimizer.{key}", value, holds, "a number, 0 or more" if low_allowed else "a number more than 0")
        for key in ("warmup", "start"):
            value = self.scheduler.get(key, 0)
            require(f"scheduler.{key}", value, is_number(value) and 0 <= value <= 1, "from 0 to 1")

    @property
    def run_name(self) -> str:
        return self.name or f"{self.model.name}-{self.aug.name}-{self.data.name}"


def to_config(composed: DictConfig) -> Config:
    """The composed configuration as checked dataclasses.

    Raises:
        UserError: a key that nothing reads, a missing one, a wrong type or a value out of range.
    """
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from None
    if not isinstance(config, Config):
        raise UserError("the configuration is not one of s9: start from conf/config.yaml")
    refuse_extra_keys(composed, config, "")
    return config


def refuse_extra_keys(composed: DictConfig, typed: Any, path: str) -> None:
    """`to_object` keeps a `+new.key=1` silently; a key that nothing reads is refused here."""
    known = {f.name for f in fields(typed)}
    for key in composed:
        name = str(key)
        if name not in known:
            raise UserError(f"{path}{name}: there is no such key{nearest(name, sorted(known))}")
        value = getattr(typed, name)
        if is_dataclass(value):
            refuse_extra_keys(composed[key], value, f"{path}{name}.")


def register_schemas() -> None:
    """Tells Hydra the types, so that unknown keys and wrong types fail at composition."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, node in DATA_CONFIGS.items():
        store.store(group="data", name=f"{name}_schema", node=node)
