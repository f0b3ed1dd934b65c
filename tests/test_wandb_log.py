"""W&B as a mirror: what an offline run has, and that nothing W&B does ends or delays a run."""

import json
import logging
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from s9.config.schema import Config
from s9.data.sources.cifar10 import FACTS
from s9.models.analysis import model_facts
from s9.runs.run import train
from s9.tracking import wandb_run
from s9.tracking.folder import RunFolder
from s9.tracking.wandb_log import WandbLog
from s9.tracking.wandb_mode import own_settings
from s9.tracking.wandb_run import confused_pairs
from tests.conftest import ROOT

Logs = Callable[..., WandbLog]


@pytest.fixture
def wandb_log(digits: Callable[..., Config], tmp_path: Path) -> Logs:
    def make(*overrides: str, folder: Path = tmp_path, earlier: Sequence[dict[str, float]] = ()) -> WandbLog:
        config, run_id = digits(*overrides), secrets.token_hex(4)
        return WandbLog(config, folder, group="group", run_id=run_id, earlier=list(earlier))

    return make


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """W&B starts only when it is set."""
    waits = threading.Event()
    monkeypatch.setattr(wandb_run, "own_settings", lambda: waits.wait(30) and own_settings())
    yield waits
    waits.set()


def drawn(*paths: Path) -> "Future[list[Path]]":
    """Pictures that are there."""
    future: Future[list[Path]] = Future()
    future.set_result(list(paths))
    return future


def stored(folder: Path) -> list[Record]:
    """What an offline run has written, in its order, once its end is there: W&B's own process writes it soon after."""
    for _ in range(200):
        records = read_records(next(folder.glob("wandb/offline-run-*/*.wandb")).read_bytes())
        if any(r.WhichOneof("record_type") == "exit" for r in records):
            break
        time.sleep(0.1)
    return records


def read_records(content: bytes) -> list[Record]:
    """Of a log as LevelDB's, in blocks of 32 kB, after 7 bytes."""
    records, place, so_far = [], 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # what is left of a block is too short for a header
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        so_far += content[place + 7 : place + 7 + length]
        place += 7 + length
        if place > len(content):  # still being written
            break
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(so_far))
            so_far = b""
    return records


def history(folder: Path) -> list[dict[str, object]]:
    """The rows that an offline run has logged."""
    rows = [{"/".join(i.nested_key) or i.key: i.value_json for i in r.history.item} for r in stored(folder)]
    return [{key: json.loads(value) for key, value in row.items()} for row in rows if row]


@pytest.fixture(scope="module")
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


# The mode, before and after it was tried


def test_the_mode_is_first_what_was_asked_for(wandb_log: Logs, waits: threading.Event) -> None:
    log = wandb_log("wandb=online")
    asked = log.mode
    waits.set()
    log.finish(0)
    assert asked == "online"


def test_online_without_a_key_goes_offline_without_a_prompt(wandb_log: Logs) -> None:
    log = wandb_log("wandb=online")
    log.finish(0)
    assert log.mode == "offline"


def test_offline_is_reached(wandb_log: Logs) -> None:
    log = wandb_log("wandb=offline")
    log.finish(0)
    assert log.mode == "offline"


def test_what_cannot_start_ends_as_disabled(wandb_log: Logs) -> None:
    log = wandb_log("wandb=offline", "wandb.project=a/b")  # W&B allows no slash
    log.finish(0)
    assert log.mode == "disabled"


def test_disabled_starts_nothing(wandb_log: Logs, tmp_path: Path) -> None:
    log = wandb_log("wandb=disabled")
    log.log_epoch({"epoch": 1})
    log.finish(0)
    assert (log.mode, log.run, list(tmp_path.iterdir())) == ("disabled", None, [])


# What hangs, and what fails


@dataclass(frozen=True)
class Hung:
    """A run whose W&B hung; when, in seconds since 1970, it was started, took its first step, gave W&B up and ended."""

    folder: Path
    exit_code: int
    started: float
    first_step: float
    gave_up: float
    ended: float


