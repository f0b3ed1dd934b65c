"""Several processes that train one network on CPUs (gloo): the same result as one, and one end for all of them."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from s9.cli.compose import compose_config
from s9.config.schema import Config
from s9.data.batches import KeyedBatches
from s9.models.s9net import S9Net
from s9.runs.prepare import Prepared, prepare
from s9.tracking.folder import RunFolder
from s9.training import checkpoint
from s9.training.ranks import Ranks, joined
from s9.training.weights import save_weights
from tests.doors import (
    HERE,
    RUN,
    SHORT,
    SMALL,
    Started,
    checkpoints,
    command,
    error_line,
    left,
    nobody_left,
    run,
    started,
    status,
    until,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")

TWO = "trainer.devices=2"
CPU = torch.device("cpu")
BOUND = 1e-5  # of every weight after an epoch, which are up to about 1 each


# What two ranks train on


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("first", [0, 3])
def test_the_parts_of_all_ranks_are_the_batch_of_one(world: int, first: int) -> None:
    def batches(rank: int, world: int) -> np.ndarray:
        made = KeyedBatches(1000, 64, 0, rank=rank, world=world)
        made.epoch, made.first = 2, first
        return made.order()

    parts = [batches(rank, world) for rank in range(world)]
    assert np.array_equal(np.sort(np.concatenate(parts, 1)), np.sort(batches(0, 1)))


def test_images_that_mixing_pairs_are_on_the_same_rank_and_pair_there_too() -> None:
    whole = KeyedBatches(1000, 64, 0).order()
    partner = {int(a): int(b) for batch in whole for a, b in zip(batch, batch[::-1], strict=True)}
    for rank in range(2):
        for batch in KeyedBatches(1000, 64, 0, rank=rank, world=2).order():
            assert [partner[int(image)] for image in batch] == batch[::-1].tolist()


# Two ranks and one agree


def train_part(ranks: Ranks, config: Config, norm: bool, folder: Path) -> None:
    """One epoch of one rank; rank 0 keeps the weights."""
    prepared, model = prepared_model(ranks, config, folder)
    if not norm:
        for layer in model.layers.values():
            layer.norm = nn.Identity()
    for _ in prepared.fit(ranks, None):
        pass
    if ranks.rank == 0:
        save_weights(model, folder / f"{ranks.world}.safetensors")


def prepared_model(ranks: Ranks, config: Config, folder: Path) -> tuple[Prepared, S9Net]:
    prepared = prepare(config, RunFolder(folder), ranks)
    assert isinstance(prepared.learner.model, S9Net)
    return prepared, prepared.learner.model


def differences(folder: Path, norm: bool, *overrides: str) -> float:
    """Of the weights after an epoch on two ranks and on one: the largest."""
    config = compose_config([*SMALL, "trainer.epochs=1", "optimizer.lr=0.01", "scheduler=constant", *overrides])
    _, model = prepared_model(Ranks(device=CPU), config, folder)
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    train_part(Ranks(device=CPU), config, norm, folder)
    with joined(replace(config.trainer, devices=2), CPU, train_part, config, norm, folder) as ranks:
        train_part(ranks, config, norm, folder)
    one, two = (load_file(folder / f"{world}.safetensors") for world in (1, 2))
    assert max(float((one[name] - begun[name]).abs().max()) for name in one) > 1000 * BOUND  # it did train
    return max(float((one[name] - two[name]).abs().max()) for name in one if "running" not in name)


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("mix", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "mixed"])
def test_without_batch_norm_two_ranks_give_the_weights_of_one_to_float_error(tmp_path: Path, mix: bool) -> None:
    mixing = ["aug=strong", "aug.mix.p=1"] if mix else []
    found = differences(tmp_path, False, *mixing)
    print(f"largest difference {found:.2e}")
    assert found < BOUND


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_with_batch_norm_on_cpus_two_ranks_differ_from_one_since_each_has_its_own_statistics(tmp_path: Path) -> None:
    found = differences(tmp_path, True)
    print(f"largest difference {found:.2e}")
    assert BOUND < found < 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_a_teacher_teaches_two_ranks_what_it_teaches_one(tmp_path: Path, finished: Path) -> None:
    """It alone: the true labels do not count."""
    found = differences(tmp_path, False, f"teacher={finished}", "distillation.share=1")
    print(f"largest difference {found:.2e}")
    assert found < BOUND


# Through the door


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two ranks."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(folder, "train", *SMALL, HERE, TWO, "trainer.epochs=1")
    assert (done.returncode, done.stderr) == (0, "")
    return folder / RUN


@pytest.mark.slow
def test_two_ranks_leave_the_files_of_one(tmp_path: Path) -> None:
    for number in "12":
        devices = ["hydra.run.dir=" + number, "trainer.devices=" + number]
        assert run(tmp_path, "train", *SHORT, *devices, DRAW="1").returncode == 0

    def files(folder: Path) -> set[str]:
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        return {name for name in found if not name.startswith("checkpoints/")}

    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_each_epoch_has_one_line_whatever_the_ranks(finished: Path) -> None:
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 1
    assert (finished / "train.log").read_text().count("epoch 1/1: ") == 1


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_out_is_one_line(tmp_path: Path) -> None:
    said = error_line(run(tmp_path, "train", *SHORT, HERE, TWO, "trainer.batch_size=62"), 2)
    assert said == "error: trainer.batch_size=62: must be a multiple of 4 for 2 devices"
    assert nobody_left(tmp_path), left(tmp_path)


@pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU")
def test_more_devices_than_gpus_are_refused(tmp_path: Path) -> None:
    wanted = torch.cuda.device_count() + 1
    said = error_line(run(tmp_path, "train", *SHORT, HERE, f"trainer.devices={wanted}", "trainer.device=cuda"), 2)
    assert said == f"error: trainer.devices={wanted}: this machine has {wanted - 1} GPUs"


def other_rank(door: Started) -> int:
    """The process that rank 0 has started."""
    for pid in left(door.folder):
        if pid != door.pid and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise ProcessLookupError("there is no other rank")


@pytest.mark.slow
def test_the_death_of_rank_1_ends_the_run_in_one_line(tmp_path: Path) -> None:
    with started(tmp_path, command("train", *SMALL, HERE, TWO, "trainer.epochs=5000")) as door:
        until(lambda: checkpoints(tmp_path / RUN))
        other = other_rank(door)
        os.kill(other, signal.SIGKILL)
        said = error_line(door.end(), 1)
        assert said == f"error: rank 1 (pid {other}) has ended with SIGKILL"
        assert nobody_left(tmp_path), left(tmp_path)
    assert status(tmp_path / RUN)["state"] == "failed"


@pytest.mark.slow
def test_the_death_of_rank_0_ends_all_others_without_a_traceback(tmp_path: Path) -> None:
    with started(tmp_path, command("train", *SMALL, HERE, TWO, "trainer.epochs=5000")) as door:
        until(lambda: checkpoints(tmp_path / RUN))
        os.kill(door.pid, signal.SIGKILL)
        assert "Traceback" not in door.end().stderr
        assert nobody_left(tmp_path), left(tmp_path)


@pytest.mark.slow
def test_two_ranks_that_were_interrupted_within_an_epoch_end_bit_identical(finished: Path, tmp_path: Path) -> None:
    with started(tmp_path, command("train", *SMALL, HERE, TWO, "trainer.epochs=1", "trainer.save_every=0")) as door:
        until(lambda: checkpoints(tmp_path / RUN))
        os.kill(door.pid, signal.SIGTERM)
        done = door.end()
    assert done.returncode == 128 + signal.SIGTERM and f"resume={RUN}" in done.stderr
    assert nobody_left(tmp_path), left(tmp_path)
    position = checkpoint.read(checkpoints(tmp_path / RUN)[-1])["position"]
    assert position["epoch"] == 1 and position["batch"] > 0
    again = run(tmp_path, "train", f"resume={RUN}")
    assert (again.returncode, again.stderr) == (0, "")
    for name in ("weights/final.safetensors", "metrics.jsonl"):
        assert (finished / name).read_bytes() == (tmp_path / RUN / name).read_bytes(), name


@pytest.mark.slow
def test_each_job_of_a_sweep_has_two_ranks(tmp_path: Path) -> None:
    done = run(tmp_path, "train", "-m", *SHORT, TWO, "hydra.sweep.dir=sweep", "seed=0,1")
    assert (done.returncode, done.stderr) == (0, "")
    logs = [path.read_text() for path in tmp_path.glob("sweep/*/train.log")]
    assert [log.count("2 x cpu") for log in logs] == [1, 1]
    assert nobody_left(tmp_path), left(tmp_path)


@pytest.mark.slow
def test_torchrun_makes_one_folder_with_the_metrics_of_two_devices(finished: Path, tmp_path: Path) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "s9.train"]
    with started(tmp_path, [*start, *SMALL, "trainer.epochs=1"]) as door:
        done = door.end()
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert nobody_left(tmp_path), left(tmp_path)
    folders = [path.parent for path in tmp_path.rglob("status.json")]
    assert [status(folder)["state"] for folder in folders] == ["done"]
    assert (folders[0] / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_torchrun_keeps_what_the_teacher_said_in_the_run_of_rank_0(finished: Path, tmp_path: Path) -> None:
    """And so no other run from the same place reads it."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "s9.train"]
    taught = [f"teacher={finished}", "distillation.views=1", "trainer.epochs=2", "trainer.steps_per_epoch=2"]
    with started(tmp_path, [*start, *SMALL, HERE, *taught]) as door:
        until(lambda: [file.name for file in sorted(tmp_path.rglob(f"{RUN}/teacher/*"))] == ["0", "1"])
        assert door.end().returncode == 0
    assert not list(tmp_path.rglob("teacher"))
