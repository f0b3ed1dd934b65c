"""conf/wandb_sweep.yaml: what `wandb agent` makes of it, and a run that is killed and that an agent starts again."""

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
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from s9.cli.compose import Asked, checked, compose
from s9.config.schema import Config
from s9.system.errors import UserError
from s9.tracking.wandb_agent import run_id_of_agent
from tests.conftest import ROOT
from tests.doors import SMALL, environment, left, metrics, status, until
from tests.test_wandb_online import of, received, serving
from tests.wandb_server import ReceivedRun, WandbServer

FILE = ROOT / "conf" / "wandb_sweep.yaml"
BIN = Path(sys.executable).parent
EPOCHS = 40
VALUES: dict[str, Any] = {"model.dropout": 0.1, "optimizer.lr": 0.003, "seed": 1, "name": "two words"}


def definition() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


def words(values: dict[str, Any]) -> list[str]:
    """The arguments of s9.train, as the agent makes them of the values that W&B has chosen."""
    made = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    made |= {"env": ["/usr/bin/env"], "interpreter": ["python"]}
    found: list[str] = []
    for part in create_sweep_command(definition()["command"]):
        found += made[part[2:-1]] if part.startswith("${") else [part]
    assert found[:4] == ["/usr/bin/env", "python", "-m", "s9.train"]
    return found[4:]


def composed(**values: Any) -> Config:
    return checked(compose(Asked([word for word in words(values) if not word.startswith("resume=")]))[0])


def test_every_value_of_the_file_composes() -> None:
    lists = {key: spec["values"] for key, spec in definition()["parameters"].items()}
    for place in range(max(map(len, lists.values()))):
        composed(**{key: values[min(place, len(values) - 1)] for key, values in lists.items()})


def test_nested_keys_are_those_of_the_command_line() -> None:
    config = composed(**{"model.dropout": 0.1, "aug.mix.p": 0.5, "model.blocks.C1.conv1.channels": 16})
    assert (config.model.dropout, config.aug.mix.p, config.model.blocks["C1"]["conv1"].channels) == (0.1, 0.5, 16)


@pytest.mark.parametrize("value", ["two words", "a  b", "/my images/of cats"])
def test_a_value_with_spaces_arrives_whole(value: str) -> None:
    assert composed(name=value).name == value


@pytest.mark.parametrize("value", ["a, b", "a: b = c", "{x}", "it's"])
def test_a_value_with_signs_arrives_whole_in_quotes_of_its_own(value: str) -> None:
    escaped = value.replace("'", "\\'")
    assert composed(name=f"'{escaped}'").name == value


def test_truth_no_value_and_lists_arrive() -> None:
    config = composed(**{"trainer.compile": True, "name": "null", "wandb.tags": ["a b", "c"]})
    assert (config.trainer.compile, config.name, config.wandb.tags) == (True, None, ["a b", "c"])


def test_a_block_of_keys_is_refused_in_one_line() -> None:
    """W&B passes the parameters of a block as one value, which would be the name of an option."""
    with pytest.raises(UserError, match="model="):
        composed(model={"dropout": 0.1})


def test_the_id_is_the_agents_where_an_agent_has_started_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    alone = run_id_of_agent()
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert (alone, run_id_of_agent()) == (None, "abc")


# With W&B's own agent


