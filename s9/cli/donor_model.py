"""Which model a command means that names trained weights to start from (init_from=) and no model: that of the weights.

The command is then composed as if `model=<name>` were written.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from s9.cli.help import groups
from s9.cli.mistakes import parse
from s9.config.model import ModelConfig
from s9.runs.donor_folders import folder_of, runs_of
from s9.system.errors import UserError

MISTAKES = (HydraException, OmegaConfBaseException, MarkedYAMLError, UserError)
OF_LAYERS = ("model.blocks", "model.head", "model.activation")


def model_of_donor(
    overrides: Sequence[str],
    config_name: str,
    composed: Callable[[list[str]], DictConfig],
    options: Callable[[str], list[str]],
) -> tuple[str, str] | None:
    """(the name of the donor's model, the donor as init_from names it); None where the model is another's choice.

    That is so where there is no donor, where an argument or an experiment chooses the model, and where a mistake is
    left to those who compose the arguments and read the donor.

    Args:
        composed: composes arguments, inside `hydra_of`. options: lists a group's options.

    Raises:
        UserError: the donor's model is no option here, or is another network here.
    """
    chosen = [
        o for o in overrides if (key := _key(o)) in (*groups(), "init_from") or key.startswith("hydra.searchpath")
    ]
    try:
        given = _given(overrides) or composed(chosen).init_from
        if given is None or _chooses_model(config_name, chosen):
            return None
        theirs = [(folder, folder.read_config().model) for folder, _ in map(folder_of, runs_of(given))]
    except MISTAKES:
        return None
    names = list(dict.fromkeys(model.name for _, model in theirs))
    said, name = f"init_from={given}", names[0]
    if len(names) > 1:
        raise UserError(f"{said}: these are weights of several models; add model={' or model='.join(names)}")
    if name not in options("model"):
        raise UserError(
            f"{said}: its model is called {name}, which is no option here; add model= with an option that has its "
            f"layers, which are in {theirs[0][0].config}"
        )
    if not any(_key(o).startswith(OF_LAYERS) for o in overrides):
        here = _option(name, chosen, composed)
        differing = [other for _, model in theirs if here and (other := other_layer(model, here))]
        if differing:
            raise UserError(
                f"{said}: its network is not that of model={name} here, {differing[0]} differs; add the model.* "
                "arguments that it was trained with, or model= with the network to begin with"
            )
    return name, given


def _chooses_model(config_name: str, arguments: list[str]) -> bool:
    """Whether one of the arguments chooses the model, or the experiment that one of them names."""
    loader = GlobalHydra.instance().config_loader()
    chosen = loader.compute_defaults_list(config_name, arguments, RunMode.RUN).overrides.override_metadata
    return "model" in chosen


def _option(name: str, arguments: list[str], composed: Callable[[list[str]], DictConfig]) -> ModelConfig | None:
    """The option of `model` of this name; None where it cannot be composed, which others report."""
    try:
        option = composed([*arguments, f"model={name}"]).model
        option.name = name  # which Hydra knows only when it has composed the whole
        found = OmegaConf.to_object(option)
    except MISTAKES:
        return None
    return found if isinstance(found, ModelConfig) else None


def _key(override: str) -> str:
    return str(parse(override).key_or_group)


def _given(overrides: Sequence[str]) -> str | None:
    """What the arguments give as init_from: composing tells the same, but takes a third of a second."""
    values = [parse(o).value() for o in overrides if _key(o) == "init_from"]
    value = values[-1].text if values and isinstance(values[-1], QuotedString) else values[-1] if values else None
    return value if isinstance(value, str) else None


def other_layer(one: ModelConfig, other: ModelConfig) -> str | None:
    """The first row that differs between two networks, or `head`, `activation`; rates of dropout do not count."""
    pairs = itertools.zip_longest(_rows(one), _rows(other))
    return next(((ours or theirs)[0] for ours, theirs in pairs if ours != theirs), None)


def _rows(config: ModelConfig) -> list[tuple[str, Any]]:
    rows = [(f"{block}.{name}", row) for block, named in config.blocks.items() for name, row in named.items()]
    whole = [("head", config.head), ("activation", config.activation)]
    return [*((name, replace(row, dropout=None)) for name, row in rows), *whole]
