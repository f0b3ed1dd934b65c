"""The doors as a person meets them: real processes, their exit codes, what they print and what they leave."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s9.command_line import key_values
from s9.errors import UserError
from tests.conftest import ROOT

QUICK = ["data=digits", "model=strided", "aug=none", "wandb=disabled", "trainer=quick"]
SHORTEST = [*QUICK, "trainer.epochs=1", "trainer.steps_per_epoch=1"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def s9(tmp_path: Path) -> Run:
    """Runs `python -m s9.<door> ...` in an empty folder."""

    def run(door: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", f"s9.{door}", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)

    return run


def test_help_answers_in_under_a_second(s9: Run) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert s9("train", "--help").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_seen_enough_is_no_error(unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = f"{sys.executable} -m s9.train --help | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_help_lists_every_option_with_an_example(s9: Run) -> None:
    said = s9("train", "--help").stdout
    options = [f"{path.parent.name}={path.stem}" for path in (ROOT / "conf").glob("*/*.yaml")]
    assert len(options) > 15
    assert [option for option in options if f"  {option}" not in said] == []
    assert said.count("python -m s9.train") > len(options)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["model.dropot=0.1"], "error: model.dropot=0.1: there is no such key; did you mean model.dropout?"),
        (["data.val_size=5000"], "error: data.val_size=5000: must be 0, or from 10"),
        (["trainer.device=cuda:7"], "error: trainer.device=cuda:7: not on this machine; here: auto"),
        (["data=folder", "data.root=nowhere"], "error: data.root=nowhere: there is no folder nowhere/train"),
        (["model.dropout=0,0.1"], "error: model.dropout=0,0.1: names several values; add -m"),
        (["--nonsense"], "error: unrecognized arguments: --nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(
    s9: Run, tmp_path: Path, typed: list[str], said: str
) -> None:
    done = s9("train", *QUICK, *typed)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_takes_nothing_of_the_users_folder(s9: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert s9("train", *QUICK, "data.val_size=5000", "hydra.run.dir=mine").returncode == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_prints_plain_lines_where_there_is_no_terminal(s9: Run) -> None:
    done = s9("train", *QUICK, "trainer.steps_per_epoch=2")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert "\r" not in done.stdout + done.stderr


def test_eight_launches_in_one_second_get_eight_folders(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "s9.train", *SHORTEST]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launched = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(8)
    ]
    assert [process.wait(240) for process in launched] == [0] * 8
    for process in launched:
        assert process.stderr is not None
        process.stderr.close()
    runs = [path.parent for path in (tmp_path / "outputs").rglob("summary.json")]
    assert len(runs) == len({run.name for run in runs}) == 8


def test_a_sweep_gives_each_job_a_folder_and_a_line(s9: Run, tmp_path: Path) -> None:
    done = s9("train", "-m", *SHORTEST, "model.dropout=0,0.05,0.1", "optimizer.lr=0.1,0.3")
    assert done.returncode == 0, done.stderr
    summary = next((tmp_path / "outputs").rglob("summary.csv"))
    lines = summary.read_text().splitlines()
    assert len(lines) == 7
    assert len(list(summary.parent.glob("*/weights/final.safetensors"))) == 6
    dropouts = {
        json.loads(p.read_text())["command"].split("model.dropout=")[1] for p in summary.parent.glob("*/summary.json")
    }
    assert len(dropouts) == 6


def test_a_failed_job_does_not_stop_the_sweep_and_ends_it_with_exit_code_1(s9: Run, tmp_path: Path) -> None:
    done = s9("train", "-m", *SHORTEST, "trainer.steps_per_epoch=5", "optimizer.lr=1e30,0.1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = next((tmp_path / "outputs").rglob("summary.csv")).read_text().splitlines()
    assert [("failed" in line, "done" in line) for line in lines[1:]] == [(True, False), (False, True)]


def test_evaluate_gives_the_same_numbers_to_the_last_digit(s9: Run, tmp_path: Path) -> None:
    assert s9("train", *QUICK).returncode == 0
    run = next((tmp_path / "outputs").rglob("summary.json")).parent
    done = s9("evaluate", f"run={run}")
    assert done.returncode == 0, done.stdout
    assert repr(json.loads((run / "summary.json").read_text())["test"]["loss"]) in done.stdout
    assert "the same as in summary.json" in done.stdout


def test_evaluate_says_so_where_the_weights_are_others(s9: Run, tmp_path: Path) -> None:
    assert s9("train", *QUICK, "scheduler=constant", "optimizer.lr=0.5").returncode == 0
    run = next((tmp_path / "outputs").rglob("summary.json")).parent
    summary = json.loads((run / "summary.json").read_text())
    summary["test"]["loss"] += 1e-12
    (run / "summary.json").write_text(json.dumps(summary))
    done = s9("evaluate", f"run={run}")
    assert done.returncode == 1
    assert "differs from summary.json in loss" in done.stdout


def test_a_diverging_run_names_epoch_step_and_lr(s9: Run) -> None:
    done = s9("train", *QUICK, "optimizer.lr=1e30", "scheduler=constant")
    assert done.returncode == 1
    assert done.stderr.startswith("error: loss is ") and "epoch 1, step" in done.stderr and "lr 1e+30" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"), [([], "run= is missing"), (["rum=x"], "did you mean run"), (["x"], "key=value")]
)
def test_the_small_doors_name_a_wrong_argument(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        key_values(arguments, {"run": None, "split": "test"}, "python -m s9.door run=...")
