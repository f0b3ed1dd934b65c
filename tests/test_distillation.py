"""Weights of another run, to start or to learn from: what a teacher adds to the loss, and which ones are refused."""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from s9.cli.compose import compose_config
from s9.config.schema import DistillationConfig
from s9.runs.donors import donor_of
from s9.runs.prepare import Prepared, prepare
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.training.distillation import Teacher
from s9.training.ranks import Ranks
from tests.conftest import composed
from tests.processes import QUICK, content, differing, finish, reached_step, run, start
from tests.test_loop import prepare as small_run

MISSING = "no-run"
FINAL, BEST = "weights/final.safetensors", "weights/best.safetensors"


def teacher(share: float = 0.7, temperature: float = 2.0) -> Teacher:
    return Teacher([small_run().model], DistillationConfig(share, temperature))


def logits(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


@pytest.mark.parametrize("share", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_that_of_the_paper(share: float, temperature: float) -> None:
    """By hand, with python's own floats."""
    student, wanted = [[0.3, -1.2, 2.0], [1.5, 0.0, -0.5]], [[1.0, 0.0, -2.0], [0.2, 0.4, 0.1]]

    def softened(row: list[float]) -> list[float]:
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    divergence = 0.0
    for ours, theirs in zip(student, wanted, strict=True):
        pairs = zip(softened(theirs), softened(ours), strict=True)
        divergence += sum(p * math.log(p / q) for p, q in pairs) / len(student)
    found = teacher(share, temperature).taught(torch.tensor(5.0), logits(*student), logits(*wanted))
    assert float(found) == pytest.approx((1 - share) * 5.0 + share * temperature**2 * divergence, rel=1e-5)


def test_a_student_that_says_the_same_has_nothing_to_learn_from_it() -> None:
    same = logits([0.3, -1.2, 2.0]).requires_grad_()
    teacher(share=1.0).taught(torch.tensor(5.0), same, same.detach()).backward()
    assert same.grad is not None and same.grad.abs().max() < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_size_of_the_gradient_does_not_depend_on_the_temperature(temperature: float) -> None:
    """For logits of mean zero that are small beside it, it is (student - teacher) / classes to first order."""
    student = logits([0.01, -0.01]).requires_grad_()
    teacher(1.0, temperature).taught(torch.tensor(0.0), student, logits([-0.01, 0.01])).backward()
    assert student.grad is not None
    assert student.grad.flatten().tolist() == pytest.approx([0.01, -0.01], rel=1e-2)


def test_it_is_not_trained_and_its_batch_statistics_stay() -> None:
    one = teacher()
    before = {name: value.clone() for name, value in one.models[0].state_dict().items()}
    said = one(torch.randn(8, 3, 32, 32), view=1, batch=1)
    assert not said.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in one.models[0].state_dict().items())


def test_the_logits_of_several_are_averaged_in_float32() -> None:
    """Though each network computes them in bfloat16, in which their mean would be rounded a second time."""
    models, images = [small_run(f"seed={seed}").model.eval() for seed in (1, 2)], torch.randn(64, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        said = Teacher(models, DistillationConfig())(images, view=1, batch=1)
        first, second = (model(images) for model in models)
    assert first.dtype == torch.bfloat16
    assert torch.equal(said, (first.float() + second.float()) / 2)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("distillation.share=0", "distillation.share=0.0: must be more than 0, at most 1"),
        ("distillation.share=1.1", "distillation.share=1.1: must be more than 0, at most 1"),
        ("distillation.temperature=0", "distillation.temperature=0.0: must be from 0.1 to 100"),
        ("distillation.temperature=1e200", "distillation.temperature=1e+200: must be from 0.1 to 100"),
        ("data.val_seed=-1", "data.val_seed=-1: must be from 0 to 4294967295, or null"),
        ("distillation.share=0.9", "distillation.share=0.9: must be 0.7 without a teacher; add teacher=<a run>"),
    ],
)
def test_a_value_out_of_range_is_refused(override: str, wanted: str) -> None:
    with pytest.raises(UserError, match=re.escape(wanted)):
        compose_config(["data=digits", override])


