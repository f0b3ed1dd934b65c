"""`python -m s9.report` as a process: which pages it writes, what it prints, and its mistakes, one line each."""

from pathlib import Path

import pytest

from s9.sweeps.jobs import SweepFolder
from tests.doors import HERE, RUN, SHORT, Done, run
from tests.made_up_sweep import write_made_up_sweep

KEYS = {"optimizer.lr": ["0.01", "0.02"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a short run."""
    cwd = tmp_path_factory.mktemp("report")
    done = run(cwd, "train", *SHORT, HERE)
    assert done.returncode == 0, done.stderr
    return cwd


@pytest.fixture
def swept(tmp_path: Path) -> SweepFolder:
    return write_made_up_sweep(tmp_path / "x", KEYS, seeds=2, epochs=2, missing=1)


def report(cwd: Path, *arguments: str) -> Done:
    return run(cwd, "report", *arguments)


def test_a_runs_report_draws_its_figures_and_writes_its_page(trained: Path) -> None:
    done = report(trained, f"run={RUN}")
    assert done.returncode == 0, done.stderr
    names = [
        "augmentation",
        "curves",
        "misclassified",
        "confusion",
        "gradcam",
        "filters",
        "feature_maps",
        "receptive_field",
    ]
    assert done.stdout.split() == [*(f"{RUN}/figures/{name}.png" for name in names), f"{RUN}/report.html"]
    assert all((trained / path).stat().st_size for path in done.stdout.split())


def test_a_sweeps_report_prints_the_answer_and_what_was_written(swept: SweepFolder) -> None:
    done = report(swept.path.parent, "sweep=x")
    assert done.returncode == 0, done.stderr
    assert "The standard deviation between seeds" in done.stdout and "x/report.html" in done.stdout.splitlines()


def test_pages_of_runs_are_written_when_asked_for(swept: SweepFolder) -> None:
    report(swept.path.parent, "sweep=x")
    assert not list(swept.path.glob("*/report.html"))
    done = report(swept.path.parent, "sweep=x", "runs=true")
    assert done.returncode == 0, done.stderr
    assert len(list(swept.path.glob("*/report.html"))) == 3


def test_a_sweeps_report_needs_no_images_and_no_commands_of_its_jobs(swept: SweepFolder) -> None:
    for config in swept.path.glob("*/config.yaml"):
        config.unlink()
    assert report(swept.path.parent, "sweep=x").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "give run=<folder> or sweep=<folder>"),
        (["run=a", "sweep=b"], "give run=<folder> or sweep=<folder>"),
        (["run=nowhere"], "run=nowhere: there is no such folder"),
        (["sweep=nowhere"], "sweep=nowhere: there is no such folder"),
        (["run=empty"], "run=empty: holds no files of a run; wanted one of config.yaml"),
        (["sweep=empty"], "sweep=empty: there is no readable sweep.json"),
        (["sweep=empty", "watch=true"], "sweep=empty: there is no sweep.json in it"),
        (["run=empty", "runs=true"], "runs=true: belongs to sweep="),
        (["sweep=empty", "runs=true", "watch=true"], "runs=true and watch=true: give one of them"),
        (["run=empty", "watch=yes"], "watch=yes: must be false or true"),
        (["swep=empty"], "did you mean sweep"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], error: str) -> None:
    (tmp_path / "empty").mkdir()
    done = report(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and error in done.stderr and done.stderr.count("\n") == 1
