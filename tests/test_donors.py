"""Starting from what others learned: names of shipped weights, the donor's model, other classes, what was held out."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn import datasets

import s9
from s9.cli.compose import Asked, checked, compose, compose_config
from s9.cli.plan import Plan, plan_of
from s9.cli.study import read_asked
from s9.config.schema import Config
from s9.models.shipped import SHIPPED, shipped
from s9.runs.donor_folders import folder_of
from s9.runs.donors import donor_of, donors_of
from s9.runs.prepare import digest_of, prepare
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.training.ranks import Ranks
from s9.training.weights import save_weights
from tests.conftest import composed
from tests.doors import SMALL, error_line, run, status

DIGITS = ("data=digits", "aug=none", "wandb=disabled")
FOLDER = ("data=folder", "data.duplicates=keep", "data.image_size=32", *SMALL[1:], "trainer.batch_size=8")
FOLLOWED = "model=frontier, as init_from=frontier has it"
LAST = "model.blocks.C1.conv3."  # of SMALL's network, the last layer


# --- names


def test_the_name_of_shipped_weights_is_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, weights = folder_of("frontier")
    assert folder.path == SHIPPED / "frontier" and weights == folder.final and weights.is_file()


def test_shipped_weights_are_inside_the_package_from_where_a_wheel_takes_all_but_the_teachers() -> None:
    assert SHIPPED.is_relative_to(Path(s9.__file__).parent)
    assert shipped() == ["frontier", "teacher", "teacher_small"]


def test_a_run_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("frontier").mkdir()
    assert folder_of("frontier")[0].path == SHIPPED / "frontier"  # which an empty folder does not hide
    RunFolder(Path("frontier")).config.touch()
    assert folder_of("frontier")[0].path == Path("frontier")


@pytest.mark.parametrize("key", ["init_from", "teacher"])
def test_names_can_be_joined_with_each_other_and_with_paths(key: str) -> None:
    paths = ["frontier", str(SHIPPED / "teacher_small"), "teacher"]
    config = composed("data=folder", "data.val_size=0", "model=frontier", f"{key}={os.pathsep.join(paths)}")
    wanted = [donor_of(key, str(SHIPPED / Path(path).name), config).trained.digest for path in paths]
    assert donors_of(config).digests[key] == wanted and len(set(wanted)) == 3


@pytest.mark.parametrize("key", ["init_from", "teacher"])
def test_where_nothing_is_found_the_shipped_weights_are_named(key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}=frontir: there is no frontir/.*, or a name of shipped weights: front"):
        donors_of(compose_config(["data=digits", f"{key}=frontir"]))


# --- the model


def model_of(*overrides: str) -> object:
    return compose_config([*DIGITS, *overrides]).model


def test_without_a_model_a_run_has_that_of_its_donor() -> None:
    assert model_of("init_from=teacher_small") == model_of("model=teacher_small") != model_of()


@pytest.mark.parametrize("chosen", ["model=strided", "experiment=frontier"])
def test_a_model_that_is_chosen_stays(chosen: str) -> None:
    assert model_of("init_from=teacher_small", chosen) == model_of(chosen)


def test_an_experiment_that_chooses_no_model_leaves_it_to_the_donor() -> None:
    config = compose_config([*DIGITS, "init_from=frontier", "experiment=lr_range"])
    assert config.model == model_of("model=frontier") and config.trainer.steps_per_epoch == 3


def test_a_teacher_chooses_no_model() -> None:
    assert model_of("teacher=frontier") == model_of()


@pytest.mark.parametrize("override", ["model.dropout=0.1", "+model.blocks.C3.conv1.kernel_size=5"])
def test_a_key_of_the_donors_model_can_be_set(override: str) -> None:
    assert (
        model_of("init_from=frontier", override) == model_of("model=frontier", override) != model_of("model=frontier")
    )


def test_a_donor_that_an_experiment_names_is_followed_too(tmp_path: Path) -> None:
    place = tmp_path / "experiment" / "mine.yaml"
    place.parent.mkdir()
    place.write_text("# @package _global_\ninit_from: frontier\n")
    made = checked(compose(Asked([*DIGITS, "experiment=mine"], str(tmp_path)))[0])
    assert made.model == model_of("model=frontier")


def changed_copy(to: Path, change: Callable[[str], str]) -> Path:
    """A copy of frontier's folder with another stored configuration."""
    shutil.copytree(SHIPPED / "frontier", to)
    config = RunFolder(to).config
    config.write_text(change(config.read_text()))
    return to


