"""The configuration that a run has stored: written whole, read again as a checked `Config` by any later version."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from s9.config.data import DATA_CONFIGS
from s9.config.model import ModelConfig
from s9.config.schema import Config, register_schemas, to_config
from s9.system.errors import UserError


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries of plain values."""
    return asdict(config)


def as_yaml(config: Config) -> str:
    """The whole configuration with every value in place; `read_stored` gives it back."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def read_stored(path: Path) -> Config:
    """The configuration in `path`. A cache folder that does not exist here becomes null, the reader's own cache.

    Raises:
        UserError: the file is no run's configuration, or not valid (which includes a `_target_` not on the allow-list).
    """
    register_schemas()
    try:
        stored = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(stored, DictConfig) or not stored:
        raise UserError(f"{path}: is not the configuration of a run")
    repo, kind = ConfigStore.instance().repo, OmegaConf.select(stored, "data.kind")
    kind = kind or OmegaConf.select(stored, "data.name")  # before December 2026 the name told the kind
    schema = OmegaConf.create({"data": repo["data"][f"{kind}_schema.yaml"].node} if kind in DATA_CONFIGS else {})
    cache = OmegaConf.select(stored, "data.cache")
    if isinstance(cache, str) and not Path(cache).expanduser().is_dir():
        stored.data.cache = None
    try:
        merged = OmegaConf.merge(repo["schema.yaml"].node, schema, stored)
    except OmegaConfBaseException as error:  # a key that this version does not know, a value of another type
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None
    return to_config(OmegaConf.create(merged))


def read_model(stored: Any) -> ModelConfig:
    """The network that a file of weights stores as nested dictionaries.

    Raises:
        UserError: a key or a value is none of a network.
    """
    try:
        model: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), stored))
    except OmegaConfBaseException as error:
        raise UserError(f"model: {str(error).splitlines()[0]}") from None
    checked: ModelConfig = model
    return checked
