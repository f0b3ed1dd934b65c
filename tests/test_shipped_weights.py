"""The weights that come with s9: each card says what its files say, and the accuracy still holds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import s9
from s9.assignment.network import model_rules
from s9.cli.compose import compose_config
from s9.data.image_set import Split
from s9.data.sources.cifar10 import CLASS_NAMES, FACTS
from s9.data.sources.load import load_images
from s9.models.analysis import model_facts
from s9.runs.trained import read_trained
from s9.system.compute import Compute
from s9.tracking.folder import RunFolder
from s9.training.evaluation import predict, score

WEIGHTS = Path(s9.__file__).parent / "models" / "weights"
SHIPPED = [RunFolder(config.parent) for config in sorted(WEIGHTS.glob("*/config.yaml"))]
PER_CLASS = 200  # of 1,000 test images: the standard error is 0.7 points where the accuracy is 90 %
MARGIN = 0.025
CPU = Compute(torch.device("cpu"), torch.float32)

every_one = pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.path.name)


def card(folder: RunFolder) -> str:
    return (folder.path / "README.md").read_text()


def test_there_are_some() -> None:
    names = {folder.path.name for folder in SHIPPED}
    assert names == {"frontier", "teacher", "teacher_small"}


@every_one
def test_it_is_the_network_of_its_name(folder: RunFolder) -> None:
    assert folder.read_config().model == compose_config([f"model={folder.path.name}"]).model


@every_one
def test_it_keeps_the_rules(folder: RunFolder) -> None:
    """A teacher's file names those that it breaks on purpose; a network that is to keep them all names none."""
    model = folder.read_config().model
    broken = {rule.name for rule in model_rules(model, model_facts(model, FACTS)) if not rule.holds}
    assert broken == (set(model.known_weak_points) if folder.path.name == "teacher" else set())


@every_one
@pytest.mark.parametrize("split", ["val", "test"])
def test_its_card_has_the_numbers_of_its_summary(folder: RunFolder, split: str) -> None:
    row = next(line for line in card(folder).splitlines() if line.startswith(f"| {split} |"))
    said, summary = [cell.strip() for cell in row.split("|")[2:4]], folder.read_summary()
    if split == "val" and folder.read_config().data.val_size == 0:
        assert "val" not in summary and said == ["none held out", "none held out"]
    else:
        assert said == [f"{100 * summary[split][key]:.2f} %" for key in ("accuracy", "accuracy_flip")]


@every_one
def test_its_card_has_the_size_the_data_and_the_command(folder: RunFolder) -> None:
    summary, text = folder.read_summary(), card(folder)
    facts = model_facts(folder.read_config().model, FACTS)
    assert summary["parameters"] == facts.parameters
    assert facts.parameters < 200_000 or folder.path.name == "teacher"
    for wanted in (f"{facts.parameters:,} parameters", summary["data"], f"`{summary['command']}`"):
        assert wanted in text


@every_one
def test_it_says_which_images_it_is_of(folder: RunFolder) -> None:
    known = folder.read_images()
    assert known is not None and known.class_names == CLASS_NAMES and known.variant == "CIFAR-10 (JPEG)"
    assert known.fingerprint == folder.read_summary()["images"]
    counts = {split: {count for count, _ in classes.values()} for split, classes in known.contents.items()}
    assert counts == {"train": {5000}, "test": {1000}}


@pytest.mark.real
@pytest.mark.slow
def test_the_images_here_are_those_of_the_shipped_weights(cifar10_images: Path) -> None:
    data = load_images(compose_config(["data=folder", f"data.root={cifar10_images}"]).data, 0)
    for folder in SHIPPED:
        known = folder.read_images()
        assert known is not None and known.changes(data.facts) == []


@every_one
def test_no_path_of_the_machine_that_trained_it_is_in_it(folder: RunFolder) -> None:
    texts = [card(folder), folder.config.read_text(), json.dumps(folder.read_summary())]
    assert re.findall(r"""(?:^|[\s"'(`=:,\[])/\w+""", "\n".join(texts)) == []


@every_one
def test_its_weights_are_finite_and_fit(folder: RunFolder) -> None:
    model = read_trained(folder).loaded(FACTS, CPU)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.real
@pytest.mark.slow
@every_one
def test_it_knows_the_test_images_as_its_card_says(folder: RunFolder, cifar10_images: Path) -> None:
    """2,000 of them, in float32, with the mean and std of the original images: the JPEG copy's are as good as these."""
    places = [sorted((cifar10_images / "test" / name).iterdir())[:PER_CLASS] for name in CLASS_NAMES]
    images = np.stack([np.asarray(Image.open(path)) for paths in places for path in paths])
    labels = np.repeat(np.arange(len(CLASS_NAMES)), PER_CLASS)
    split, model = Split(images, labels), read_trained(folder).loaded(FACTS, CPU)
    found = score(predict(model, split, FACTS, CPU), split)["accuracy"]
    assert found == pytest.approx(folder.read_summary()["test"]["accuracy"], abs=MARGIN)