def test_a_run_older_than_these_keys_is_read_as_what_it_was(tmp_path: Path) -> None:
    """Without start weights and teacher; its val images were those of its seed."""
    folder = RunFolder(tmp_path)
    folder.write_config(compose_config(["data=digits", "seed=7"]))
    stored = yaml.safe_load(folder.config.read_text())
    for key in ("init_from", "teacher", "distillation"):
        del stored[key]
    del stored["data"]["val_seed"]
    folder.config.write_text(yaml.safe_dump(stored))
    config = folder.read_config()
    assert (config.init_from, config.teacher, config.distillation) == (None, None, DistillationConfig())
    assert config.data.val_seed_of(config.seed) == 7


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of model=strided on the digits."""
    cwd = tmp_path_factory.mktemp("teacher")
    finish(cwd, *QUICK, "trainer.steps_per_epoch=20", "hydra.run.dir=run")
    return cwd / "run"


@pytest.fixture
def mine(taught: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    shutil.copytree(taught, tmp_path / "mine")
    return tmp_path / "mine"


def change_weights(path: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    save_file({name: change(name, value).contiguous() for name, value in load_file(path).items()}, path)


def prepared(folder: Path, *overrides: str) -> Prepared:
    return prepare(composed(*QUICK, *overrides), RunFolder(folder), Ranks())


def test_without_one_there_is_none(tmp_path: Path) -> None:
    assert prepared(tmp_path).learner.teacher is None


def test_a_run_starts_from_the_weights_that_it_names(taught: Path, tmp_path: Path) -> None:
    wanted = load_file(RunFolder(taught).final)
    started, fresh = prepared(tmp_path, f"init_from={taught}"), prepared(tmp_path)
    assert all(torch.equal(value, wanted[name]) for name, value in started.learner.model.state_dict().items())
    assert not all(torch.equal(value, wanted[name]) for name, value in fresh.learner.model.state_dict().items())


def test_of_several_it_is_the_mean_of_their_weights(taught: Path, mine: Path, tmp_path: Path) -> None:
    change_weights(RunFolder(mine).final, lambda name, value: value + 2)
    first, second = (load_file(RunFolder(folder).final) for folder in (taught, mine))
    state = prepared(tmp_path, f"init_from={taught}{os.pathsep}{mine}{os.pathsep}{mine}").learner.model.state_dict()
    for name, value in state.items():
        assert value.dtype == first[name].dtype
        mean = (first[name].double() + 2 * second[name].double()) / 3
        assert torch.allclose(value.double(), mean, rtol=1e-6, atol=1 if "num_batches" in name else 1e-6)


def test_weights_of_another_network_are_refused(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of another network"):
        prepared(tmp_path, f"init_from={taught}", "model=dilated")


@pytest.mark.parametrize("part", ["", FINAL, BEST], ids=["folder", "final", "best"])
def test_it_is_a_run_or_one_of_its_weights_files(mine: Path, tmp_path: Path, part: str) -> None:
    """Of a network of its own."""
    change_weights(RunFolder(mine).best, lambda name, value: value + 1)
    made = prepared(tmp_path, f"teacher={mine / part}", "model=dilated").learner.teacher
    assert made is not None and [model.training for model in made.models] == [False]
    wanted = load_file(mine / (part or FINAL))
    assert all(torch.equal(value, wanted[name]) for name, value in made.models[0].state_dict().items())


def test_two_teach_as_one_by_the_geometric_mean_of_their_probabilities(
    taught: Path, mine: Path, tmp_path: Path
) -> None:
    change_weights(RunFolder(mine).final, lambda name, value: value.roll(1, 0) if name.startswith("head.") else value)
    both = prepared(tmp_path, f"teacher={taught}{os.pathsep}{mine}", "model=dilated").learner.teacher
    assert both is not None
    images = torch.randn(8, 3, 32, 32)
    first, second = (model(images).double().softmax(1) for model in both.models)
    assert not torch.allclose(first, second, atol=0.05)
    wanted = (first * second).sqrt()
    assert torch.allclose(
        both(images, view=1, batch=1).double().softmax(1), wanted / wanted.sum(1, keepdim=True), atol=1e-5
    )


@pytest.mark.parametrize("key", ["teacher", "init_from"])
def test_one_that_learned_the_classes_in_another_order_is_refused(mine: Path, tmp_path: Path, key: str) -> None:
    folder = RunFolder(mine)
    images = folder.read_images()
    assert images is not None
    folder.write_images(replace(images, class_names=("0", "2", "1", *images.class_names[3:])))
    said = f"{key}={mine}: learned the same classes in another order: its class 1 is 2, this run's is 1; list"
    with pytest.raises(UserError, match="^" + re.escape(said)):
        prepared(tmp_path, f"{key}={mine}")


@pytest.mark.parametrize("key", ["teacher", "init_from"])
@pytest.mark.parametrize("second", [MISSING, ""])
def test_of_two_the_one_that_is_not_there_is_named(taught: Path, tmp_path: Path, second: str, key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}={second}: there is no .*config.yaml; give the folder of a finished"):
        prepared(tmp_path, f"{key}={taught}{os.pathsep}{second}")


@pytest.mark.parametrize("key", ["teacher", "init_from"])
@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["data.val_seed=1"], "has seen images that are val here; it was trained with data.val_seed=0, this run has 1"),
        (["data.val_seed=null", "seed=1"], "has seen images that are val here; it was trained with data.val_seed=0"),
        (["data.val_size=99"], "has seen images that are val here; it was trained with data.val_size=150, this run"),
    ],
)
def test_one_that_has_seen_val_is_refused(
    taught: Path, tmp_path: Path, overrides: list[str], wanted: str, key: str
) -> None:
    with pytest.raises(UserError, match="^" + re.escape(f"{key}={taught}: {wanted}")):
        prepared(tmp_path, f"{key}={taught}", *overrides)


def test_a_teacher_of_another_data_set_is_refused_before_that_is_fetched(taught: Path, tmp_path: Path) -> None:
    said = f"^teacher={taught}: was trained on other images; it was trained with data=digits, this run has cifar10"
    with pytest.raises(UserError, match=said):
        prepared(tmp_path, f"teacher={taught}", "data=cifar10", "data.archive=none.tar.gz")


def test_where_nothing_is_val_every_image_may_have_been_seen(taught: Path, tmp_path: Path) -> None:
    assert prepared(tmp_path, f"teacher={taught}", "data.val_size=0", "data.val_seed=1").learner.teacher is not None


def test_students_of_other_seeds_have_the_same_val_images(taught: Path, tmp_path: Path) -> None:
    first, second = (prepared(tmp_path, f"teacher={taught}", f"seed={seed}").data for seed in (0, 1))
    assert np.array_equal(np.asarray(first.val.images), np.asarray(second.val.images))


FOLDER = (
    "data=folder",
    "data.val_size=4",
    "data.image_size=32",
    "data.duplicates=keep",
    *QUICK[1:],
    "trainer.steps_per_epoch=1",
    "trainer.epochs=1",
)


@pytest.fixture(scope="module")
def of_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on a folder of images."""
    cwd = tmp_path_factory.mktemp("of-folder")
    make_folder(cwd / "first" / "images")
    finish(cwd, *FOLDER, "data.cache=cache", "data.root=first/images", "hydra.run.dir=run")
    return cwd / "run"


