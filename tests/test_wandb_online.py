"""What W&B's server receives: real runs against the server in wandb_server.py, held against the run's own files."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s9.config.stored import as_dict
from s9.sweeps.jobs import SweepFolder
from s9.tracking.folder import RunFolder
from tests.doors import HERE, RUN, SMALL, Done, command, environment, left, metrics, run, started, status, until
from tests.wandb_server import KEY, ReceivedRun, WandbServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc"),
]

BASE = [*(word for word in SMALL if word != "wandb=disabled"), HERE]
EPOCHS = 60
LONG = [*BASE, f"trainer.epochs={EPOCHS}", "trainer.save_every=0"]  # some seconds


@contextmanager
def serving() -> Iterator[WandbServer]:
    server = WandbServer()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server


def of(server: WandbServer) -> dict[str, Any]:
    """The environment of a run that logs to it, and sends what it has each second instead of every 15."""
    soon = {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1", "WANDB__FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "0.5"}
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY} | soon


def lines(folder: Path) -> list[dict[str, float]]:
    """What each epoch is logged with: its lines of metrics.jsonl and times.jsonl."""
    times = [json.loads(line) for line in RunFolder(folder).times.read_text().splitlines()]
    return [values | took for values, took in zip(metrics(folder), times, strict=True)]


def received(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what W&B itself adds, and without pictures and tables."""
    return [{key: v for key, v in row.items() if key[0] != "_" and not isinstance(v, dict)} for row in rows]


def kill_all(folder: Path) -> None:
    """The run and W&B's process at one instant, as SLURM ends a job step."""
    for pid in left(folder):
        os.kill(pid, signal.SIGKILL)


# A run from its start to its end


@dataclass(frozen=True)
class Online:
    folder: Path
    run: ReceivedRun
    server: WandbServer
    done: Done


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Online]:
    folder = tmp_path_factory.mktemp("online")
    with serving() as server:
        # wandb=auto, the default: there is a key
        named = ["name=mine", "wandb.tags=[a,b]", "trainer.epochs=3"]
        theirs: dict[str, Any] = {
            "WANDB_RUN_GROUP": "theirs",
            "WANDB_NOTES": "a note",
            "WANDB_PROJECT": "their-project",
        }
        done = run(folder, "train", *BASE, *named, **of(server), **theirs)
        assert done.returncode == 0, done.stderr
        print(server.text())
        yield Online(folder / RUN, server.run, server, done)


def test_the_run_is_named_as_configured_and_as_wandbs_own_settings_say(online: Online) -> None:
    assert online.run.path == f"me/their-project/{status(online.folder)['wandb_id']}"
    facts = online.run.facts
    assert (facts["displayName"], facts["groupName"], facts["jobType"]) == ("mine", "theirs", "train")
    assert (facts["tags"], facts["notes"]) == (["a", "b"], "a note")


def test_the_run_says_where_it_is(online: Online) -> None:
    assert (
        f"W&B online: {online.server.url}/{online.run.entity}/their-project/runs/{online.run.id}" in online.done.stdout
    )
    assert "wandb:" not in online.done.stderr


def test_the_server_has_the_configuration(online: Online) -> None:
    config = {key: value for key, value in online.run.config.items() if key != "_wandb"}
    assert config == without_empty(as_dict(RunFolder(online.folder).read_config()))


def without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """W&B keeps no mapping that has nothing in it."""
    inner = {key: without_empty(v) if isinstance(v, dict) else v for key, v in values.items()}
    return {key: v for key, v in inner.items() if v != {}}


def test_the_server_has_every_epoch_once_as_in_the_runs_files(online: Online) -> None:
    assert received(online.run.epochs) == lines(online.folder)
    assert [row["_step"] for row in online.run.epochs] == [1, 2, 3]


def test_the_summary_has_the_best_epoch_and_the_test(online: Online) -> None:
    summary, own = online.run.summary, RunFolder(online.folder).read_summary()
    assert summary["val/accuracy"] == {"max": max(row["val/accuracy"] for row in metrics(online.folder))}
    assert {f"test/{key}": value for key, value in own["test"].items()}.items() <= summary.items()
    assert summary["val/final_accuracy"] == own["val"]["accuracy"]
    assert summary["model/parameters"] == own["parameters"]


def test_the_server_has_the_layer_table(online: Online) -> None:
    table = online.run.table("model/layers")
    assert len(table["data"]) > 3 and len(table["columns"]) == len(table["data"][0])


