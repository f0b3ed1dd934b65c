"""The main door's `train`: what a run leaves in its folder, and that it can be trusted."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from s9.cli.compose import compose_config
from s9.config.schema import Config
from s9.data.sources.cifar10 import CLASS_NAMES
from s9.runs.run import train
from s9.system.errors import UserError
from s9.tracking import figures
from s9.tracking.folder import RunFolder
from tests.conftest import composed
from tests.doors import SMALL

QUICK = ("trainer.epochs=2", "trainer.batch_size=64", "optimizer=muon")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few epochs on the digits, with W&B offline."""
    folder = tmp_path_factory.mktemp("finished")
    config = compose_config(
        [
            "data=digits",
            "model=strided",
            "aug=full",
            *QUICK,
            "trainer.epochs=4",
            "trainer.steps_per_epoch=6",
            "wandb=offline",
            "wandb.tags=[a,b]",
        ]
    )
    train(config, folder, command="python -m s9.train data=digits")
    return folder


@pytest.mark.slow
def test_a_run_learns_the_digits(digits: Callable[..., Config], tmp_path: Path, no_figures: None) -> None:
    summary = train(digits(*QUICK, "trainer.epochs=6"), tmp_path)
    assert summary["test"]["accuracy"] > 0.9  # chance is 0.1; 0.95 to 0.98 was seen over seeds


def test_a_run_leaves_every_file(finished: Path) -> None:
    names = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file() and "wandb" not in p.parts}
    assert {name for name in names if not name.startswith("checkpoints/")} == {
        *(
            "config.yaml",
            "identity.json",
            "images.json",
            "metrics.jsonl",
            "times.jsonl",
            "summary.json",
            "samples.npz",
            "predictions.npz",
            "insight.npz",
        ),
        *("status.json", ".lock"),
        *("weights/final.safetensors", "weights/best.safetensors"),
        *(f"figures/{name}.png" for name in ("augmentation", "curves", "misclassified", "confusion")),
        *(f"figures/{name}.png" for name in ("gradcam", "filters", "feature_maps", "receptive_field")),
    }


def test_the_metrics_have_a_line_an_epoch(finished: Path) -> None:
    metrics = RunFolder(finished).read_metrics()
    assert [m["epoch"] for m in metrics] == [1, 2, 3, 4]
    wanted = {"epoch", "step", "lr", "train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert all(m.keys() == wanted | {"val/balanced_accuracy"} for m in metrics)


def test_the_times_are_in_a_file_of_their_own(finished: Path) -> None:
    lines = [json.loads(line) for line in RunFolder(finished).times.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"epoch", "time/step_s", "time/train_s", "time/epoch_s"}] * 4


def test_the_summary_agrees_with_the_predictions(finished: Path) -> None:
    folder = RunFolder(finished)
    summary, stored = folder.read_summary(), folder.read_arrays(folder.predictions)
    assert summary["test"]["accuracy"] == float((stored["probs"].argmax(1) == stored["labels"]).mean())


def test_the_summary_says_what_a_number_needs_to_be_believed(finished: Path) -> None:
    summary = RunFolder(finished).read_summary()
    assert summary["data"] == "digits (scikit-learn)"
    wanted = {"command", "seed", "epochs", "batch_size", "classes", "parameters", "receptive_field", "machine"}
    assert wanted <= summary.keys()
    assert torch.__version__.startswith(summary["machine"]["versions"]["torch"])


def test_flip_averaging_has_a_name_of_its_own(finished: Path) -> None:
    scores = RunFolder(finished).read_summary()["test"]
    assert scores["accuracy"] != scores["accuracy_flip"]  # mirrored digits are other shapes


def test_the_stored_configuration_gives_the_same_configuration(digits: Callable[..., Config], tmp_path: Path) -> None:
    config = digits("aug=full", "model=reference")
    RunFolder(tmp_path).write_config(config)
    assert RunFolder(tmp_path).read_config() == config


def test_a_stored_target_outside_the_allow_list_is_refused(digits: Callable[..., Config], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(digits("optimizer=sgd"))
    folder.config.write_text(folder.config.read_text().replace("torch.optim.SGD", "os.system"))
    with pytest.raises(UserError, match=r"optimizer\._target_=os\.system"):
        folder.read_config()


TRAINED = [*SMALL, "trainer.epochs=1", "trainer.steps_per_epoch=8", "optimizer=muon", "aug=full", "model.dropout=0.1"]


def differing(first: Path, second: Path) -> list[str]:
    """The names of the final weights that are not the same to the last bit."""
    ours, theirs = load_file(RunFolder(first).final), load_file(RunFolder(second).final)
    assert ours.keys() == theirs.keys()
    return [key for key in ours if not torch.equal(ours[key], theirs[key])]


def train_as(folder: Path, *overrides: str) -> Path:
    folder.mkdir()
    train(composed(*TRAINED, *overrides), folder)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, to compare others with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda folder: [])
        return train_as(tmp_path_factory.mktemp("short") / "once")


