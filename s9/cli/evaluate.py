"""The arguments of s9.evaluate: which images a run is scored on, from the run's own data or an option of conf/data."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s9.cli.compose import compose_config
from s9.cli.mistakes import explain, parse
from s9.config.data import DataConfig
from s9.system.errors import UserError

OF_NETWORK = ("data.image_size", "data.resize")  # the network decides
GROUP = "data"


def chosen_data(stored: DataConfig | None, overrides: Sequence[str]) -> DataConfig:
    """The data that `overrides` make of the run's own, or of the option that data=<option> names.

    Args:
        stored: of the run; None: it has none, so an option must be named.

    Raises:
        UserError: in one line, what is wrong with which argument.
    """
    for override in overrides:
        parsed = parse(override)
        if parsed.is_sweep_override() or parsed.is_delete():
            raise UserError(f"{override}: one value is evaluated at a time, as data.root=<folder>")
        if parsed.key_or_group in OF_NETWORK:
            raise UserError(
                f"{override}: images are brought to what the network takes; leave {parsed.key_or_group} out"
            )
    if any(parse(override).key_or_group == GROUP for override in overrides):
        return compose_config(overrides).data
    if stored is None:
        raise UserError(f"{overrides[0]}: a file of weights has no data of its own; add data=folder")

    def changed(asked: list[str]) -> DictConfig:
        found = OmegaConf.create({GROUP: OmegaConf.structured(stored)})
        for parsed in map(parse, asked):
            OmegaConf.update(found, parsed.key_or_group, _plain(parsed.value()), force_add=parsed.is_add())
        return found

    try:
        data = OmegaConf.to_object(changed(list(overrides)).data)
    except OmegaConfBaseException as error:
        raise explain(error, list(overrides), changed) from None
    assert isinstance(data, DataConfig)
    return data


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value