def test_the_server_has_the_confusion_matrix(online: Online) -> None:
    table = online.run.table("test/confusion_matrix_table")
    folder = RunFolder(online.folder)
    stored = folder.read_arrays(folder.predictions)
    counts = {(true, pred): count for true, pred, count in table["data"]}
    names, preds = [str(name) for name in stored["class_names"]], stored["probs"].argmax(1)
    assert len(counts) == len(names) ** 2
    for true, pred in zip(stored["labels"], preds, strict=True):
        counts[names[true], names[pred]] -= 1
    assert set(counts.values()) == {0}


@pytest.mark.parametrize(
    "name",
    ["augmentation", "curves", "confusion", "misclassified", "gradcam", "filters", "feature_maps", "receptive_field"],
)
def test_the_server_has_the_runs_pictures(online: Online, name: str) -> None:
    picture = RunFolder(online.folder).figures / f"{name}.png"
    assert online.run.media(f"figures/{name}") == [picture.read_bytes()]


def test_the_server_has_the_worst_mistakes_with_their_captions(online: Online) -> None:
    folder = RunFolder(online.folder)
    worst = folder.read_arrays(folder.predictions)["worst"]
    row = next(row for row in online.run.rows() if "test/misclassified" in row)
    assert len(online.run.media("test/misclassified")) == len(worst) == len(row["test/misclassified"]["captions"])


def test_the_run_ends_as_finished_and_its_tables_are_committed(online: Online) -> None:
    assert (online.run.state, online.run.exit_code, online.run.starts) == ("finished", 0, 1)
    assert [a.committed for a in online.server.artifacts.values()] == [True, True]


def test_the_server_of_the_tests_answers_all_that_wandb_asks(online: Online) -> None:
    assert online.server.unknown == set()


# Runs that end otherwise


def test_a_run_that_fails_is_failed(tmp_path: Path, server: WandbServer) -> None:
    done = run(tmp_path, "train", *BASE, "wandb=online", "optimizer.lr=1e30", **of(server))
    assert done.returncode == 1
    assert (server.run.state, server.run.exit_code) == ("failed", 1)


def test_an_interrupted_run_has_its_signal_and_its_epochs(tmp_path: Path, server: WandbServer) -> None:
    with started(tmp_path, command("train", *LONG, "wandb=online"), **of(server)) as door:
        until(lambda: server.runs and server.run.epochs)
        os.kill(door.pid, signal.SIGTERM)
        assert door.end().returncode == 128 + signal.SIGTERM
    assert (server.run.state, server.run.exit_code) == ("failed", 128 + signal.SIGTERM)
    assert received(server.run.epochs) == lines(tmp_path / RUN)


# Killed and resumed


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Online]:
    folder = tmp_path_factory.mktemp("resumed")
    with serving() as server:
        with started(folder, command("train", *LONG, "wandb=online"), **of(server)):
            until(lambda: server.runs and server.run.epochs)
            server.stop()  # so that W&B has not sent some of these
            count = len(metrics(folder / RUN))
            until(lambda: len(metrics(folder / RUN)) > count + 2)
            kill_all(folder)
        server.start()
        assert len(server.run.epochs) < len(metrics(folder / RUN)) < EPOCHS and server.run.state == "running"
        done = run(folder, "train", f"resume={RUN}", **of(server))
        assert done.returncode == 0, done.stderr
        yield Online(folder / RUN, server.run, server, done)


def test_a_killed_and_resumed_run_is_one_run_with_every_epoch_once(resumed: Online) -> None:
    assert (resumed.run.state, resumed.run.starts) == ("finished", 2)
    assert [row["epoch"] for row in resumed.run.epochs] == list(range(1, EPOCHS + 1))
    kept = list(metrics(resumed.folder)[0])  # an epoch that was trained twice took another time
    assert [{key: row[key] for key in kept} for row in resumed.run.epochs] == metrics(resumed.folder)
    assert "did not accept" not in resumed.done.stdout


def test_the_best_epoch_of_a_resumed_run_is_of_all_its_epochs(resumed: Online) -> None:
    assert resumed.run.summary["val/accuracy"] == {"max": max(row["val/accuracy"] for row in metrics(resumed.folder))}
    assert resumed.run.summary["val/loss"] == {"min": min(row["val/loss"] for row in metrics(resumed.folder))}


# Several at once