def test_a_donor_of_a_model_that_is_no_option_is_one_line(tmp_path: Path) -> None:
    donor = changed_copy(tmp_path / "run", lambda text: text.replace("name: frontier", "name: mine"))
    said = f"init_from={donor}: its model is called mine, which is no option here; add model= with an option that has"
    with pytest.raises(UserError, match=re.escape(said)):
        model_of(f"init_from={donor}")


def wider(text: str) -> str:
    return text.replace("channels: 32", "channels: 40", 1)


def test_a_donor_of_another_network_than_the_option_is_one_line(tmp_path: Path) -> None:
    donor = changed_copy(tmp_path / "run", wider)
    with pytest.raises(UserError, match=r"its network is not that of model=frontier here, C1\.conv1 differs; add the"):
        model_of(f"init_from={donor}")


def test_a_donor_of_layers_of_its_own_is_followed_where_they_are_given(tmp_path: Path) -> None:
    donor, layer = changed_copy(tmp_path / "run", wider), "model.blocks.C1.conv1.channels=40"
    assert model_of(f"init_from={donor}", layer) == model_of("model=frontier", layer)


def test_another_dropout_is_no_other_network(tmp_path: Path) -> None:
    donor = changed_copy(tmp_path / "run", lambda text: text.replace("dropout: 0.0", "dropout: 0.2"))
    assert model_of(f"init_from={donor}") == model_of("model=frontier")


def test_donors_of_several_models_ask_for_one_of_them() -> None:
    said = "add model=frontier or model=teacher_small"
    with pytest.raises(UserError, match=f"^init_from=frontier.teacher_small: .* of several models; {said}$"):
        model_of(f"init_from=frontier{os.pathsep}teacher_small")


def plan(*arguments: str) -> Plan:
    return plan_of(Asked([*DIGITS, *arguments]))


def test_the_jobs_of_a_sweep_have_the_donors_model_and_one_line_says_so() -> None:
    found = plan("init_from=frontier", "model.dropout=0,0.1", "seed=0,1")
    alone = [model_of("model=frontier", f"model.dropout={dropout}") for dropout in (0, 0, 0.1, 0.1)]
    assert [job.config.model for job in found.jobs] == alone
    assert found.said.count(FOLLOWED) == 1


def test_a_job_is_named_as_where_the_model_is_written() -> None:
    followed, written = plan("init_from=frontier", "seed=0,1"), plan("init_from=frontier", "model=frontier", "seed=0,1")
    assert [job.digest for job in followed.jobs] == [job.digest for job in written.jobs]
    single = compose_config([*DIGITS, "init_from=frontier", "seed=1"])
    assert followed.jobs[1].digest == digest_of(single, None)
    assert FOLLOWED not in written.said


def test_each_of_several_donors_in_a_sweep_is_followed() -> None:
    found = plan("init_from=frontier,teacher_small,null")
    assert [job.config.model.name for job in found.jobs] == ["frontier", "teacher_small", "strided"]
    assert {FOLLOWED, FOLLOWED.replace("frontier", "teacher_small")} <= {*found.said}


def test_the_trials_of_a_search_have_the_donors_model(tmp_path: Path) -> None:
    place = tmp_path / "study" / "quick.yaml"
    place.parent.mkdir()
    sampler = "sampler: { seed: 0, n_startup_trials: 1 }"
    place.write_text(f"overrides: []\nspace: {{ model.dropout: [0.0, 0.1] }}\nrungs: []\nkeep: 0.5\n{sampler}\n")
    arguments = ["--config-dir", str(tmp_path), "study=quick", "trials=1", *DIGITS, "init_from=frontier"]
    asked, _ = read_asked(arguments, "")
    assert asked.config({"model.dropout": 0.1}, 0).model == model_of("model=frontier", "model.dropout=0.1")


def test_a_single_run_has_the_donors_model_in_its_command_and_says_so_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "images", 3, 4)
    small = ["data=folder", "data.duplicates=keep", "data.root=images", "aug=none", "trainer.batch_size=8"]
    short = ["trainer.epochs=1", "trainer.steps_per_epoch=1", "wandb=disabled", "hydra.run.dir=run"]
    done = run(tmp_path, "train", *small, "init_from=frontier", *short)
    assert done.stdout.count(FOLLOWED) == 1, done.stderr
    folder = RunFolder(tmp_path / "run")
    assert folder.read_config().model == model_of("model=frontier")
    assert folder.log.read_text().count(FOLLOWED) == 1
    assert status(folder.path)["command"].endswith(" model=frontier")


