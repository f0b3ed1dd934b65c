"""Where the jobs of a sweep run: which GPUs and how many threads each of those that run at the same time gets."""

from collections import Counter
from typing import Any

import pytest

from s9.cli.launchers import environments, refuse_unknown
from s9.config.sweep import SweepConfig
from s9.system.errors import UserError
from s9.system.process import available_cores
from tests.conftest import composed

DEVICES, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up ones: who asks for GPUs by CUDA_VISIBLE_DEVICES is not asked whether they are there."""
    monkeypatch.setenv(DEVICES, "0,1,2")
    monkeypatch.delenv(THREADS, raising=False)


def given(
    launcher: str = "basic", *overrides: str, jobs_per_gpu: int | None = None, **settings: Any
) -> list[dict[str, str]]:
    config = composed("data=digits", *overrides)
    return environments(launcher, settings, SweepConfig(jobs_per_gpu=jobs_per_gpu), config)


def gpus(found: list[dict[str, str]]) -> list[str | None]:
    return [environment.get(DEVICES) for environment in found]


def test_each_visible_gpu_gets_a_job() -> None:
    assert gpus(given()) == ["0", "1", "2"]


def test_the_first_jobs_are_spread_over_all_gpus_before_any_gets_a_second() -> None:
    assert gpus(given(jobs_per_gpu=2)) == ["0", "1", "2", "0", "1", "2"]


@pytest.mark.parametrize(
    ("visible", "wanted"), [("7", ["7"]), ("5, 3", ["5", "3"]), ("GPU-ab,GPU-cd", ["GPU-ab", "GPU-cd"])]
)
def test_gpus_keep_the_names_that_they_have_outside(
    visible: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEVICES, visible)
    assert gpus(given()) == wanted


def test_jobs_of_two_devices_get_pairs_and_a_gpu_that_is_left_over_gets_none() -> None:
    assert gpus(given("basic", "trainer.devices=2")) == ["0,1"]


def test_with_more_devices_a_job_than_there_are_a_job_runs_unmasked_and_says_so_itself() -> None:
    assert gpus(given("basic", "trainer.devices=4")) == [None]


def test_a_job_that_names_its_gpu_is_not_masked() -> None:
    assert gpus(given("basic", "trainer.device=cuda:1")) == [None]


def test_without_gpus_jobs_run_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICES, "")
    assert given(jobs_per_gpu=3) == [{}]


def test_jobs_on_the_cpu_where_nobody_names_gpus_run_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEVICES)
    assert given("basic", "trainer.device=cpu") == [{}]


def test_joblib_runs_as_many_as_it_is_told_spread_over_the_gpus() -> None:
    assert Counter(gpus(given("joblib", n_jobs=5))) == {"0": 2, "1": 2, "2": 1}


def test_joblib_runs_one_a_core_where_it_is_told_minus_one() -> None:
    assert len(given("joblib", n_jobs=-1)) == available_cores()


@pytest.mark.parametrize("jobs", [0, "two", None, 1.5])
def test_a_number_of_jobs_that_is_none_is_one_line(jobs: Any) -> None:
    with pytest.raises(UserError, match=r"^hydra\.launcher\.n_jobs="):
        given("joblib", n_jobs=jobs)


def test_jobs_at_the_same_time_share_the_cores() -> None:
    assert {environment[THREADS] for environment in given()} == {str(max(1, available_cores() // 3))}


def test_a_job_alone_takes_all_cores() -> None:
    assert THREADS not in given("joblib", n_jobs=1)[0]


def test_threads_that_somebody_has_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "7")
    assert not any(THREADS in environment for environment in given())


def test_what_each_job_gets_is_its_own() -> None:
    found = given(jobs_per_gpu=2)
    assert len({id(environment) for environment in found}) == len(found)


def test_a_launcher_that_s9_does_not_know_is_refused_with_those_it_knows() -> None:
    with pytest.raises(UserError, match="hydra/launcher=rq: must be one of basic, joblib, submitit_slurm"):
        refuse_unknown("rq")
