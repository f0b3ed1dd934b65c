"""A trained network that answers names and probabilities for images of any kind: `s9.load`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image, ImageOps

from s9.data.image_set import ImageFacts, Split
from s9.data.sources.decode import decode_pixels, in_rgb, quiet
from s9.data.sources.square import squared
from s9.models.precision import guard_bfloat16
from s9.models.s9net import S9Net
from s9.runs.about import Metrics, about_weights
from s9.system.compute import Compute, pick_compute
from s9.system.errors import UserError, require
from s9.training.evaluation import predict
from s9.training.weights import load_weights

Picture = str | Path | Image.Image | np.ndarray | torch.Tensor


@dataclass(frozen=True, eq=False)
class Prediction:
    """names: of the classes. probs: float32 (num_classes,), in the same order."""

    names: tuple[str, ...]
    probs: np.ndarray

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.names[int(self.probs.argmax())]

    @property
    def probability(self) -> float:
        """Of the most probable class."""
        return float(self.probs.max())

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The `count` most probable classes with their probabilities, the most probable first. count: 1 or more."""
        require("count", count, isinstance(count, int) and count >= 1, "1 or more")
        order = np.argsort(-self.probs, kind="stable")[:count]
        return [(self.names[index], float(self.probs[index])) for index in order]

    def __repr__(self) -> str:
        return f"<{', '.join(f'{name} {100 * prob:.1f} %' for name, prob in self.top(3))}>"


@dataclass(frozen=True, repr=False)
class Classifier:
    """A trained network with what it must know of images.

    name: as it was named to `load`. model: in eval mode, on the device. resize: crop, pad or stretch, for images that
    are no squares. metrics: scores by split, as in the run's summary; may be empty.
    """

    name: str
    model: S9Net
    facts: ImageFacts
    resize: str
    compute: Compute
    metrics: Metrics

    def __repr__(self) -> str:
        facts = self.facts
        size = f"{facts.image_size} x {facts.image_size} pixels"
        return f"<{self.name}: {facts.num_classes} classes of {facts.variant}, {size}{_accuracies(self.metrics)}>"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.facts.class_names

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, images: str | Path | Image.Image, *, flip: bool = False
    ) -> Prediction: ...

    @overload
    def __call__(self, images: Iterable[Picture], *, flip: bool = False) -> list[Prediction]: ...

    def __call__(self, images: Any, *, flip: bool = False) -> Prediction | list[Prediction]:
        """The prediction for one image, or a list of predictions for several.

        Args:
            images: a path, PIL image, array (H, W), (H, W, 3 or 4) or tensor (3, H, W); a list of these; or a batch
                (N, H, W, 3), of a tensor (N, 3, H, W). Numbers are uint8, or floats in [0, 1], which are rounded to
                256 levels.
            flip: the mean over each image and its mirror image.

        Raises:
            UserError: a file or an array is no image that can be read.
        """
        found = [Prediction(self.classes, probs) for probs in self.probs(self.squares(images), flip=flip)]
        return found[0] if _is_one(images) else found

    def squares(self, images: Any) -> np.ndarray:
        """The same images as the network sees them: uint8 (N, image_size, image_size, 3)."""
        one = _is_one(images)
        if isinstance(images, bytes) or not (one or isinstance(images, Iterable)):
            raise _no_image(images)
        with quiet():
            squares = [self._square(image) for image in ([images] if one else images)]
        size = self.facts.image_size
        return np.stack(squares) if squares else np.zeros((0, size, size, 3), np.uint8)

    def _square(self, image: Picture) -> np.ndarray:
        size = self.facts.image_size
        if isinstance(image, str | Path):
            if "://" in str(image):
                raise UserError(f"{image}: is an address; download the image, and give its path")
            return decode_pixels(Path(image).expanduser(), size, self.facts.bits, resize=self.resize)
        whole = ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else Image.fromarray(_pixels(image))
        if whole.mode in ("F", "I") or whole.mode.startswith("I;"):
            raise UserError(f"a PIL image of mode {whole.mode}: must have 8 bits per channel; give the file's path")
        return np.asarray(squared(in_rgb(whole), size, self.resize))

    def probs(self, squares: np.ndarray, *, flip: bool = False) -> np.ndarray:
        """uint8 (N, image_size, image_size, 3) -> float32 (N, num_classes)."""
        if not len(squares):
            return np.zeros((0, self.facts.num_classes), np.float32)
        split = Split(squares, np.zeros(len(squares), np.int64))
        return predict(self.model, split, self.facts, self.compute, flip=flip).numpy()

    def normalised(self, squares: np.ndarray) -> torch.Tensor:
        """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) on the device, as the model takes them."""
        images = torch.from_numpy(np.ascontiguousarray(squares)).permute(0, 3, 1, 2)
        return self.compute.normalised(images, self.facts.mean, self.facts.std)


def load(run: str | Path, *, weights: str = "final", device: str = "auto", precision: str = "float32") -> Classifier:
    """A trained network, ready to use.

    Args:
        run: the name of weights that come with s9 (`s9.models()` lists them), a run's folder, or a file of weights.
        weights: final or best, of a run's folder.
        device: auto, cpu, cuda, cuda:<number> or mps.
        precision: float32, bfloat16 or auto.

    Raises:
        UserError: there is no such run, its weights are damaged, or this machine lacks the device or precision.
    """
    if weights not in ("final", "best"):
        raise UserError(f"weights={weights}: must be final or best")
    about, file = about_weights(str(run), weights)
    compute = pick_compute(device, precision, prefix="")
    model = S9Net(about.model, about.images)
    load_weights(model, file)
    guard_bfloat16(model, about.images.image_size, compute)
    model.to(compute.device).eval()
    return Classifier(str(run), model, about.images, about.resize, compute=compute, metrics=about.metrics)


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim <= 3  # so that (3, H, W) is refused, rather than taken for three grey images
    return isinstance(images, str | Path | Image.Image) or (isinstance(images, torch.Tensor) and images.ndim == 3)


def _no_image(given: object) -> UserError:
    return UserError(f"{type(given).__name__} is no image: must be a path, a PIL image, an array or a tensor")


def _pixels(image: Any) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3 or 4) of an array or a tensor (3, H, W)."""
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise _no_image(image)
    array = image.detach().cpu().permute(1, 2, 0).numpy() if isinstance(image, torch.Tensor) else image
    if not array.size or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        wanted = "must be (H, W), (H, W, 3) or (H, W, 4); of a tensor (3, H, W)"
        raise UserError(f"an image of shape {tuple(image.shape)}: {wanted}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
        raise UserError(
            f"an image of {array.dtype} from {array.min()} to {array.max()}: must be uint8, or floats in [0, 1]"
        )
    return np.rint(255 * array).astype(np.uint8)


def _accuracies(metrics: Mapping[str, Mapping[str, float]]) -> str:
    return "".join(f", {split} {100 * of['accuracy']:.2f} %" for split, of in metrics.items() if "accuracy" in of)
