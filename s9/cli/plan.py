"""What a sweep's command asks for: its jobs, its folder and how each job stands; nothing is started here."""

import functools
import hashlib
import json
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s9.cli.compose import Asked, compose, hydra_of
from s9.cli.grid import Combination, Grid, as_argument, grid_of, one_by_one
from s9.cli.jobs import Composer, leaves_alone
from s9.cli.launch import OF_SWEEP
from s9.cli.launchers import refuse_unknown
from s9.cli.mistakes import parse
from s9.config.components import allow_words
from s9.config.identity import digest
from s9.config.schema import Config
from s9.config.sweep import SweepConfig
from s9.sweeps.belonging import common, flat
from s9.sweeps.jobs import SWEEPS, Job, SweepFolder
from s9.system.errors import UserError

COMMAND = "python -m s9.train"
SLOW = 20  # jobs composed one by one, after which a line says what takes time
IGNORED = {
    "hydra.job.chdir": "jobs run where the sweep was started",
    "hydra.sweep.subdir": "a job is named by identity",
}


@dataclass(frozen=True)
class Plan:
    """launcher, settings: hydra/launcher= and hydra.launcher. said: lines for the user, each once.

    fixed: what the identities of all jobs have in common.
    """

    jobs: list[Job]
    keys: tuple[str, ...]
    folder: SweepFolder
    sweep: SweepConfig
    launcher: str
    settings: dict[str, Any]
    said: list[str]
    fixed: dict[str, Any] = field(default_factory=dict)


def plan_of(asked: Asked) -> Plan:
    """All jobs that the arguments ask for, each checked as it will run.

    Raises:
        UserError: in one line, what is wrong with which argument or job.
    """
    with hydra_of(asked) as (_, found):
        options = functools.cache(found)
        common = [a for a in asked.overrides if of_sweep(a)]
        for argument in common:
            if parse(argument).is_sweep_override():
                raise UserError(f"{argument}: belongs to the whole sweep, which takes one value")
        of_jobs = [a for a in asked.overrides if a not in common]
        groups = [one_by_one(a, options)[0] for a in of_jobs if options(parse(a).key_or_group)]
        shared = Asked(common, asked.config_dir, asked.config_name)
        composed, own = compose(Asked([*common, *groups], asked.config_dir, asked.config_name))
        sweep = _sweep(composed)
        launcher, said = _hydras(own, common)
        params = [f"{key}={value}" for key, value in (own.sweeper.get("params") or {}).items()]
        of_hydra = [a for a in common if not _key(a).startswith("sweep.")]
        composer = Composer(replace(shared, overrides=of_hydra), options)
        grid = grid_of([*params, *of_jobs], sweep, options, composer.known)
        of_single = [a for a in of_hydra if not _key(a).startswith((*OF_SWEEP, *IGNORED))]
        chosen = own.sweep.dir if any(_key(a) == "hydra.sweep.dir" for a in common) else None
        folder = SweepFolder(Path(chosen) if chosen else _path(sweep, grid, of_jobs))
        keys, names = (*grid.keys, *folder.read().get("keys", [])), _Digests()
        jobs, more = _jobs(grid, composer, replace(shared, overrides=of_single), names, keys=keys)
    said += [*more, *_remarks(grid, of_jobs, sweep)]
    if grid.left_out:
        said.append(f"sweep.exclude leaves out {grid.left_out} of {grid.left_out + len(grid.combinations)} jobs")
    if not jobs:
        raise UserError("this sweep has no jobs: sweep.exclude leaves out all of them")
    settings = OmegaConf.to_container(own.launcher, resolve=True)
    settings = {str(k): v for k, v in settings.items() if k != "_target_"} if isinstance(settings, dict) else {}
    if chosen and sweep.name is not None and folder.path.resolve() != (SWEEPS / sweep.name).resolve():
        said.append(f"sweep.name={sweep.name} has no effect: hydra.sweep.dir={chosen} is the sweep's own folder")
    return Plan(
        jobs, grid.keys, folder, sweep, launcher=launcher, settings=settings, said=said, fixed=names.fixed or {}
    )


def of_sweep(argument: str) -> bool:
    """Whether the argument belongs to the sweep or to Hydra, not to a job."""
    return _key(argument).startswith(("sweep.", "hydra.", "hydra/"))


def _key(argument: str) -> str:
    return str(parse(argument).key_or_group)


def _sweep(composed: DictConfig) -> SweepConfig:
    try:
        sweep = OmegaConf.to_object(composed.sweep)
    except OmegaConfBaseException as error:
        raise UserError(f"sweep: {str(error).splitlines()[0]}") from None
    assert isinstance(sweep, SweepConfig)
    return sweep


