"""The weights that come with s9, by name: s9.models()."""

import json
import math
from pathlib import Path

from safetensors import safe_open

ABOUT = "s9"  # the only key of a file's metadata: several keys have no fixed order, so that bytes would differ
SHIPPED = Path(__file__).parent / "weights"


def shipped() -> list[str]:
    """The names of the weights that come with s9."""
    return sorted({file.parent.parent.name for file in SHIPPED.glob("*/*/*.safetensors")})


def described(name: str) -> str:
    """`194,778 parameters, 32 x 32 pixels, 10 classes, CIFAR-10 (JPEG): val 91.30 %, test 91.15 %`."""
    (file,) = SHIPPED.glob(f"{name}/*/*.safetensors")
    with safe_open(file, framework="np") as stored:
        about = json.loads(stored.metadata()[ABOUT])
        learned = [key for key in stored.keys() if key.endswith((".weight", ".bias"))]  # noqa: SIM118  # no mapping
        parameters = sum(math.prod(stored.get_slice(key).get_shape()) for key in learned)
    images = about["images"]
    size, classes = images["image_size"], len(images["class_names"])
    accuracies = ", ".join(f"{split} {100 * of['accuracy']:.2f} %" for split, of in about["metrics"].items())
    return f"{parameters:,} parameters, {size} x {size} pixels, {classes} classes, {images['variant']}: {accuracies}"
