"""distillation.views: epochs that repeat images, and the teacher's logits that are kept for them."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from s9.config.schema import Config, DistillationConfig
from s9.models.s9net import S9Net
from s9.runs.run import train
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.training.distillation import Teacher
from s9.training.kept_logits import KeptLogits
from s9.training.operations import operations
from tests.conftest import composed
from tests.test_loop import Run, prepare

MIXED = ("aug=strong", "aug.mix.p=0.5", "trainer.epochs=5")


def kept(path: Path) -> KeptLogits:
    return KeptLogits(path / "0", batches=5, shape=(32, 10))


def some(seed: int = 0) -> torch.Tensor:
    return torch.randn(32, 10, generator=torch.Generator().manual_seed(seed))


class Asked(S9Net):
    """Counts the images that it is shown."""

    images = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return super().forward(images)


def taught(run: Run, store: KeptLogits | None) -> Asked:
    """The teacher of this run, after it."""
    torch.manual_seed(1)
    teacher = Asked(run.config.model, run.data.facts)
    list(run.fit(teacher=Teacher([teacher], run.config.distillation, store)))
    return teacher


def with_views(views: int | None) -> Run:
    run = prepare(*MIXED)
    run.config.distillation = DistillationConfig(views=views)
    return run


def seen(run: Run) -> list[np.ndarray]:
    """The images that the network was trained on, by epoch."""
    found: list[torch.Tensor] = []
    first = next(iter(run.model.layers.values()))
    first.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]) if module.training else None)
    list(run.fit())
    return [torch.cat(found[start : start + 5]).numpy() for start in range(0, len(found), 5)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = kept(tmp_path / "new")
    store.write(2, 5, some())
    found = store.read(2, 5)
    assert found is not None and torch.equal(found, some())


def test_what_is_kept_outlives_its_process(tmp_path: Path) -> None:
    kept(tmp_path).write(1, 3, some())
    found = kept(tmp_path).read(1, 3)
    assert found is not None and torch.equal(found, some())


def test_what_was_not_written_is_missing(tmp_path: Path) -> None:
    store = kept(tmp_path)
    store.write(1, 3, some())
    assert store.read(1, 2) is None and store.read(2, 3) is None


def test_a_row_that_was_written_in_part_is_missing(tmp_path: Path) -> None:
    store = kept(tmp_path)
    store.write(1, 1, some())
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-4])
    assert store.read(1, 1) is None
    store.path.write_bytes(whole[:-4] + bytes(4))
    assert store.read(1, 1) is None


def test_a_full_disk_is_told_once_and_the_teacher_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0").symlink_to("/dev/full")
    store = kept(tmp_path)
    for batch in (1, 2, 3):
        store.write(1, batch, some())
    assert [said.partition(":")[0] for said in caplog.messages] == [
        "the teacher's logits cannot be kept (No space left on device)"
    ]


def test_nothing_is_written_before_the_teacher_has_spoken(tmp_path: Path) -> None:
    kept(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_epochs_repeat_the_images_their_order_and_mixing() -> None:
    epochs = seen(with_views(2))
    assert all(np.array_equal(epochs[epoch], epochs[epoch - 2]) for epoch in (2, 3, 4))
    assert not np.array_equal(epochs[0], epochs[1])


def test_without_views_no_epoch_repeats_another() -> None:
    epochs = seen(with_views(None))
    assert not any(np.array_equal(epochs[0], other) for other in epochs[1:])


def test_the_teacher_is_asked_once_about_each_view(tmp_path: Path) -> None:
    assert taught(with_views(2), kept(tmp_path)).images == 2 * 5 * 32


def test_kept_logits_train_the_network_that_asking_again_would(tmp_path: Path) -> None:
    keeping, asking = with_views(2), with_views(2)
    taught(keeping, kept(tmp_path))
    assert taught(asking, None).images == 5 * 5 * 32
    assert all(torch.equal(value, asking.weights()[name]) for name, value in keeping.weights().items())


def config_of(teacher: Path, *overrides: str) -> Config:
    quick = ("data=digits", "aug=none", "model=strided", "wandb=disabled", "trainer.epochs=3", "trainer.batch_size=32")
    return composed(*quick, "trainer.steps_per_epoch=3", f"teacher={teacher}", "distillation.views=1", *overrides)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    config = composed("data=digits", "aug=none", "wandb=disabled", "trainer.epochs=1", "trainer.steps_per_epoch=3")
    train(config, folder)
    return folder


def test_a_finished_run_has_no_kept_logits_left(teacher: Path, tmp_path: Path, no_figures: None) -> None:
    folder = RunFolder(tmp_path / "run")
    train(config_of(teacher), folder.path)
    assert folder.is_done() and not folder.kept_logits.exists()


def test_a_run_says_the_operations_of_its_teacher_for_the_views_alone(
    teacher: Path, tmp_path: Path, no_figures: None
) -> None:
    summary = train(config_of(teacher), tmp_path / "run")
    own, asked = 6 * 32 * 9 * summary["multiplies"], 2 * 32 * 3 * summary["multiplies"]  # student and teacher are alike
    assert summary["operations"] == own + asked


def test_all_epochs_are_taught_anew_without_views(teacher: Path) -> None:
    config, facts = config_of(teacher, "distillation.views=null"), prepare().data.facts
    cost = partial(operations, config, facts, batch_size=32, steps=9, total_steps=9)
    assert cost(teachers=[config.model]) == cost() * 4 // 3


def test_views_without_a_teacher_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^distillation\.views=2: must be None without a teacher"):
        composed("data=digits", "distillation.views=2")