def test_the_same_seed_gives_bit_identical_weights(once: Path, tmp_path: Path, no_figures: None) -> None:
    assert differing(once, train_as(tmp_path / "again")) == []
    assert differing(once, train_as(tmp_path / "of another seed", "seed=1")) != []


def test_the_loader_and_its_processes_do_not_change_the_weights(once: Path, tmp_path: Path, no_figures: None) -> None:
    assert differing(once, train_as(tmp_path / "workers", "data.loader=workers", "data.workers=2")) == []


def test_averaged_weights_are_the_ones_tested_and_saved(once: Path, tmp_path: Path, no_figures: None) -> None:
    assert "head.weight" in differing(once, train_as(tmp_path / "averaged", "trainer.ema_decay=0.9"))


def test_without_val_a_run_still_tests(digits: Callable[..., Config], tmp_path: Path, no_figures: None) -> None:
    summary = train(digits(*QUICK, "trainer.steps_per_epoch=2", "data.val_size=0"), tmp_path)
    assert "val" not in summary and "test" in summary
    assert not RunFolder(tmp_path).best.exists()


def test_the_figures_are_drawn_again_from_the_files_alone(finished: Path, tmp_path: Path) -> None:
    folder = RunFolder(finished)
    for path in (folder.metrics, folder.summary, folder.samples, folder.predictions, folder.insight):
        shutil.copy(path, tmp_path)
    again = figures.draw_all(RunFolder(tmp_path))
    assert len(again) == 8
    for path in again:
        assert path.read_bytes() == (folder.figures / path.name).read_bytes()


def test_the_figures_are_pictures_of_a_readable_size(finished: Path) -> None:
    for path in RunFolder(finished).figures.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300 and np.asarray(picture.convert("L")).std() > 5


def test_the_surest_mistake_comes_first(finished: Path) -> None:
    folder = RunFolder(finished)
    stored = folder.read_arrays(folder.predictions)
    preds = stored["probs"].argmax(1)
    sure = stored["probs"][stored["worst"], preds[stored["worst"]]]
    assert (preds[stored["worst"]] != stored["labels"][stored["worst"]]).all()
    assert (np.diff(sure) <= 0).all() and len(sure) > 1


def test_wandb_leaves_an_offline_run_that_its_command_line_reads_back(finished: Path) -> None:
    run = next((finished / "wandb").glob("offline-run-*"), None)
    assert run is not None, (finished / "train.log").read_text()
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [wandb, "leet", "inspect", "--summary", "--json", run], capture_output=True, text=True, timeout=60, check=True
    )
    read = done.stdout
    metrics = RunFolder(finished).read_metrics()
    assert str(max(m["val/accuracy"] for m in metrics)) in read  # define_metric(summary="max")
    for key in (
        *("model/layers", "model/parameters", "figures/augmentation", "figures/curves", "figures/confusion"),
        *("test/confusion_matrix", "test/misclassified", "test/accuracy", "test/accuracy_flip", "train/loss"),
    ):
        assert key in read, key
    whole = subprocess.run(
        [wandb, "leet", "inspect", "--json", run], capture_output=True, text=True, timeout=60, check=True
    )
    for word in ("strided", '"a"', '"b"', "weight_decay", "train"):
        assert word in done.stdout + whole.stdout, word


@pytest.mark.real
@pytest.mark.slow
def test_a_short_run_on_the_real_images_learns(cifar10_images: Path, tmp_path: Path) -> None:
    """100 steps on a tenth of them."""
    some = tmp_path / "cifar10-images"
    for split, count in (("train", 500), ("test", 100)):
        for name in CLASS_NAMES:
            (some / split / name).mkdir(parents=True)
            for path in sorted((cifar10_images / split / name).iterdir())[:count]:
                (some / split / name / path.name).symlink_to(path)
    config = compose_config(
        [
            *("data=folder", f"data.root={some}", "data.val_size=500"),
            *("trainer.epochs=4", "trainer.steps_per_epoch=25", "wandb=disabled"),
        ]
    )
    summary = train(config, tmp_path)
    assert summary["data"] == "CIFAR-10 (JPEG)"
    assert summary["test"]["accuracy"] > 0.25  # chance is 0.1
    assert json.loads(RunFolder(tmp_path).summary.read_text())["parameters"] < 200_000
