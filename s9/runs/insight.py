"""Writes what a run's final network looks at; a run that cannot be looked into is done all the same."""

import logging
from typing import cast

import numpy as np
import torch

from s9.models import insight
from s9.models.s9net import S9Net
from s9.runs import failure
from s9.runs.prepare import Prepared
from s9.tracking.folder import RunFolder

log = logging.getLogger("s9")

MISTAKES = 12  # the surest ones on test
EXAMPLES = 32  # images of train, over which the effective receptive field is a mean


def write_insight(p: Prepared, folder: RunFolder) -> None:
    """Writes `insight` from the final network and the predictions; if that fails, logs a warning."""
    try:
        stored = folder.read_predictions()
        folder.write_arrays(folder.insight, **_mistakes(p, stored), **_one_image(p, stored), **_of_the_network(p))
    except Exception as error:
        reason = failure.in_one_line(error, p.config)
        log.warning(f"{folder.insight.name} cannot be written ({reason}); the run is done without a look inside")


def _model(p: Prepared) -> S9Net:
    return cast(S9Net, p.learner.tested)


def _normalised(p: Prepared, images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W) as the network takes them, on the device."""
    return p.compute.normalised(torch.from_numpy(images).permute(0, 3, 1, 2), p.data.facts.mean, p.data.facts.std)


def _small(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3), of a size that may be stored."""
    planes = insight.shrunk(images.transpose(0, 3, 1, 2).astype(np.float32))
    return planes.round().astype(np.uint8).transpose(0, 2, 3, 1)


def _mistakes(p: Prepared, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Grad-CAM of the surest mistakes, each for (the predicted class, the true class)."""
    worst, images = stored["worst"][:MISTAKES], stored["worst_images"][:MISTAKES]
    pairs = np.stack([stored["probs"][worst].argmax(1), stored["labels"][worst]], axis=1)
    cams = insight.grad_cam(_model(p), _normalised(p, images.repeat(2, axis=0)), pairs.ravel())
    stored_cams = (255 * insight.shrunk(cams)).round().astype(np.uint8)
    return {
        "mistakes": _small(images),
        "mistake_cams": stored_cams.reshape(-1, 2, *stored_cams.shape[1:]),
        "mistake_classes": stored["class_names"][pairs],
        "mistake_probs": np.take_along_axis(stored["probs"][worst], pairs, axis=1),
        "mistake_names": stored["names"][worst],
    }


def _one_image(p: Prepared, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The test image that the network is surest of and right about, if there is one, and its feature maps."""
    probs, labels = stored["probs"], stored["labels"]
    right = np.where(probs.argmax(1) == labels, probs.max(1), 0)
    index = int(right.argmax())
    image = np.asarray(p.data.test.images[index : index + 1])
    found = insight.feature_maps(_model(p), p.config.model, _normalised(p, image))
    arrays = {f"maps_{number}": one.maps for number, one in enumerate(found)}
    return arrays | {
        "image": _small(image)[0],
        "image_name": stored["names"][index],
        "image_class": stored["class_names"][labels[index]],
        "blocks": np.array([one.block for one in found]),
        "block_shapes": np.array([one.shape for one in found]),
    }


def _of_the_network(p: Prepared) -> dict[str, np.ndarray]:
    """The first layer's filters and the receptive field."""
    filters, count = insight.first_filters(_model(p))
    square = insight.receptive_square(p.config.model, p.data.facts)
    images = _normalised(p, np.asarray(p.data.examples(EXAMPLES).images))
    field = insight.receptive_field(_model(p), images, square)
    return {
        "filters": filters,
        "filter_count": np.array(count),
        "image_size": np.array(p.data.facts.image_size),
        "field": np.array([field.first, field.end]),
        "effective": field.effective,
        "effective_side": np.array(field.side),
    }
