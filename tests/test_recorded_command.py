"""The command that a run records can be pasted into a shell, and gives the same run."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from s9.sweeps.jobs import SweepFolder
from tests.doors import HERE, RUN, SHORT, environment, metrics, run, status

AWKWARD = (
    *('name="a run [1], (really) $HOME"', "wandb.tags=[one,'two words']"),
    *("+optimizer.foreach=true", "aug.mix={name: mixup, alpha: 0.2, p: 0.5}"),
)


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    """A folder of a user's own options, to be named with --config-dir."""
    folder = tmp_path / "my configs"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    return folder


def pasted(folder: Path, recorded: str) -> Path:
    """Runs the line in a shell; the folder of the run that it made."""
    line = recorded.replace("python", shlex.quote(sys.executable), 1)
    subprocess.run(["bash", "-c", line], cwd=folder, env=environment(folder), check=True, capture_output=True)
    (made,) = (folder / "outputs").glob("*/*/status.json")
    return made.parent


@pytest.mark.slow
def test_of_a_run_it_gives_the_same_run(tmp_path: Path, own_configs: Path) -> None:
    flags = ("--config-dir", str(own_configs), "experiment=mine")
    first = run(tmp_path, "train", *flags, *SHORT, *AWKWARD, HERE)
    assert first.returncode == 0, first.stderr
    recorded = status(tmp_path / RUN)["command"]
    again = pasted(tmp_path, recorded)
    assert metrics(again) == metrics(tmp_path / RUN)
    assert status(again)["command"] == recorded
    assert (again / "config.yaml").read_bytes() == (tmp_path / RUN / "config.yaml").read_bytes()


@pytest.mark.slow
def test_of_a_job_of_a_sweep_it_gives_that_job_alone(tmp_path: Path, own_configs: Path) -> None:
    swept = ("-m", "seed=3,4", "hydra.sweep.dir=sweep", "--config-dir", str(own_configs))
    done = run(tmp_path, "train", *swept, *SHORT, *AWKWARD)
    assert done.returncode == 0, done.stderr
    first, second = (tmp_path / "sweep" / row.job for row in SweepFolder(tmp_path / "sweep").rows()[1])
    again = pasted(tmp_path, status(second)["command"])
    assert metrics(again) == metrics(second) != metrics(first)
