"""`python -m s9.bench bench=target`: the weights of s9.train, the rows of each seed, and what is refused."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from s9.benchmarks.run import PARTS, TARGET, Asked, refuse_wrong, run
from s9.benchmarks.target import Target
from s9.benchmarks.target_training import COMPILING, Clock, together
from s9.data import loaders
from s9.data.sources.load import load_images
from s9.system.errors import UserError
from s9.system.interrupt import Interrupts
from s9.training import evaluation
from s9.training.loop import StepDone
from s9.training.operations import operations
from tests import doors
from tests.conftest import composed

SMALL = [*(key for key in doors.SMALL if not key.startswith("aug=")), "aug=basic", "trainer.device=cpu"]
EPOCHS, SEEDS, GOAL = 3, (0, 5), 0.2
TRAINED = [*SMALL, f"trainer.epochs={EPOCHS}"]


def of_bench(*overrides: str, **keys: str) -> Asked:
    """What the door reads from these; keys: bench, target and so on."""
    usual = {"bench": TARGET, "repeats": "5", "images": "10000", "target": "0.85", "seeds": "0", "out": ""}
    given = [f"{key}={value}" for key, value in keys.items()]
    return Asked(**usual | keys, overrides=list(overrides), said=[*given, *overrides])


@dataclass
class Measured:
    """The screen and the rows of a bench of SEEDS, and what s9.train says of each: its lines of metrics.jsonl."""

    screen: str
    content: dict[str, Any]
    trained: dict[int, list[dict[str, float]]]

    def values(self, seed: int | None, unit: str) -> dict[str, float]:
        """By the rest of its name each row in this unit of a seed; None: of all seeds together."""
        start = "strided, 2 of 2 seeds, " if seed is None else f"strided, seed {seed}, "
        rows = [row for row in self.content["rows"] if row["what"].startswith(start) and row["unit"] == unit]
        return {row["what"].removeprefix(start): row["median"] for row in rows}

    def first(self, seed: int) -> int:
        """The first epoch in which s9.train reaches the goal."""
        return next(int(record["epoch"]) for record in self.trained[seed] if record["val/accuracy"] >= GOAL)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("target")
    asked = ["bench=target", f"target={GOAL}", f"seeds={','.join(map(str, SEEDS))}", "out=t.json"]
    done = doors.run(folder, "bench", *asked, *TRAINED)
    assert done.returncode == 0, done.stderr
    trained = {}
    for seed in SEEDS:
        run = f"hydra.run.dir={seed}"
        assert doors.run(folder, "train", *TRAINED, f"seed={seed}", run).returncode == 0
        trained[seed] = doors.metrics(folder / str(seed))
    return Measured(done.stdout, json.loads((folder / "t.json").read_text()), trained)


# The training


def test_val_after_each_epoch_is_that_of_s9_train(measured: Measured) -> None:
    lines = [line for line in measured.screen.splitlines() if ", epoch " in line and ": val " in line]
    told = [line.partition(" %,")[0] for line in lines]
    assert told == [
        f"strided, seed {seed}, epoch {int(record['epoch'])}/{EPOCHS}: val {100 * record['val/accuracy']:.2f}"
        for seed in SEEDS
        for record in measured.trained[seed]
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_val_accuracy_is_that_of_s9_train(measured: Measured, seed: int) -> None:
    last = measured.values(seed, "% val")[f"all {EPOCHS} epochs"]
    assert last == 100 * measured.trained[seed][-1]["val/accuracy"]


def test_seeds_differ(measured: Measured) -> None:
    first, second = ([record["train/loss"] for record in of] for of in measured.trained.values())
    assert first != second


def test_only_val_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    scored, batches = [], loaders.eval_batches

    def noted(split: Any) -> Iterator[Any]:
        scored.append(len(split))
        yield from batches(split)

    monkeypatch.setattr(evaluation, "eval_batches", noted)
    short = [*SMALL, "trainer.epochs=2", "trainer.steps_per_epoch=1"]
    list(Target(target="0.1", seeds="0", overrides=short, interrupts=Interrupts()).parts())
    data = load_images(composed("data=digits").data, 0)
    assert scored == [len(data.val)] * 2 and len(data.val) != len(data.test)


# Its rows


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_has_its_time_to_the_first_epoch_that_reaches_the_target(measured: Measured, seed: int) -> None:
    to = f"to 20 % val, epoch {measured.first(seed)} of {EPOCHS}"
    wanted = [to, f"{to}, without scoring", f"all {EPOCHS} epochs", f"all {EPOCHS} epochs, without scoring"]
    assert list(measured.values(seed, "s")) == wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_the_time_without_scoring_is_shorter(measured: Measured, seed: int) -> None:
    times = measured.values(seed, "s")
    assert 0 < times[f"all {EPOCHS} epochs, without scoring"] < times[f"all {EPOCHS} epochs"]


@pytest.mark.parametrize("seed", SEEDS)
def test_operations_are_those_of_the_steps_that_were_made(measured: Measured, seed: int) -> None:
    config, steps = composed(*TRAINED), [int(record["step"]) for record in measured.trained[seed]]
    facts = load_images(config.data, 0).facts
    first = measured.first(seed)
    counted = [
        operations(config, facts, batch_size=64, steps=n, total_steps=steps[-1]) for n in (steps[first - 1], steps[-1])
    ]
    assert list(measured.values(seed, "10^12 operations").values()) == [count / 10**12 for count in counted]


def test_several_seeds_have_rows_of_all_together(measured: Measured) -> None:
    assert [*measured.values(None, "s"), *measured.values(None, "% val")] == ["to 20 % val", f"all {EPOCHS} epochs"]
    assert [row["repeats"] for row in measured.content["rows"][-2:]] == [2, 2]


def test_the_file_says_precision_and_threads(measured: Measured) -> None:
    assert measured.content["machine"]["precision"] == "float32" and measured.content["machine"]["threads"] == 1
    assert measured.content["data"] == "digits (scikit-learn)"


def test_each_row_is_a_line_on_the_screen(measured: Measured) -> None:
    lines = [line for line in measured.screen.splitlines() if line.startswith("target ")]
    rows = measured.content["rows"]
    assert len(lines) == len(rows) and all(row["what"] in line for row, line in zip(rows, lines, strict=True))


def test_the_screen_says_what_is_trained_and_what_an_epoch_leaves_out(measured: Measured) -> None:
    _, first, second, *_ = measured.screen.splitlines()
    assert first == f"strided-basic-digits: 1,287 train, 150 val images, {EPOCHS} epochs, float32"
    assert second.startswith("only 60 steps in all; ")


def test_a_target_that_is_not_reached_is_a_row_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = [*SMALL, "trainer.epochs=2", "trainer.steps_per_epoch=1"]
    out = tmp_path / "t.json"
    assert run(of_bench(*short, target="1", out=str(out)), Interrupts()) == 0
    first = json.loads(out.read_text())["rows"][0]
    assert (first["what"], first["unit"]) == ("strided, seed 0, 100 % val not reached in 2 of 2 epochs: best", "% val")
    assert capsys.readouterr().out.endswith(f"everything is in {out}\n")


def test_a_seed_whose_loss_is_not_finite_says_so_and_the_next_is_trained() -> None:
    wild = [*SMALL, "trainer.epochs=1", "optimizer.lr=1e30"]
    target = Target(target="0.1", seeds="0,1", overrides=wild, interrupts=Interrupts())
    parts = list(target.parts())
    assert [part[0].what.partition(" in epoch 1")[0] for part in parts] == [
        f"strided, seed {seed}, no epoch of 1 ended: loss is nan" for seed in (0, 1)
    ]


# A signal


def test_a_signal_keeps_what_has_been_measured(tmp_path: Path) -> None:
    asked = ["bench=target", "target=0.1", "out=t.json", *SMALL, "trainer.epochs=500"]
    with doors.started(tmp_path, doors.command("bench", *asked)) as door:
        door.has_said("epoch 2/500")
        os.kill(door.pid, signal.SIGINT)
        done = door.end()
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert done.returncode == 130 and done.stdout.endswith("interrupted by SIGINT; what was measured is in t.json\n")
    assert any(row["what"].endswith(" of 500 epochs (interrupted by SIGINT)") for row in rows)


def test_a_signal_before_the_first_epoch_has_ended_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupts = Interrupts()
    interrupts.received = signal.SIGTERM
    assert run(of_bench(*TRAINED, out=str(tmp_path / "t.json")), interrupts) == 143
    assert capsys.readouterr().out.endswith("interrupted by SIGTERM; nothing was measured\n")
    assert not list(tmp_path.iterdir())


# Compiling


def step_done(epoch: int, batch: int) -> StepDone:
    """The first epoch's images have 16 pixels, those of later ones 32."""
    zero, size = torch.zeros(()), 16 if epoch == 1 else 32
    return StepDone(epoch=epoch, batch=batch, batches=10, images=64, size=size, loss_sum=zero, correct=zero)