def test_the_jobs_of_a_sweep_are_runs_of_one_group(tmp_path: Path, server: WandbServer) -> None:
    sweep = [word for word in BASE if word != HERE] + ["-m", "hydra.sweep.dir=mine", "seed=0,1", "trainer.epochs=1"]
    done = run(tmp_path, "train", *sweep, "wandb=online", **of(server))
    assert done.returncode == 0, done.stderr
    runs = sorted(server.runs.values(), key=lambda r: int(r.config["seed"]))
    assert [(r.facts["groupName"], r.config["seed"], r.state) for r in runs] == [
        ("mine", seed, "finished") for seed in (0, 1)
    ]
    jobs = sorted(SweepFolder(tmp_path / "mine").rows()[1], key=lambda row: row.values["seed"])
    assert [received(r.epochs) for r in runs] == [lines(tmp_path / "mine" / row.job) for row in jobs]


def test_two_runs_at_once_do_not_mix(tmp_path: Path, server: WandbServer) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    short = [*BASE, "trainer.epochs=3", "wandb=online", "wandb.group=together"]
    with (
        started(folders[0], command("train", *short, "seed=1"), **of(server)) as one,
        started(folders[1], command("train", *short, "seed=2"), **of(server)) as two,
    ):
        assert [one.end().returncode, two.end().returncode] == [0, 0]
    for folder in folders:
        its = server.runs[status(folder / RUN)["wandb_id"]]
        assert (its.facts["groupName"], its.state) == ("together", "finished")
        assert received(its.epochs) == lines(folder / RUN)


# A server that goes


def test_a_server_that_is_away_for_a_while_gets_everything_in_the_end(tmp_path: Path, server: WandbServer) -> None:
    with started(tmp_path, command("train", *LONG, "wandb=online"), **of(server)) as door:
        until(lambda: server.runs and server.run.epochs)
        server.stop()
        count = len(metrics(tmp_path / RUN))
        until(lambda: len(metrics(tmp_path / RUN)) > count + 4)
        server.start()
        done = door.end()
    assert done.returncode == 0 and "W&B has not" not in done.stdout
    assert received(server.run.epochs) == lines(tmp_path / RUN)
    assert server.run.state == "finished"


def sync(folder: Path, server: WandbServer, *places: str | Path) -> None:
    """`wandb sync` of these."""
    wandb = str(Path(sys.executable).parent / "wandb")
    words = [wandb, "sync", *map(str, places)]
    done = subprocess.run(
        words, cwd=folder, env=environment(folder, **of(server)), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "ERROR" not in done.stderr, done.stderr


def test_what_a_server_that_never_comes_back_lacks_can_be_sent_later(tmp_path: Path, server: WandbServer) -> None:
    with started(tmp_path, command("train", *LONG, "wandb=online", "wandb.timeout=2"), **of(server)) as door:
        until(lambda: server.runs and server.run.epochs)
        server.stop()
        done = door.end()
    assert done.returncode == 0 and status(tmp_path / RUN)["state"] == "done"
    line = next(line for line in done.stdout.splitlines() if "W&B has not received everything" in line)
    server.start()
    sync(tmp_path, server, *line.partition("wandb sync ")[2].split())
    whole = server.runs[f"{status(tmp_path / RUN)['wandb_id']}-whole"]
    assert received(whole.epochs) == lines(tmp_path / RUN)


# Offline, killed, resumed and sent


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("offline")
    with started(folder, command("train", *LONG, "wandb=offline")):
        logs = lambda: list(folder.glob(f"{RUN}/wandb/offline-run-*/*.wandb"))  # noqa: E731
        until(lambda: logs() and len(metrics(folder / RUN)) > 2)
        kill_all(folder)
    done = run(folder, "train", f"resume={RUN}")
    assert done.returncode == 0 and len(logs()) == 2, done.stderr
    return folder


@pytest.mark.parametrize("newest_only", [True, False])
def test_an_offline_run_that_was_resumed_is_whole_once_it_is_sent(
    offline: Path, server: WandbServer, newest_only: bool
) -> None:
    folders = sorted((offline / RUN / "wandb").glob("offline-run-*"))
    sync(offline, server, *(folders[-1:] if newest_only else folders))
    for marker in folders[-1].glob("*.synced"):  # for the next time here
        marker.unlink()
    assert received(server.run.epochs) == lines(offline / RUN)
    assert server.run.state == "finished" and server.run.id == status(offline / RUN)["wandb_id"]
    curves = RunFolder(offline / RUN).figures / "curves.png"
    assert server.run.media("figures/curves") == [curves.read_bytes()]
