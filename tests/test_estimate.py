"""How long a run will take: which runs count as like it, and what a few timed steps say of all others."""

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from s9.config.schema import Config
from s9.data.image_set import ImageFacts
from s9.runs import estimate
from s9.runs.estimate import like_seconds, timed_seconds
from s9.runs.prepare import fingerprint_of, identity_of
from s9.runs.run import train
from s9.system.runtime import processor_name
from s9.tracking.folder import RunFolder
from tests.awkward_folder import picture
from tests.conftest import composed

STEPS = ("trainer.epochs=10", "trainer.steps_per_epoch=20", "trainer.batch_size=32")
GROWING = ("trainer.resolution.start=0.5", "trainer.resolution.hold=0.5", "trainer.resolution.full=0.8")


def config(*overrides: str) -> Config:
    return composed("data=digits", "model=strided", "aug=none", "wandb=disabled", *STEPS, *overrides)


def done(outputs: Path, of: Config, images: str = "", other: dict[str, object] | None = None) -> RunFolder:
    """A run that took two minutes, with what an estimate reads of it."""
    folder = RunFolder(outputs / "2026-12-01" / "run")
    folder.path.mkdir(parents=True)
    folder.write_identity(identity_of(of) | (other or {}))
    folder.status.write_text(json.dumps({"state": "done", "minutes": 2.0}))
    folder.write_summary({"machine": {"processor": processor_name()}, "images": images})
    return folder


def test_a_run_of_another_seed_is_like(tmp_path: Path) -> None:
    done(tmp_path, config("seed=1"))
    assert like_seconds(config(), tmp_path) == [120]


@pytest.mark.parametrize(
    "other",
    [
        {"weights of": {"init_from": [], "teacher": ["a digest"]}},
        {"distillation": {"share": 0.7, "temperature": 2.0, "views": 2.0}},
    ],
)
def test_a_run_that_asks_a_teacher_otherwise_is_not_like(tmp_path: Path, other: dict[str, object]) -> None:
    done(tmp_path, config(), other=other)
    assert like_seconds(config(), tmp_path) == []


@pytest.mark.parametrize("same", [True, False])
def test_a_run_on_a_folder_is_like_where_the_images_are_the_same(tmp_path: Path, same: bool) -> None:
    for number in range(24):
        file = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (90, 120, 60)).save(file)
    of = composed("data=folder", f"data.root={tmp_path / 'images'}", "data.image_size=16", "model=strided", *STEPS)
    images = fingerprint_of(of)
    assert images is not None
    done(tmp_path / "outputs", of, images if same else ImageFacts("", (), 16, (0, 0, 0), (1, 1, 1)).fingerprint)
    assert like_seconds(of, tmp_path / "outputs") == [120] * same


@pytest.fixture
def second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every timed step takes a second."""
    ticks = count()
    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


@pytest.mark.usefixtures("second_each")
def test_equal_steps_take_equal_times_and_scoring_a_third_an_image() -> None:
    assert timed_seconds(config("data.val_size=0")) == pytest.approx(200)
    assert timed_seconds(config("data.val_size=160")) == pytest.approx(200 + 10 * 160 / 32 / 3)


@pytest.mark.usefixtures("second_each")
def test_steps_of_whole_images_take_as_much_longer_as_they_compute() -> None:
    """Of 200 steps 100 are of a quarter of the pixels, 40 of whole images, with four times the operations or more."""
    assert 100 + 40 * 4 + 60 < timed_seconds(config("data.val_size=0", *GROWING)) < 200 * 5


@pytest.mark.usefixtures("second_each")
def test_epochs_that_repeat_images_take_no_time_of_the_teacher(tmp_path: Path, no_figures: None) -> None:
    """A teacher of the same network goes forward alone, for a third of the student's operations."""
    taught = tmp_path / "taught"
    train(config("data.val_size=0", "trainer.epochs=1", "trainer.steps_per_epoch=1"), taught)
    asks = config("data.val_size=0", f"teacher={taught}", "distillation.views=2")
    assert timed_seconds(asks) == pytest.approx(20 * 2 + 20 * 8 * 3 / 4)
