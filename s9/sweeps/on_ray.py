"""Runs tasks on a ray cluster, or on a ray of this machine alone; needs the extra s9[ray].

Each task has a process of its own. ray never starts a task again by itself, as the sweep decides what is run again.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from s9.sweeps.remote import outcome_of
from s9.sweeps.task import Outcome, Task
from s9.system.errors import UserError, nearest
from s9.tracking.folder import RunFolder

KEYS = ("address", "num_cpus", "num_gpus")


class RayPool:
    """A Pool of ray tasks.

    Args:
        run: trains a task; a function at the top level of a module, which the workers import.
        settings: hydra.launcher's keys, as in conf/hydra/launcher/ray.yaml.

    Raises:
        UserError: ray is missing or not reached, or a setting is not valid.
    """

    def __init__(self, run: Callable[[Task], Outcome], settings: Mapping[str, Any]) -> None:
        for key in settings:
            if key not in KEYS:
                raise UserError(f"hydra.launcher.{key}: no such setting{nearest(key, KEYS)}")
        try:
            import ray
        except ImportError:
            raise UserError("hydra/launcher=ray needs ray: pip install 's9[ray]'") from None
        self.ray, self.running = ray, dict[Any, Task]()  # by ray's reference to the result
        needs = {"CPU": float(settings.get("num_cpus") or 0), "GPU": float(settings.get("num_gpus") or 0)}
        self.began = not ray.is_initialized()
        if self.began:
            self._connect(settings.get("address"))
        there = ray.cluster_resources()
        self.at_once = int(min((there.get(name, 0) // n for name, n in needs.items() if n), default=len(there)))
        if self.at_once < 1:
            has = ", ".join(f"{there.get(name, 0):g} {name}" for name in needs)
            self.close()
            raise UserError(f"hydra.launcher: no job fits into the ray cluster, which has {has}")
        as_asked = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"], "max_retries": 0}
        self.train = ray.remote(**as_asked)(_in_folder).options(runtime_env={"env_vars": _environment()})
        self.run = run

    def _connect(self, address: str | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        own = {} if address else {"include_dashboard": False}
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.ray.init(address=address or "local", **quiet, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"hydra.launcher.address={address}: {' '.join(str(error).split())}") from None
        finally:
            for number, handler in handlers.items():  # ray's own would end the sweep at once
                with suppress(ValueError):  # not the main thread
                    signal.signal(number, handler)

    def room(self) -> int:
        return max(0, self.at_once - len(self.running))

    def start(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.running[self.train.remote(self.run, task, str(Path.cwd()))] = task

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        if not self.running:
            time.sleep(seconds)
            return []
        self.ray.wait(list(self.running), timeout=seconds)
        ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        return [(task, self._outcome(ref, task)) for ref in ready for task in [self.running.pop(ref)]]

    def _outcome(self, ref: Any, task: Task) -> Outcome:
        errors, folder = self.ray.exceptions, RunFolder(task.folder)
        try:
            outcome: Outcome = self.ray.get(ref)
        except errors.TaskCancelledError:
            return outcome_of(folder, "was cancelled")
        except errors.OutOfMemoryError as error:
            return outcome_of(folder, f"memory ran out ({_first_line(error)})", failed=True)
        except errors.RayTaskError as error:
            return outcome_of(folder, str(error).strip().splitlines()[-1], failed=True)
        except errors.RayError as error:
            return outcome_of(folder, f"its worker died ({_first_line(error)})")
        return outcome

    def stop(self, number: int, within_s: float) -> None:
        """ray passes on SIGINT alone, to which a run answers as to every signal."""
        refs, until = list(self.running), time.monotonic() + within_s
        for force in (False, True):
            for ref in refs:
                self.ray.cancel(ref, force=force)
            if refs:
                _, refs = self.ray.wait(refs, num_returns=len(refs), timeout=max(0.0, until - time.monotonic()))

    def close(self) -> None:
        if self.began:
            self.ray.shutdown()


def _in_folder(run: Callable[[Task], Outcome], task: Task, folder: str) -> Outcome:
    """What a worker does; `folder`: the sweep's working directory, from which the paths of its runs start."""
    os.chdir(folder)
    done = RunFolder(task.folder).is_done()  # by another process, while the task waited
    return outcome_of(RunFolder(task.folder), "") if done else run(task)


def _environment() -> dict[str, str]:
    """What workers need to import what the sweep imports."""
    paths = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {k: v for k, v in os.environ.items() if k.startswith("S9_")} | {"PYTHONPATH": os.pathsep.join(paths)}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
