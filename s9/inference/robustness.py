"""How much accuracy a network keeps when its images are made worse: six corruptions, each at five strengths.

Noise, blur, contrast and JPEG have the strengths of CIFAR-10-C (Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", 2019, arXiv 1903.12261); those of rotation and shift are ours.
Images that are JPEGs already may lose more at one quality than at a lower one: it depends on the tables of both.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as F  # type: ignore[import-untyped]

from s9.data.image_set import ImageFacts, Split
from s9.data.keys import image_generators
from s9.inference.classifier import Classifier
from s9.inference.evaluate import Evaluation, shown_progress
from s9.training.evaluation import predict, score

MOST = 2_000  # images, unless asked for more
SIDE = 32  # pixels: of the images that CIFAR-10-C's blur is for; larger ones are blurred as much for their size
SEED = 0  # of the noise
CHUNK = 500  # images that are changed at a time
TURNS, WAYS = 2, ((1, 0), (0, 1), (-1, 0), (0, -1))  # to the right, down, to the left, up

Change = Callable[[torch.Tensor, float, np.ndarray, ImageFacts], torch.Tensor]


@dataclass(frozen=True)
class Corruption:
    """unit: what the strengths are, for people. change: (uint8 (N, 3, H, W), strength, places (N,), facts) -> uint8."""

    name: str
    unit: str
    strengths: tuple[float, float, float, float, float]
    change: Change


@dataclass(frozen=True)
class Robustness:
    """accuracy: of each corruption and strength, a fraction, (6, 5). clean: accuracy of the same `images` unchanged.

    example: uint8 (6, 5, H, W, 3), one image as each makes it; original: the image itself.
    """

    accuracy: np.ndarray
    clean: float
    images: int
    example: np.ndarray
    original: np.ndarray

    @property
    def mean(self) -> float:
        """The mean accuracy over all corruptions and strengths."""
        return float(self.accuracy.mean())


def robustness(of: Evaluation, most: int = MOST) -> Robustness:
    """The accuracy on evenly spaced images of an evaluation, at most `most`, after each corruption."""
    places = np.unique(np.linspace(0, len(of.images) - 1, min(most, len(of.images))).round().astype(np.int64))
    plain, facts = of.images.take(places), of.classifier.facts
    steps = [(c, strength) for c in CORRUPTIONS for strength in c.strengths]
    with shown_progress(of.classifier, len(steps) * len(places), "robustness"):
        scores = [_accuracy(of.classifier, plain, changed(*step, plain, facts=facts, places=places)) for step in steps]
    right = of.probs[places].argmax(1) == plain.labels
    shape = (len(CORRUPTIONS), len(CORRUPTIONS[0].strengths))
    chosen = int(np.flatnonzero(right)[right.sum() // 2]) if right.any() else 0
    one, at = plain.take(slice(chosen, chosen + 1)), places[chosen : chosen + 1]
    example = np.concatenate([changed(*step, one, facts=facts, places=at) for step in steps])
    return Robustness(
        np.array(scores).reshape(shape),
        float(right.mean()),
        len(places),
        example=example.reshape(*shape, *example.shape[1:]),
        original=np.asarray(one.images)[0],
    )


def _accuracy(classifier: Classifier, plain: Split, images: np.ndarray) -> float:
    split = Split(images, plain.labels)
    return score(predict(classifier.model, split, classifier.facts, classifier.compute), split)["accuracy"]


def changed(
    corruption: Corruption, strength: float, plain: Split, *, facts: ImageFacts, places: np.ndarray
) -> np.ndarray:
    """The images as the corruption makes them: uint8 (N, H, W, 3).

    Args:
        places: int64 (N,), of the images in the whole set; noise and directions are functions of these.
    """
    made = np.empty_like(np.asarray(plain.images))
    for start in range(0, len(plain), CHUNK):
        some = slice(start, start + CHUNK)
        images = torch.from_numpy(np.ascontiguousarray(plain.images[some])).permute(0, 3, 1, 2).contiguous()
        made[some] = corruption.change(images, strength, places[some], facts).permute(0, 2, 3, 1).numpy()
    return made


def _noise(images: torch.Tensor, strength: float, places: np.ndarray, _: ImageFacts) -> torch.Tensor:
    shape = images.shape[1:]
    drawn = [image_generators(SEED, 0, int(at))[0].standard_normal(shape, dtype=np.float32) for at in places]
    return (images + 255 * strength * torch.from_numpy(np.stack(drawn))).round_().clamp_(0, 255).to(torch.uint8)


def _blur(images: torch.Tensor, strength: float, _places: np.ndarray, _: ImageFacts) -> torch.Tensor:
    side = images.shape[-1]
    sigma = strength * side / SIDE
    reach = min(int(np.ceil(4 * sigma)), side - 1)  # the borders are mirrored
    return F.gaussian_blur(images, [2 * reach + 1] * 2, [sigma, sigma])


def _contrast(images: torch.Tensor, strength: float, _places: np.ndarray, _: ImageFacts) -> torch.Tensor:
    return F.adjust_contrast(images, strength)


def _jpeg(images: torch.Tensor, strength: float, _places: np.ndarray, _: ImageFacts) -> torch.Tensor:
    made = torch.empty_like(images)
    for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):  # torchvision's own JPEG is deprecated
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(strength))
        with Image.open(file) as saved:
            made[number] = torch.from_numpy(np.array(saved)).permute(2, 0, 1)
    return made


def _rotated(images: torch.Tensor, strength: float, places: np.ndarray, facts: ImageFacts) -> torch.Tensor:
    made = torch.empty_like(images)
    for number, which in _by_way(TURNS, places):
        angle = strength if number else -strength
        made[which] = F.rotate(images[which], angle, InterpolationMode.BILINEAR, fill=_mean_colour(facts))
    return made


def _shifted(images: torch.Tensor, strength: float, places: np.ndarray, facts: ImageFacts) -> torch.Tensor:
    made, pixels = torch.empty_like(images), round(strength * images.shape[-1])
    for number, which in _by_way(len(WAYS), places):
        by = [float(pixels * part) for part in WAYS[number]]
        made[which] = F.affine(images[which], angle=0, translate=by, scale=1, shear=[0, 0], fill=_mean_colour(facts))
    return made


def _by_way(ways: int, places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of a way, indices of its images): which way an image goes is drawn, the same at each strength."""
    drawn = np.array([image_generators(SEED, 0, int(at))[1].randrange(ways) for at in places])
    for number in range(ways):
        if (which := np.flatnonzero(drawn == number)).size:
            yield number, which


def _mean_colour(facts: ImageFacts) -> list[float]:
    """What comes in from outside the image: a colour to which the network is used."""
    return [round(255 * value) for value in facts.mean]


CORRUPTIONS = (
    Corruption("gaussian noise", "standard deviation", (0.04, 0.06, 0.08, 0.09, 0.10), _noise),
    Corruption("gaussian blur", f"pixels of {SIDE}", (0.4, 0.6, 0.7, 0.8, 1.0), _blur),
    Corruption("contrast", "part that is left", (0.75, 0.5, 0.4, 0.3, 0.15), _contrast),
    Corruption("JPEG", "quality", (80, 65, 58, 50, 40), _jpeg),
    Corruption("rotation", "degrees", (5, 10, 15, 20, 30), _rotated),
    Corruption("shift", "part of the side", (0.05, 0.1, 0.15, 0.2, 0.3), _shifted),
)