@contextmanager
def agent(folder: Path, server: WandbServer, run_id: str, kind: str = "run") -> Iterator["subprocess.Popen[bytes]"]:
    """An agent that is told to start one run. It and what it has started are killed at the end."""
    file = definition()
    quick = [*(word for word in SMALL if word not in ("wandb=disabled", "model=strided", "optimizer.lr=0.02"))]
    file["command"][-1:-1] = [*quick, f"trainer.epochs={EPOCHS}", "trainer.save_every=0"]
    server.sweep = yaml.safe_dump(file)
    arguments = {key: {"value": value} for key, value in VALUES.items()}
    server.commands = [{"type": kind, "run_id": run_id, "args": arguments, "program": "s9.train"}]
    its = environment(folder, **of(server), PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    words = [str(BIN / "wandb"), "agent", "--forward-signals", "--count", "1", "me/s9/thesweep"]
    with (folder / f"agent-{run_id}-{kind}.txt").open("w") as screen:
        process = subprocess.Popen(words, cwd=folder, env=its, stdout=screen, stderr=screen, start_new_session=True)
    try:
        yield process
    finally:
        for pid in left(folder):
            os.kill(pid, signal.SIGKILL)
        process.wait(30)


def runs(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob("outputs/*/*/status.json")]


def trainer(folder: Path) -> int:
    """The process that trains."""
    (run,) = runs(folder)
    pid: int = status(run)["pid"]
    return pid


@dataclass(frozen=True)
class Resumed:
    """cut_at: how many epochs it had when it was killed."""

    folder: Path
    cut_at: int
    run: ReceivedRun
    server: WandbServer


@pytest.fixture(scope="module", params=["again", "other"])
def resumed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resumed]:
    """A run that was killed, and that an agent then started again, under the same W&B id or under another."""
    folder = tmp_path_factory.mktemp(request.param)
    with serving() as server:
        with agent(folder, server, "first") as first:
            until(lambda: server.runs and server.run.epochs)
            os.kill(trainer(folder), signal.SIGKILL)
            first.wait(60)
        (run,) = runs(folder)
        cut_at = len(metrics(run))
        run_id, kind = ("first", "resume") if request.param == "again" else ("second", "run")
        with agent(folder, server, run_id, kind) as second:
            assert second.wait(200) == 0
        yield Resumed(folder, cut_at, server.runs[run_id], server)


@pytest.mark.slow
def test_a_killed_run_that_an_agent_starts_again_is_resumed_in_its_folder(resumed: Resumed) -> None:
    (run,) = runs(resumed.folder)
    assert 0 < resumed.cut_at < EPOCHS and len(metrics(run)) == EPOCHS
    assert (status(run)["state"], status(run)["starts"]) == ("done", 2)


@pytest.mark.slow
def test_wandb_has_every_epoch_of_the_resumed_run_once(resumed: Resumed) -> None:
    (run,) = runs(resumed.folder)
    assert [row["epoch"] for row in resumed.run.epochs] == list(range(1, EPOCHS + 1))
    kept = list(metrics(run)[0])  # an epoch that was trained twice took another time
    assert [{key: row[key] for key in kept} for row in received(resumed.run.epochs)] == metrics(run)
    assert resumed.run.state == "finished" and status(run)["wandb_id"] == resumed.run.id


@pytest.mark.slow
def test_the_run_belongs_to_wandbs_sweep_and_is_named_by_its_values(resumed: Resumed) -> None:
    assert resumed.run.facts["sweep"] == "thesweep"
    assert resumed.run.facts["displayName"] == "two words dropout=0.1 lr=0.003 seed=1"
    labels = {"model_dropout": "0.1", "optimizer_lr": "0.003", "seed": "1", "name": "two words"}
    assert resumed.run.config["swept"] == labels


@pytest.mark.slow
def test_the_screen_of_a_run_of_wandbs_sweep_shows_val_alone(resumed: Resumed) -> None:
    said = "".join(path.read_text() for path in resumed.folder.glob("agent-*.txt"))
    assert "val: average loss" in said and "test: average loss" not in said


@pytest.mark.slow
def test_the_server_of_the_tests_answers_all_that_the_agent_asks(resumed: Resumed) -> None:
    assert resumed.server.unknown == set()


@pytest.mark.slow
def test_a_signal_that_the_agent_forwards_saves_the_run(tmp_path: Path) -> None:
    with serving() as server, agent(tmp_path, server, "first") as process:
        until(lambda: server.runs and server.run.epochs)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        (run,) = runs(tmp_path)
        assert status(run)["state"] == "interrupted"
