"""Checkpoints: every part comes back to the last bit, and a damaged or a foreign file is never used."""

import hashlib
import logging
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from s9.config.identity import FREE, identity
from s9.config.model import ModelConfig
from s9.config.stored import as_dict
from s9.data.sources.cifar10 import FACTS
from s9.models.s9net import S9Net
from s9.system.errors import UserError
from s9.training import checkpoint
from s9.training.checkpoint import Checkpoints, Position, found
from s9.training.learner import Learner, averaged
from s9.training.optim import build_optimizer, build_scheduler
from tests.conftest import composed

IDENTITY: dict[str, Any] = {"seed": 0, "model": {"name": "small", "blocks": {"C1": {"conv1": {"channels": 8}}}}}
DRAWS: dict[str, Callable[[], object]] = {
    "python": random.random,
    "numpy": lambda: np.random.standard_normal(3).tolist(),
    "torch": lambda: torch.randn(3).tolist(),
}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def make_learner(optimizer: str = "sgd", seed: int = 0, channels: int = 8) -> Learner:
    """A small network with all that trains it, as a run has them."""
    config = composed("data=digits", f"optimizer={optimizer}")
    blocks: Any = {
        "C1": {"conv1": {"channels": channels}, "conv2": {"channels": 6, "separable": True, "stride": 2}},
    }
    torch.manual_seed(seed)
    model = S9Net(ModelConfig("small", 0.0, "relu", whiten=False, head=True, blocks=blocks), FACTS)
    trains = build_optimizer(config.optimizer, model)
    scheduler = build_scheduler(config.scheduler, trains, 20)
    return Learner(model=model, optimizer=trains, scheduler=scheduler, ema=averaged(model, 0.9))


def steps(learner: Learner, *seeds: int) -> None:
    """A step for each seed, which gives its images."""
    for seed in seeds:
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        learner.optimizer.zero_grad()
        F.cross_entropy(learner.model.train()(images), torch.arange(4)).backward()
        learner.optimizer.step()
        learner.scheduler.step()
        assert learner.ema is not None
        learner.ema.update_parameters(learner.model)


def differing(first: Learner, second: Learner) -> list[str]:
    """The parts that are not the same to the last bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys() == {"model", "optimizer", "scheduler", "ema"}
    return [name for name in ours if not same(ours[name], theirs[name])]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def checkpoints(folder: Path, learner: Learner | None = None, identity: dict[str, Any] = IDENTITY) -> Checkpoints:
    return Checkpoints(folder, learner or make_learner(), identity, world=1, save_every=60)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 1 and 2; `extra` says which."""
    kept = checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        assert kept.save(Position(step=step), {"of": step})
    return kept.folder


def restored_step(folder: Path) -> int | None:
    restored = checkpoints(folder).restore()
    return restored[0].step if restored else None


def newest(folder: Path) -> Path:
    return found(folder)[0]


def truncate(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path: Path, _: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def lose_the_sum(path: Path, _: Path) -> None:
    path.with_suffix(".sha256").unlink()


def empty_the_sum(path: Path, _: Path) -> None:
    path.with_suffix(".sha256").write_text("")


def replace_by_a_payload(path: Path, made: Path) -> None:
    torch.save({"format": 1, "config": Payload(made)}, path)
    sign(path)


def replace_by_another_file(path: Path, _: Path) -> None:
    torch.save({"weights": torch.ones(3)}, path)
    sign(path)


def replace_by_a_part(path: Path, _: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, "position": {"step": 2}}, path)
    sign(path)


def sign(path: Path) -> None:
    path.with_suffix(".sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


DAMAGES = [
    *(truncate, flip_a_byte, empty, lose_the_sum, empty_the_sum),
    *(replace_by_a_payload, replace_by_another_file, replace_by_a_part),
]


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adamw"])
def test_every_part_comes_back_to_the_last_bit(tmp_path: Path, optimizer: str) -> None:
    first, second = make_learner(optimizer), make_learner(optimizer, seed=1)
    steps(first, 1, 2, 3)
    checkpoints(tmp_path, first).save(Position(), {})
    checkpoints(tmp_path, second).restore()
    assert differing(first, second) == []


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adamw"])
def test_training_goes_on_as_if_it_had_not_been_cut(tmp_path: Path, optimizer: str) -> None:
    first, second = make_learner(optimizer), make_learner(optimizer, seed=1)
    steps(first, 1, 2, 3)
    checkpoints(tmp_path, first).save(Position(), {})
    checkpoints(tmp_path, second).restore()
    for learner in (first, second):
        steps(learner, 4, 5)
    assert differing(first, second) == []


def test_loaded_filters_stay_channels_last(saved: Path) -> None:
    learner = make_learner(seed=1)
    checkpoints(saved, learner).restore()
    filters = [p for p in learner.model.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)


@pytest.mark.parametrize("stream", DRAWS)
def test_a_random_stream_goes_on_where_it_was(tmp_path: Path, stream: str) -> None:
    np.random.standard_normal()  # leaves a second number in the stream's memory
    kept = checkpoints(tmp_path)
    kept.save(Position(), {})
    drawn = DRAWS[stream]()
    kept.restore()
    assert DRAWS[stream]() == drawn


def test_position_and_extra_come_back(tmp_path: Path) -> None:
    position = Position(epoch=2, batch=3, step=15, images=96, loss_sum=1 / 3, correct=41.0)
    extra = {"records": [{"epoch": 1, "lr": 0.1 + 0.2}], "best": {}}
    checkpoints(tmp_path).save(position, extra)
    assert checkpoints(tmp_path).restore() == (position, extra)


def test_saving_changes_nothing_that_trains(tmp_path: Path) -> None:
    learner, untouched = make_learner(), make_learner()
    checkpoints(tmp_path, learner).save(Position(), {})
    for some in (learner, untouched):
        steps(some, 1)
    assert same(learner.model.state_dict(), untouched.model.state_dict())


def test_the_last_two_are_kept(saved: Path) -> None:
    checkpoints(saved).save(Position(step=3), {})
    names = sorted(p.name for p in saved.iterdir())
    assert names == [f"step-0000000{step}.{kind}" for step in (2, 3) for kind in ("pt", "sha256")]


def test_sha256sum_reads_the_sums(saved: Path) -> None:
    sums = [p.name for p in sorted(saved.glob("*.sha256"))]
    done = subprocess.run(["sha256sum", "-c", *sums], cwd=saved, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:-1] == ["step-00000001.pt: OK", "step-00000002.pt: OK"]


def test_a_checkpoint_holds_no_pickled_objects(saved: Path) -> None:
    assert torch.load(newest(saved), weights_only=True)["position"]["step"] == 2


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).restore() is None


