"""W&B as a mirror: which mode is picked, and that nothing it does ends or delays a run."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s9.config import Config
from s9.tracking.wandb_log import WandbLog, has_key, pick_mode
from s9.train import train


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts and never answers, as a hanging network does."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in held:
        connection.close()


def test_without_a_key_auto_is_offline() -> None:
    assert not has_key()
    assert pick_mode("auto") == "offline"


def test_a_key_in_the_environment_makes_auto_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert pick_mode("auto") == "online"


def test_a_key_in_the_netrc_file_makes_auto_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
    monkeypatch.setenv("NETRC", str(file))
    assert pick_mode("auto") == "online"


def test_wandb_mode_in_the_environment_decides_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert pick_mode("auto") == "disabled"


def test_the_configured_mode_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert pick_mode("offline") == "offline"


def test_online_without_a_key_goes_offline_without_a_prompt(digits: Callable[..., Config], tmp_path: Path) -> None:
    log = WandbLog(digits("wandb=online").wandb, tmp_path, "name", "group", {})
    log.finish(0)
    assert log.mode == "offline"


@pytest.mark.slow
def test_a_hanging_wandb_costs_at_most_twenty_seconds_and_the_run_goes_on(
    digits: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    config = digits("wandb=online", "wandb.timeout=4", "trainer.steps_per_epoch=1")
    started = time.perf_counter()
    summary = train(config, tmp_path)
    assert "test" in summary
    assert next((tmp_path / "wandb").glob("offline-run-*")).is_dir()
    assert time.perf_counter() - started < 4 + 20  # the time-out, and what the run itself takes here


def test_two_runs_in_one_process_are_two_wandb_runs(digits: Callable[..., Config], tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        log = WandbLog(digits("wandb=offline").wandb, tmp_path / name, name, "group", {"job": name})
        log.log_epoch({"epoch": 1, "val/accuracy": 0.5})
        log.finish(0)
    runs = [path.name for path in tmp_path.glob("*/wandb/offline-run-*")]
    assert len(set(runs)) == 2


def test_a_folder_that_cannot_be_written_does_not_end_the_run(digits: Callable[..., Config], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    log = WandbLog(digits("wandb=offline").wandb, blocked, "name", "group", {})
    log.log_epoch({"epoch": 1})
    log.finish(0)