def test_a_donor_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = run(tmp_path, "train", *DIGITS, "init_from=nothing", "hydra.run.dir=run")
    assert "init_from=nothing: there is no nothing/config.yaml; give the folder" in error_line(done, 2)
    assert not (tmp_path / "run").exists()


# --- other classes


def make_folder(root: Path, *digits: int, names: str = "", flat: bool = False) -> Path:
    """Twelve train and four test images of each digit, in folders that are named after it, or by `names`."""
    of = datasets.load_digits()
    for digit, name in zip(digits, names or map(str, digits), strict=True):
        for number, image in enumerate(of.images[of.target == digit][:16]):
            split = "" if flat else "train" if number < 12 else "test"
            place = root / split / f"class {name}" / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            large = cv2.resize(image * (255 / 16), (32, 32), interpolation=cv2.INTER_LINEAR)
            Image.fromarray(large.round().astype(np.uint8)).convert("RGB").save(place)
    return root


def of_folder(root: Path, *overrides: str) -> Config:
    return composed(*FOLDER, f"data.root={root}", f"data.cache={root.parent / 'cache'}", *overrides)


def network(config: Config) -> torch.nn.Module:
    return prepare(config, RunFolder(Path("nowhere")), Ranks()).learner.model


def donor(place: Path, config: Config) -> Path:
    """The folder of a finished run, as far as a donor needs it; its network has seen a batch and learned nothing."""
    folder, p = RunFolder(place), prepare(config, RunFolder(place), Ranks())
    place.mkdir(parents=True)
    p.learner.model(torch.randn(4, 3, 32, 32))
    folder.write_config(config)
    folder.write_images(p.data.facts)
    folder.write_summary({})
    save_weights(p.learner.model, folder.final)
    return place


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A donor that has learned the digits 0, 1 and 2."""
    place = tmp_path_factory.mktemp("three")
    return donor(place / "run", of_folder(make_folder(place / "images", 0, 1, 2), "seed=7"))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Images of other classes: the digits 3 and 4."""
    return make_folder(tmp_path / "two", 3, 4)


