"""The names, tags and labels by which W&B tells the jobs of a sweep apart, before and after a job is resumed."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb

from s9.config.schema import Config
from s9.tracking.wandb_log import WandbLog
from s9.tracking.wandb_names import LONGEST_NAME, label_of, labels_of, name_of, short_keys, tags_of
from tests.doors import HERE, RUN, SMALL, run, status
from tests.sweeps import GRID, folder_of, sweep
from tests.test_wandb_log import stored
from tests.test_wandb_online import BASE, of, serving

SWEPT = {"model.dropout": "0.1", "optimizer.lr": "0.003", "seed": "2"}


def test_a_key_is_as_short_as_tells_it_from_the_others() -> None:
    keys = ("model.dropout", "aug.mix.p", "aug.transforms.flip.p", "seed", "model", "other.model")
    assert [*short_keys(keys).values()] == ["dropout", "mix.p", "flip.p", "seed", "model", "other.model"]


def test_a_name_has_the_swept_keys_and_values_in_their_order() -> None:
    assert name_of(SWEPT, None, "job") == "dropout=0.1 lr=0.003 seed=2"


def test_a_name_that_the_user_has_given_comes_first() -> None:
    assert name_of(SWEPT, "mine", "job") == "mine dropout=0.1 lr=0.003 seed=2"


def test_two_names_too_long_for_wandb_still_differ() -> None:
    values = {"data.root": "/a" * 200}
    names = [name_of(values | {"seed": str(seed)}, None, f"job{seed}") for seed in (1, 2)]
    assert names[0] != names[1] and {len(name) for name in names} == {LONGEST_NAME}


def test_labels_are_text_under_keys_without_dots() -> None:
    assert labels_of(SWEPT) == {"swept": {"model_dropout": "0.1", "optimizer_lr": "0.003", "seed": "2"}}
    assert label_of("aug.mix.p") == "aug_mix_p"


def test_a_run_that_is_no_job_has_no_labels() -> None:
    assert labels_of({}) == {}


def test_the_sweep_is_a_tag_beside_the_users_own_and_fits_into_wandbs_limit() -> None:
    assert tags_of(["a"], "mine") == ["a", "mine"]
    assert [len(tag) for tag in tags_of([], "x" * 200)] == [64]


# What W&B gets


@pytest.fixture
def begun(digits: Callable[..., Config], tmp_path: Path) -> Callable[..., Any]:
    """The run as W&B has stored it."""

    def begin(*overrides: str, swept: dict[str, str] | None) -> Any:
        folder = tmp_path / "sweep" / "job"
        folder.mkdir(parents=True)
        config = digits("wandb=offline", *overrides)
        log = WandbLog(config, folder, group="sweep", swept=swept, run_id=secrets.token_hex(4), earlier=[])
        log.finish(0)
        return next(r.run for r in stored(folder) if r.WhichOneof("record_type") == "run")

    return begin


def test_a_job_has_name_tag_group_and_labels(begun: Callable[..., Any]) -> None:
    its = begun(swept=SWEPT)
    assert (its.display_name, list(its.tags), its.run_group) == ("dropout=0.1 lr=0.003 seed=2", ["sweep"], "sweep")
    labels = {item.key: item.value_json for item in its.config.update}["swept"]
    assert json.loads(labels) == {"model_dropout": "0.1", "optimizer_lr": "0.003", "seed": "2"}


def test_a_job_keeps_the_users_tags_and_name(begun: Callable[..., Any]) -> None:
    its = begun("wandb.tags=[t]", "name=n", "wandb.group=g", swept={"seed": "2"})
    assert (its.display_name, list(its.tags), its.run_group) == ("n seed=2", ["t", "sweep"], "g")


def test_a_job_keeps_the_tags_of_wandbs_own_settings_but_its_group_is_the_sweep(
    begun: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.teardown()
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    monkeypatch.setenv("WANDB_TAGS", "x,y")
    its = begun(swept={"seed": "2"})
    wandb.teardown()
    assert (list(its.tags), its.run_group) == (["x", "y", "sweep"], "sweep")


def test_a_run_alone_has_no_labels_and_no_tag(begun: Callable[..., Any]) -> None:
    its = begun(swept=None)
    assert (its.display_name, list(its.tags)) == ("strided-none-digits", [])
    assert "swept" not in {item.key for item in its.config.update}


# Through a sweep


@pytest.mark.slow
def test_a_job_stores_its_values_and_a_run_alone_stores_none(tmp_path: Path) -> None:
    assert sweep(tmp_path, *SMALL, "trainer.epochs=1", "trainer.steps_per_epoch=2", *GRID).returncode == 0
    found = [status(path.parent)["swept"] for path in folder_of(tmp_path).glob("*/status.json")]
    wanted = [{"model.dropout": dropout, "seed": seed} for dropout in ("0", "0.1") for seed in ("0", "1")]
    assert sorted(map(str, found)) == sorted(map(str, wanted))
    assert run(tmp_path, "train", *SMALL, "trainer.epochs=1", "trainer.steps_per_epoch=2", HERE).returncode == 0
    assert status(tmp_path / RUN)["swept"] is None


@pytest.mark.slow
def test_a_job_that_is_cut_and_resumed_by_its_folder_keeps_name_tags_and_labels(tmp_path: Path) -> None:
    with serving() as server:
        arguments = [word for word in BASE if word != HERE] + [
            "trainer.epochs=2",
            "trainer.save_every=0",
            "wandb=online",
        ]
        done = run(tmp_path, "train", "-m", *arguments, "optimizer.lr=0.003,0.02", "sweep.name=mine", **of(server))
        assert done.returncode == 0, done.stderr
        jobs = {run.id: job for job in (tmp_path / "outputs/sweeps/mine").iterdir() for run in runs_of(server, job)}
        first = {run.id: described(run) for run in server.runs.values()}
        assert sorted(first.values()) == [(f"lr={lr}", ["mine"], "mine", lr) for lr in ("0.003", "0.02")]
        for run_id, job in jobs.items():
            cut(job)
            again = run(tmp_path, "train", f"resume={job.relative_to(tmp_path)}", **of(server))
            assert again.returncode == 0, again.stderr
            assert server.runs[run_id].starts == 2
        assert {run.id: described(run) for run in server.runs.values()} == first


def runs_of(server: Any, job: Path) -> list[Any]:
    return [server.runs[status(job)["wandb_id"]]] if (job / "status.json").exists() and not job.is_symlink() else []


def described(run: Any) -> tuple[str, list[str], str, str]:
    return run.facts["displayName"], run.facts["tags"], run.facts["groupName"], run.config["swept"]["optimizer_lr"]


def cut(job: Path) -> None:
    """Makes of a finished run one that was killed before its end."""
    text = (job / "status.json").read_text()
    (job / "status.json").write_text(text.replace('"state": "done"', '"state": "interrupted"'))
    (job / "summary.json").unlink()
