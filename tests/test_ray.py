"""Tasks on a ray of this machine: each in a process of its own, which saves when the sweep stops. Needs s9[ray]."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s9.runs.worker import run_task
from s9.sweeps.on_ray import RayPool
from s9.sweeps.task import Outcome, Task
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from tests.conftest import composed
from tests.doors import ROOT, SHORT, SMALL, until

LONG = (*SMALL, "trainer.epochs=60")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayPool]:
    """Of one ray with two cores, which takes seconds to start; in a folder of its own."""
    pytest.importorskip("ray", reason="needs ray: pip install 's9[ray]'")
    before, path = Path.cwd(), os.environ.get("PYTHONPATH")
    os.chdir(tmp_path_factory.mktemp("ray"))
    os.environ["PYTHONPATH"] = str(ROOT)
    made = RayPool(run_task, {"num_cpus": 1})
    yield made
    made.close()
    os.chdir(before)
    os.environ.pop("PYTHONPATH")
    if path is not None:
        os.environ["PYTHONPATH"] = path


def task(name: str, *settings: str) -> Task:
    return Task(folder=Path(name), config=composed(*settings), command="python -m s9.train", group="try")


def outcomes(pool: RayPool, number: int) -> dict[str, Outcome]:
    """Of so many tasks, by the names of their folders."""
    found = dict[str, Outcome]()
    until(lambda: found.update((t.folder.name, o) for t, o in pool.wait(1)) or len(found) == number)
    return found


def training(task: Task) -> RunFolder:
    """The task's run, as soon as it has trained an epoch."""
    folder = RunFolder(task.folder)
    until(lambda: folder.metrics.exists() and folder.read_metrics())
    return folder


@pytest.mark.slow
def test_ray_trains_tasks_and_has_room_again(pool: RayPool) -> None:
    room = pool.room()
    pool.start([task("a", *SHORT), task("b", *SHORT, "seed=1")])
    assert pool.room() == room - 2
    assert {name: outcome.state for name, outcome in outcomes(pool, 2).items()} == {"a": "done", "b": "done"}
    assert pool.room() == room


@pytest.mark.slow
def test_a_worker_that_is_killed_interrupts_its_task_alone(pool: RayPool) -> None:
    killed, other = task("killed", *LONG), task("other", *SHORT)
    pool.start([killed, other])
    os.kill(training(killed).read_status()["pid"], signal.SIGKILL)
    found = outcomes(pool, 2)
    assert {name: outcome.state for name, outcome in found.items()} == {"killed": "interrupted", "other": "done"}


@pytest.mark.slow
def test_a_run_on_ray_saves_when_the_sweep_stops_and_resumes(pool: RayPool) -> None:
    cut = task("cut", *LONG)
    pool.start([cut])
    folder = training(cut)
    pool.stop(signal.SIGTERM, 5)
    assert outcomes(pool, 1)["cut"].state == folder.read_status()["state"] == "interrupted"
    pool.start([cut])
    assert outcomes(pool, 1)["cut"].state == "done"
    assert "resumes from" in folder.log.read_text()


@pytest.mark.slow
def test_jobs_that_do_not_fit_are_refused(pool: RayPool) -> None:
    with pytest.raises(UserError, match="no job fits into the ray cluster, which has"):
        RayPool(run_task, {"num_gpus": 99})


@pytest.mark.slow
def test_ray_leaves_the_signals_of_the_sweep_alone(pool: RayPool) -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UserError, match=r"hydra\.launcher\.num_cpu: no such setting; did you mean num_cpus"):
        RayPool(run_task, {"num_cpu": 1})


def test_where_ray_is_missing_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"hydra/launcher=ray needs ray: pip install 's9\[ray\]'"):
        RayPool(run_task, {})
