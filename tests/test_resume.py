"""resume=: a run that was killed at any instant ends as if it had not been; what cannot be resumed is refused."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s9 import train
from s9.cli import launch
from s9.runs import resume
from s9.runs.prepare import identity_of
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.tracking.status import Status
from tests.conftest import claimed, composed
from tests.processes import (
    QUICK,
    WORKERS,
    Started,
    command,
    content,
    differing,
    finish,
    reached_step,
    run,
    start,
    state,
)

IN_RUN = "hydra.run.dir=run"
SETTINGS: dict[str, tuple[str, ...]] = {
    "sgd": ("trainer.ema_decay=0.9", "model.dropout=0.1"),
    "muon": ("optimizer=muon",),
    "adamw": ("optimizer=adamw",),
    "cutmix": ("aug=strong",),
    "small images first": ("trainer.resolution.start=0.5",),
    "workers": WORKERS,
}
INSTANTS: dict[str, Callable[[Path], Callable[[], bool]]] = {
    "before the first checkpoint": lambda folder: RunFolder(folder).config.exists,
    "in the first epoch": lambda folder: reached_step(folder, 2),
    "between the epochs": lambda folder: lambda: bool(RunFolder(folder).read_metrics()),
    "in the last epoch": lambda folder: reached_step(folder, 9),
    "before the summary": lambda folder: RunFolder(folder).final.exists,
}


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run with these settings that was never killed."""
    made: dict[str, Path] = {}

    def folder(setting: str) -> Path:
        if setting not in made:
            cwd = tmp_path_factory.mktemp(f"uncut-{setting}")
            finish(cwd, *QUICK, *SETTINGS[setting], IN_RUN)
            made[setting] = cwd / "run"
        return made[setting]

    return folder


def kill_at(cwd: Path, instant: Callable[[Path], Callable[[], bool]], *arguments: str) -> Path:
    """A run that got SIGKILL at this instant, with its whole group; returns its folder."""
    started = start(cwd, *QUICK, *arguments, IN_RUN)
    started.when(instant(cwd / "run"))
    started.kill()
    assert not RunFolder(cwd / "run").summary.exists(), "the run was quicker than the test"
    return cwd / "run"


@pytest.mark.slow
@pytest.mark.parametrize("instant", INSTANTS)
def test_killed_at_any_instant_it_ends_as_if_it_had_not_been(
    tmp_path: Path, uncut: Callable[[str], Path], instant: str
) -> None:
    folder = kill_at(tmp_path, INSTANTS[instant], *SETTINGS["sgd"])
    finish(tmp_path, "resume=run")
    assert differing(folder, content(uncut("sgd"))) == []
    assert state(folder) == "done"


@pytest.mark.slow
@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "sgd"])
def test_with_any_settings_it_ends_as_if_it_had_not_been_killed(
    tmp_path: Path, uncut: Callable[[str], Path], setting: str
) -> None:
    folder = kill_at(tmp_path, INSTANTS["in the last epoch"], *SETTINGS[setting])
    finish(tmp_path, "resume=run")
    assert differing(folder, content(uncut(setting))) == []


@pytest.mark.slow
def test_a_half_line_of_the_killed_writer_is_made_whole(tmp_path: Path, uncut: Callable[[str], Path]) -> None:
    folder = kill_at(tmp_path, INSTANTS["between the epochs"], *SETTINGS["sgd"])
    with RunFolder(folder).metrics.open("a") as file:
        file.write('{"epoch": 2, "ste')
    finish(tmp_path, "resume=run")
    assert differing(folder, content(uncut("sgd"))) == []


