"""Where the jobs of a sweep run: the pool that hydra/launcher= names, with its settings from conf/hydra/launcher/."""

import os
from collections.abc import Mapping
from typing import Any

from s9.config.schema import Config
from s9.config.sweep import SweepConfig
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.task import Pool
from s9.system.errors import UserError, require
from s9.system.process import available_cores

KNOWN = ("basic", "joblib", "submitit_slurm", "submitit_local", "ray")


def pool_of(
    launcher: str, settings: Mapping[str, Any], sweep: SweepConfig, *, first: Config, folder: SweepFolder
) -> Pool:
    """The pool for a sweep. first: the configuration of one of its jobs, which says what devices they need.

    Raises:
        UserError: the launcher needs a package that is not installed.
    """
    from s9.runs.worker import run_task, work  # here: imports torch and all packages

    if launcher in ("submitit_slurm", "submitit_local"):
        from s9.sweeps.slurm import SlurmPool

        return SlurmPool(run_task, folder.path, settings, "slurm" if launcher == "submitit_slurm" else "local")
    if launcher == "ray":
        from s9.sweeps.on_ray import RayPool

        return RayPool(run_task, settings)
    from s9.sweeps.local import LocalPool

    return LocalPool(work, environments(launcher, settings, sweep, first), folder.screens)


def environments(launcher: str, settings: Mapping[str, Any], sweep: SweepConfig, first: Config) -> list[dict[str, str]]:
    """The environment of each job that runs at the same time: its GPUs, and its share of the cores."""
    cores = available_cores()
    groups = gpu_groups(first)
    if launcher == "joblib":
        jobs = settings.get("n_jobs", 2)
        require("hydra.launcher.n_jobs", jobs, type(jobs) is int and jobs != 0, "a whole number; -1 is one job a core")
        jobs = jobs if jobs >= 1 else max(1, cores + 1 + jobs)
        found = [dict(groups[at % len(groups)]) if groups else {} for at in range(jobs)]
    else:
        found = [dict(group) for _ in range(sweep.jobs_per_gpu or 1) for group in groups] or [{}]
    if len(found) > 1 and "OMP_NUM_THREADS" not in os.environ:
        for environment in found:
            environment["OMP_NUM_THREADS"] = str(max(1, cores // len(found)))
    return found


def gpu_groups(config: Config) -> list[dict[str, str]]:
    """CUDA_VISIBLE_DEVICES for each group of `trainer.devices` visible GPUs; none where jobs do not choose a GPU."""
    device = config.trainer.device
    if ":" in device or (device not in ("auto", "cuda") and not os.environ.get("CUDA_VISIBLE_DEVICES")):
        return []
    devices, each = visible_gpus(), config.trainer.devices
    whole = [devices[at : at + each] for at in range(0, len(devices) - each + 1, each)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in whole]


def visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def refuse_unknown(launcher: str) -> None:
    """Raises UserError where s9 cannot start jobs with this launcher."""
    if launcher not in KNOWN:
        raise UserError(f"hydra/launcher={launcher}: must be one of {', '.join(KNOWN)}")
