"""The doors as a person meets them: real processes, their exit codes, what they print and what they leave."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s9.cli.door import key_values
from s9.cli.help import NO_GROUPS
from s9.sweeps.jobs import SweepFolder
from s9.system.errors import UserError
from tests import doors
from tests.conftest import ROOT
from tests.doors import HERE, RUN, SHORT, SMALL, Done

Run = Callable[..., Done]


@pytest.fixture
def s9(tmp_path: Path) -> Run:
    """Runs `python -m s9.<door> ...` in an empty folder."""

    def run(door: str, *arguments: str) -> Done:
        return doors.run(tmp_path, door, *arguments, HOME=os.environ["HOME"], S9_CACHE=os.environ["S9_CACHE"])

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    cwd = tmp_path_factory.mktemp("trained")
    done = doors.run(cwd, "train", *SMALL, HERE, "trainer.epochs=2", "trainer.steps_per_epoch=2")
    assert (done.returncode, done.stderr) == (0, "")
    (cwd / RUN / "screen.txt").write_text(done.stdout)
    return cwd / RUN


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_seen_enough_is_no_error(unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = f"{sys.executable} -m s9.train --help | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_help_lists_every_option_with_an_example(s9: Run) -> None:
    said = s9("train", "--help").stdout
    groups = [path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name not in NO_GROUPS]
    options = [f"{group.name}={path.stem}" for group in groups for path in group.glob("*.yaml")]
    assert len(options) > 15
    assert [option for option in options if f"  {option}" not in said] == []
    assert said.count("python -m s9.train") > len(options)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["model.dropot=0.1"], "error: model.dropot=0.1: there is no such key; did you mean model.dropout?"),
        (["data.val_size=5000"], "error: data.val_size=5000: must be 0, or from 10"),
        (["trainer.device=cuda:7"], "error: trainer.device=cuda:7: not on this machine; here: auto"),
        (["data=folder", "data.root=nowhere"], "error: data.root=nowhere: there is no such folder; wanted: "),
        (["model.dropout=0,0.1"], "error: model.dropout=0,0.1: names several values; add -m"),
        (["--nonsense"], "error: unrecognized arguments: --nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(
    s9: Run, tmp_path: Path, typed: list[str], said: str
) -> None:
    done = s9("train", *SHORT, *typed)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_takes_nothing_of_the_users_folder(s9: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert s9("train", *SHORT, "data.val_size=5000", "hydra.run.dir=mine").returncode == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_prints_plain_lines_where_there_is_no_terminal(trained: Path) -> None:
    said = (trained / "screen.txt").read_text()
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "\r" not in said


@pytest.mark.slow
def test_a_shell_gets_the_lines_and_the_exit_code_too(tmp_path: Path) -> None:
    """Of a new python, whose start is seconds long."""
    for arguments, code in (([], 0), (["data.val_size=5000"], 2)):
        with doors.started(tmp_path, doors.shell("train", *SHORT, *arguments)) as run:
            done = run.end()
        assert done.returncode == code, done.stderr
    assert len(list((tmp_path / "outputs").rglob("summary.json"))) == 1


@pytest.mark.slow
def test_eight_launches_in_one_second_get_eight_folders(tmp_path: Path) -> None:
    launched = [doors.Started(tmp_path, doors.command("train", *SHORT), doors.environment(tmp_path)) for _ in range(8)]
    assert [door.end().returncode for door in launched] == [0] * 8
    runs = [path.parent for path in (tmp_path / "outputs").rglob("summary.json")]
    assert len(runs) == len({run.name for run in runs}) == 8


@pytest.mark.slow
def test_a_sweep_gives_each_job_a_folder_and_a_line(s9: Run, tmp_path: Path) -> None:
    done = s9("train", "-m", *SHORT, "model.dropout=0,0.05", "trainer.label_smoothing=0,0.1")
    assert done.returncode == 0, done.stderr
    folder = SweepFolder(next((tmp_path / "outputs" / "sweeps").iterdir()))
    lines = folder.read_summary()
    assert sorted((line["model.dropout"], line["trainer.label_smoothing"]) for line in lines) == [
        *(("0", "0"), ("0", "0.1"), ("0.05", "0"), ("0.05", "0.1")),
    ]
    assert all((folder.run(line["job"]).final).exists() for line in lines)
    assert f"summary: {folder.summary.relative_to(tmp_path)}" in done.stdout
    assert "test" not in done.stdout.replace(str(tmp_path), "")  # who compares jobs must not see test


@pytest.mark.slow
def test_a_sweep_with_a_failed_job_shows_all_jobs_and_ends_with_exit_code_1(s9: Run, tmp_path: Path) -> None:
    done = s9("train", "-m", *SHORT, "scheduler=constant", "optimizer.lr=1e30,0.02", "trainer.steps_per_epoch=20")
    assert done.returncode == 1
    assert "1 of 2 jobs are not done: 1 failed" in done.stderr
    assert "failed: loss is nan" in done.stdout


# Hydra's own flags and keys


@pytest.mark.parametrize("flag", ["--cfg job", "--info all", "--hydra-help", "--shell-completion"])
def test_a_flag_for_one_configuration_is_refused_in_a_sweep_in_one_line(s9: Run, flag: str) -> None:
    done = s9("train", "-m", *SHORT, "seed=0,1", *flag.split())
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--config-name", "mine"], "error: --config-name mine: there is no mine.yaml in "),
        (["--cfg", "job", "--config-name", "mine"], "error: --config-name mine: there is no mine.yaml in "),
        (["hydra/launcher=nope"], "error: hydra/launcher=nope: there is no such option; allowed: basic, joblib, ray"),
        (["--cfg", "job", "model=nope"], "error: In 'config': Could not find 'model/nope'"),
        (["--resolve"], "error: The --resolve flag can only be used"),
        (["--experimental-rerun", "job.pickle"], "error: --experimental-rerun: not supported"),
        (["hydra.mode=MULTIRUN"], "error: hydra.mode=MULTIRUN: -m starts a sweep"),
        (["hydra.run.dir=out/${nope}"], "error: Interpolation key 'nope' not found"),
        (["+hydra.callbacks.mine={_target_:nowhere.Mine}"], "error: Error locating target 'nowhere.Mine'"),
        (["hydra.job_logging.root.level=NOPE"], "error: Unable to configure root logger (Unknown level: 'NOPE')"),
    ],
)
def test_what_hydra_refuses_is_one_line(s9: Run, typed: list[str], said: str) -> None:
    done = s9("train", *SHORT, *typed)
    assert done.returncode == 2
    assert done.stderr.startswith(said), done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


@pytest.mark.parametrize("flag", [["--cfg", "job"], ["--info"], ["--info", "searchpath"], ["--hydra-help"]])
def test_hydras_flags_answer(s9: Run, flag: list[str]) -> None:
    done = s9("train", *SHORT, *flag)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


@pytest.mark.parametrize(
    "typed",
    [
        *(
            ["hydra.verbose=true"],
            ["hydra.output_subdir=hydra"],
            ["hydra.job.name=mine"],
            ["hydra/job_logging=none"],
            ["hydra/job_logging=disabled"],
        ),
        *(["hydra/hydra_logging=disabled"], ["hydra/job_logging=stdout"], ["hydra.run.dir=run-${seed}-${model.name}"]),
    ],
    ids=" ".join,
)
def test_what_hydra_can_do_besides_leaves_the_run_whole(s9: Run, tmp_path: Path, typed: list[str]) -> None:
    done = s9("train", *SHORT, *typed)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.rglob("summary.json"))) == 1


def test_in_its_own_folder_a_run_names_it_as_a_path_that_holds_everywhere(s9: Run, tmp_path: Path) -> None:
    done = s9("train", *SHORT, HERE, "hydra.job.chdir=true")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m s9.evaluate run={tmp_path / RUN}\n" in done.stdout
    assert (tmp_path / RUN / "summary.json").exists() and {p.name for p in tmp_path.iterdir()} <= {RUN, ".config"}


def test_evaluate_gives_the_same_numbers_to_the_last_digit(s9: Run, trained: Path) -> None:
    done = s9("evaluate", f"run={trained}")
    assert done.returncode == 0, done.stdout
    assert repr(json.loads((trained / "summary.json").read_text())["test"]["loss"]) in done.stdout
    assert "the same as in summary.json" in done.stdout


def test_evaluate_says_so_where_the_weights_are_others(s9: Run, tmp_path: Path, trained: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "other")
    summary = json.loads((run / "summary.json").read_text())
    summary["test"]["loss"] += 1e-12
    (run / "summary.json").write_text(json.dumps(summary))
    done = s9("evaluate", f"run={run}")
    assert done.returncode == 1
    assert "differs from summary.json in loss" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "run= is missing"),
        (["rum=x"], "did you mean run"),
        (["x"], "key=value"),
        (["--run", "x"], "--run: must be run=<value>"),
        (["run=a", "run=b"], "run=b: run= is given twice"),
    ],
)
def test_the_small_doors_name_a_wrong_argument(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        key_values(arguments, {"run": None, "split": "test"}, "python -m s9.door run=...")
