"""From a sweep's combinations to its jobs: what many configurations share is composed and checked once."""

import copy
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s9.cli.compose import Asked, check_form, checked, compose, with_model_of_donor
from s9.cli.grid import Combination
from s9.cli.mistakes import all_keys, parse
from s9.config.schema import Config, refuse_extra_keys, to_config
from s9.config.sweep import SweepConfig
from s9.system.errors import UserError, nearest

OWN_REFERENCES = re.compile(r"\$\{(?!hydra:|oc\.)")  # from one part of a configuration to another
CHECKED_TOGETHER = ("aug", "data", "optimizer", "scheduler")  # what check_values builds


@dataclass
class Base:
    """The configuration that a group of jobs shares, and the parts of it that their own values have changed."""

    composed: DictConfig
    config: Config
    parts: dict[tuple[str, tuple[str, ...]], Any] = field(default_factory=dict)
    checked: set[tuple[str, ...]] = field(default_factory=set)

    def part(self, root: str, values: tuple[str, ...]) -> Any:
        """The part of the configuration below `root`, such as optimizer, with these values."""
        if (root, values) not in self.parts:
            changed = copy.deepcopy(self.composed)
            ConfigLoaderImpl._apply_overrides_to_config([parse(value) for value in values], changed)
            node = changed[root]
            typed = OmegaConf.to_object(node) if OmegaConf.is_config(node) else node
            if is_dataclass(typed):
                refuse_extra_keys(node, typed, f"{root}.")
            self.parts[root, values] = typed
        return self.parts[root, values]

    def changed(self, values: Sequence[str]) -> Config:
        """The configuration with these values, checked."""
        by_root: dict[str, list[str]] = {}
        for value in values:
            by_root.setdefault(_key(value).partition(".")[0], []).append(value)
        config = replace(self.config, **{root: self.part(root, tuple(own)) for root, own in by_root.items()})
        together = tuple(value for root in CHECKED_TOGETHER for value in by_root.get(root, ()))
        if together not in self.checked:
            from s9.runs.check import check_values  # here: as in `compose.checked`

            check_values(config)
            self.checked.add(together)
        return config


class Composer:
    """Composes the configurations of a sweep's jobs.

    Args:
        asked: Hydra's flags and the arguments that all jobs share and that are no part of a job. options: of a group.

    said: lines for the user about what was composed, each once.
    """

    def __init__(self, asked: Asked, options: Callable[[str], list[str]]):
        self.asked, self.options = asked, options
        self.bases: dict[tuple[str, ...], Base | None] = {}
        self.forms: set[str] = set()
        self.composed: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self.said: dict[str, None] = {}

    def config_of(self, combination: Combination) -> Config:
        """The job's checked configuration, without what belongs to the sweep.

        Raises:
            UserError: in one line, what is wrong with which job.
        """
        own = [a for a in combination.arguments if self._own(a, combination)]
        base = self.base(tuple(a for a in combination.arguments if a not in own))
        config = None
        if base is not None and not self.overlap(combination.arguments) and not any(map(_refers, own)):
            try:
                for argument in own:
                    self.check_form(argument)
                config = base.changed(own)
            except (UserError, HydraException, OmegaConfBaseException):
                config = None  # composed alone, the job gets the line that names the mistake
        return replace(config or self.alone(combination), sweep=SweepConfig())

    def known(self, combination: Combination, key: str) -> Any:
        """The value that a key which the arguments do not name has in this combination; a group's: its option's name.

        Raises:
            UserError: there is no such key.
        """
        needed = [a for a in combination.arguments if not self._own(a, combination) or key.startswith(f"{_key(a)}.")]
        arguments = tuple(needed)
        if arguments not in self.composed:
            self.composed[arguments] = self.compose(arguments)
        composed, hydras = self.composed[arguments]
        if key in hydras.runtime.choices:
            return hydras.runtime.choices[key]
        missing = object()
        value = OmegaConf.select(composed, key, default=missing)
        if value is missing:
            plain = OmegaConf.to_container(composed, resolve=False)
            raise UserError(f"sweep.exclude: there is no key {key}{nearest(key, all_keys(plain))}")
        return value

    def alone(self, combination: Combination) -> Config:
        """The job's configuration, composed as that of a single run."""
        try:
            return checked(self.compose(combination.arguments)[0])
        except UserError as error:
            if str(error).startswith(tuple(f"{key}=" for key in combination.swept)):
                raise  # the line names what this job has of its own
            job = " ".join(f"{key}={value}" for key, value in combination.swept.items())
            raise UserError(f"job {job}: {error}; sweep.exclude= leaves out jobs") from None

    def base(self, arguments: tuple[str, ...]) -> Base | None:
        """What jobs with these arguments share; None where each job has to be composed alone."""
        if arguments not in self.bases:
            self.bases[arguments] = self._base(arguments)
        return self.bases[arguments]

    def _base(self, arguments: tuple[str, ...]) -> Base | None:
        try:
            composed = self.compose(arguments)[0]
            if OWN_REFERENCES.search(OmegaConf.to_yaml(composed, resolve=False)):
                return None
            OmegaConf.resolve(composed)
            return Base(composed, to_config(composed))
        except (UserError, OmegaConfBaseException):
            return None

    def compose(self, arguments: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """As `compose.compose`, with what all jobs share."""
        asked, said = with_model_of_donor(replace(self.asked, overrides=[*self.asked.overrides, *arguments]))
        self.said |= dict.fromkeys(said)
        return compose(asked)

    def _own(self, argument: str, combination: Combination) -> bool:
        """Whether the argument sets a value of this job alone; what chooses an option changes too much to be set later.

        init_from chooses the model where nothing else does.
        """
        key = _key(argument)
        return key in combination.swept and key != "init_from" and not self.options(key)

    def overlap(self, arguments: Sequence[str]) -> bool:
        """Whether one argument sets a mapping and another a key inside this mapping: their order counts."""
        keys = sorted(f"{key}." for a in arguments if not self.options(key := _key(a)))
        return any(later.startswith(earlier) for earlier, later in itertools.pairwise(keys))

    def check_form(self, argument: str) -> None:
        if argument not in self.forms:
            check_form(argument, self.options)
            self.forms.add(argument)


def _refers(argument: str) -> bool:
    """Whether the argument's value is that of another key, which the same job may change."""
    return "${" in argument.replace("\\", "")


def _key(argument: str) -> str:
    return str(parse(argument).key_or_group)


def leaves_alone(config: Config, keys: Sequence[str]) -> list[str]:
    """A line for each swept key whose sibling other_... sets the same for the rest of the network and is not swept."""
    said = []
    for key in keys:
        root, _, name = key.rpartition(".")
        other = f"{root}.other_{name}"
        value = asdict(config).get(root, {}).get(f"other_{name}") if root in ("optimizer", "scheduler") else None
        if value is not None and other not in keys:
            said.append(f"{key} is swept and {other}={json.dumps(value)} is not: see conf/{root}/ for what each is of")
    return said
