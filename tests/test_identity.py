"""Which runs are the same: what may differ without a change of any byte, what may not, and how a difference is told."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s9.cli.compose import Asked, checked, compose, compose_config
from s9.config.identity import FREE, Identity, differences, identity
from s9.config.stored import as_dict
from s9.data.sources import cifar10
from s9.data.sources.load import load_images
from s9.runs.prepare import identity_of
from s9.runs.resume import newest_unfinished
from s9.runs.run import train
from s9.tracking.folder import RunFolder
from tests.conftest import composed
from tests.doors import SMALL
from tests.test_cifar10 import TRAIN_FILES, archive_of, batch_file, labels_of, pixels_of

QUICK = [*SMALL, "aug=basic", "trainer.epochs=2", "trainer.steps_per_epoch=3", "trainer.batch_size=32"]
WEIGHTS = "0" * 64


def of(*overrides: str, device: str = "cpu", precision: str = "float32", teacher: str | None = None) -> Identity:
    donors = {"teacher": [teacher]} if teacher else {}
    return identity(composed("data=digits", *overrides), device=device, precision=precision, donors=donors)


SAME = {
    "numbers as numbers": (["optimizer.lr=0.1"], ["optimizer.lr=1e-1"]),
    "whole numbers too": (["trainer.clip_norm=1"], ["trainer.clip_norm=1.0"]),
    "the order of arguments": (["seed=1", "trainer.epochs=3"], ["trainer.epochs=3", "seed=1"]),
    "what is said twice": (["trainer.epochs=9", "trainer.epochs=3"], ["trainer.epochs=3"]),
    "the default, said": ([], ["optimizer=muon", "optimizer.lr=0.05"]),
    "an experiment, spelled out": (
        ["experiment=fast"],
        [
            "model=fast",
            "trainer.epochs=9",
            *(f"trainer.resolution.{n}" for n in ("start=0.5", "hold=0.42", "full=0.75")),
        ],
    ),
    "a layer's default": ([], ["+model.blocks.C1.conv1.stride=1"]),
    "another W&B mode": (["wandb=online"], ["wandb=disabled"]),
    "names": (["name=first"], ["name=second", "model.name=other"]),
    "which of several GPUs": (["trainer.device=cuda:0"], ["trainer.device=cuda:1"]),
    "a root, however it is said": (["data=folder", "data.root=a/../b"], ["data=folder", "data.root=./b"]),
    "who reads the images": ([], ["data.loader=workers", "data.workers=3"]),
}
OTHER = {
    "optimizer.lr": ["optimizer.lr=0.1"],
    "seed": ["seed=1"],
    "trainer.threads": ["trainer.threads=1"],
    "trainer.compile": ["trainer.compile=true"],
    "aug.backend": ["aug.backend=albumentations", "data.loader=workers"],
    "data.val_seed": ["data.val_seed=1"],
    "model.blocks.C1.conv1.channels": ["model.blocks.C1.conv1.channels=16"],
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_spellings_of_one_thing_are_one_identity(one: list[str], other: list[str]) -> None:
    assert differences(of(*one), of(*other)) == []


@pytest.mark.parametrize(("key", "overrides"), OTHER.items(), ids=OTHER.keys())
def test_what_changes_a_result_is_another_identity_and_is_named(key: str, overrides: list[str]) -> None:
    found = differences(of(), of(*overrides))
    assert any(phrase.startswith(f"{key} was ") for phrase in found)


def test_a_difference_names_both_values() -> None:
    assert differences(of("optimizer.lr=0.1"), of("optimizer.lr=0.3")) == ["optimizer.lr was 0.1, is 0.3"]


def test_the_type_of_the_device_and_the_precision_count() -> None:
    assert differences(of(), of(device="cuda", precision="bfloat16")) == [
        "device was cpu, is cuda",
        "precision was float32, is bfloat16",
    ]


def test_auto_is_what_it_means_on_this_machine() -> None:
    auto, said = (compose_config(["data=digits", *more]) for more in ([], ["trainer.precision=float32"]))
    assert identity_of(auto)["device"] in ("cpu", "cuda", "mps")
    assert identity_of(said)["precision"] == "float32"


def test_a_teacher_counts_by_its_weights() -> None:
    assert differences(of(teacher=WEIGHTS), of(teacher=WEIGHTS)) == []
    assert differences(of(), of(teacher=WEIGHTS)) != []


def test_the_order_of_transforms_counts() -> None:
    config = compose_config(["data=digits", "aug=full"])
    turned = compose_config(["data=digits", "aug=full"])
    turned.aug.transforms = dict(reversed(config.aug.transforms.items()))
    one, other = (identity(c, device="cpu", precision="float32", donors={}) for c in (config, turned))
    found = differences(one, other)
    assert [phrase.partition(" was ")[0] for phrase in found] == ["order of.transforms"]


def test_every_free_key_has_its_reason() -> None:
    assert all(len(reason) > 5 for reason in FREE.values())


# --- a run with another value of a free key ends with the same bytes


def digest(path: Path) -> list[str]:
    """Of all that a result is: weights, metrics and predictions."""
    folder = RunFolder(path)
    files = (folder.final, folder.best, folder.metrics, folder.predictions)
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


Trained = Callable[..., list[str]]


@pytest.fixture
def trained(tmp_path: Path, no_figures: None) -> Trained:
    def run(*overrides: str, name: str = "run") -> list[str]:
        path = tmp_path / name
        path.mkdir()
        train(compose_config([*QUICK, *overrides]), path)
        return digest(path)

    return run


PAIRS = {
    "wandb": ("wandb=disabled", "wandb=offline"),
    "name": ("name=first", "name=second"),
    "sweep": ("sweep.name=first", "sweep.name=second"),
    "model.name": ("model.name=first", "model.name=second"),
    "aug.name": ("aug.name=first", "aug.name=second"),
    "data.name": ("data.name=first", "data.name=second"),
    "model.known_weak_points": ("seed=0", "+model.known_weak_points.separable=a reason"),
    "trainer.save_every": ("trainer.save_every=0", "trainer.save_every=60"),
    "data.loader": ("data.loader=resident", "data.loader=workers"),
    "trainer.device": ("trainer.device=cpu", "trainer.device=auto"),
    "trainer.precision": ("trainer.precision=float32", "trainer.precision=auto"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS.keys())
def test_a_free_key_changes_no_byte(one: str, other: str, trained: Trained) -> None:
    if "auto" in other and identity_of(compose_config([*QUICK, one])) != identity_of(compose_config([*QUICK, other])):
        pytest.skip("auto is something else on this machine, and so another run")
    assert trained(one, name="one") == trained(other, name="other")


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(trained: Trained) -> None:
    workers = ("data.loader=workers", "aug.backend=albumentations")
    assert trained(*workers, "data.workers=0", name="one") == trained(*workers, "data.workers=2", name="other")


def images_in(root: Path) -> None:
    for first, split in enumerate(("train", "test")):
        for label, colour in enumerate((40, 200)):
            (root / split / f"class{label}").mkdir(parents=True)
            for number in range(24):
                pixels = np.random.default_rng([number, first]).integers(0, 55, (32, 32, 3)) + colour
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / f"class{label}" / f"{number}.png")


@pytest.mark.slow
def test_where_images_and_caches_lie_changes_no_byte(trained: Trained, tmp_path: Path) -> None:
    images_in(tmp_path / "images")
    shutil.copytree(tmp_path / "images", tmp_path / "moved")
    folder = ("data=folder", "data.val_size=4", "trainer.batch_size=8")
    one = trained(*folder, f"data.root={tmp_path / 'images'}", f"data.cache={tmp_path / 'here'}", name="one")
    other = trained(*folder, f"data.root={tmp_path / 'moved'}", f"data.cache={tmp_path / 'there'}", name="other")
    assert one == other


@pytest.mark.slow
def test_where_the_archive_comes_from_changes_no_byte(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: batch_file(name, pixels_of(name), labels_of(name)) for name in (*TRAIN_FILES, "test_batch")}
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(archive_of(files))
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar10, "SIZE", archive.stat().st_size)
    small = ("data=cifar10", "data.val_size=10", "trainer.batch_size=8")
    one = trained(*small, f"data.archive={archive}", f"data.cache={tmp_path / 'one'}", name="one")
    url = f"data.urls=['file://{archive}']"
    assert one == trained(*small, url, f"data.cache={tmp_path / 'other'}", name="other")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["init_from", "teacher"])
def test_where_a_donor_lies_changes_no_byte(key: str, trained: Trained, tmp_path: Path) -> None:
    trained(name="donor")
    shutil.copytree(tmp_path / "donor", tmp_path / "moved")
    one = trained(f"{key}={tmp_path / 'donor'}", name="one")
    assert one == trained(f"{key}={tmp_path / 'moved'}", name="other")


# --- resume=auto


def test_a_key_of_layers_that_older_runs_lack_counts_only_where_it_changes_the_network() -> None:
    row, of = "+model.blocks.C1.conv1.pool", ["model=strided", "data=digits"]
    plain, said, pooled = (
        identity(composed(*of, *more), device="cpu", precision="float32", donors={})["model"]["blocks"]["C1"]["conv1"]
        for more in ([], [f"{row}=1"], [f"{row}=2"])
    )
    assert "pool" not in plain and said == plain
    assert pooled == plain | {"pool": 2.0}


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    """An unfinished run below outputs/, as it is left when it is killed."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str, name: str = "run") -> RunFolder:
        folder = RunFolder(Path("outputs") / "2026-11-25" / name)
        folder.path.mkdir(parents=True)
        config = composed("data=digits", *overrides)
        folder.write_config(config)
        folder.write_identity(identity_of(config))
        folder.status.write_text('{"state": "running", "started": "2026-11-25T10:00:00Z", "starts": 1}')
        return folder

    return make


