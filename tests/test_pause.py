"""A run that pauses at the end of an epoch, and ends as if it had never paused."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s9.config.schema import Config
from s9.runs import resume
from s9.runs.rank_0 import Paused
from s9.runs.run import train
from s9.system.interrupt import Interrupted, Interrupts
from s9.tracking.folder import RunFolder
from tests.conftest import composed
from tests.doors import SMALL, started, status
from tests.processes import content, differing, finish, state
from tests.wandb_server import KEY, WandbServer

SETTINGS = (*SMALL, "trainer.epochs=3", "trainer.steps_per_epoch=3", "trainer.ema_decay=0.9", "aug=basic")
pytestmark = pytest.mark.usefixtures("no_figures")
PAUSES = """
import sys
from pathlib import Path
from s9.cli.compose import compose_config
from s9.runs.rank_0 import Paused
from s9.runs.run import train
try:
    resumed = Path("run").exists()
    train(compose_config(sys.argv[2:]), Path("run"), until_epoch=int(sys.argv[1]), resumed=resumed)
except Paused:
    pass
"""


def config(*overrides: str) -> Config:
    return composed(*SETTINGS, *overrides)


def pause(folder: Path, epoch: int, *overrides: str) -> float | None:
    """Trains to the end of this epoch; returns the value there."""
    with pytest.raises(Paused) as paused:
        train(config(*overrides), folder, until_epoch=epoch, resumed=folder.exists())
    return paused.value.value


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """The bytes of a run of these overrides that never paused."""
    made: dict[tuple[str, ...], dict[str, bytes]] = {}

    def of_run(*overrides: str) -> dict[str, bytes]:
        if overrides not in made:
            folder = tmp_path_factory.mktemp("uncut")
            train(config(*overrides), folder)
            made[overrides] = content(folder)
        return made[overrides]

    return of_run


@pytest.fixture
def paused(tmp_path: Path) -> Path:
    """The folder of a run that paused after the first of three epochs."""
    pause(tmp_path / "run", 1)
    return tmp_path / "run"


@pytest.mark.parametrize("epochs", [(1,), (2,), (1, 2)])
def test_a_run_that_paused_ends_with_the_bytes_of_one_that_did_not(
    tmp_path: Path, uncut: Callable[..., dict[str, bytes]], epochs: tuple[int, ...]
) -> None:
    for epoch in epochs:
        pause(tmp_path / "run", epoch)
    train(config(), tmp_path / "run", resumed=True)
    assert differing(tmp_path / "run", uncut()) == []


@pytest.mark.slow
def test_two_ranks_that_paused_twice_end_with_the_bytes_of_two_that_did_not(
    tmp_path: Path, uncut: Callable[..., dict[str, bytes]]
) -> None:
    for epoch in (1, 2):
        pause(tmp_path / "run", epoch, "trainer.devices=2")
    train(config("trainer.devices=2"), tmp_path / "run", resumed=True)
    assert differing(tmp_path / "run", uncut("trainer.devices=2")) == []


def test_a_paused_run_says_so(paused: Path) -> None:
    assert (state(paused), "reason" in status(paused)) == ("paused", False)


def test_a_paused_run_has_the_epochs_until_then(paused: Path) -> None:
    assert [row["epoch"] for row in RunFolder(paused).read_metrics()] == [1]


def test_a_paused_run_is_not_tested(paused: Path) -> None:
    folder = RunFolder(paused)
    assert not [path for path in (folder.summary, folder.predictions, folder.final) if path.exists()]


def test_the_value_is_val_accuracy_of_the_last_epoch(tmp_path: Path) -> None:
    value = pause(tmp_path / "run", 2)
    assert value == RunFolder(tmp_path / "run").read_metrics()[-1]["val/accuracy"]


def test_without_val_there_is_no_value(tmp_path: Path) -> None:
    assert pause(tmp_path / "run", 1, "data.val_size=0") is None


def test_a_run_pauses_at_no_epoch_that_is_its_last(tmp_path: Path) -> None:
    train(config(), tmp_path / "run", until_epoch=3)
    assert state(tmp_path / "run") == "done"


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_between_its_checkpoint_and_its_pause_it_pauses_when_it_is_resumed(tmp_path: Path, devices: int) -> None:
    first = pause(tmp_path / "run", 1, f"trainer.devices={devices}")
    before = RunFolder(tmp_path / "run").read_metrics()
    assert pause(tmp_path / "run", 1, f"trainer.devices={devices}") == first
    assert RunFolder(tmp_path / "run").read_metrics() == before


def test_a_signal_in_the_epoch_before_the_pause_interrupts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_epoch = RunFolder.add_epoch

    def and_a_signal(self: RunFolder, path: Path, record: dict[str, float]) -> None:
        add_epoch(self, path, record)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "add_epoch", and_a_signal)
    with Interrupts() as interrupts, pytest.raises(Interrupted):
        train(config(), tmp_path / "run", until_epoch=1, interrupts=interrupts)
    assert state(tmp_path / "run") == "interrupted"


@pytest.mark.slow
def test_wandb_has_every_epoch_of_a_run_that_paused_once(tmp_path: Path) -> None:
    server = WandbServer()
    settings = [*(word for word in SETTINGS if word != "wandb=disabled"), "wandb=online"]
    try:
        there = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        for epoch in (1, 3):
            with started(tmp_path, [sys.executable, "-c", PAUSES, str(epoch), *settings], **there) as run:
                assert run.end().returncode == 0, run.err.read_text()
            assert [row["epoch"] for row in server.run.epochs] == list(range(1, epoch + 1))
            assert server.run.state == "finished"
    finally:
        server.stop()


def test_auto_resumes_a_paused_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pause(Path("outputs") / "day" / "run", 1)
    folder, _ = resume.newest_unfinished(config(), None)
    assert folder is not None and folder.path == Path("outputs") / "day" / "run"


@pytest.mark.slow
def test_the_door_resumes_a_paused_run(paused: Path, uncut: Callable[..., dict[str, bytes]]) -> None:
    finish(paused.parent, f"resume={paused.name}")
    assert (state(paused), differing(paused, uncut())) == ("done", [])
