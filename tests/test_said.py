"""What a run says of its batches, classes and scores, where they are not as one would expect."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s9.data.augmentation.augment import build_augment
from s9.data.image_set import ImageFacts, ImageSet, Split
from s9.data.loaders import train_loader
from s9.runs import said
from tests.conftest import composed

LONG = "trainer.epochs=1000"  # so that nothing is to be said of the steps
SCORES = {
    "loss": 0.41,
    "accuracy": 0.8333,
    "balanced_accuracy": 0.712,
    "accuracy_flip": 0.85,
    "correct": 40,
    "total": 48,
}


def images(*counts: int, names: tuple[str, ...] = ("ants", "bees", "cats")) -> ImageSet:
    """Of so many train images in each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    split = Split(np.zeros((len(labels), 8, 8, 3), np.uint8), labels)
    facts = ImageFacts("made up", names[: len(counts)], 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return ImageSet(facts, split, split.take(slice(0)), split)


def lines(data: ImageSet, *overrides: str) -> list[str]:
    config = composed("data=digits", "aug=none", "trainer.batch_size=null", *overrides)
    loader = train_loader(config, data.train, build_augment(config.aug, data.facts, 0), torch.device("cpu"))
    return list(said.before(config, data, loader))


def test_of_a_large_and_even_set_nothing_is_said() -> None:
    assert lines(images(1280, 1280), LONG) == []


def test_a_batch_that_was_made_smaller_is_told() -> None:
    assert lines(images(104, 104), LONG) == ["batches of 8: 26 steps an epoch (trainer.batch_size=null)"]


def test_a_batch_size_that_is_given_is_not_told() -> None:
    assert lines(images(104, 104), LONG, "trainer.batch_size=8") == []


def test_a_batch_size_above_the_number_of_images_is_told() -> None:
    told = lines(images(50, 50), LONG, "trainer.batch_size=128")
    assert told == ["trainer.batch_size=128: a batch has all 100 images of train"]


def test_few_steps_in_all_are_told_with_the_epochs_that_give_enough() -> None:
    told = lines(images(24, 24), "trainer.batch_size=16", "trainer.epochs=40")
    assert told == ["only 120 steps in all; a network learns little in so few: trainer.epochs=167 gives 500"]


def test_enough_steps_in_all_are_not_told() -> None:
    assert lines(images(24, 24), "trainer.batch_size=16", "trainer.epochs=167") == []


def test_a_last_batch_that_is_left_out_is_told_where_it_holds_more_than_a_hundredth() -> None:
    told = lines(images(123, 122), LONG, "trainer.batch_size=8")
    left = "each epoch leaves out 5 of 245 train images, other ones each time: a last batch of 5 is not trained on"
    assert told == [left]


def test_a_last_batch_of_a_hundredth_is_not_told() -> None:
    assert lines(images(152, 151), LONG, "trainer.batch_size=100") == []  # 3 of 303


def test_a_last_batch_is_not_told_where_the_epoch_ends_before_it() -> None:
    assert lines(images(123, 122), LONG, "trainer.batch_size=8", "trainer.steps_per_epoch=10") == []


def test_more_steps_than_one_pass_has_are_told() -> None:
    told = lines(images(80, 80), LONG, "trainer.batch_size=16", "trainer.steps_per_epoch=50")
    assert told == ["trainer.steps_per_epoch=50: one pass over train has 10 steps, and so has an epoch"]


def test_uneven_classes_are_told_with_what_to_set() -> None:
    uneven = (
        "classes are uneven: from 180 (bees) to 1,800 (ants) train images; data.balance=true shows each equally often"
    )
    assert lines(images(1800, 180, 980), LONG, "trainer.batch_size=10") == [uneven]


def test_a_name_of_a_class_is_told_in_one_line() -> None:
    (told,) = lines(images(1800, 100, names=("a\nb", "c")), LONG, "trainer.batch_size=10")
    assert "to 1,800 (a\\nb) train images" in told


@pytest.mark.parametrize(("counts", "uneven"), [((150, 100), True), ((149, 100), False), ((9, 0), True)])
def test_classes_are_uneven_from_one_and_a_half_times_on(counts: tuple[int, ...], uneven: bool) -> None:
    assert said.uneven(images(*counts)) == uneven


def test_balanced_classes_are_told_with_how_often_an_image_is_shown() -> None:
    told = lines(images(180, 18), LONG, "trainer.batch_size=99", "data.balance=true")
    often = "each of 18 (bees) images 5 or 6 times, each of 180 (ants) at most once"
    assert told == [f"data.balance=true: an epoch shows each class 99 times: {often}"]


def test_balance_of_even_classes_shows_each_image_once() -> None:
    (told,) = lines(images(100, 100), LONG, "trainer.batch_size=20", "data.balance=true")
    assert told.endswith("each of 100 (ants) images once, each of 100 (ants) once")


def test_small_images_first_are_told_with_what_they_do_to_val() -> None:
    (told,) = lines(images(1280, 1280), LONG, "trainer.resolution.start=0.5")
    assert told.startswith("training begins with 4 x 4 pixels and has all 8 x 8 from 80 % of the run on; val has all")


@pytest.mark.parametrize("overrides", [["trainer.resolution.full=0.9"], ["trainer.resolution.start=0.99"]])
def test_a_resolution_without_effect_is_told(overrides: list[str]) -> None:
    (told,) = lines(images(1280, 1280), LONG, *overrides)
    assert told.startswith("trainer.resolution: has no effect")


@pytest.mark.parametrize(
    ("views", "said"),
    [(3, "epochs from 4 on repeat the images of the first 3"), (1000, "distillation.views=1000: has no")],
)
def test_views_are_told(views: int, said: str) -> None:
    (told,) = lines(images(1280, 1280), LONG, "teacher=frontier", f"distillation.views={views}")
    assert told.startswith(said)


def test_why_the_images_stay_in_the_cache_is_told_first() -> None:
    data, config = images(1280, 1280), composed("data=digits", "aug=none", LONG)
    loader = train_loader(config, data.train, build_augment(config.aug, data.facts, 0), torch.device("cpu"))
    loader.said = "why"
    assert next(said.before(replace(config, trainer=replace(config.trainer, epochs=1)), data, loader)) == "why"


@pytest.mark.parametrize(("balanced", "shown"), [(True, "83.33 %, balanced 71.20 %"), (False, "83.33 %")])
def test_the_last_lines_show_the_balanced_accuracy_where_it_is_asked_for(balanced: bool, shown: str) -> None:
    (told,) = said.after({"val": SCORES}, ("val", "test"), balanced=balanced)
    assert told == f"val: average loss 0.4100, 40/48 correct ({shown}), with flip averaging 85.00 %"


def test_a_split_that_is_not_named_is_not_shown() -> None:
    told = list(said.after({"val": SCORES, "test": SCORES}, ("val",), balanced=True))
    assert len(told) == 1 and told[0].startswith("val:")