def test_the_newest_is_used(saved: Path) -> None:
    assert restored_step(saved) == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_instead_of_a_damaged_one_the_one_before_is_used(saved: Path, damage: Callable[[Path, Path], None]) -> None:
    damage(newest(saved), saved / "made")
    assert restored_step(saved) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named(
    saved: Path, damage: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(newest(saved), saved / "made")
    with caplog.at_level(logging.WARNING, "s9"):
        restored_step(saved)
    assert [str(newest(saved)) in line for line in caplog.messages] == [True]


def test_a_payload_does_not_run(saved: Path) -> None:
    replace_by_a_payload(newest(saved), saved / "made")
    restored_step(saved)
    assert not (saved / "made").exists()


def test_a_payload_would_run_without_weights_only(saved: Path) -> None:
    replace_by_a_payload(newest(saved), saved / "made")
    torch.load(newest(saved), weights_only=False)
    assert (saved / "made").exists()


def test_where_all_are_damaged_there_is_nothing_to_go_on_from(saved: Path) -> None:
    for path in found(saved):
        flip_a_byte(path, saved)
    assert restored_step(saved) is None


def test_a_damaged_one_does_not_push_a_whole_one_out(saved: Path) -> None:
    flip_a_byte(newest(saved), saved)
    kept = checkpoints(saved)
    kept.restore()
    kept.save(Position(step=2), {})  # over the damaged one
    flip_a_byte(newest(saved), saved)
    assert restored_step(saved) == 1


def test_one_that_was_damaged_is_not_counted_among_the_two(saved: Path) -> None:
    checkpoints(saved).save(Position(step=9), {})
    flip_a_byte(newest(saved), saved)
    kept = checkpoints(saved)
    kept.restore()  # step 2
    kept.save(Position(step=3), {})
    assert [p.stem for p in found(saved)] == ["step-00000003", "step-00000002"]


def test_what_a_killed_process_left_is_cleared(saved: Path) -> None:
    for name in (
        ".step-00000002.pt.part",
        ".step-00000002.sha256.part",
        "step-00000001.sha256",
        "step-00000007.sha256",
    ):
        (saved / name).write_bytes(b"half")
    checkpoints(saved).save(Position(step=3), {})
    assert len(list(saved.iterdir())) == 4


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        (
            {"model": {"name": "small", "blocks": {"C1": {"conv1": {"channels": 9}}}}},
            "model.blocks.C1.conv1.channels was 8, is 9",
        ),
        ({"more": 1}, "more was missing, is 1"),
    ],
)
def test_of_another_configuration_the_key_is_named(saved: Path, other: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        checkpoints(saved, identity=IDENTITY | other).restore()
    assert "\n" not in str(raised.value)


def test_of_another_network_one_line_says_so(saved: Path) -> None:
    with pytest.raises(UserError, match="of another") as raised:
        checkpoints(saved, make_learner(channels=16)).restore()
    assert "\n" not in str(raised.value)


def test_other_processes_than_those_that_saved_it_are_named(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    two = Checkpoints(saved, make_learner(), IDENTITY, world=2, save_every=60)
    assert two.restore()
    assert "was saved by 1 processes and is resumed by 2" in caplog.text


@pytest.mark.parametrize("key", FREE)
def test_what_changes_no_weight_is_no_part_of_the_identity_that_is_compared(key: str) -> None:
    config = composed("data=cifar10" if key in ("data.archive", "data.urls") else "data=folder")
    every, compared = as_dict(config), identity(config, device="cpu", precision="float32", donors={})
    *path, name = key.split(".")
    for part in path:
        every, compared = every[part], compared[part]
    assert name in every and name not in compared


def test_another_format_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    with pytest.raises(UserError, match="another version"):
        restored_step(saved)


def test_where_it_cannot_be_written_the_ones_before_stay(saved: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        assert not checkpoints(saved).save(Position(step=3), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(list(saved.iterdir())) == 4 and restored_step(saved) == 2


def test_what_cannot_be_removed_stops_no_training(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder stands for it: no user, root neither, can remove one as a file."""
    (saved / "step-junk").mkdir()
    assert checkpoints(saved).save(Position(step=3), {"of": 3}) and restored_step(saved) == 3
    (saved / "step-00000004.sha256").mkdir()
    assert not checkpoints(saved).save(Position(step=4), {"of": 4}) and restored_step(saved) == 3
    assert "training continues" in caplog.text


def test_the_number_of_threads_is_the_one_that_the_run_began_with(tmp_path: Path) -> None:
    """Sums are rounded in another order with others, so that the weights would be others."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        checkpoints(tmp_path).save(Position(step=1), {})
        torch.set_num_threads(1)
        assert checkpoints(tmp_path).restore() is not None
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
