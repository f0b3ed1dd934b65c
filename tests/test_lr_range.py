"""The learning rate range test: what it suggests, where it ends, and what it leaves in the run's folder."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from s9.config.schema import Config
from s9.runs import said
from s9.runs.run import train
from s9.system.errors import UserError
from s9.tracking.figures import draw_all
from s9.tracking.folder import RunFolder
from s9.tracking.lr_range import SUGGESTED, has_range_test, range_test, suggested
from s9.tracking.lr_range_figure import lr_range
from s9.tracking.run_log import logged_to
from s9.training.optim import exponential
from s9.training.step import NonFiniteLossError
from tests.conftest import composed
from tests.test_figures import outside, overlapping, texts_of

POINTS, STEPS = 100, 3
Record = dict[str, float]


def config(*overrides: str) -> Config:
    return composed("data=digits", "experiment=lr_range", f"trainer.epochs={POINTS}", *overrides)


def records(of: Config, loss: Callable[[float], float]) -> list[Record]:
    """Those of a run whose loss is `loss` of the common logarithm of optimizer.lr."""
    found: list[Record] = []
    for epoch in range(1, POINTS + 1):
        middle = (STEPS * epoch - (STEPS + 1) / 2) / (STEPS * POINTS)
        rate = of.optimizer["lr"] * exponential(middle, of.scheduler["low"], of.scheduler["high"])
        found.append({"epoch": epoch, "step": STEPS * epoch, "train/loss": loss(np.log10(rate))})
    return found


def valley(at: float) -> Callable[[float], float]:
    """A loss that is lowest where the learning rate is `at`, and 2.3 two decades away."""
    return lambda decades: min(2.3, 1.5 + 0.2 * (decades - np.log10(at)) ** 2)


# The suggestion


@pytest.mark.parametrize("at", [0.02, 0.3, 2.0])
def test_the_learning_rate_with_the_lowest_loss_is_suggested(at: float) -> None:
    of = config("optimizer=sgd", "optimizer.lr=0.3")
    assert suggested(of, records(of, valley(at)))[SUGGESTED]["optimizer.lr"] == pytest.approx(at, rel=0.1)


@pytest.mark.parametrize("lr", [0.03, 3])
def test_the_suggestion_does_not_depend_on_the_learning_rate_that_the_range_is_built_on(lr: float) -> None:
    of = config("optimizer=sgd", f"optimizer.lr={lr}")
    assert suggested(of, records(of, valley(0.3)))[SUGGESTED]["optimizer.lr"] == pytest.approx(0.3, rel=0.1)


def test_all_learning_rates_of_an_optimizer_are_suggested_in_their_proportion() -> None:
    of = config("optimizer=muon", "optimizer.lr=0.05", "optimizer.other_lr=0.1")
    rates = suggested(of, records(of, valley(0.5)))[SUGGESTED]
    assert rates["optimizer.other_lr"] == pytest.approx(2 * rates["optimizer.lr"], rel=0.05)


def test_a_loss_that_explodes_at_the_end_does_not_move_the_suggestion() -> None:
    of = config("optimizer=sgd", "optimizer.lr=0.3")
    calm = records(of, valley(0.3))
    wild = [record | {"train/loss": 1e6} if record["epoch"] > 80 else record for record in calm]
    assert suggested(of, wild) == suggested(of, calm)


def test_single_points_do_not_decide() -> None:
    of = config("optimizer=sgd", "optimizer.lr=0.3")
    smooth = records(of, valley(0.3))
    smooth[20]["train/loss"] = 1.4  # below all others, in the middle of high ones
    assert suggested(of, smooth)[SUGGESTED]["optimizer.lr"] == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("loss", [lambda decades: 2.3, lambda decades: 2 - 0.1 * decades], ids=["flat", "falls"])
def test_a_loss_that_does_not_fall_and_rise_again_suggests_nothing(loss: Callable[[float], float]) -> None:
    of = config()
    assert suggested(of, records(of, loss)) == {SUGGESTED: {}}


def test_another_run_suggests_nothing() -> None:
    of = composed("data=digits")
    assert suggested(of, records(config(), valley(0.05))) == {}


def test_the_range_begins_and_ends_at_its_fractions_of_the_learning_rate() -> None:
    assert [exponential(progress, 0.001, 100) for progress in (0, 0.6, 1)] == pytest.approx([0.001, 1, 100])


@pytest.mark.parametrize("key", ["low", "high"])
def test_a_range_that_has_no_logarithm_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"scheduler\.{key}=0: must be a number more than 0"):
        config(f"scheduler.{key}=0")


# The last lines


def test_the_last_line_gives_the_keys_as_the_command_line_takes_them() -> None:
    rates = {"optimizer.lr": 0.058, "optimizer.other_lr": 0.12}
    (line,) = said.after({SUGGESTED: rates, "test": {}}, ("val", "test"), balanced=False)
    assert line.startswith("suggested: optimizer.lr=0.058 optimizer.other_lr=0.12 (where")


def test_the_last_line_says_why_nothing_is_suggested() -> None:
    (line,) = said.after({SUGGESTED: {}}, ("val", "test"), balanced=False)
    assert line.startswith("suggested: no learning rate, since")


# A run


SMALL = ("trainer.epochs=20", "trainer.steps_per_epoch=1", "trainer.batch_size=16", "wandb=disabled", "aug=none")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A range test on the digits whose loss explodes before its end."""
    of = config("optimizer=sgd", "scheduler.high=1e5", *SMALL)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "range")
    folder.path.mkdir()
    with logged_to(folder.log, logging.NullHandler()):
        train(of, folder.path)
    return folder


