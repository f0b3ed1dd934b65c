"""The keys of a run's configuration: types, units and ranges. The values are in conf/; nothing is stated twice.

Every dataclass checks its own values when it is made, so a `Config` that exists is valid. The package that builds a
`_target_` checks whether its class takes the given arguments.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s9.config.components import check_form
from s9.config.data import DATA_CONFIGS, DataConfig
from s9.config.model import ModelConfig
from s9.config.sweep import SweepConfig
from s9.system.errors import UserError, is_number, nearest, require

BACKENDS = ("device", "albumentations")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass
class MixConfig:
    """Mixing the images of a batch with each other."""

    name: str = MISSING  # cutmix or mixup
    alpha: float = MISSING  # of the Beta distribution of the shares
    p: float = MISSING  # fraction of the batches that are mixed

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
            check_form(f"aug.transforms.{name}", transform, "aug")
            if "p" in transform:
                p = transform["p"]
                require(f"aug.transforms.{name}.p", p, is_number(p) and 0 <= p <= 1, "a probability from 0 to 1")


@dataclass
class ResolutionConfig:
    """Progressive resizing; fractions of the run. The defaults, no resizing, are those of older runs."""

    start: float = 1.0  # side of the first images, as a fraction of the whole ones'
    hold: float = 0.5  # until here the images stay as small as that
    full: float = 0.8  # from here on images are whole; in between they grow

    def __post_init__(self) -> None:
        require("trainer.resolution.start", self.start, 0 < self.start <= 1, "more than 0, at most 1 (1: off)")
        require("trainer.resolution.hold", self.hold, 0 <= self.hold <= 1, "from 0 to 1")
        wanted = f"from trainer.resolution.hold={self.hold} to 1"
        require("trainer.resolution.full", self.full, self.hold <= self.full <= 1, wanted)


@dataclass
class TrainerConfig:
    epochs: int = MISSING
    batch_size: int | None = MISSING  # images; null: 128, fewer where train is small
    steps_per_epoch: int | None = MISSING  # null: all of train
    label_smoothing: float = MISSING
    ema_decay: float = MISSING  # per step; 0: off
    clip_norm: float | None = MISSING  # null: no clipping
    device: str = MISSING
    devices: int = MISSING  # number that train together, each with its part of every batch
    threads: int | None = None  # CPU threads per process; null: one per core, shared among the devices
    precision: str = MISSING
    compile: bool = MISSING
    save_every: float = MISSING  # seconds between checkpoints within an epoch; each epoch ends with one anyway
    resolution: ResolutionConfig = field(default_factory=ResolutionConfig)

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "steps_per_epoch", "threads"):
            value, null = getattr(self, key), "" if key == "epochs" else ", or null"
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
    """The influence of a teacher, if a run has one. The defaults here are those of runs older than these keys."""

    share: float = 0.7  # of the loss that is the teacher's; the rest is the true labels'
    temperature: float = 2.0  # softens the probabilities of teacher and student
    views: int | None = None  # epochs whose images the teacher labels, and later epochs repeat; null: all

    def __post_init__(self) -> None:
        require("distillation.share", self.share, 0 < self.share <= 1, "more than 0, at most 1")
        require("distillation.views", self.views, self.views is None or self.views >= 1, "1 or more, or null")
        require("distillation.temperature", self.temperature, 0.1 <= self.temperature <= 100, "from 0.1 to 100")


@dataclass
class Config:
    """The whole configuration of one run."""

    data: DataConfig = MISSING
    aug: AugConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: dict[str, Any] = MISSING  # _target_, lr, weight_decay and the target's other arguments
    scheduler: dict[str, Any] = MISSING  # _target_ and the target's arguments
    trainer: TrainerConfig = MISSING
    wandb: WandbConfig = MISSING
    init_from: str | None = None  # weights to start from: a finished run's folder, or a file of its weights/
    transfer_lr: float = 0.2  # if these have learned other classes, all learning rates are multiplied by this
    teacher: str | None = None  # weights to learn from; several of either key: joined by os.pathsep, as in PATH
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    name: str | None = None
    seed: int = 0
    sweep: SweepConfig = field(default_factory=SweepConfig)

    def __post_init__(self) -> None:
        for key, value in vars(self.distillation).items():
            alone = getattr(DistillationConfig, key)
            used = self.teacher is not None or value == alone
            require(f"distillation.{key}", value, used, f"{alone} without a teacher; add teacher=<a run>")
        require("transfer_lr", self.transfer_lr, 0 < self.transfer_lr <= 1, "more than 0, at most 1")
        used = self.init_from is not None or self.transfer_lr == Config.transfer_lr
        require("transfer_lr", self.transfer_lr, used, f"{Config.transfer_lr} without init_from; add init_from=<a run>")
        require("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")
        fits = self.aug.backend == "device" or self.data.loader != "resident"
        wanted = "device with data.loader=resident; add data.loader=workers (and data.workers=2, say)"
        require("aug.backend", self.aug.backend, fits, wanted)
        check_form("optimizer", self.optimizer, "optimizer")
        check_form("scheduler", self.scheduler, "scheduler")
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
