"""Jobs on a real SLURM of two nodes on this machine: what SLURM does to them costs nothing, and each ends as if alone.

A test waits for SLURM most of its time: a job that is queued again may start after ten seconds.
"""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from s9.runs.worker import run_task
from s9.sweeps.on_node import OnNode
from s9.sweeps.slurm import SlurmPool
from s9.sweeps.squeue import _minutes
from s9.sweeps.task import Outcome, Task
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.tracking.lock import RunLock
from tests.conftest import composed
from tests.doors import ROOT, SHORT, SMALL, run, until
from tests.processes import content, differing

START = ROOT.parent / "shared" / "slurm" / "start"
NEEDED = ("sbatch", "slurmctld", "slurmd", "munged")
SWEEP = Path("outputs/sweeps/try")
LONG = (*SMALL, "trainer.epochs=40")  # about eight seconds
WARNED_S = 65  # SLURM sends the warning of a limit of one minute before this has passed

on_slurm = pytest.mark.usefixtures("slurm")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a SLURM that is running: partitions low, grace and cancel, all preempted by high."""
    missing = [name for name in NEEDED if shutil.which(name) is None and not Path(f"/usr/sbin/{name}").exists()]
    if missing or os.getuid() != 0 or not START.exists():
        why = f"there is no {missing[0]}" if missing else "only root can start one, with ../shared/slurm/start"
        pytest.skip(f"needs a SLURM: {why}")
    folder = tmp_path_factory.mktemp("slurm")
    quick = "AuthInfo=cred_expire=10"  # how long a job that is queued again waits, 120 s by default
    of_low = "Nodes=n1,n2 MaxTime=60 State=UP PriorityTier=1"
    grace = f"PartitionName=grace {of_low} PreemptMode=REQUEUE GraceTime=30"
    cancel = f"PartitionName=cancel {of_low} PreemptMode=CANCEL"
    text = START.read_text().replace("KillWait=7\n", f"KillWait=7\n{quick}\n")
    start = folder / "start"
    start.write_text(text.replace("PartitionName=high", f"{grace}\n{cancel}\nPartitionName=high"))
    port = str(17300 + os.getpid() % 1000 * 3)
    path = f"{os.environ['PATH']}:/usr/sbin"
    subprocess.run(
        ["bash", start, folder, port], check=True, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL
    )
    yield folder / "slurm.conf"
    subprocess.run(["bash", START.with_name("stop"), folder], check=True)


@pytest.fixture
def slurm(cluster: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No job is left when a test ends, and both nodes are up."""
    monkeypatch.setenv("SLURM_CONF", str(cluster))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    yield
    said("scancel", "--user=root")
    for node in said("sinfo", "-h", "-N", "-t", "down", "-o", "%N").split():
        said("scontrol", "update", f"nodename={node}", "state=resume")
    until(lambda: not said("squeue", "-h"))


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], dict[str, bytes]]:
    """The files of a run of the same configuration that nothing ever happened to."""
    made: dict[int, dict[str, bytes]] = {}

    def of_run(task: Task) -> dict[str, bytes]:
        epochs = task.config.trainer.epochs
        if epochs not in made:
            folder = tmp_path_factory.mktemp("alone")
            same = Task(folder=folder, config=task.config, command=task.command, group=task.group)
            assert run_task(same).state == "done"
            made[epochs] = content(folder)
        return made[epochs]

    return of_run


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def task(name: str = "a", settings: tuple[str, ...] | list[str] = LONG) -> Task:
    return Task(folder=SWEEP / name, config=composed(*settings), command="python -m s9.train", group="try")


def longer(folder: Path) -> int:
    """The epochs of a run that outlasts a limit of one minute, on a fast machine too: counted by the fastest of 40."""
    timed = Task(folder=folder / "timed", config=composed(*LONG), command="python -m s9.train", group="try")
    assert run_task(timed).state == "done"
    lines = RunFolder(timed.folder).times.read_text().splitlines()
    return math.ceil(WARNED_S / min(json.loads(line)["time/epoch_s"] for line in lines))


