"""The images that an exported file is checked, calibrated and scored on."""

from dataclasses import dataclass

import numpy as np

from s9.data.keys import batch_draws
from s9.inference.classifier import Classifier
from s9.inference.evaluate import read_run
from s9.inference.scored_images import ChosenData, ScoredImages, choose, images_to_score
from s9.system.errors import UserError

BLOCKS = 8  # of one colour, on a side of a made-up image


@dataclass(frozen=True, kw_only=True)
class Images:
    """test, train: None where they are not asked for or, for the reason `why` in a few words, cannot be read."""

    test: ScoredImages | None
    train: ScoredImages | None
    why: str = ""


def images_of(classifier: Classifier, weights: str, data: ChosenData | None, *, with_train: bool) -> Images:
    """The test images that `data` chooses, else those of the run; also those of train, if they are asked for.

    Args:
        weights: final or best.

    Raises:
        UserError: the images cannot be read, though data= names them or those of train are needed.
    """
    source = read_run(classifier.name, weights)
    own, seed = (source.config.data, source.config.seed) if source.config else (None, 0)
    try:
        chosen = choose(own, data)
        if chosen is None:
            raise UserError("a file of weights has no images; add data=folder data.root=<folder>")
        test, train = (
            images_to_score(chosen, seed, split, known=classifier.facts, resize=classifier.resize) if wanted else None
            for split, wanted in (("test", True), ("train", with_train))
        )
    except UserError as error:
        if data or with_train:
            raise
        return Images(test=None, train=None, why=str(error).partition("; ")[0])
    return Images(test=test, train=train)


def pixels(images: ScoredImages, index: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3): those at int64 `index`."""
    return np.asarray(images.take(index).images)


def spread(size: int, count: int) -> np.ndarray:
    """int64: at most `count` places, evenly spaced over `size` images and so over the classes."""
    return np.linspace(0, size - 1, min(size, count)).astype(np.int64)


def made_up(count: int, size: int) -> np.ndarray:
    """uint8 (count, size, size, 3): squares of random colours, always the same ones."""
    colours = batch_draws(0, 1, "made_up", (count, BLOCKS * BLOCKS * 3)).reshape(count, BLOCKS, BLOCKS, 3)
    place = np.arange(size) * BLOCKS // size
    return (colours * 256).astype(np.uint8)[:, place][:, :, place]
