"""What a user adds: a model, an augmentation, images and an optimizer, as the README says; s9 does not change."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from s9.cli.compose import Asked, checked, compose, compose_config
from s9.config.components import ALLOW, allow_words
from s9.data.augmentation.augment import build_augment
from s9.data.sources.load import load_images
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from tests.conftest import ROOT
from tests.doors import RUN, SMALL, run

OWN = ROOT / "tests" / "own"
FLAGS = ("--config-dir", str(OWN / "conf"))
SHORT = [o for o in SMALL if not o.startswith(("data=", "aug=", "optimizer."))] + [
    "trainer.epochs=10",
    "trainer.batch_size=20",
]


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, "my_package")
    monkeypatch.syspath_prepend(str(OWN))


def own(*overrides: str) -> Asked:
    return Asked([*overrides, "wandb=disabled"], str(OWN / "conf"))


def test_images_augmentation_and_optimizer_of_ones_own_train(tmp_path: Path) -> None:
    options = ["data=own", "aug=own", "optimizer=own", "allow=my_package", f"hydra.run.dir={RUN}"]
    done = run(tmp_path, "train", *FLAGS, *options, *SHORT, PYTHONPATH=f"{OWN}{os.pathsep}{ROOT}")
    assert done.returncode == 0, done.stderr
    folder = RunFolder(tmp_path / RUN)
    assert folder.read_summary()["data"] == "own"
    assert folder.read_summary()["test"]["accuracy"] > 0.9
    assert "allow=my_package" in folder.read_status()["command"]


def test_a_stored_configuration_cannot_allow_what_it_names(tmp_path: Path) -> None:
    options = ["data=own", "allow=my_package", f"hydra.run.dir={RUN}"]
    assert run(tmp_path, "train", *FLAGS, *options, *SHORT, PYTHONPATH=f"{OWN}{os.pathsep}{ROOT}").returncode == 0
    again = run(tmp_path, "evaluate", f"run={RUN}", PYTHONPATH=f"{OWN}{os.pathsep}{ROOT}")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "allow=my_package on the command line or S9_ALLOW=my_package" in again.stderr
    allowed = run(tmp_path, "evaluate", f"run={RUN}", "allow=my_package", PYTHONPATH=f"{OWN}{os.pathsep}{ROOT}")
    assert allowed.returncode == 0, allowed.stderr


def test_spaces_between_allowed_packages_are_no_part_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, "a, b ,")
    assert allow_words() == " allow=a allow=b"


@pytest.mark.parametrize("option", ["data=own", "aug=own", "optimizer=own"])
def test_what_is_not_allowed_is_not_imported_and_the_line_says_how_to_allow_it(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(OWN))
    sys.modules.pop("my_package", None)
    with pytest.raises(UserError, match=r"allow=my_package on the command line or S9_ALLOW=my_package"):
        checked(compose(own(option))[0])
    assert "my_package" not in sys.modules


@pytest.mark.usefixtures("allowed")
def test_an_argument_that_ones_own_transform_does_not_know_is_one_line() -> None:
    with pytest.raises(UserError, match=r"aug\.transforms\.darker\.shar"):
        checked(compose(own("aug=own", "+aug.transforms.darker.shar=1"))[0])


@pytest.mark.usefixtures("allowed")
def test_ones_own_images_are_split_and_named() -> None:
    config = checked(compose(own("data=own"))[0])
    data = load_images(config.data, seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (100, 20, 120)
    assert data.facts.class_names == ("dark", "bright")
    assert data.facts.image_size == 32
    build_augment(config.aug, data.facts, seed=0)


@pytest.mark.parametrize(("argument", "said"), [("count=0", "N above 0"), ("side=32", "side")])
@pytest.mark.usefixtures("allowed")
def test_a_function_that_gives_no_images_is_one_line(argument: str, said: str) -> None:
    config = checked(compose(own("data=own", f"+data.arguments.{argument}"))[0])
    with pytest.raises(UserError, match=said):
        load_images(config.data, seed=0)


@pytest.mark.parametrize("group", ["model", "aug", "optimizer"])
def test_a_copied_option_has_the_name_of_its_file(group: str, tmp_path: Path) -> None:
    copied = {"model": "strided", "aug": "basic", "optimizer": "sgd"}[group]
    (tmp_path / group).mkdir()
    shutil.copy(ROOT / "conf" / group / f"{copied}.yaml", tmp_path / group / "mine.yaml")
    config = checked(compose(Asked([f"{group}=mine", "data=digits"], str(tmp_path)))[0])
    wanted = {"model": "mine-basic-digits", "aug": "strided-mine-digits", "optimizer": "strided-basic-digits"}
    assert config.run_name == wanted[group]


def test_an_option_that_calls_itself_otherwise_still_has_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = (ROOT / "conf" / "model" / "strided.yaml").read_text()
    (tmp_path / "model" / "mine.yaml").write_text(f"{text}name: strided\n")
    assert checked(compose(Asked(["model=mine", "data=digits"], str(tmp_path)))[0]).model.name == "mine"


def test_a_folder_of_images_may_have_an_option_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "flowers.yaml").write_text("defaults:\n  - folder\n\nroot: flowers\nimage_size: 64\n")
    config = checked(compose(Asked(["data=flowers"], str(tmp_path)))[0])
    assert (config.data.name, config.data.kind) == ("flowers", "folder")


def test_a_mistake_in_a_configuration_folder_of_ones_own_is_one_line() -> None:
    with pytest.raises(UserError, match=r"data=owm: there is no such option; did you mean own"):
        compose(own("data=owm"))


SLIPS = {
    "a layer's name twice": ("conv2: { channels: 8 }\n    conv2: { channels: 8 }", "found duplicate key conv2"),
    "a comma forgotten": ("conv2: { channels: 8 stride: 2 }", "expected ',' or '}'"),
    "a line too far right": ("conv2: { channels: 8 }\n      conv3: { channels: 8 }", "line 8"),
}


@pytest.mark.parametrize(("rows", "said"), SLIPS.values(), ids=SLIPS.keys())
def test_a_slip_in_a_file_is_one_line_that_names_file_and_line(rows: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    head = "dropout: 0.0\nactivation: relu\nwhiten: true\nhead: true\nblocks:\n  C1:\n    "
    (tmp_path / "model" / "mine.yaml").write_text(f"{head}{rows}\n")
    with pytest.raises(UserError, match=r"mine\.yaml, line \d+: ") as told:
        compose(Asked(["model=mine", "data=digits"], str(tmp_path)))
    assert said in str(told.value)
    assert "\n" not in str(told.value)


WRONG = {
    "no BatchTransform": ("my_package.SignDescent", "is no subclass of s9.data.augmentation.batch_transform"),
    "no such class": ("my_package.Daker", "did you mean Darker?"),
}


@pytest.mark.parametrize(("target", "said"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.usefixtures("allowed")
def test_a_wrong_transform_of_ones_own_is_told_in_its_own_words(target: str, said: str) -> None:
    with pytest.raises(UserError) as told:
        checked(compose(own("aug=own", f"aug.transforms.darker._target_={target}"))[0])
    assert said in str(told.value)
    assert "albumentations" not in str(told.value)


def test_a_key_that_a_class_may_take_is_added_with_a_plus() -> None:
    with pytest.raises(
        UserError, match=r"optimizer\.alpha=0\.9: there is no such key in the configuration yet; write \+"
    ):
        compose_config(["optimizer.alpha=0.9"])


def test_without_a_folder_of_ones_own_its_options_are_unknown() -> None:
    with pytest.raises(UserError, match=r"data=own: there is no such option"):
        compose_config(["data=own"])