def pool(**settings: Any) -> SlurmPool:
    made = SlurmPool(run_task, SWEEP, settings)
    made.settles_s = 1.0  # no network disk here
    return made


def training(task: Task) -> RunFolder:
    """The task's run, as soon as it has trained an epoch."""
    folder = RunFolder(task.folder)
    until(lambda: folder.metrics.exists() and folder.read_metrics())
    return folder


def ended(pool: SlurmPool, seconds: float = 150) -> Outcome:
    """The outcome of the only task."""
    ((_, outcome),) = pool.wait(seconds)
    return outcome


def job_of(pool: SlurmPool) -> str:
    return str(pool.active[0].job.job_id)


def preempt() -> None:
    """A job that needs both nodes for a moment."""
    said("sbatch", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=sleep 2")


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("partition", ["low", "grace", "cancel"])
@on_slurm
def test_a_preempted_job_resumes_and_ends_as_if_alone(
    partition: str, alone: Callable[[Task], dict[str, bytes]]
) -> None:
    slurm, a = pool(partition=partition), task()
    slurm.start([a])
    folder = training(a)
    preempt()
    assert ended(slurm).state == "done"
    assert (folder.read_status()["starts"], differing(a.folder, alone(a))) == (2, [])


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(600)  # two runs of more than a minute, and SLURM's pause before the second start
@on_slurm
def test_a_job_that_reaches_its_time_limit_resumes_and_ends_as_if_alone(
    alone: Callable[[Task], dict[str, bytes]], tmp_path: Path
) -> None:
    slurm, a = pool(timeout_min=1, signal_delay_s=5), task(settings=(*SMALL, f"trainer.epochs={longer(tmp_path)}"))
    slurm.start([a])
    wanted = alone(a)  # while the job runs
    assert ended(slurm, 400).state == "done"
    assert RunFolder(a.folder).read_status()["starts"] > 1
    assert differing(a.folder, wanted) == []


@pytest.mark.slurm
@pytest.mark.slow
@on_slurm
def test_a_job_that_reaches_its_time_limit_too_often_is_interrupted() -> None:
    slurm, a = pool(timeout_min=10, max_num_timeout=0), task()  # SLURM itself warns long after the test
    slurm.start([a])
    training(a)
    said("scancel", "--signal=USR1", job_of(slurm))  # what SLURM sends before the limit
    outcome = ended(slurm)
    assert outcome.state == "interrupted"
    assert "timed-out too many times" in outcome.reason


@pytest.mark.slurm
@pytest.mark.slow
@on_slurm
def test_a_job_resumes_on_the_other_node_when_its_own_goes_down(alone: Callable[[Task], dict[str, bytes]]) -> None:
    slurm, a = pool(), task()
    slurm.start([a])
    folder = training(a)
    node = said("squeue", "-h", "-o", "%N", "-j", job_of(slurm))
    said("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    assert ended(slurm).state == "done"
    assert (folder.read_status()["starts"], differing(a.folder, alone(a))) == (2, [])


@pytest.mark.slurm
@pytest.mark.slow
@on_slurm
def test_scancel_interrupts_a_run_which_a_new_job_resumes(alone: Callable[[Task], dict[str, bytes]]) -> None:
    slurm, a = pool(), task()
    slurm.start([a])
    folder = training(a)
    said("scancel", job_of(slurm))
    assert ended(slurm).state == "interrupted"
    assert {k: folder.read_status()[k] for k in ("state", "reason")} == {"state": "interrupted", "reason": "SIGTERM"}
    slurm.start([a])
    assert ended(slurm).state == "done"
    assert differing(a.folder, alone(a)) == []


@pytest.mark.slurm
@pytest.mark.slow
@on_slurm
def test_a_killed_run_is_interrupted_and_the_other_job_of_its_array_ends() -> None:
    slurm, a, b = pool(), task("a"), task("b")
    slurm.start([a, b])
    folder = training(a)
    os.kill(folder.read_status()["pid"], signal.SIGKILL)
    outcomes = dict[str, Outcome]()
    until(lambda: outcomes.update((t.folder.name, outcome) for t, outcome in slurm.wait(5)) or len(outcomes) == 2)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {"a": "interrupted", "b": "done"}
    assert "ended as FAILED" in outcomes["a"].reason


@pytest.mark.slurm
@pytest.mark.slow
@on_slurm
def test_stop_cancels_what_runs_and_what_waits_within_seconds() -> None:
    slurm, tasks = pool(), [task(name) for name in "abc"]
    slurm.start(tasks)
    training(tasks[0])
    began = time.monotonic()
    slurm.stop(signal.SIGINT, 5)
    assert time.monotonic() - began < 8
    outcomes = dict[str, str]()
    until(lambda: outcomes.update((t.folder.name, o.state) for t, o in slurm.wait(1)) or len(outcomes) == 3, 20)
    assert set(outcomes.values()) == {"interrupted"}
    assert not said("squeue", "-h")


@pytest.mark.slurm
@pytest.mark.slow
@on_slurm
def test_a_sweep_on_the_command_line_runs_its_jobs_on_slurm(tmp_path: Path) -> None:
    on = ("-m", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "sweep.name=two", "seed=0,1")
    done = run(tmp_path, "train", *on, *SHORT, SLURM_CONF=os.environ["SLURM_CONF"])
    assert done.returncode == 0, done.stderr
    runs = [RunFolder(path.parent) for path in tmp_path.glob("outputs/sweeps/two/*/status.json")]
    assert [folder.read_status()["state"] for folder in runs] == ["done", "done"]
    assert list(tmp_path.glob("outputs/sweeps/two/.submitit/*_result.pkl"))


@pytest.mark.slurm
@on_slurm
def test_a_sweep_that_takes_over_waits_for_jobs_that_are_queued_and_submits_no_others() -> None:
    tasks = [task(name) for name in "ab"]
    pool(additional_parameters={"hold": True}).start(tasks)
    second = pool()
    second.start(tasks)
    assert len(said("squeue", "-h", "--array").splitlines()) == len(second.active) == 2


@pytest.mark.slurm
@on_slurm
def test_a_job_that_is_cancelled_while_it_waits_is_interrupted() -> None:
    slurm = pool(additional_parameters={"hold": True})
    slurm.start([task()])
    said("scancel", job_of(slurm))
    outcome = ended(slurm, 30)
    assert outcome.state == "interrupted"
    assert "was cancelled" in outcome.reason


@pytest.mark.slurm
@on_slurm
def test_a_queued_job_whose_run_another_process_finishes_is_cancelled() -> None:
    slurm, a = pool(additional_parameters={"hold": True}), task(settings=SHORT)
    slurm.start([a])
    wanted = run_task(a)
    assert ended(slurm, 30).value == wanted.value
    until(lambda: not said("squeue", "-h"), 10)


@pytest.mark.slurm
@on_slurm
def test_a_time_limit_longer_than_the_partitions_is_cut_to_that() -> None:
    slurm = pool(timeout_min=1440, additional_parameters={"hold": True})
    slurm.start([task()])
    assert said("squeue", "-h", "-o", "%l") == "1:00:00"


@pytest.mark.slurm
@on_slurm
def test_jobs_have_names_that_say_which_sweep_they_belong_to() -> None:
    slurm = pool(additional_parameters={"hold": True})
    slurm.start([task("a")])
    slurm.start([task("b"), task("c")])
    assert set(said("squeue", "-h", "-o", "%j").split()) == {"s9-try-a", "s9-try"}


@pytest.mark.slurm
@on_slurm
def test_what_slurm_refuses_is_said_in_its_words() -> None:
    with pytest.raises(UserError, match=r"SLURM refuses the job: .*invalid partition"):
        pool(partition="none").start([task()])


@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_an_unknown_setting_is_refused(cluster: Literal["slurm", "local"], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=re.escape("hydra.launcher.timeout: no such setting; did you mean timeout_min?")
    ):
        SlurmPool(run_task, tmp_path, {"timeout": 5}, cluster)


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmPool:
    """A pool on a SLURM that takes one job, refuses the next, and does not say which jobs it has."""
    pytest.importorskip("submitit")
    once = "[ -e taken ] && { echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }\ntouch taken\n"
    for name, script in (
        ("sbatch", f"{once}echo Submitted batch job 12"),
        ("squeue", "echo slurm_load_jobs error: Socket timed out >&2; exit 1"),
        ("sinfo", "echo 'low*|infinite'"),
    ):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return pool()


def test_where_slurm_refuses_a_job_the_line_says_which_others_go_on_and_how(refusing: SlurmPool) -> None:
    refusing.start([task("a")])
    with pytest.raises(UserError) as error:
        refusing.start([task("b")])
    assert "QOSMaxSubmitJobPerUserLimit" in str(error.value)
    wanted = f"; 1 jobs of this sweep go on in SLURM, and python -m s9.train resume={SWEEP} waits for them"
    assert wanted in str(error.value)


def test_where_slurm_does_not_answer_no_job_is_submitted_twice(refusing: SlurmPool) -> None:
    refusing.start([task("a")])
    Path("taken").unlink()
    with pytest.raises(UserError, match="squeue does not say whether 1 jobs, submitted before, are still queued"):
        pool().start([task("a")])
    assert not Path("taken").exists()


def test_where_slurm_refuses_new_jobs_those_that_go_on_are_counted(refusing: SlurmPool, tmp_path: Path) -> None:
    refusing.start([task("a")])
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\necho '12|RUNNING|{refusing.name}-a'\n")
    with pytest.raises(UserError, match="; 1 jobs of this sweep go on in SLURM"):
        pool().start([task("a"), task("b")])


def test_slurm_that_has_forgotten_all_jobs_is_asked_once(refusing: SlurmPool, tmp_path: Path) -> None:
    refusing.start([task("a")])
    Path("taken").unlink()
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\necho >> {tmp_path / 'asked'}\n")
    pool().start([task("a")])
    assert (tmp_path / "asked").read_text().count("\n") == 1


def test_without_slurm_the_launcher_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="slurm"):
        SlurmPool(run_task, tmp_path, {})


@pytest.mark.parametrize(
    ("limit", "minutes"), [("infinite", None), ("1:00:00", 60), ("2-01:30:00", 2970), ("30:00", 30)]
)
def test_the_time_limits_of_partitions_are_read(limit: str, minutes: int | None) -> None:
    assert _minutes(limit) == minutes


@pytest.mark.parametrize(("restarts", "state"), [(None, "taken"), ("1", "done")])
def test_a_job_that_is_queued_again_waits_until_its_former_node_is_silent(
    restarts: str | None, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("s9.tracking.lock.LEASE_S", 1.0)
    monkeypatch.setattr("s9.tracking.lock.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("s9.sweeps.on_node.LOOK_EVERY_S", 0.1)
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    a = task(settings=SHORT)
    folder = RunFolder(a.folder)
    folder.path.mkdir(parents=True)
    lock = RunLock(folder.lock, folder.lease)
    assert lock.acquire()
    of_another_node = folder.lease.read_text().replace(socket.gethostname(), "gone")
    lock.release()
    folder.lease.write_text(of_another_node)
    assert OnNode(run_task)(a).state == state


@pytest.mark.slow
def test_submitit_runs_jobs_on_this_machine_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    local = SlurmPool(run_task, SWEEP, {"array_parallelism": 1}, "local")
    local.start([task(settings=SHORT)])
    assert local.room() == 0
    assert ended(local).state == "done"


@pytest.mark.slow
def test_jobs_of_submitit_on_this_machine_save_when_the_sweep_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    local, a = SlurmPool(run_task, SWEEP, {}, "local"), task()
    local.start([a])
    folder = training(a)
    local.stop(signal.SIGTERM, 5)
    assert ended(local, 5).state == folder.read_status()["state"] == "interrupted"
    assert list(folder.checkpoints.glob("*.pt"))