def clock(*, compiles: bool) -> Clock:
    return Clock(torch.device("cpu"), Interrupts(), compiles=compiles)


def test_the_first_steps_of_each_image_size_are_timed() -> None:
    timed = clock(compiles=True)
    timed.start()
    for epoch in (1, 2):
        for batch in range(1, 11):
            timed.step(step_done(epoch, batch))
    assert {size: [epoch for epoch, _ in steps] for size, steps in timed.first.items()} == {16: [1] * 10, 32: [2] * 10}


def test_what_the_first_steps_take_longer_is_the_time_to_compile() -> None:
    timed = clock(compiles=True)
    timed.first = {
        16: [(1, 9.0), *[(1, 1.0)] * (COMPILING - 1), *[(1, 2.0)] * 3],
        32: [(2, 4.0), *[(2, 1.0)] * COMPILING],
    }
    assert (timed.compile_s(1), timed.compile_s(2)) == (7.0, 10.0)


def test_nothing_is_timed_where_nothing_is_compiled() -> None:
    timed = clock(compiles=False)
    timed.start()
    timed.step(step_done(1, 1))
    assert timed.first == {}


@pytest.mark.slow
def test_compiling_has_a_row_of_its_own_and_is_no_part_of_the_time() -> None:
    short = [*SMALL, "trainer.epochs=1", "trainer.steps_per_epoch=8", "trainer.compile=true"]
    target = Target(target="0.01", seeds="0", overrides=short, interrupts=Interrupts())
    training = target.train(0)
    *_, last = training.rows()
    assert last.what == "strided, seed 0, to compile" and last.median > 0
    assert training.seconds(1) + last.median == pytest.approx(training.epochs[0].seconds)


