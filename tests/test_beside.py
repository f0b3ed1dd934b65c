"""What runs beside the training: figures are not drawn while workers are forked, and workers end with the run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

QUICK = (
    *("data=digits", "model=strided", "aug=none", "wandb=disabled", "trainer.device=cpu", "data.loader=workers"),
    *("data.workers=1", "trainer.epochs=1", "trainer.steps_per_epoch=2", "trainer.batch_size=16"),
)

BEGINS = """
import gc, json, multiprocessing, os, sys, time
from pathlib import Path
from s9.cli.compose import compose_config
from s9.runs.run import train
at_fork = []

def look():
    if "torch" in sys.modules:
        time.sleep(1)  # more than the other thread needs to begin
        at_fork.append(sorted(name for name in sys.modules if name.startswith("matplotlib")))
"""
TRAINS = """
os.register_at_fork(before=look)
train(compose_config(sys.argv[2:]), Path(sys.argv[1]))
print(json.dumps(at_fork))
"""
FAILS_BEHIND_THE_LAST_STEP = """
from s9.runs import rank_0

def fails(*_):
    raise KeyError("after the summary")

rank_0.write_insight = fails
train(compose_config(sys.argv[2:]), Path(sys.argv[1]))
"""
NO_GARBAGE_COLLECTION = """
gc.disable()
train(compose_config(sys.argv[2:]), Path(sys.argv[1]))
print(json.dumps(len(multiprocessing.active_children())))
"""


def python(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BEGINS + script, str(folder), *QUICK]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)


@pytest.mark.slow
def test_no_worker_is_forked_while_matplotlib_is_loaded_and_the_figures_are_there(tmp_path: Path) -> None:
    done = python(TRAINS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[]], "one worker, forked before matplotlib was imported"
    assert {"augmentation.png", "confusion.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}


@pytest.mark.slow
def test_workers_end_with_the_run_without_the_garbage_collector_and_python_exits(tmp_path: Path) -> None:
    done = python(NO_GARBAGE_COLLECTION, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == 0


@pytest.mark.slow
def test_a_run_that_is_resumed_behind_its_last_step_draws_all_the_same(tmp_path: Path) -> None:
    failed = python(FAILS_BEHIND_THE_LAST_STEP, tmp_path)
    assert failed.returncode == 1 and "after the summary" in failed.stderr, failed.stderr
    resumed = subprocess.run(
        [sys.executable, "-m", "s9.train", f"resume={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "figures" / "confusion.png").is_file()