@pytest.mark.slow
def test_with_its_newest_checkpoint_damaged_it_ends_as_if_it_had_not_been_killed(
    tmp_path: Path, uncut: Callable[[str], Path]
) -> None:
    folder = kill_at(tmp_path, INSTANTS["in the last epoch"], *SETTINGS["sgd"])
    newest = max(folder.glob("checkpoints/step-*.pt"))
    os.truncate(newest, newest.stat().st_size // 2)
    resumed = run(tmp_path, "resume=run")
    assert (resumed.process.exitcode, f"{newest.name} is damaged" in resumed.text) == (0, True)
    assert differing(folder, content(uncut("sgd"))) == []


@pytest.mark.slow
def test_a_shell_resumes_what_a_shell_has_started(tmp_path: Path, uncut: Callable[[str], Path]) -> None:
    first = command(tmp_path, *QUICK, *SETTINGS["sgd"], "resume=auto")
    folders: list[Path] = []
    while not folders or not reached_step(folders[0], 2)():
        assert first.poll() is None, first.communicate()
        folders = [p.parent for p in tmp_path.glob("outputs/*/*/config.yaml")]
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    second = command(tmp_path, *QUICK, *SETTINGS["sgd"], "resume=auto")
    said = second.communicate(timeout=100)
    assert second.returncode == 0, said
    assert [p.parent for p in tmp_path.glob("outputs/*/*/config.yaml")] == folders
    assert differing(folders[0], content(uncut("sgd"))) == []


@pytest.mark.slow
def test_killed_before_it_has_a_configuration_its_folder_can_be_used_again(
    tmp_path: Path, uncut: Callable[[str], Path]
) -> None:
    started = start(tmp_path, *QUICK, *SETTINGS["sgd"], IN_RUN)
    started.when((tmp_path / "run").exists)
    started.kill()
    assert not RunFolder(tmp_path / "run").config.exists()
    finish(tmp_path, *QUICK, *SETTINGS["sgd"], IN_RUN)
    assert differing(tmp_path / "run", content(uncut("sgd"))) == []


@pytest.mark.slow
def test_starts_and_the_command_of_the_first_one_are_kept(tmp_path: Path) -> None:
    folder = kill_at(tmp_path, INSTANTS["in the first epoch"])
    before = RunFolder(folder).read_status()
    finish(tmp_path, "resume=run")
    after = RunFolder(folder).read_status()
    assert after["starts"] == 2
    assert [key for key in ("command", "started", "wandb_id", "commit", "group") if before[key] != after[key]] == []


@pytest.mark.slow
def test_wandb_keeps_its_run_id(tmp_path: Path) -> None:
    def logged_and_trained(folder: Path) -> Callable[[], bool]:
        return lambda: bool([*folder.glob("wandb/offline-run-*/*.wandb")]) and reached_step(folder, 6)()

    folder = kill_at(tmp_path, logged_and_trained, "wandb=offline")
    finish(tmp_path, "resume=run")
    ids = [p.stem.removeprefix("run-") for p in folder.glob("wandb/offline-run-*/*.wandb")]
    assert ids == [RunFolder(folder).read_status()["wandb_id"]] * 2


def last_lines(started: Started) -> tuple[int | None, list[str]]:
    """The exit code and all that was said, without the lines of a run that goes well."""
    return started.process.exitcode, [line for line in started.text.splitlines() if line.startswith("error")]


def test_a_run_that_is_done_is_refused_in_one_line(uncut: Callable[[str], Path]) -> None:
    folder = uncut("sgd")
    refused = run(folder.parent, "resume=run")
    ways = "score it again: python -m s9.evaluate run=run; train on from its weights: init_from=run"
    wanted = f"error: resume=run: this run is done; {ways}\n"
    assert (refused.process.exitcode, refused.text) == (2, wanted)


def test_weights_that_are_shipped_without_a_status_are_done(uncut: Callable[[str], Path], tmp_path: Path) -> None:
    """To resume them would be to train from the start, over them."""
    whole, shipped = RunFolder(uncut("sgd")), RunFolder(tmp_path / "run")
    shipped.final.parent.mkdir(parents=True)
    for name in ("config", "summary", "final"):
        shutil.copy(getattr(whole, name), getattr(shipped, name))
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert "this run is done" in run(tmp_path, "resume=run").text
    assert run(tmp_path, *QUICK, IN_RUN).text == "error: run: already holds a run; choose another folder\n"
    assert {p: p.read_bytes() for p in before} == before


def test_a_folder_that_holds_a_run_is_not_used_for_another(uncut: Callable[[str], Path]) -> None:
    folder = uncut("sgd")
    refused = run(folder.parent, *QUICK, "seed=1", IN_RUN)
    assert last_lines(refused)[0] == 2
    assert refused.text.startswith("error: run: already holds a run") and refused.text.count("\n") == 1


def test_nothing_of_a_run_is_changed_by_another_that_is_refused(uncut: Callable[[str], Path]) -> None:
    folder = uncut("sgd")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    run(folder.parent, *QUICK, "seed=1", IN_RUN)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_of_two_that_resume_at_once_one_is_refused_in_one_line(tmp_path: Path) -> None:
    kill_at(tmp_path, INSTANTS["in the first epoch"])
    both = [start(tmp_path, "resume=run") for _ in range(2)]
    ends = {one.wait(): one.text for one in both}
    assert sorted(ends) == [0, 2], ends
    assert ends[2].startswith("error: ") and ends[2].count("\n") == 1
    assert state(tmp_path / "run") == "done"


@pytest.mark.slow
def test_of_two_that_start_at_once_in_one_folder_one_is_refused_and_harms_nothing(
    tmp_path: Path, uncut: Callable[[str], Path]
) -> None:
    both = [start(tmp_path, *QUICK, *SETTINGS["sgd"], IN_RUN) for _ in range(2)]
    ends = {one.wait(): one.text for one in both}
    assert sorted(ends) == [0, 2], ends
    assert (state(tmp_path / "run"), differing(tmp_path / "run", content(uncut("sgd")))) == ("done", [])


def unfinished(path: Path, started: str, *overrides: str, state: str = "interrupted") -> RunFolder:
    """A run as far as resume= looks at it."""
    path.mkdir(parents=True)
    folder, config = RunFolder(path), composed(*QUICK, *overrides)
    folder.write_config(config)
    folder.write_identity(identity_of(config))
    folder.status.write_text(json.dumps({"state": state, "started": started}))
    return folder


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # the door puts its arguments there for Hydra
    return Path("outputs")


def found(*overrides: str) -> Path | None:
    """The run that resume=auto resumes."""
    folder, _ = resume.newest_unfinished(composed(*QUICK, *overrides), None)
    return folder.path if folder else None


def said(*overrides: str) -> list[str]:
    """What resume=auto says where it resumes none."""
    folder, lines = resume.newest_unfinished(composed(*QUICK, *overrides), None)
    assert folder is None
    return lines


def test_auto_finds_the_run_that_was_started_last(outputs: Path) -> None:
    unfinished(outputs / "day" / "b", "2026-01-01T00:00:00Z")
    newest = unfinished(outputs / "day" / "a", "2026-01-02T00:00:00Z")
    assert found() == newest.path


def test_auto_finds_a_job_of_a_sweep(outputs: Path) -> None:
    job = unfinished(outputs / "sweeps" / "seed-3a5f01" / "58ca0496b4", "2026-01-01T00:00:00Z", "seed=4")
    assert found("seed=4") == job.path


@pytest.mark.parametrize("state", ["running", "failed", "interrupted"])
def test_auto_resumes_any_run_that_has_not_ended(outputs: Path, state: str) -> None:
    folder = unfinished(outputs / "a", "2026-01-01T00:00:00Z", state=state)
    assert found() == folder.path


def test_auto_leaves_out_what_is_done(outputs: Path) -> None:
    unfinished(outputs / "a", "2026-01-01T00:00:00Z", state="done")
    assert said() == []


def test_auto_leaves_out_another_configuration_and_says_how_the_nearest_differs(outputs: Path) -> None:
    unfinished(outputs / "a", "2026-01-01T00:00:00Z", "seed=1")
    unfinished(outputs / "b", "2026-01-02T00:00:00Z", "seed=1", "optimizer.lr=0.7")
    new = "resume=auto: a new run begins; the nearest unfinished one"
    assert said() == [f"{new}, outputs/a, differs: seed was 1, is 0"]


def test_auto_leaves_out_what_another_process_trains(outputs: Path) -> None:
    older = unfinished(outputs / "a", "2026-01-01T00:00:00Z")
    newer = unfinished(outputs / "b", "2026-01-02T00:00:00Z")
    with claimed(newer):
        assert found() == older.path


def test_auto_finds_one_that_was_killed_before_it_wrote_its_identity(outputs: Path) -> None:
    folder = unfinished(outputs / "a", "2026-01-01T00:00:00Z")
    folder.identity.unlink()
    assert found() == folder.path


def test_auto_leaves_out_a_run_of_before_identities(outputs: Path) -> None:
    """Its checkpoints are of a format that is not read any more."""
    folder = unfinished(outputs / "a", "2026-01-01T00:00:00Z")
    folder.identity.unlink()
    folder.checkpoints.mkdir()
    assert said() == []


def test_auto_leaves_out_a_configuration_that_cannot_be_read(outputs: Path) -> None:
    unfinished(outputs / "a", "2026-01-01T00:00:00Z").config.write_text("optimizer: {_target_: os.system}\n")
    assert said() == []


@pytest.mark.parametrize("half", ["", "seed: [1,\n", "- 1\n"])
def test_auto_leaves_out_a_damaged_configuration(outputs: Path, half: str) -> None:
    unfinished(outputs / "a", "2026-01-01T00:00:00Z").config.write_text(half)
    assert said() == []


def test_auto_where_there_are_no_runs_starts_a_new_one(outputs: Path) -> None:
    assert said() == []


@pytest.mark.slow
def test_auto_with_a_wrong_value_says_so(outputs: Path) -> None:
    process = command(Path.cwd(), *QUICK, "model.dropout=2", "resume=auto")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and said.startswith("error: model.dropout=2") and said.count("\n") == 1


def test_auto_looks_in_the_folder_that_was_chosen(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished(Path("my run"), "2026-01-01T00:00:00Z")
    monkeypatch.setattr(launch, "resume_run", lambda given, *_: 7 if given == "my run" else 1)
    assert (train.main([*QUICK, "hydra.run.dir='my run'", "resume=auto"]), found()) == (7, None)


def test_auto_finds_a_run_behind_a_link(outputs: Path, tmp_path: Path) -> None:
    unfinished(tmp_path / "scratch" / "12-00-00-abc", "2026-01-01T00:00:00Z")
    outputs.mkdir(exist_ok=True)
    (outputs / "2026-01-01").symlink_to(tmp_path / "scratch")
    assert found() == outputs / "2026-01-01" / "12-00-00-abc"


@pytest.mark.parametrize("damage", [{"started": 5}, {"starts": None}, {"group": [1]}, {"wandb_id": 3}])
def test_auto_resumes_where_a_status_has_values_of_other_kinds(outputs: Path, damage: dict[str, object]) -> None:
    folder = unfinished(outputs / "a", "2026-01-01T00:00:00Z")
    other = unfinished(outputs / "b", "2026-01-02T00:00:00Z")
    other.status.write_text(json.dumps(other.read_status() | damage))
    assert found() in (folder.path, other.path)
    assert Status(other, {"group": None, "wandb_id": "abc"}).content["starts"] == 1


def test_auto_says_that_the_run_is_being_trained(outputs: Path) -> None:
    with claimed(unfinished(outputs / "a", "2026-01-01T00:00:00Z")):
        (line,) = said()
    assert line.startswith("outputs/a is being trained")


@pytest.mark.slow
def test_what_changes_no_weight_may_be_another_in_the_configuration(
    tmp_path: Path, uncut: Callable[[str], Path]
) -> None:
    killed = start(tmp_path, *QUICK, *SETTINGS["sgd"], IN_RUN)
    killed.when(INSTANTS["in the first epoch"](tmp_path / "run"))
    killed.kill()
    config = RunFolder(tmp_path / "run").config
    config.write_text(
        config.read_text().replace("save_every: 0.0", "save_every: 7.0").replace("timeout: 20", "timeout: 9")
    )
    finish(tmp_path, "resume=run")
    assert differing(tmp_path / "run", content(uncut("sgd"))) == [config.name]


def test_auto_is_not_for_a_sweep(outputs: Path) -> None:
    with pytest.raises(UserError, match="resume=auto: is for one run; a sweep's command, given again"):
        train.main(["-m", "seed=0,1", "resume=auto"])


def test_beside_a_folder_no_other_values_are_allowed(outputs: Path) -> None:
    unfinished(outputs / "a", "2026-01-01T00:00:00Z")
    with pytest.raises(UserError, match="its own configuration; leave out seed=1"):
        train.main(["resume=outputs/a", "seed=1"])


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_that_is_no_runs_is_refused(outputs: Path, name: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=f"{name}: there is no config.yaml"):
        train.main([f"resume={name}"])
    assert list(Path("empty").iterdir()) == []


@pytest.mark.parametrize("half", ["", "seed: [1,\n", "- 1\n"])
def test_a_damaged_configuration_is_refused_in_one_line(outputs: Path, half: str) -> None:
    unfinished(outputs / "a", "2026-01-01T00:00:00Z").config.write_text(half)
    with pytest.raises(UserError):
        train.main(["resume=outputs/a"])


def test_a_run_that_another_process_trains_is_refused(outputs: Path) -> None:
    folder = unfinished(outputs / "a", "2026-01-01T00:00:00Z")
    with claimed(folder):
        Status(folder, {})
        with pytest.raises(UserError, match=rf"another process \(pid {os.getpid()}\b"):
            train.main(["resume=outputs/a"])
