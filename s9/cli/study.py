"""From the arguments of `python -m s9.tune` to a study: its file, its folder, and the run of each of its trials."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s9.cli.compose import Asked, checked, compose
from s9.cli.door import key_values
from s9.cli.grid import as_argument
from s9.cli.help import CONF
from s9.cli.launch import asked_of, read_flags
from s9.cli.mistakes import parse
from s9.config.components import allow_words
from s9.config.data import Cifar10Config, DigitsConfig
from s9.config.schema import Config
from s9.config.study import Range, StudyConfig, read_study
from s9.sweeps.trials import Params, Trial
from s9.system.errors import UserError, nearest

COMMAND = "python -m s9.train"
STUDIES = Path("outputs/studies")
BEST = "best"  # the option of experiment that holds the best trial
OWN = {"study": None, "trials": None, "storage": "", "jobs": "1", "folder": ""}
NOT_TAKEN = ("multirun", "cfg", "info", "hydra_help", "shell_completion", "config_path", "resolve", "package", "run")


@dataclass(frozen=True, kw_only=True)
class AskedStudy:
    """What the arguments ask for. asked: Hydra's flags, and what all trials share. seed: of the first run of a cell."""

    name: str
    study: StudyConfig
    folder: Path
    trials: int
    jobs: int
    storage: str | None
    asked: Asked
    seed: int

    def arguments(self, params: Params, seed: int) -> list[str]:
        """Those of s9.train for one trial, without flags."""
        return [*self.asked.overrides, *(as_argument(key, value) for key, value in params.items()), f"seed={seed}"]

    def config(self, params: Params, seed: int) -> Config:
        """Raises UserError where these parameters do not fit each other."""
        overrides = self.arguments(params, seed)
        return checked(compose(Asked(overrides, self.asked.config_dir, self.asked.config_name))[0])

    def command(self, params: Params, seed: int) -> str:
        """Trains the run of a trial alone."""
        flags = ["--config-dir", self.asked.config_dir] if self.asked.config_dir else []
        flags += ["--config-name", self.asked.config_name] if self.asked.config_name != "config" else []
        return f"{COMMAND} {shlex.join([*flags, *allow_words().split(), *self.arguments(params, seed)])}"

    def run_of(self, trial: Trial) -> Path:
        return self.folder / trial.kept.folder

    @property
    def point(self) -> Params:
        """One point of the space."""
        return {key: ends(spec)[0] for key, spec in self.study.specs.items()}

    def check_space(self) -> None:
        """Raises UserError where an end of a range, or a choice, does not fit the first values of the other keys."""
        for key, spec in self.study.specs.items():
            for value in ends(spec)[1:]:
                try:
                    self.config(self.point | {key: value}, self.seed)
                except UserError as error:
                    raise UserError(f"study.space.{key}: {error}") from None


def ends(spec: Range | tuple[Any, ...]) -> tuple[Any, ...]:
    return (spec.low, spec.high) if isinstance(spec, Range) else spec


def read_asked(arguments: Sequence[str], usage: str) -> tuple[AskedStudy, Config]:
    """The study that the arguments ask for, and the configuration at one point of its space.

    Raises:
        UserError: in one line, what is wrong.
    """
    own = [a for a in arguments if a.partition("=")[0] in OWN]
    changes = [a for a in arguments if a.startswith("study.")]
    flags = read_flags([a for a in arguments if a not in own and a not in changes])
    if refused := [name for name in NOT_TAKEN if getattr(flags, name, None)]:
        raise UserError(f"--{refused[0].replace('_', '-')}: a search does not take this flag of Hydra")
    given = key_values(own, OWN, usage)
    study = read_study(study_file(given["study"], flags), changes)
    _refuse(flags.overrides, study)
    keys = {parse(override).key_or_group for override in flags.overrides}
    shared = [o for o in study.overrides if parse(o).key_or_group not in keys] + flags.overrides
    shared = [o for o in shared if parse(o).key_or_group != "seed"]
    seeds = [o for o in (*study.overrides, *flags.overrides) if parse(o).key_or_group == "seed"]
    flagged = asked_of(flags)
    asked = AskedStudy(
        name=given["study"],
        study=study,
        folder=Path(given["folder"] or STUDIES / given["study"]),
        trials=_count("trials", given["trials"]),
        jobs=_count("jobs", given["jobs"]),
        storage=given["storage"] or None,
        asked=Asked(shared, flagged.config_dir, flagged.config_name),
        seed=_seed(seeds),
    )
    config = asked.config(asked.point, asked.seed)
    if isinstance(config.data, Cifar10Config | DigitsConfig) and config.data.val_size == 0:  # others may bring a val
        raise UserError("data.val_size=0: must be 1 or more in a search, which compares trials by val accuracy")
    return asked, config


def study_file(name: str, flags: Namespace) -> Path:
    """The file of the study: in the folder that --config-dir names, else in conf/."""
    folders = [Path(folder) / "study" for folder in (flags.config_dir, CONF) if folder]
    known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise UserError(f"study={name}: there is no such study{nearest(name, sorted(known))}")
    return known[name]


def _refuse(overrides: Sequence[str], study: StudyConfig) -> None:
    """Raises UserError where an argument cannot be shared by all trials."""
    for override in (*study.overrides, *overrides):
        parsed = parse(override)
        key = parsed.key_or_group
        if key == "experiment" and parsed.value() == BEST:
            raise UserError(f"{override}: is what the search calls its own best; copy that file to another name first")
        if parsed.is_sweep_override():
            raise UserError(f"{override}: names several values; put {key} into the study's space")
        if key in study.space:
            raise UserError(f"{override}: {key} is in the study's space; leave the argument out, or change the study")
        if key.startswith(("hydra.", "hydra/", "sweep.")) or key == "sweep":
            raise UserError(f"{override}: has no effect in a search; allowed: {', '.join(OWN)}, and keys of s9.train")


def _count(key: str, given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{key}={given}: must be a whole number, 1 or more")
    return int(given)


def _seed(overrides: Sequence[str]) -> int:
    value = parse(overrides[-1]).value() if overrides else 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{overrides[-1]}: must be a whole number")
    return value
