"""Sweeps as real processes: their folders, workers and jobs, and the same job trained alone."""

import shlex
from pathlib import Path

from s9.cli.launch import asked_of, read_flags
from s9.cli.plan import Plan, plan_of
from s9.cli.sweep import run_sweep
from s9.sweeps.jobs import SweepFolder
from s9.system.interrupt import Interrupts
from s9.tracking.folder import RunFolder
from tests.doors import HERE, RUN, SMALL, Done, children, metrics, run, status

GRID = ["model.dropout=0,0.1", "seed=0,1"]
EPOCHS = 15
LONG = [
    *SMALL,
    f"trainer.epochs={EPOCHS}",
    "trainer.steps_per_epoch=4",
    "trainer.save_every=0",
]  # long enough to be cut


def sweep(cwd: Path, *arguments: str) -> Done:
    """`python -m s9.train -m ...` in `cwd`, to its end."""
    return run(cwd, "train", "-m", *arguments)


def all_done(arguments: list[str]) -> Plan:
    """The sweep that these arguments ask for, whose jobs have ended without any training, and its command."""
    plan = plan_of(asked_of(read_flags(arguments)))
    for job in plan.jobs:
        folder = RunFolder(plan.folder.path / job.digest)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.status.write_text('{"state": "done", "minutes": 0.5}')
        folder.write_summary({"val": {"accuracy": 0.5}})
    assert run_sweep(asked_of(read_flags(arguments)), arguments, Interrupts()) == 0
    return plan


def folder_of(cwd: Path) -> Path:
    """The only sweep of `cwd`."""
    (found,) = (cwd / "outputs" / "sweeps").iterdir()
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    return SweepFolder(folder).read_summary()


def states(folder: Path, key: str = "seed") -> dict[str, str]:
    """From the value of the swept key to how the job stands in the summary."""
    return {row[key]: row["status"] for row in rows(folder)}


def starts(folder: Path) -> dict[str, int]:
    """How often each job of the sweep that has a folder was started."""
    return {path.parent.name: status(path.parent)["starts"] for path in sorted(folder.glob("*/status.json"))}


def in_the_middle(cwd: Path) -> Path | None:
    """The folder of a job that has trained three epochs and not all."""
    for path in cwd.glob("outputs/sweeps/*/*/metrics.jsonl"):
        if 3 <= len(metrics(path.parent)) < EPOCHS - 3:
            return path.parent
    return None


def workers(pid: int) -> list[int]:
    """The processes in which a sweep trains, from their first instant on."""
    return [child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def alone(cwd: Path, job: Path) -> Path:
    """The folder of a run with the command that the job has recorded."""
    place = cwd / f"alone-{job.name}"
    place.mkdir()
    done = run(place, "train", *words(status(job)["command"]), HERE)
    assert done.returncode == 0, done.stderr
    return place / RUN


def words(command: str) -> list[str]:
    """The arguments of a printed or recorded `python -m s9.train ...`."""
    first, arguments = shlex.split(command)[:3], shlex.split(command)[3:]
    assert first == ["python", "-m", "s9.train"]
    return arguments


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but not locks and what libraries print."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not Path(name).name.startswith(".")}