def found(*overrides: str) -> tuple[str | None, list[str]]:
    folder, said = newest_unfinished(composed("data=digits", *overrides), None)
    return (folder.path.name if folder else None), said


def test_auto_finds_the_run_that_was_begun_with_another_wandb_mode(cut: Callable[..., RunFolder]) -> None:
    cut("wandb=online")
    assert found("wandb=offline") == ("run", [])


def test_auto_finds_the_run_with_another_cache(
    cut: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cut("data=cifar10")
    monkeypatch.setenv("S9_CACHE", str(tmp_path / "another"))
    assert found("data=cifar10") == ("run", [])


def test_auto_judges_what_hydra_composes_from_a_folder_of_ones_own(
    cut: Callable[..., RunFolder], tmp_path: Path
) -> None:
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "my" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    cut("seed=7")
    config = checked(compose(Asked(["data=digits", "experiment=mine"], str(tmp_path / "my")))[0])
    folder, said = newest_unfinished(config, None)
    assert folder is not None
    assert said == []


def test_auto_names_the_nearest_unfinished_run_and_what_differs(cut: Callable[..., RunFolder]) -> None:
    cut("seed=1", "optimizer.lr=0.2", name="far")
    cut("seed=1", name="near")
    none, said = found()
    assert none is None
    (line,) = said
    assert "near" in line
    assert line.endswith("differs: seed was 1, is 0")


def test_auto_tells_two_folders_of_images_apart_by_their_contents(
    cut: Callable[..., RunFolder], tmp_path: Path
) -> None:
    for root in ("one", "other"):
        images_in(tmp_path / root)
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    Image.new("RGB", (32, 32)).save(tmp_path / "other" / "train" / "class0" / "more.png")
    here = [f"data.cache={tmp_path / 'cache'}", "data.val_size=4", "data=folder"]
    folder = cut(*here, f"data.root={tmp_path / 'one'}")
    config = folder.read_config()
    folder.write_images(load_images(config.data, config.seed).facts)
    assert found(*here, f"data.root={tmp_path / 'moved'}") == ("run", [])
    none, said = found(*here, f"data.root={tmp_path / 'other'}")
    assert none is None
    assert "data.root was " in said[0]


def test_auto_leaves_a_finished_run_alone(cut: Callable[..., RunFolder]) -> None:
    folder = cut()
    folder.status.write_text('{"state": "done", "started": "2026-11-25T10:00:00Z", "starts": 1}')
    assert found() == (None, [])


def test_auto_finds_a_run_that_was_killed_before_its_identity_was_written(cut: Callable[..., RunFolder]) -> None:
    cut().identity.unlink()
    assert found() == ("run", [])


def test_auto_leaves_a_run_of_an_older_version_alone(cut: Callable[..., RunFolder]) -> None:
    folder = cut()
    folder.identity.unlink()
    folder.checkpoints.mkdir()
    assert found() == (None, [])


def test_a_stored_cache_that_is_not_here_is_the_readers_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(compose_config(["data=cifar10", f"data.cache={tmp_path / 'gone'}"]))
    assert as_dict(folder.read_config())["data"]["cache"] is None
    (tmp_path / "gone").mkdir()
    assert as_dict(folder.read_config())["data"]["cache"] == str(tmp_path / "gone")


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_identity_was_written_gets_one_when_it_is_resumed(
    trained: Trained, tmp_path: Path
) -> None:
    trained("trainer.save_every=0")
    folder = RunFolder(tmp_path / "run")
    wanted = folder.read_identity()
    folder.identity.unlink()
    shutil.rmtree(folder.checkpoints)
    train(folder.read_config(), folder.path, resumed=True)
    assert folder.read_identity() == wanted
