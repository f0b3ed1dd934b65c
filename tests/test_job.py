"""A job returns how it ended; the process that it ran in lives on, as those of a sweep, of ray and of a search do."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s9.cli.compose import compose_config
from s9.runs.job import job
from s9.sweeps.task import Outcome
from s9.tracking.folder import RunFolder
from tests.conftest import ROOT
from tests.doors import SHORT, SMALL, environment

LIVES_ON = """
import json, os, signal, sys, threading, time
from pathlib import Path
from s9.cli.compose import compose_config
from s9.runs.job import job
from s9.tracking.folder import RunFolder

folder = RunFolder(Path("run"))
folder.path.mkdir()

def stop_when_it_trains():
    while not any(folder.checkpoints.glob("*.pt")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_when_it_trains).start()
first = job(lambda: compose_config(sys.argv[1:]), folder, command="")
again = job(folder.read_config, folder, command="", resumed=True)
print(json.dumps([[o.state, o.exit_code, o.reason, o.value] for o in (first, again)]))
"""

Job = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, no_figures: None) -> Job:
    def run_with(*overrides: str, group: str | None = None) -> Outcome:
        folder = RunFolder(tmp_path / "sweep" / "0")
        folder.path.mkdir(parents=True, exist_ok=True)
        return job(lambda: compose_config([*SHORT, *overrides]), folder, command="", group=group)

    return run_with


def test_a_finished_job_returns_its_val_accuracy(run: Job, tmp_path: Path) -> None:
    outcome = run()
    summary = RunFolder(tmp_path / "sweep" / "0").read_summary()
    assert outcome == Outcome("done", value=summary["val"]["accuracy"])


def test_without_val_a_finished_job_has_no_value(run: Job) -> None:
    assert run("data.val_size=0") == Outcome("done")


def test_a_job_whose_loss_explodes_returns_why(run: Job, tmp_path: Path) -> None:
    outcome = run("optimizer.lr=1e30", "scheduler=constant", "trainer.steps_per_epoch=20")
    assert (outcome.state, outcome.exit_code) == ("failed", 1)
    assert "not finite" in outcome.reason or "nan" in outcome.reason
    assert RunFolder(tmp_path / "sweep" / "0").read_status()["state"] == "failed"


def test_a_job_that_is_refused_returns_why_and_leaves_nothing(run: Job, tmp_path: Path) -> None:
    outcome = run("data.val_size=5")
    assert (outcome.state, outcome.exit_code) == ("failed", 2)
    assert outcome.reason.startswith("data.val_size=5: must be")
    assert not (tmp_path / "sweep" / "0").exists()


def test_a_job_of_a_sweep_that_is_refused_keeps_its_status_for_the_table(run: Job, tmp_path: Path) -> None:
    outcome = run("data.val_size=5", group="sweep")
    said = RunFolder(tmp_path / "sweep" / "0").read_status()
    assert (said["state"], said["reason"]) == ("failed", outcome.reason)


def test_a_job_in_a_folder_that_holds_a_run_is_refused(run: Job, tmp_path: Path) -> None:
    run()
    folder = RunFolder(tmp_path / "sweep" / "0")
    assert run() == Outcome("failed", f"{folder}: already holds a run; choose another folder", exit_code=2)


@pytest.mark.slow
def test_the_process_of_an_interrupted_job_lives_on_and_can_resume_it(tmp_path: Path) -> None:
    overrides = [*SMALL, "trainer.epochs=2", "trainer.save_every=0"]
    done = subprocess.run(
        [sys.executable, "-c", LIVES_ON, *overrides],
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, again = json.loads(done.stdout.splitlines()[-1])
    assert first == ["interrupted", 143, "interrupted by SIGTERM; resume with: python -m s9.train resume=run", None]
    assert again[:3] == ["done", 0, ""]
    assert again[3] is not None
