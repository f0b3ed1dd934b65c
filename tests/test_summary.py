"""A sweep's summary.csv: a line a job, whole also when jobs end together."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s9.sweeps.summary import COLUMNS, add_row, read_rows, show_jobs


def test_jobs_that_end_together_all_get_a_line(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: add_row(tmp_path, {"job": job, "status": "done"}), range(40)))
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert sorted(int(row["job"]) for row in csv.DictReader(file)) == list(range(40))


def test_the_best_comes_first_and_a_failed_job_last(tmp_path: Path) -> None:
    add_row(tmp_path, {"job": 0, "status": "failed", "reason": "loss is nan"})
    add_row(tmp_path, {"job": 1, "status": "done", "val/accuracy": 0.5})
    add_row(tmp_path, {"job": 2, "status": "done", "val/accuracy": 0.9})
    assert [row["job"] for row in read_rows(tmp_path)] == ["2", "1", "0"]


def test_an_override_with_commas_and_quotes_comes_back_as_it_was(tmp_path: Path) -> None:
    overrides = 'model.dropout=0.1 +aug.transforms.b={_target_: "albumentations.Blur", p: 0.1}'
    add_row(tmp_path, {"job": 0, "overrides": overrides})
    assert read_rows(tmp_path)[0]["overrides"] == overrides


def test_the_summary_does_not_show_test() -> None:
    assert not any("test" in column for column in COLUMNS)


def test_the_jobs_are_shown_best_first_with_the_place_of_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_row(tmp_path, {"job": 0, "status": "done", "val/accuracy": 0.5, "overrides": "seed=0"})
    add_row(tmp_path, {"job": 1, "status": "done", "val/accuracy": 0.9, "overrides": "seed=1"})
    assert show_jobs(tmp_path) == 0
    said = capsys.readouterr().out.split()
    assert said.index("seed=1") < said.index("seed=0") < said.index(str(tmp_path / "summary.csv"))


def test_a_sweep_with_a_failed_job_has_exit_code_1_and_names_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_row(tmp_path, {"job": 0, "status": "done", "val/accuracy": 0.5})
    add_row(tmp_path, {"job": 1, "status": "failed", "reason": "loss is nan"})
    assert show_jobs(tmp_path) == 1
    assert capsys.readouterr().err == "error: 1 of 2 jobs failed: 1\n"


def test_a_sweep_that_has_run_nothing_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (show_jobs(tmp_path), capsys.readouterr().out) == (0, "")
