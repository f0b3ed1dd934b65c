"""Scores against a hand calculation, and probabilities that depend on the images alone."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from s9.config.model import ModelConfig
from s9.data.image_set import ImageFacts, ImageSet, Split, channel_statistics
from s9.data.loaders import EVAL_BATCH
from s9.models.s9net import S9Net
from s9.system.compute import Compute
from s9.training.evaluation import class_scores, predict, score, score_with_flip

CPU = Compute(torch.device("cpu"), torch.float32)
FACTS = ImageFacts("noise", ("a", "b", "c", "d"), 8, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))


def labelled(*labels: int) -> Split:
    return Split(np.zeros((len(labels), 1, 1, 3), np.uint8), np.array(labels, np.int64))


PROBS = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.25, 0.5, 0.25]])


def test_loss_is_the_mean_negative_log_probability_of_the_labels() -> None:
    by_hand = -(math.log(0.5) + math.log(0.7) + math.log(0.3) + math.log(0.25)) / 4
    assert score(PROBS, labelled(0, 2, 1, 2))["loss"] == pytest.approx(by_hand)


def test_accuracy_is_the_part_of_images_whose_largest_probability_is_the_labels() -> None:
    assert score(PROBS, labelled(0, 2, 1, 2))["accuracy"] == 0.5


def test_the_counts_are_those_of_the_accuracy() -> None:
    scores = score(PROBS, labelled(0, 2, 0, 2))
    assert (scores["correct"], scores["total"]) == (3, 4)


def test_the_balanced_accuracy_is_the_mean_over_the_classes_of_their_accuracies() -> None:
    """Of class 0 one of three images is right, of class 2 the only one."""
    assert score(PROBS[[0, 1, 3, 3]], labelled(0, 2, 0, 0))["balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)


def test_a_class_without_images_has_no_part_in_the_balanced_accuracy() -> None:
    assert score(PROBS[:2], labelled(0, 2))["balanced_accuracy"] == 1.0


def test_of_classes_with_equally_many_images_the_balanced_accuracy_is_the_accuracy() -> None:
    even = score(PROBS, labelled(0, 0, 2, 2))
    assert even["accuracy"] == even["balanced_accuracy"] == 0.25


def test_a_probability_of_zero_gives_a_large_but_finite_loss() -> None:
    assert score(torch.tensor([[1.0, 0.0]]), labelled(1))["loss"] == pytest.approx(-math.log(1e-12), rel=1e-4)


def test_certainty_about_the_right_class_gives_no_loss() -> None:
    assert score(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), labelled(0, 1))["loss"] == 0.0


def network() -> S9Net:
    blocks: Any = {"C1": {"conv1": {"channels": 6, "stride": 2}, "conv2": {"channels": 8, "stride": 2}}}
    torch.manual_seed(0)
    model = S9Net(ModelConfig("small", 0.5, "relu", whiten=False, head=True, blocks=blocks), FACTS)
    model.train()(torch.randn(16, 3, 8, 8))
    return model


@pytest.fixture(scope="module")
def data() -> ImageSet:
    """1,107 images of 8 x 8, which is no multiple of the batch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1107, 8, 8, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, 4, 1107))
    mean, std = channel_statistics(images)
    return ImageSet(replace(FACTS, mean=mean, std=std), split, split.take(slice(0, 7)), split)


def probabilities(data: ImageSet, split: Split, model: nn.Module | None = None, flip: bool = False) -> torch.Tensor:
    return predict(model or network(), split, data.facts, CPU, flip=flip)


def test_every_image_of_a_split_that_is_no_multiple_of_the_batch_is_predicted(data: ImageSet) -> None:
    assert len(data.test) % EVAL_BATCH
    assert probabilities(data, data.test).shape == (1107, 4)


@pytest.mark.parametrize("index", [0, EVAL_BATCH - 1, EVAL_BATCH, 2 * EVAL_BATCH, 1106])
def test_an_image_is_predicted_as_when_it_is_alone(data: ImageSet, index: int) -> None:
    alone = probabilities(data, data.test.take(slice(index, index + 1)))
    torch.testing.assert_close(probabilities(data, data.test)[index : index + 1], alone)