def _hydras(own: DictConfig, common: Sequence[str]) -> tuple[str, list[str]]:
    """(the launcher, lines about what of Hydra has no effect). Raises UserError for a sweeper or launcher not of s9."""
    choices = own.runtime.choices
    if choices["hydra/sweeper"] != "basic":
        raise UserError(f"hydra/sweeper={choices['hydra/sweeper']}: must be basic; python -m s9.tune searches")
    launcher = str(choices["hydra/launcher"])
    refuse_unknown(launcher)
    given = [parse(a).key_or_group for a in common]
    return launcher, [f"{key} has no effect in a sweep: {why}" for key, why in IGNORED.items() if key in given]


def _remarks(grid: Grid, of_jobs: Sequence[str], sweep: SweepConfig) -> list[str]:
    """Lines about arguments that do less than they seem to."""
    keys = [parse(a).get_key_element().lstrip("+") for a in of_jobs]
    said = [
        f"{key} is given {keys.count(key)} times: the last counts" for key in dict.fromkeys(keys) if keys.count(key) > 1
    ]
    if not grid.keys:
        said.append("no key has several values: a sweep of one job")
    if sweep.sample is not None:
        drawn = min(sweep.sample, grid.cells)
        said.append(f"sweep.sample={sweep.sample}: {drawn} of {grid.cells} cells, each with all its seeds")
    return said


def _jobs(
    grid: Grid, composer: Composer, shared: Asked, names: "_Digests", *, keys: Sequence[str]
) -> tuple[list[Job], list[str]]:
    """(the jobs, each once and with its values of `keys`, lines about values without effect)."""
    jobs: dict[str, Job] = {}
    twins: dict[str, int] = {}
    began, told = time.monotonic(), False
    for at, combination in enumerate(grid.combinations):
        if at == SLOW and time.monotonic() - began > 2 and not told:
            told = True
            print(f"checking {len(grid.combinations)} jobs", flush=True)
        config, values = composer.config_of(combination), _values(combination, keys, composer)
        name, cell = names.of(config)
        if name in jobs:
            for key in grid.keys:
                if values.get(key) != jobs[name].values.get(key):
                    twins[key] = twins.get(key, 0) + 1
            continue
        jobs[name] = Job(name, values, config, command_of(combination, shared), cell=cell)
    said = [f"{key} does not change what is computed: {n} jobs are left out as repeats" for key, n in twins.items()]
    first = next(iter(jobs.values()), None)
    said += composer.said
    return list(jobs.values()), said + (leaves_alone(first.config, grid.keys) if first else [])


def _values(combination: Combination, keys: Sequence[str], composer: Composer) -> dict[str, str]:
    """Of these keys, as written; of a key that sweep.cells or this command does not name, what the job has."""
    values = dict(combination.swept)
    for key in keys:
        if key not in values:
            with suppress(UserError):  # a key that only other jobs have
                held = composer.known(combination, key)
                held = OmegaConf.to_container(held) if OmegaConf.is_config(held) else held
                values[key] = as_argument(key, held).partition("=")[2]
    return {key: values[key] for key in keys if key in values}


class _Digests:
    """Names jobs by what they compute; images are looked at once for each data set.

    fixed: what the identities of all jobs so far have in common.
    """

    def __init__(self) -> None:
        from s9.runs.prepare import fingerprint_of, identity_as_asked  # here: imports torch

        self.identity_as_asked, self.fingerprint_of = identity_as_asked, fingerprint_of
        self.images: dict[str, str | None] = {}
        self.fixed: dict[str, Any] | None = None

    def of(self, config: Config) -> tuple[str, str]:
        """(the job's name, that of its cell)."""
        key = json.dumps(asdict(config.data), sort_keys=True)
        if key not in self.images:
            self.images[key] = self.fingerprint_of(config)
        identity = self.identity_as_asked(config, self.images[key])
        parts = flat(identity)
        self.fixed = parts if self.fixed is None else common(self.fixed, parts)
        return digest(identity), digest(identity | {"seed": None})


def command_of(combination: Combination, shared: Asked) -> str:
    """The command that trains this job alone. shared: Hydra's flags, and its arguments that a single run takes too."""
    flags = ["--config-dir", shared.config_dir] if shared.config_dir else []
    flags += ["--config-name", shared.config_name] if shared.config_name != "config" else []
    given = shlex.join([*flags, *shared.overrides, *allow_words().split(), *combination.arguments])
    return f"{COMMAND} {given}".strip()


def _path(sweep: SweepConfig, grid: Grid, of_jobs: Sequence[str]) -> Path:
    """The sweep's folder: what sweep.name= names, else one named by what is swept."""
    if sweep.name is not None:
        return SWEEPS / sweep.name
    fixed = sorted(a for a in of_jobs if parse(a).get_key_element().lstrip("+") not in grid.keys)
    digest = hashlib.sha256(json.dumps([fixed, sorted(grid.keys)]).encode()).hexdigest()[:6]
    return SWEEPS / "-".join([*(key.rpartition(".")[2] for key in sorted(grid.keys)), digest])
