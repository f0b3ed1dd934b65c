"""CutMix and mixup: what a batch becomes, how its labels are weighed, and how often."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy import stats  # comes with scikit-learn, without types

from s9.config.schema import MixConfig
from s9.data.augmentation.mix import Mixed, mix
from s9.system.errors import UserError
from s9.training.step import mixed_loss

NAMES = ("cutmix", "mixup")
KEY = (0, 1, 1)  # seed, epoch, batch
both = pytest.mark.parametrize("name", NAMES)


def batch(size: int = 8, height: int = 32, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with channels last, as `Compute.normalised` makes it, and labels that are all different."""
    images = torch.randn(size, 3, height, width, generator=torch.Generator().manual_seed(0))
    return images.contiguous(memory_format=torch.channels_last), torch.arange(size)


def mixed(name: str, key: tuple[int, int, int] = KEY, alpha: float = 1.0, p: float = 1.0, size: int = 8) -> Mixed:
    return mix(MixConfig(name, alpha, p), *batch(size), key)


def shares(name: str, alpha: float, p: float = 1.0, count: int = 4000) -> list[float]:
    """Of so many batches of tiny images."""
    images, labels = batch(2, 4, 4)
    return [mix(MixConfig(name, alpha, p), images, labels, (0, 1, number)).share for number in range(count)]


def taken(found: Mixed) -> torch.Tensor:
    """(B, H, W): the pixels that are the partner's."""
    images, _ = batch(len(found.labels))
    return (found.images == images.flip(0)).all(1) & (found.images != images).any(1)


# Images


def test_mixup_is_the_weighted_sum_of_two_images() -> None:
    images, _ = batch()
    found = mixed("mixup")
    assert 0 < found.share < 1
    torch.testing.assert_close(found.images, found.share * images + (1 - found.share) * images.flip(0))


@pytest.mark.parametrize("number", range(20))
def test_cutmix_puts_one_rectangle_of_another_image_into_each(number: int) -> None:
    images, _ = batch()
    found = mixed("cutmix", (0, 1, number))
    window = taken(found)[0]
    rows, columns = window.any(1).nonzero().ravel(), window.any(0).nonzero().ravel()
    filled = torch.zeros_like(window)
    if len(rows):
        filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    assert torch.equal(found.images, torch.where(filled, images.flip(0), images))


