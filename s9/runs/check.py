"""Checks of a configuration before a run starts, made by the packages that will build what it names."""

from s9.config.components import check_target
from s9.config.data import OwnConfig
from s9.config.schema import Config
from s9.data.augmentation.augment import built_transforms
from s9.runs.donors import donors_of
from s9.training.optim import check_settings


def check_values(config: Config) -> None:
    """Raises UserError where a `_target_` does not exist, or a transform, optimizer or schedule refuses a value."""
    built_transforms(config.aug, fill=0)
    check_settings(config.optimizer, config.scheduler)
    if isinstance(config.data, OwnConfig):
        check_target("data", config.data._target_, "data")


def check_donors(config: Config) -> None:
    """Raises UserError if a run that init_from= or teacher= names is missing or does not fit."""
    donors_of(config)