def split_by(names: str, model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(the tensors whose names begin so, the others)."""
    state = model.state_dict()
    ours = {name: value for name, value in state.items() if name.startswith(names)}
    return ours, {name: value for name, value in state.items() if name not in ours}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_all_layers_but_the_head_are_those_of_a_donor_of_other_classes(three: Path, two: Path) -> None:
    head, rest = split_by("head.", network(of_folder(two, f"init_from={three}")))
    learned = load_file(RunFolder(three).final)
    assert rest and all(torch.equal(value, learned[name]) for name, value in rest.items())
    assert same(head, split_by("head.", network(of_folder(two)))[0])


@pytest.mark.parametrize("separable", ["false", "true"])
def test_without_a_head_the_last_layer_begins_anew(tmp_path: Path, two: Path, separable: str) -> None:
    own = ("model.head=false", f"+{LAST}separable={separable}")
    there = donor(tmp_path / "run", of_folder(make_folder(tmp_path / "images", 0, 1, 2), *own))
    last, rest = split_by("layers.C1_conv3.", network(of_folder(two, *own, f"init_from={there}")))
    learned = load_file(RunFolder(there).final)
    assert rest and all(torch.equal(value, learned[name]) for name, value in rest.items())
    assert same(last, split_by("layers.C1_conv3.", network(of_folder(two, *own)))[0])


def test_one_line_says_what_is_copied(three: Path, two: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "s9"):
        network(of_folder(two, f"init_from={three}"))
    copied = "all layers are copied but the head, which begins anew for 2 classes; all learning rates are multiplied by"
    said = f"init_from={three}: learned 3 other classes of folder images; {copied}"
    assert [line for line in caplog.messages if line.startswith("init_from=")] == [f"{said} 0.2 (transfer_lr)"]


def rates(config: Config) -> set[float]:
    groups = prepare(config, RunFolder(Path("nowhere")), Ranks()).learner.optimizer.param_groups
    return {round(group["initial_lr"], 12) for group in groups}


@pytest.mark.parametrize(("asked", "share"), [([], 0.2), (["transfer_lr=0.5"], 0.5)])
def test_what_was_learned_is_changed_at_lower_rates(three: Path, two: Path, asked: list[str], share: float) -> None:
    muon = ["optimizer=muon", "optimizer.lr=0.05", "optimizer.other_lr=0.1"]
    assert rates(of_folder(two, f"init_from={three}", *muon, *asked)) == {round(r * share, 12) for r in (0.05, 0.1)}
    assert rates(of_folder(three.parent / "images", f"init_from={three}", *muon, *asked)) == {0.05, 0.1}


def test_as_many_classes_of_other_names_are_other_classes(three: Path, tmp_path: Path) -> None:
    config = of_folder(make_folder(tmp_path / "images", 3, 4, 5), f"init_from={three}")
    head, _ = split_by("head.", network(config))
    assert same(head, split_by("head.", network(replace(config, init_from=None)))[0])


def test_the_same_classes_bring_their_head_along(three: Path) -> None:
    config = replace(RunFolder(three).read_config(), init_from=str(three), seed=0)
    assert same(network(config).state_dict(), load_file(RunFolder(three).final))


def test_a_donor_of_another_data_set_and_image_size_fits(three: Path, two: Path) -> None:
    learned = load_file(RunFolder(three).final)
    for config in (
        of_folder(two, f"init_from={three}", "data.image_size=48"),
        composed(*SMALL, f"init_from={three}"),
    ):
        _, rest = split_by("head.", network(config))
        assert all(torch.equal(value, learned[name]) for name, value in rest.items())


def test_of_several_donors_of_other_classes_the_layers_are_the_mean(three: Path, two: Path, tmp_path: Path) -> None:
    other = donor(tmp_path / "run", of_folder(make_folder(tmp_path / "images", 5, 6), "seed=8"))
    head, rest = split_by("head.", network(of_folder(two, f"init_from={three}{os.pathsep}{other}")))
    first, second = (load_file(RunFolder(place).final) for place in (three, other))
    for name, value in rest.items():
        assert torch.allclose(value.double(), (first[name].double() + second[name].double()) / 2, atol=1)
    weight = "layers.C1_conv1.conv.weight"
    assert torch.allclose(rest[weight], (first[weight] + second[weight]) / 2, atol=1e-6)
    assert same(head, split_by("head.", network(of_folder(two)))[0])


def test_donors_of_these_and_of_other_classes_do_not_mix(three: Path, two: Path, tmp_path: Path) -> None:
    other = donor(tmp_path / "run", of_folder(two))
    with pytest.raises(UserError, match=f"^init_from={three}: has learned other classes than this run's, unlike"):
        network(of_folder(two, f"init_from={other}{os.pathsep}{three}"))


def test_another_network_of_other_classes_is_refused(three: Path, two: Path) -> None:
    with pytest.raises(UserError, match=r"of another network; layers\.C1_conv3\."):
        network(of_folder(two, f"init_from={three}", f"{LAST}channels=12"))


def test_the_same_classes_of_other_images_are_refused(three: Path, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", 7, 8, 9, names="012")
    with pytest.raises(UserError, match=f"^init_from={three}: was trained on other images than this run's: train/cl"):
        network(of_folder(root, f"init_from={three}"))


def test_a_teacher_of_other_classes_is_refused(three: Path, two: Path) -> None:
    with pytest.raises(UserError, match=f"^teacher={three}: was trained on other images than this run's: train/cl"):
        network(of_folder(two, f"teacher={three}"))


def test_a_donor_that_has_learned_a_class_of_which_some_is_val_is_refused(three: Path, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", 0, 4)
    said = "has learned train/class 0 of this run, a part of which is val here; name another donor"
    with pytest.raises(UserError, match=f"^init_from={three}: {said}$"):
        network(of_folder(root, f"init_from={three}"))
    network(of_folder(root, f"init_from={three}", "data.val_size=0"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_donor_that_has_learned_a_class_that_is_held_out_whole_is_refused(
    three: Path, tmp_path: Path, split: str
) -> None:
    root = make_folder(tmp_path / "images", 5, 4, names="04")
    if split == "val":
        shutil.copytree(root / "test", root / split)
    shutil.rmtree(root / split / "class 0")
    shutil.copytree(three.parent / "images" / "train" / "class 0", root / split / "class 0")
    with pytest.raises(UserError, match=f"has learned {split}/class 0 of this run, which is {split} here; name anoth"):
        network(of_folder(root, f"init_from={three}"))


def test_of_a_donor_without_facts_its_settings_are_judged(three: Path, two: Path, tmp_path: Path) -> None:
    shutil.copytree(three, tmp_path / "old")
    RunFolder(tmp_path / "old").images.unlink()
    with pytest.raises(UserError, match=r"was trained on other images; it was trained with data\.root=images, this"):
        network(of_folder(two, f"init_from={tmp_path / 'old'}"))


# --- what was held out


def judge(key: str, *overrides: str) -> None:
    """Raises where frontier's weights are refused as a donor of a run on the images that they are of."""
    one = donor_of(key, "frontier", composed("data=folder", "model=frontier", *overrides))
    assert one.trained.images is not None
    one.refuse_other_images(one.trained.images)


@pytest.mark.parametrize("key", ["init_from", "teacher"])
@pytest.mark.parametrize("size", ["null", "5000", "0.1", "0"])
def test_as_many_held_out_images_are_the_same_however_they_are_asked_for(key: str, size: str) -> None:
    judge(key, f"data.val_size={size}", "data.image_size=null")


@pytest.mark.parametrize("key", ["init_from", "teacher"])
@pytest.mark.parametrize("size", ["2000", "0.2", "6000"])
def test_another_number_of_held_out_images_is_refused(key: str, size: str) -> None:
    count = 10000 if size == "0.2" else size
    said = f"{key}=frontier: has seen images that are val here; it was trained with data.val_size=5000, this run has "
    with pytest.raises(UserError, match=f"^{re.escape(said)}{count}$"):
        judge(key, f"data.val_size={size}")


def test_a_donor_with_a_test_folder_does_not_fit_where_test_is_held_out(three: Path) -> None:
    """Which images of train are val depends on how many are left of it."""
    config = RunFolder(three).read_config()
    one, known = donor_of("init_from", str(three), config), RunFolder(three).read_images()
    assert known is not None
    one.refuse_other_images(known)
    with pytest.raises(UserError, match=r"has seen images that are test here; it was trained with data\.test_size=0"):
        one.refuse_other_images(replace(known, contents={"train": known.contents["train"]}))


@pytest.mark.parametrize(("size", "refused"), [("null", False), ("9", False), ("0.19", False), ("6", True)])
def test_a_donor_that_has_seen_the_held_out_test_is_refused(tmp_path: Path, size: str, refused: bool) -> None:
    """A fifth of 48 images is nine, held out of train by both."""
    root = make_folder(tmp_path / "images", 0, 1, 2, flat=True)
    there = donor(tmp_path / "run", of_folder(root))
    config = of_folder(root, f"init_from={there}", f"data.test_size={size}")
    if not refused:
        assert same(network(config).state_dict(), load_file(RunFolder(there).final))
        return
    with pytest.raises(
        UserError, match=r"images that are test here; it was trained with data\.test_size=9, this run h"
    ):
        network(config)


# --- the whole, on photographs


@pytest.fixture
def photos(tmp_path: Path, cifar10_images: Path) -> Path:
    """A working folder with photos/{train,test}: 30 and 10 of each of three classes, whose names frontier has not."""
    for new, old in (("kitten", "cat"), ("boat", "ship"), ("toad", "frog")):
        for split, count in (("train", 30), ("test", 10)):
            place = tmp_path / "photos" / split / new
            place.mkdir(parents=True)
            for path in sorted((cifar10_images / split / old).iterdir())[:count]:
                shutil.copy(path, place)
    return tmp_path


def started(cwd: Path, *more: str) -> tuple[RunFolder, str]:
    """(the folder of a run on photos that starts from frontier, what the run has said)."""
    own = ("data=folder", "data.root=photos", "init_from=frontier")
    done = run(cwd, "train", *own, *more, "wandb=disabled", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    return RunFolder(cwd / "run"), done.stdout


@pytest.mark.real
@pytest.mark.slow
def test_a_small_folder_starts_from_frontier_with_nothing_else_asked(photos: Path) -> None:
    folder, said = started(photos, "trainer.epochs=1")
    copied = (
        "init_from=frontier: learned 10 other classes of CIFAR-10 (JPEG); all layers are copied but the head, which "
    )
    assert said.count(f"{copied}begins anew for 3 classes") == said.count(FOLLOWED) == 1
    assert folder.read_summary()["test"]["total"] == 30


@pytest.mark.real
@pytest.mark.slow
def test_what_frontier_knows_is_of_use_to_a_small_folder(photos: Path) -> None:
    """frontier knows these photographs by other names: a head of its own is all that has to be learned."""
    folder, _ = started(photos, "trainer.epochs=4", "optimizer.lr=0.001", "optimizer.other_lr=0.01")
    assert folder.read_summary()["test"]["accuracy"] > 0.6  # a third by chance; 28 of 30 measured