@pytest.mark.parametrize("size", [1, 7, 8])
@pytest.mark.parametrize("number", range(20))
def test_the_share_of_cutmix_is_the_area_that_is_an_images_own(number: int, size: int) -> None:
    """In the middle of an odd batch an image meets itself."""
    found = mixed("cutmix", (0, 1, number), size=size)
    expected = torch.full((size,), 1 - found.share)
    expected[size // 2 :][: size % 2] = 0
    torch.testing.assert_close(taken(found).float().mean((1, 2)), expected, atol=1e-6, rtol=0)


@both
def test_the_partner_is_the_image_from_the_other_end(name: str) -> None:
    found = mixed(name)
    assert found.labels.tolist() == list(range(8)) and found.partners.tolist() == list(range(8))[::-1]


@both
def test_the_memory_format_stays_channels_last(name: str) -> None:
    assert mixed(name).images.is_contiguous(memory_format=torch.channels_last)


@both
def test_the_batch_itself_is_not_changed(name: str) -> None:
    images, labels = batch()
    mix(MixConfig(name, 1.0, 1.0), images, labels, KEY)
    assert torch.equal(images, batch()[0]) and torch.equal(labels, batch()[1])


def test_every_place_of_an_image_is_cut_out_now_and_then() -> None:
    """The middle more often than the corners, since the window's centre is anywhere and its rest is cut off."""
    covered = torch.stack([taken(mixed("cutmix", (0, 1, number), size=2))[0] for number in range(600)]).float().mean(0)
    assert 0.08 < covered.min() < covered.max() < 0.5
    assert min(covered[i, j] for i in (0, -1) for j in (0, -1)) > 0.5 * max(
        covered[i, j] for i in (0, -1) for j in (0, -1)
    )


# When


@both
def test_p_0_leaves_every_batch_as_it_is(name: str) -> None:
    found = [mixed(name, (0, 1, number), p=0.0) for number in range(200)]
    assert {one.share for one in found} == {1.0} and all(torch.equal(one.images, batch()[0]) for one in found)


@both
def test_p_1_mixes_every_batch(name: str) -> None:
    """With large alpha every share is near a half; near 1 CutMix's window may be of no pixel."""
    assert max(shares(name, alpha=100.0)) < 1


def test_a_share_of_no_batches_mixes_nothing() -> None:
    found = mix(MixConfig("cutmix", 1.0, 0.0), *batch(), KEY)
    assert found.share == 1 and torch.equal(found.images, batch()[0]) and torch.equal(found.labels, found.partners)


@both
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_as_many_batches_are_mixed_as_p_says(name: str, p: float) -> None:
    """Finds with 99 % probability an error of 0.05."""
    count = 4000
    mixed_ones = sum(share < 1 for share in shares(name, alpha=100.0, p=p, count=count))
    assert abs(mixed_ones / count - p) < 4 * (p * (1 - p) / count) ** 0.5


# A function of the key


@both
def test_the_same_key_gives_the_same_mix(name: str) -> None:
    one, other = mixed(name), mixed(name)
    assert one.share == other.share and torch.equal(one.images, other.images)


@both
@pytest.mark.parametrize("key", [(0, 1, 2), (0, 2, 1), (1, 1, 1)], ids=["batch", "epoch", "seed"])
def test_another_key_gives_another_mix(name: str, key: tuple[int, int, int]) -> None:
    assert not torch.equal(mixed(name).images, mixed(name, key).images)


@both
def test_the_shares_of_neighbouring_batches_and_epochs_are_independent(name: str) -> None:
    """Finds with 99 % probability a correlation of 0.14."""
    images, labels = batch(2, 32, 32)
    config = MixConfig(name, 1.0, 1.0)
    found = torch.tensor([[mix(config, images, labels, (0, e, b)).share for b in range(2000)] for e in (1, 2)])
    pairs = [(found[0, :-1], found[0, 1:]), (found[0], found[1])]
    assert all(abs(torch.corrcoef(torch.stack(pair))[0, 1]) < 4 / 2000**0.5 for pair in pairs)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_shares_of_mixup_follow_the_beta_distribution(alpha: float) -> None:
    """Finds with 99 % probability a distribution function that is off by 0.054 somewhere."""
    assert stats.kstest(shares("mixup", alpha), stats.beta(alpha, alpha).cdf).pvalue > 1e-4


# The loss


LOSSES: dict[str, Callable[[], Mixed]] = {
    "mixup": lambda: mixed("mixup"),
    "cutmix": lambda: mixed("cutmix"),
    "neither": lambda: mix(MixConfig("cutmix", 1.0, 0.0), *batch(), KEY),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("made", LOSSES.values(), ids=LOSSES)
def test_the_loss_is_the_cross_entropy_with_both_labels_by_their_shares(
    made: Callable[[], Mixed], smoothing: float
) -> None:
    found, logits = made(), torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
    one, other = (F.one_hot(labels, 10).float() for labels in (found.labels, found.partners))
    soft = found.share * one + (1 - found.share) * other
    expected = F.cross_entropy(logits, soft, label_smoothing=smoothing)
    torch.testing.assert_close(mixed_loss(logits, found, smoothing), expected)


# Refusals


@pytest.mark.parametrize(
    "name, alpha, p, said",
    [
        ("blend", 1.0, 0.5, "aug.mix.name=blend: must be cutmix or mixup"),
        ("mixup", 0.0, 0.5, "aug.mix.alpha=0.0: must be more than 0"),
        ("mixup", float("nan"), 0.5, "aug.mix.alpha=nan: must be more than 0"),
        ("mixup", float("inf"), 0.5, "aug.mix.alpha=inf: must be more than 0"),
        ("mixup", 1.0, 1.5, "aug.mix.p=1.5: must be a probability from 0 to 1"),
        ("mixup", 1.0, float("nan"), "aug.mix.p=nan: must be a probability from 0 to 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(name: str, alpha: float, p: float, said: str) -> None:
    with pytest.raises(UserError) as error:
        MixConfig(name, alpha, p)
    assert str(error.value) == said