@pytest.mark.parametrize(
    ("changed", "refused"), [("another size", True), ("one more", True), ("other name", True), ("copied", False)]
)
def test_a_folder_of_the_same_name_with_other_train_images_is_refused(
    of_folder: Path, tmp_path: Path, changed: str, refused: bool
) -> None:
    """Which images are val depends on how many there are and in which order: of others the teacher may know some."""
    root = tmp_path / "second" / "images"
    make_folder(root)
    place = root / "train" / "a"
    match changed:
        case "another size":
            Image.new("RGB", (40, 40), "red").save(place / "0.png")
        case "one more":
            Image.new("RGB", (32, 32), "red").save(place / "9.png")
        case "other name":
            (place / "0.png").rename(place / "7.png")
    student = composed(*FOLDER, f"data.cache={tmp_path / 'cache'}", f"data.root={root}", f"teacher={of_folder}")
    if not refused:
        assert prepare(student, RunFolder(tmp_path), Ranks()).learner.teacher is not None
        return
    said = f"^teacher={of_folder}: was trained on other images than this run's: train/a has "
    with pytest.raises(UserError, match=said):
        prepare(student, RunFolder(tmp_path), Ranks())


def make_folder(root: Path) -> None:
    """Two classes of six train and two test images each."""
    for split, count in (("train", 6), ("test", 2)):
        for name, colour in (("a", 40), ("b", 200)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (32, 32), (colour, 10 * number, colour))
                image.save(root / split / name / f"{number}.png")


