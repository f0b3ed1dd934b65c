"""From arguments to a checked configuration: Hydra composes, and every wrong input gives one plain line."""

import functools
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from s9.cli.help import CONF, groups
from s9.cli.mistakes import explain, parse
from s9.config.schema import Config, register_schemas, to_config
from s9.system.errors import UserError, nearest

OPEN_MAPS = (
    *("aug.transforms.", "optimizer.", "scheduler.", "model.blocks.", "model.known_weak_points.", "data.arguments."),
    "hydra.",
)


@dataclass(frozen=True)
class Asked:
    """What Hydra is asked for: arguments, and its flags --config-dir (which adds a folder) and --config-name."""

    overrides: Sequence[str]
    config_dir: str | None = None
    config_name: str = "config"


def prepare_hydra() -> None:
    """Registers the types, and the suffix that gives launches in the same second folders of their own."""
    register_schemas()
    OmegaConf.register_new_resolver("s9.suffix", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def compose_config(overrides: Sequence[str]) -> Config:
    """The checked configuration that these arguments make.

    Raises:
        UserError: in one line, what is wrong with which argument.
    """
    return checked(compose(Asked(overrides))[0])


def checked(composed: DictConfig) -> Config:
    """The configuration, checked by the schema and the packages that build its parts. Raises UserError in one line."""
    config = to_config(composed)
    from s9.runs.check import check_values  # here: a mistake in a key is reported without importing torch

    check_values(config)
    return config


def compose(asked: Asked) -> tuple[DictConfig, DictConfig]:
    """(the configuration, Hydra's own part). Raises UserError: in one line, what is wrong with which argument."""
    asked, _ = with_model_of_donor(asked)
    overrides = list(asked.overrides)
    with hydra_of(asked) as (composed, options):
        try:
            for override in overrides:
                check_form(override, options)
            found = composed(overrides)
        except MarkedYAMLError as error:  # a slip in a file of conf/
            mark = error.problem_mark
            place = f"{mark.name.strip()}, line {mark.line + 1}: " if mark else ""
            raise UserError(f"{place}{error.problem or error}") from None
        except (HydraException, OmegaConfBaseException) as error:
            if is_missing(error, asked.config_name):
                raise UserError(missing(asked)) from None
            raise explain(error, overrides, composed) from None
    HydraConfig.instance().set_config(found)  # read by ${hydra:...}: an option's name is its file's name
    own = found.hydra
    with open_dict(found):
        del found["hydra"]
    return found, own


def with_model_of_donor(asked: Asked) -> tuple[Asked, list[str]]:
    """Adds the model of the weights that init_from names, unless a model is chosen; says so in a line, where it does.

    Raises:
        UserError: the model is no option here, or is another network here.
    """
    prepare_hydra()
    keys = {parse(override).key_or_group for override in asked.overrides}
    if "model" in keys or (asked.config_name == "config" and not keys & {"init_from", "experiment"}):
        return asked, []
    from s9.cli.donor_model import model_of_donor  # here: reads a run, which takes numpy

    with hydra_of(asked) as (composed, options):
        found = model_of_donor(asked.overrides, asked.config_name, composed, options)
    if found is None:
        return asked, []
    name, donor = found
    added = replace(asked, overrides=[*asked.overrides, f"model={name}"])
    return added, [f"model={name}, as init_from={donor} has it"]


def is_missing(error: Exception, config_name: str) -> bool:
    """Whether there is no file of the name that --config-name gives."""
    return isinstance(error, MissingConfigException) and error.missing_cfg_file in (config_name, f"{config_name}.yaml")


def missing(asked: Asked) -> str:
    folders = [*filter(None, [asked.config_dir]), str(CONF)]
    name = asked.config_name.removesuffix(".yaml")
    return f"--config-name {asked.config_name}: there is no {name}.yaml in {' or '.join(folders)}"


@contextmanager
def hydra_of(asked: Asked) -> Iterator[tuple[Callable[[list[str]], DictConfig], Callable[[str], list[str]]]]:
    """Yields two functions over the folders that `asked` names: one composes arguments, one lists a group's options."""
    folders = create_config_search_path(str(CONF))
    if asked.config_dir:
        before = SearchPathQuery(provider="schema")  # Hydra wants the schema last
        folders.prepend("command-line", f"file://{Path(asked.config_dir).absolute()}", before)
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("s9", folders)

    found_by = [o for o in asked.overrides if o.lstrip("+").startswith("hydra.searchpath=")]

    @functools.cache  # a sweep asks again and again
    def options(group: str) -> list[str]:
        names: list[str] = hydra.config_loader.get_group_options(
            group, config_name=asked.config_name, overrides=found_by
        )
        return names

    def composed(overrides: list[str]) -> DictConfig:
        return hydra.compose_config(
            asked.config_name, list(overrides), RunMode.RUN, from_shell=False, with_log_configuration=False
        )

    try:
        yield composed, options
    finally:
        GlobalHydra.instance().clear()


def check_form(override: str, options: Callable[[str], list[str]]) -> None:
    """Checks what needs no composing: groups, added keys and removed keys.

    Raises:
        UserError: there is no such option; an added key that nothing reads; a key that cannot be removed.
    """
    parsed = parse(override)
    key = parsed.key_or_group
    if key in groups():
        known = sorted(name for name in options(key) if not name.endswith("_schema"))
        if parsed.is_add():
            raise UserError(f"{override}: {key} is already part of the configuration; write {override.lstrip('+')}")
        if parsed.is_delete():
            raise UserError(f"{override}: every run needs a {key}; allowed: {', '.join(known)}")
        _check_options(key, _values(parsed), known)
    elif key.startswith("hydra/"):
        if not (known := options(key)):
            raise UserError(f"{override}: there is no such group; allowed: {', '.join(_of_hydra(options))}")
        if not parsed.is_delete():
            _check_options(key, _values(parsed), known)
    elif not key.startswith(OPEN_MAPS):
        if parsed.is_add():
            raise UserError(f"{override}: nothing reads an added key; keys are changed with key=value")
        if parsed.is_delete():
            maps = ", ".join(name.rstrip(".") for name in OPEN_MAPS)
            raise UserError(f"{override}: cannot be removed; only what is inside {maps} can")


def _check_options(group: str, values: list[Any], known: list[str]) -> None:
    for value in ("null" if v is None else v for v in values):
        for name in value if isinstance(value, list) else [value]:  # a list: several options of one group
            if name not in known:
                raise UserError(f"{group}={value}: there is no such option{nearest(str(name), known)}")


def _of_hydra(options: Callable[[str], list[str]]) -> list[str]:
    names = ("callbacks", "env", "help", "hydra_help", "hydra_logging", "job_logging", "launcher", "output", "sweeper")
    return [f"hydra/{name}" for name in names if options(f"hydra/{name}")]


def _values(parsed: Any) -> list[Any]:
    """The values of a sweep, or the one value. Quotes are removed: an option's name is the same with or without."""
    values = list(parsed.sweep_iterator()) if parsed.is_sweep_override() else [parsed.value()]
    return [v.text if isinstance(v, QuotedString) else v for v in values]