def test_a_split_is_predicted_twice_the_same_to_the_last_bit(data: ImageSet) -> None:
    assert torch.equal(probabilities(data, data.test), probabilities(data, data.test))


def test_probabilities_are_those_of_the_normalised_images(data: ImageSet) -> None:
    images = (np.asarray(data.val.images) / 255 - np.array(data.facts.mean)) / np.array(data.facts.std)
    with torch.no_grad():
        logits = network().eval()(torch.from_numpy(images).float().permute(0, 3, 1, 2))
    torch.testing.assert_close(probabilities(data, data.val), logits.softmax(1))


def test_the_probabilities_of_an_image_sum_to_one(data: ImageSet) -> None:
    torch.testing.assert_close(probabilities(data, data.test, flip=True).sum(1), torch.ones(1107))


def test_flip_averaging_is_the_mean_of_the_two_views(data: ImageSet) -> None:
    mirrored = Split(np.ascontiguousarray(data.test.images[:, :, ::-1]), data.test.labels)
    both = (probabilities(data, data.test) + probabilities(data, mirrored)) / 2
    torch.testing.assert_close(probabilities(data, data.test, flip=True), both)


def test_flip_averaging_changes_the_probabilities(data: ImageSet) -> None:
    assert not torch.allclose(probabilities(data, data.test), probabilities(data, data.test, flip=True))


def test_predictions_carry_no_gradient(data: ImageSet) -> None:
    assert not probabilities(data, data.val).requires_grad


def test_predicting_leaves_no_gradient_on_the_weights(data: ImageSet) -> None:
    model = network()
    probabilities(data, data.val, model)
    assert all(p.grad is None for p in model.parameters())


def test_predicting_changes_no_weights_and_no_batch_statistics(data: ImageSet) -> None:
    model = network()
    probabilities(data, data.test, model)
    state, before = model.state_dict(), network().state_dict()
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_a_network_left_in_train_mode_is_predicted_in_eval_mode(data: ImageSet) -> None:
    assert torch.equal(
        probabilities(data, data.val, network().train()), probabilities(data, data.val, network().eval())
    )


def test_the_scores_with_flip_are_the_plain_ones_and_one_more(data: ImageSet) -> None:
    scores, probs = score_with_flip(network(), data.test, data.facts, CPU)
    plain = score(probs, data.test)
    assert {key: scores[key] for key in plain} == plain
    assert set(scores) - set(plain) == {"accuracy_flip"}


def test_the_probabilities_beside_the_scores_are_the_plain_ones(data: ImageSet) -> None:
    _, probs = score_with_flip(network(), data.test, data.facts, CPU)
    assert torch.equal(probs, probabilities(data, data.test))


def test_accuracy_flip_is_the_accuracy_of_the_averaged_views(data: ImageSet) -> None:
    scores, _ = score_with_flip(network(), data.test, data.facts, CPU)
    flipped = score(probabilities(data, data.test, flip=True), data.test)
    assert scores["accuracy_flip"] == flipped["accuracy"]


def test_probabilities_are_float32_also_where_convolutions_are_not(data: ImageSet) -> None:
    probs = predict(network(), data.val, data.facts, replace(CPU, precision=torch.bfloat16))
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs, probabilities(data, data.val), atol=0.02, rtol=0)


def test_each_class_has_its_images_and_its_accuracy() -> None:
    """Class b has no image in the scored split, and so no accuracy."""
    found = class_scores(("a", "b", "c"), labelled(0, 0, 0, 1, 2), {"val": (labelled(0, 2, 2, 0), PROBS)})
    assert found == {
        "a": {"train": 3, "val": 2, "val_accuracy": 0.5},
        "b": {"train": 1, "val": 0},
        "c": {"train": 1, "val": 2, "val_accuracy": 0.5},
    }