@pytest.mark.parametrize(("key", "value"), [("root", "other"), ("image_size", 16)])
def test_of_an_older_run_the_name_of_its_folder_of_images_counts(tmp_path: Path, key: str, value: str | int) -> None:
    config = compose_config(["data=folder", "data.root=here/images", "data.image_size=32"])
    folder = RunFolder(tmp_path)
    folder.write_config(config)
    folder.final.parent.mkdir()
    folder.final.touch()
    folder.write_summary({})
    moved = compose_config(["data=folder", "data.root=there/images"])
    donor_of("teacher", str(tmp_path), moved)
    with pytest.raises(UserError, match=rf"was trained on other images; it was trained with data\.{key}="):
        donor_of("teacher", str(tmp_path), compose_config(["data=folder", "data.root=images", f"data.{key}={value}"]))


@pytest.mark.parametrize("mix", [0, 1])
def test_the_true_labels_count_as_without_it(taught: Path, tmp_path: Path, mix: int) -> None:
    """Smoothed and, with CutMix, by their shares: a teacher of next to no share leaves the first loss as it is."""
    same = ("trainer.label_smoothing=0.3", f"aug.mix.p={mix}", "trainer.steps_per_epoch=1")
    with_it = prepared(tmp_path, *same, f"teacher={taught}", "distillation.share=1e-6")
    without = prepared(tmp_path, *same)
    losses = [next(epoch_losses(p)) for p in (with_it, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def epoch_losses(p: Prepared) -> Iterator[float]:
    """The mean train loss of each epoch."""
    return (reached.record["train/loss"] for reached in p.fit(Ranks(), None) if reached.record)


@pytest.mark.slow
def test_it_sees_the_very_images_that_its_student_sees(taught: Path, tmp_path: Path) -> None:
    """Mixed ones too."""
    p = prepared(tmp_path, "aug.mix.p=1", f"teacher={taught}")
    assert p.learner.teacher is not None
    of_student: list[torch.Tensor] = []
    of_teacher: list[torch.Tensor] = []
    student, (teacher,) = p.learner.model, p.learner.teacher.models
    student.register_forward_pre_hook(lambda m, given: of_student.append(given[0].clone()) if m.training else None)
    teacher.register_forward_pre_hook(lambda _, given: of_teacher.append(given[0].clone()))
    list(epoch_losses(p))
    assert len(of_student) == 12
    assert all(torch.equal(a, b) for a, b in zip(of_student, of_teacher, strict=True))


@pytest.mark.slow
def test_another_teacher_of_the_same_name_does_not_resume_its_student(taught: Path, mine: Path, tmp_path: Path) -> None:
    """Nor one of several."""
    started = start(tmp_path, *QUICK, f"teacher={taught}{os.pathsep}{mine}", "hydra.run.dir=run")
    started.when(reached_step(tmp_path / "run", 3))
    started.kill()
    change_weights(RunFolder(mine).final, lambda name, value: value + 1)
    refused = run(tmp_path, "resume=run")
    assert refused.process.exitcode == 2
    assert "of another run; weights of.teacher was " in refused.text.splitlines()[-1]


def test_in_a_sweep_it_is_looked_at_before_the_first_job(taught: Path, tmp_path: Path) -> None:
    refused = run(tmp_path, "-m", *QUICK, f"teacher={taught},{MISSING}", "hydra.sweep.dir=sweep")
    assert refused.process.exitcode == 2 and not (tmp_path / "sweep").exists()
    assert refused.text.splitlines()[-1].startswith(f"error: teacher={MISSING}: there is no {MISSING}/config.yaml")


def test_a_weights_file_that_is_not_there_is_named(taught: Path, tmp_path: Path) -> None:
    named = taught / "weights" / "bset.safetensors"
    with pytest.raises(UserError, match="^" + re.escape(f"teacher={named}: there is no {named}")):
        prepared(tmp_path, f"teacher={named}")


@pytest.mark.parametrize("part", ["", BEST], ids=["folder", "best"])
def test_one_that_has_not_finished_is_refused(mine: Path, tmp_path: Path, part: str) -> None:
    RunFolder(mine).final.unlink()
    with pytest.raises(UserError, match=f"there is no .*{FINAL}; give the folder of a finished run"):
        prepared(tmp_path, f"teacher={mine / part}")


def test_one_that_holds_a_pickle_is_refused(mine: Path, tmp_path: Path) -> None:
    torch.save({"C1": torch.zeros(1)}, RunFolder(mine).final)
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        prepared(tmp_path, f"teacher={mine}")


def test_a_target_outside_the_allow_list_in_its_configuration_is_refused(mine: Path, tmp_path: Path) -> None:
    config = RunFolder(mine).config
    text = config.read_text()
    assert "torch.optim.SGD" in text
    config.write_text(text.replace("torch.optim.SGD", "os.system"))
    with pytest.raises(UserError, match=rf"^teacher={mine}: optimizer\._target_=os\.system"):
        prepared(tmp_path, f"teacher={mine}")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["teacher", "init_from"])
def test_a_folder_without_a_run_is_one_line_and_leaves_nothing(tmp_path: Path, key: str) -> None:
    refused = run(tmp_path, *QUICK, f"{key}={MISSING}", "hydra.run.dir=run")
    assert refused.process.exitcode == 2
    assert refused.text.splitlines()[-1].startswith(f"error: {key}={MISSING}: there is no {MISSING}/config.yaml")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_student_learns_from_it_even_what_is_wrong(mine: Path, tmp_path: Path) -> None:
    """A teacher that takes each class for the next one, alone: the student says so too, and so knows hardly any."""
    change_weights(RunFolder(mine).final, lambda name, value: value.roll(1, 0) if name.startswith("head.") else value)
    overrides = ("trainer.steps_per_epoch=40", "distillation.share=1", "trainer.epochs=3")
    finish(tmp_path, *QUICK, *overrides, f"teacher={mine}", "hydra.run.dir=run")
    folder = RunFolder(tmp_path / "run")
    told = folder.read_arrays(folder.predictions)
    preds, labels = told["probs"].argmax(1), told["labels"]
    assert (preds == labels).mean() < 0.2 and (preds == (labels + 1) % 10).mean() > 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("teachers", "views"), [(1, "null"), (2, "null"), (1, "1")])
def test_a_killed_student_ends_as_if_it_had_not_been(taught: Path, tmp_path: Path, teachers: int, views: str) -> None:
    named = os.pathsep.join([str(taught), str(RunFolder(taught).best)][:teachers])
    student = (*QUICK, f"teacher={named}", f"distillation.views={views}")
    finish(tmp_path, *student, "hydra.run.dir=uncut")
    started = start(tmp_path, *student, "hydra.run.dir=run")
    started.when(reached_step(tmp_path / "run", 3))
    started.kill()
    finish(tmp_path, "resume=run")
    assert differing(tmp_path / "run", content(tmp_path / "uncut")) == []