@pytest.fixture(scope="module")
def hung(silent_server: str, tmp_path_factory: pytest.TempPathFactory) -> Hung:
    """As a process of its own, since W&B waits for things when python exits too."""
    folder = tmp_path_factory.mktemp("hung")
    quick = ["data=digits", "model=strided", "aug=none", "trainer.epochs=1", "trainer.steps_per_epoch=1"]
    online = ["wandb=online", f"wandb.timeout={TIMEOUT_S}", "hydra.run.dir=run"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment = kept | {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": silent_server, "HOME": str(folder)}
    command = [sys.executable, "-m", "s9.train", *quick, *online]
    done = subprocess.run(
        command, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200
    )
    ended = time.time()
    said = {
        key: line for line in (folder / "run" / "train.log").read_text().splitlines() for key in SAID if key in line
    }
    started, first_step, gave_up = (
        datetime.strptime(said[key][:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() for key in SAID
    )
    return Hung(folder / "run", done.returncode, started, first_step, gave_up, ended)


TIMEOUT_S = 6
SAID = ("cpu, ", "epoch 1/1", "W&B online did not start")  # before the first step, after it, when W&B was given up


@pytest.mark.slow
def test_a_run_goes_on_where_wandb_hangs(hung: Hung) -> None:
    assert hung.exit_code == 0 and "test" in RunFolder(hung.folder).read_summary()


@pytest.mark.slow
def test_a_hanging_wandb_does_not_delay_the_first_step(hung: Hung) -> None:
    assert hung.first_step < hung.gave_up


@pytest.mark.slow
def test_a_hanging_wandb_is_given_up_after_its_time_out(hung: Hung) -> None:
    assert TIMEOUT_S - 1 < hung.gave_up - hung.started < TIMEOUT_S + 10


@pytest.mark.slow
def test_what_a_hanging_wandb_did_not_take_is_kept_in_an_offline_run(hung: Hung) -> None:
    assert any("epoch" in row for row in history(hung.folder))


@pytest.mark.slow
def test_a_process_ends_soon_after_a_hanging_wandb_was_given_up(hung: Hung) -> None:
    """Else W&B's reports about itself, to the same server, keep it waiting for half a minute more."""
    assert hung.ended - hung.gave_up < 20  # 27 s were seen with them, and 5 without


@pytest.mark.parametrize("call", ["log_epoch", "log_model", "log_end"])
def test_a_call_returns_while_wandb_hangs(
    wandb_log: Logs, digits: Callable[..., Config], waits: threading.Event, call: str
) -> None:
    log = wandb_log("wandb=offline")
    arguments: dict[str, tuple[object, ...]] = {
        "log_epoch": ({"epoch": 1},),
        "log_model": (model_facts(digits().model, FACTS), drawn()),
        "log_end": ({}, {}, []),
    }
    getattr(log, call)(*arguments[call])
    assert not waits.is_set() and log.run is None  # it came back, and W&B has not even started
    waits.set()
    log.finish(0)


def test_a_folder_that_cannot_be_written_does_not_end_the_run(wandb_log: Logs, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    log = wandb_log("wandb=offline", folder=blocked)
    log.log_epoch({"epoch": 1})
    log.finish(0)


def test_what_wandb_does_not_take_is_said_and_the_rest_is_logged(
    wandb_log: Logs, digits: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = wandb_log("wandb=offline")
    with caplog.at_level(logging.WARNING, logger="s9"):
        log.log_model(model_facts(digits().model, FACTS), drawn(tmp_path / "augmentation.png"))  # there is none
        log.log_epoch({"epoch": 1, "val/accuracy": 0.5})
        log.log_end({}, {"labels": np.zeros(3)}, [])
        log.finish(0)
    said = [r.getMessage().split(" (")[0] for r in caplog.records]
    assert said == ["W&B did not accept the model", "W&B did not accept the test"]
    assert [row["val/accuracy"] for row in history(tmp_path) if "val/accuracy" in row] == [0.5]


def test_an_exception_in_the_thread_does_not_end_the_run(
    digits: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="s9"):
        summary = train(digits("wandb=offline", "wandb.project=a/b", "trainer.steps_per_epoch=1"), tmp_path)
    assert any("W&B is off for this run" in r.getMessage() for r in caplog.records)
    assert "test" in summary and RunFolder(tmp_path).read_summary() == summary


# What is logged


def test_epochs_reach_wandb_in_their_order(wandb_log: Logs, tmp_path: Path) -> None:
    log = wandb_log("wandb=offline")
    for epoch in range(1, 31):
        log.log_epoch({"epoch": epoch, "lr": 1 / epoch})
    log.finish(0)
    assert [row["epoch"] for row in history(tmp_path) if "epoch" in row] == list(range(1, 31))


def test_a_record_is_logged_as_it_was_when_it_was_given(wandb_log: Logs, tmp_path: Path) -> None:
    log = wandb_log("wandb=offline")
    given = {"epoch": 1, "lr": 0.5}
    log.log_epoch(given)
    given["lr"] = 0.0
    log.finish(0)
    assert [row["lr"] for row in history(tmp_path) if "lr" in row] == [0.5]


def test_the_end_comes_after_everything_else(digits: Callable[..., Config], tmp_path: Path) -> None:
    train(digits("wandb=offline", "trainer.epochs=2", "trainer.steps_per_epoch=1"), tmp_path)
    kinds = ("model/layers", "epoch", "test/confusion_matrix")
    found = [kind for row in history(tmp_path) for kind in kinds if any(key.startswith(kind) for key in row)]
    assert found == ["model/layers", "epoch", "epoch", "test/confusion_matrix"]
    types = [r.WhichOneof("record_type") for r in stored(tmp_path)]
    assert "history" in types and "history" not in types[types.index("exit") :]


def test_two_runs_in_one_process_are_two_wandb_runs(wandb_log: Logs, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        log = wandb_log("wandb=offline", folder=tmp_path / name)
        log.log_epoch({"epoch": 1, "val/accuracy": 0.5})
        log.finish(0)
    runs = [path.name for path in tmp_path.glob("*/wandb/offline-run-*")]
    assert len(set(runs)) == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds W&B's process in /proc")
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_after_one_whose_wandb_was_killed_has_a_wandb_of_its_own(
    wandb_log: Logs, tmp_path: Path, finished: bool
) -> None:
    """As the next job of a sweep, which runs in the same process. W&B's error is another for a run without an end."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        log = wandb_log("wandb=offline", folder=tmp_path / name)
        log.started.wait(60)
        assert log.mode == "offline"
        log.log_epoch({"epoch": 1, "val/accuracy": 0.5})
        if finished or name == "second":
            log.finish(0)
        if name == "first":
            for pid in wandbs_processes():
                os.kill(pid, signal.SIGKILL)
    assert len(list(tmp_path.glob("second/wandb/offline-run-*/*.wandb"))) == 1


def wandbs_processes() -> list[int]:
    """Those that this process has started."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    return [pid for pid in pids if b"wandb" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("exit_code", [0, 1])
def test_the_run_ends_with_its_exit_code(wandb_log: Logs, tmp_path: Path, exit_code: int) -> None:
    wandb_log("wandb=offline").finish(exit_code)
    assert [r.exit.exit_code for r in stored(tmp_path) if r.WhichOneof("record_type") == "exit"] == [exit_code]


def test_a_resumed_run_has_every_epoch_once(wandb_log: Logs, digits: Callable[..., Config], tmp_path: Path) -> None:
    before = [{"epoch": epoch, "val/accuracy": 0.1 * epoch} for epoch in (1, 2, 3)]
    log = wandb_log("wandb=offline", earlier=before)
    log.log_model(model_facts(digits().model, FACTS), drawn())
    for epoch in (before[2], {"epoch": 4, "val/accuracy": 0.2}):  # 3 is trained again: the checkpoint was older
        log.log_epoch(epoch)
    log.finish(0)
    epochs = [row["epoch"] for row in history(tmp_path) if "epoch" in row]
    assert epochs == [1, 2, 3, 4]


# What the configuration leaves open


@pytest.fixture
def wandbs_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B's own settings in the environment, which it reads once in a process."""
    wandb.teardown()
    own = {
        "PROJECT": "their-project",
        "ENTITY": "them",
        "RUN_GROUP": "their-group",
        "TAGS": "x,y",
        "NAME": "their-name",
    }
    for key, value in own.items():
        monkeypatch.setenv(f"WANDB_{key}", value)
    yield
    wandb.teardown()


def started_as(folder: Path) -> tuple[str, str, str, list[str], str, str]:
    run = next(r.run for r in stored(folder) if r.WhichOneof("record_type") == "run")
    return run.project, run.entity, run.run_group, list(run.tags), run.display_name, run.job_type


@pytest.mark.usefixtures("wandbs_own")
def test_wandbs_own_settings_are_taken_where_the_configuration_says_nothing(wandb_log: Logs, tmp_path: Path) -> None:
    wandb_log("wandb=offline").finish(0)
    assert started_as(tmp_path) == ("their-project", "them", "their-group", ["x", "y"], "their-name", "train")


@pytest.mark.usefixtures("wandbs_own")
def test_the_configuration_wins_over_wandbs_own_settings(wandb_log: Logs, tmp_path: Path) -> None:
    ours = ["project=p", "entity=e", "group=g", "tags=[t]", "job_type=j"]
    wandb_log("wandb=offline", "name=n", *(f"wandb.{word}" for word in ours)).finish(0)
    assert started_as(tmp_path) == ("p", "e", "g", ["t"], "n", "j")


def test_without_any_setting_a_run_is_named_as_s9_names_it(wandb_log: Logs, tmp_path: Path) -> None:
    wandb_log("wandb=offline").finish(0)
    assert started_as(tmp_path) == ("s9", "", "group", [], "strided-none-digits", "train")


# Many classes


def test_the_most_confused_pairs_are_counted() -> None:
    labels, preds = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 0, 1, 0, 2])
    assert confused_pairs(labels, preds, ["a", "b", "c"]) == [["a", "b", 2, 2 / 3], ["b", "a", 1, 1 / 2]]


def test_without_a_mistake_there_are_no_confused_pairs() -> None:
    assert confused_pairs(np.arange(3), np.arange(3), ["a", "b", "c"]) == []


@pytest.mark.parametrize(("count", "key"), [(50, "test/confusion_matrix_table"), (51, "test/confused_pairs")])
def test_wandb_gets_a_confusion_matrix_up_to_a_number_of_classes_that_it_can_show(
    wandb_log: Logs, tmp_path: Path, count: int, key: str
) -> None:
    log = wandb_log("wandb=offline")
    log.log_end({}, of_classes(count), [])
    log.finish(0)
    assert next(k for row in history(tmp_path) for k in row if k.startswith("test/conf")).startswith(key)


def test_with_a_thousand_classes_wandb_gets_a_hundred_pairs(wandb_log: Logs, tmp_path: Path) -> None:
    log = wandb_log("wandb=offline")
    log.log_end({}, of_classes(1000), [])
    log.finish(0)
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/test/confused_pairs*.json")
    assert len(json.loads(table.read_text())["data"]) == 100


def of_classes(count: int) -> dict[str, np.ndarray]:
    """The predictions of a run that takes each class for the next one."""
    probs = np.roll(np.eye(count, dtype=np.float32), 1, axis=1)
    nothing = {"worst": np.zeros(0, int), "worst_images": np.zeros((0, 8, 8, 3), np.uint8)}
    names = np.array([f"class {i}" for i in range(count)])
    return {"class_names": names, "probs": probs, "labels": np.arange(count), **nothing}