def test_a_range_test_ends_early_and_well_where_its_loss_explodes(run: RunFolder) -> None:
    assert run.is_done() and 1 < len(run.read_metrics()) < 20


def test_a_range_test_ends_well_where_its_loss_is_no_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, no_figures: None
) -> None:
    steep = ("optimizer=sgd", "scheduler.low=1e-30", "scheduler.high=1e60")
    folder = RunFolder(tmp_path / "run")
    with caplog.at_level(logging.INFO, "s9"):
        train(config(*SMALL, *steep, "trainer.epochs=3", "trainer.steps_per_epoch=2"), folder.path)
    assert folder.is_done() and len(folder.read_metrics()) == 2
    assert [line for line in caplog.messages if line.startswith("the range test ends here: loss is nan in epoch 3")]


def test_a_range_test_whose_loss_is_no_number_before_its_first_point_fails(tmp_path: Path, no_figures: None) -> None:
    steep = ("optimizer=sgd", "scheduler.low=1e30", "scheduler.high=1e60", "trainer.save_every=0")
    with pytest.raises(NonFiniteLossError, match="in epoch 1"):
        train(config(*SMALL, *steep, "trainer.epochs=3", "trainer.steps_per_epoch=4"), tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").glob("*.pt"))


def test_its_wrecked_network_is_not_looked_into(run: RunFolder) -> None:
    assert not run.insight.exists()


def test_it_ends_with_where_its_figure_lies(run: RunFolder) -> None:
    said = run.log.read_text()
    assert f"the loss over the learning rate: {run.figures / 'lr_range.png'}\n" in said and "score it again" not in said


def test_its_points_are_the_learning_rates_that_were_trained_with(run: RunFolder) -> None:
    of, found = run.read_config(), run.read_metrics()
    assert [r["lr"] for r in found] == pytest.approx(of.optimizer["lr"] * range_test(of, found).factors)


def test_its_summary_has_what_is_suggested(run: RunFolder) -> None:
    summary = run.read_summary()
    assert summary[SUGGESTED] == suggested(run.read_config(), run.read_metrics())[SUGGESTED]


def test_its_weights_can_be_scored(run: RunFolder) -> None:
    assert np.isfinite(run.read_predictions()["probs"]).all()


def test_it_leaves_a_figure(run: RunFolder) -> None:
    assert (run.figures / "lr_range.png").is_file()


def test_an_interrupted_range_test_is_drawn_from_what_it_has(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(run.read_config())
    folder.write_epochs(run.read_metrics()[:2], [])
    assert [path.name for path in draw_all(folder)] == ["curves.png", "lr_range.png"]


def test_a_range_test_without_a_point_has_no_figure_yet(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(run.read_config())
    folder.write_epochs([], [])
    assert not has_range_test(folder)


def test_another_run_has_no_such_figure(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(composed("data=digits"))
    folder.write_epochs(run.read_metrics(), [])
    assert not has_range_test(folder)


def test_no_text_of_the_figure_is_over_another_or_outside(tmp_path: Path) -> None:
    folder, of = RunFolder(tmp_path), config("optimizer=muon")
    folder.write_config(of)
    folder.write_epochs(records(of, valley(0.05)), [])
    texts = texts_of(figure := lr_range(folder))
    assert (overlapping(texts), outside(figure, texts)) == ([], [])


def test_the_epochs_of_a_range_test_are_not_told_to_be_few(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, no_figures: None
) -> None:
    with caplog.at_level(logging.INFO, "s9"):
        train(config(*SMALL, "trainer.epochs=2"), tmp_path / "run")
    assert not [line for line in caplog.messages if line.startswith("only ")]
