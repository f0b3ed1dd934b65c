"""How tasks become jobs of submitit: hydra.launcher's keys as submitit's parameters, the environment, the signals."""

import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s9.sweeps.on_node import WARNING
from s9.sweeps.squeue import longest_minutes
from s9.system.errors import UserError, nearest

LONGEST_ARRAY = 1000  # SLURM's default limit
FOREVER_MIN = 60 * 24 * 365
ALIKE = ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")  # keys with the same name in submitit
OF_SLURM = ("partition", "qos", "account", "constraint")
KEYS = (*ALIKE, *OF_SLURM, "additional_parameters", "setup", "signal_delay_s", "max_num_timeout", "array_parallelism")


def executor_of(settings: Mapping[str, Any], folder: Path, cluster: str, at_once: int) -> Any:
    """submitit's executor, which writes its files to `folder`.

    Raises:
        UserError: submitit or SLURM is missing here, or a setting is not valid.
    """
    for key in settings:
        if key not in KEYS:
            raise UserError(f"hydra.launcher.{key}: no such setting{nearest(key, KEYS)}")
    own = {"timeout_min": FOREVER_MIN} | {key: settings[key] for key in ALIKE if settings.get(key) is not None}
    try:
        import submitit

        most = {f"{cluster}_max_num_timeout": int(settings.get("max_num_timeout", 100))}
        executor = submitit.AutoExecutor(folder, cluster=cluster, **most)
        if cluster == "slurm":
            own["timeout_min"] = min(own["timeout_min"], longest_minutes(settings.get("partition")) or FOREVER_MIN)
            own |= _of_slurm(settings, at_once)
        executor.update_parameters(**own)
    except ImportError:
        raise UserError(f"hydra/launcher=submitit_{cluster} needs submitit: pip install 's9[slurm]'") from None
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"hydra.launcher: {' '.join(str(error).split())}") from None
    return executor


def _of_slurm(settings: Mapping[str, Any], at_once: int) -> dict[str, Any]:
    """submitit's keys for SLURM alone."""
    kept = {k: v for k, v in os.environ.items() if k == "PYTHONPATH" or k.startswith("S9_")}
    own = {"SUBMITIT_PREEMPT_SIGNAL": WARNING}
    # SLURM passes the folder and the environment on, unless a cluster forbids that.
    setup = [
        f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
        *(f"export {k}={shlex.quote(v)}" for k, v in (kept | own).items()),
    ]
    delay = int(settings.get("signal_delay_s") or 90)
    more: dict[str, Any] = {
        "setup": [*setup, *(settings.get("setup") or [])],
        "additional_parameters": {"requeue": True, "signal": f"{WARNING}@{delay}"}
        | dict(settings.get("additional_parameters") or {}),
        "array_parallelism": at_once,
        "stderr_to_stdout": True,
    }
    if settings.get("cpus_per_task"):  # since SLURM 22.05, srun does not take it from sbatch
        more["srun_args"] = [f"--cpus-per-task={settings['cpus_per_task']}"]
    more |= {key: settings[key] for key in OF_SLURM if settings.get(key)}
    return {key if key == "stderr_to_stdout" else f"slurm_{key}": value for key, value in more.items()}


@contextmanager
def signals_for_jobs(cluster: str) -> Iterator[None]:
    """Processes of this machine that start inside get the warning that a run knows, and not the terminal's Ctrl-C."""
    if cluster == "slurm":
        yield
        return
    variable = "SUBMITIT_PREEMPT_SIGNAL"
    before, os.environ[variable] = os.environ.get(variable), WARNING
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # an ignored signal stays so in a new process
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before
