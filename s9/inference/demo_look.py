"""What the demo shows of one picture: its most probable classes, where each is seen, and the pixels the network had."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from s9.data.sources.decode import decode_pixels
from s9.inference.classifier import Classifier
from s9.models.insight import grad_cam
from s9.pages.page import picture

TOP = 5
SIDE = 320  # pixels of the picture that people see, cut or stretched as the network's own


def look_at(file: Path, classifier: Classifier) -> dict[str, Any]:
    """What the page's script shows; pictures are values of `src`.

    shown: the picture. seen: the network's pixels. top: the most probable classes, with name, probability and heat, a
    picture to lay over `shown`, transparent where nothing speaks for the class; None where that is everywhere.

    Raises:
        BrokenImageError: the file is no image that can be read.
    """
    squares = classifier.squares(file)
    facts = classifier.facts
    shown = decode_pixels(file, max(SIDE, facts.image_size), facts.bits, resize=classifier.resize)
    probs = classifier.probs(squares)[0]
    best = np.argsort(-probs, kind="stable")[:TOP]
    images = classifier.normalised(squares.repeat(len(best), axis=0))
    maps = grad_cam(classifier.model, images, torch.from_numpy(best).to(images.device))
    return {
        "shown": picture(shown),
        "seen": picture(squares[0]),
        "top": [
            {
                "name": classifier.classes[index],
                "probability": float(probs[index]),
                "heat": picture(_heat(one)) if one.max() > 0 else None,
            }
            for index, one in zip(best, np.asarray(maps), strict=True)
        ],
    }


def _heat(strength: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> uint8 (H, W, 4): from clear through yellow to red."""
    red, green, blue = np.full_like(strength, 255), 255 * (1 - strength), np.zeros_like(strength)
    return np.stack([red, green, blue, 0.7 * 255 * strength], -1).round().astype(np.uint8)