# What is asked for


def test_all_leaves_it_out() -> None:
    assert TARGET not in PARTS


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ([], ["data=digits", "experiment=fast"]),
        (["trainer.epochs=7", "model=strided"], ["data=digits", "trainer.epochs=7", "model=strided"]),
        (["experiment=teacher"], ["data=digits", "experiment=teacher"]),
    ],
    ids=["nothing", "epochs", "an experiment"],
)
def test_the_training_is_that_of_experiment_fast_unless_another_is_asked_for(given: list[str], same: list[str]) -> None:
    target = Target(target="0.85", seeds="0", overrides=given, interrupts=Interrupts())
    assert target.config == composed(*same)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"repeats": "3"}, "repeats=3: has no effect on bench=target, which trains once per seed; leave it out"),
        ({"images": "600"}, "images=600: has no effect on bench=target, which trains once per seed; leave it out"),
        ({"bench": "step", "target": "0.9"}, "target=0.9: has no effect on bench=step, only bench=target trains"),
        ({"bench": "all", "seeds": "0,1"}, "seeds=0,1: has no effect on bench=all, only bench=target trains"),
    ],
    ids=str,
)
def test_a_key_without_effect_is_refused(keys: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        refuse_wrong(of_bench(**keys))
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("target", ["85", "0", "-1", "nan", "high", ""])
def test_a_target_is_an_accuracy(target: str) -> None:
    with pytest.raises(UserError, match=rf"^target={target}: must be an accuracy of val, more than 0 and at most 1"):
        Target(target=target, seeds="0", overrides=[], interrupts=Interrupts())


@pytest.mark.parametrize("seeds", ["0,0", "a", "", "1,", "-1", "0.5", "4294967296", "²"])
def test_seeds_are_different_whole_numbers(seeds: str) -> None:
    with pytest.raises(UserError, match=rf"^seeds={seeds}: must be different whole numbers"):
        Target(target="0.85", seeds=seeds, overrides=[], interrupts=Interrupts())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=3", "seed=3: bench=target trains the seeds of seeds=; write seeds=3"),
        ("trainer.devices=2", "trainer.devices=2: bench=target times one device"),
        ("trainer.epoch=3", "trainer.epoch=3: there is no such key; did you mean trainer.epochs?"),
    ],
)
def test_a_wrong_key_is_one_line(override: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        Target(target="0.85", seeds="0", overrides=[*SMALL, override], interrupts=Interrupts())
    assert str(refused.value) == said


def test_without_val_nothing_is_trained_and_nothing_left(tmp_path: Path) -> None:
    done = doors.run(tmp_path, "bench", "bench=target", *TRAINED, "data.val_size=0", "out=t.json")
    assert doors.error_line(done, 2).startswith("error: data.val_size=0: leaves no val, whose accuracy bench=target")
    assert done.stdout == "" and not (tmp_path / "t.json").exists()


@pytest.mark.gpu
def test_a_gpu_compiles_and_reaches_the_target() -> None:
    asked = ["data=digits", "trainer.device=cuda", "trainer.epochs=8", "trainer.compile=true", "wandb=disabled"]
    target = Target(target="0.5", seeds="0", overrides=asked, interrupts=Interrupts())
    training = target.train(0)
    assert training.reached and 0 < training.seconds(8, scoring=False) < training.seconds(8)


def test_seeds_that_all_missed_the_target_have_no_time_together() -> None:
    short = [*SMALL, "trainer.epochs=1", "trainer.steps_per_epoch=1"]
    target = Target(target="1", seeds="0,1", overrides=short, interrupts=Interrupts())
    assert [row.unit for row in together([target.train(0), target.train(1)])] == ["% val"]
