"""A trained network on disk, of a run or of shipped weights: its configuration, its images' facts, its weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from s9.config.schema import Config
from s9.data.image_set import ImageFacts, in_short
from s9.data.sources.load import load_images
from s9.models.precision import guard_bfloat16
from s9.models.s9net import S9Net
from s9.system import runtime
from s9.system.compute import Compute, has_real_bfloat16, pick_compute, pick_device
from s9.system.errors import UserError
from s9.tracking import comparison
from s9.tracking.folder import RunFolder
from s9.training.evaluation import score_with_flip
from s9.training.weights import load_weights

SHOWN = ("accuracy", "balanced_accuracy", "accuracy_flip", "loss")  # scores that s9.evaluate prints


@dataclass(frozen=True)
class Trained:
    """weights: the file. images: facts of the training images; None for a run from before November 2026."""

    config: Config
    weights: Path
    images: ImageFacts | None

    @property
    def digest(self) -> str:
        """sha256 of the weights' file."""
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def network(self, facts: ImageFacts) -> S9Net:
        """The network for the image size and number of classes in `facts`; its weights are not loaded yet."""
        return S9Net(self.config.model, facts)

    def loaded(self, facts: ImageFacts, compute: Compute) -> S9Net:
        """The network with its weights, on the device.

        Raises:
            UserError: the weights are missing, damaged or of another network.
        """
        model = self.network(facts)
        load_weights(model, self.weights)
        guard_bfloat16(model, facts.image_size, compute)
        return model.to(compute.device)


def read_trained(folder: RunFolder, weights: str = "final") -> Trained:
    """The run's final or best weights, with configuration and images. Raises UserError where a file cannot be read."""
    return Trained(folder.read_config(), folder.final if weights == "final" else folder.best, folder.read_images())


def score_again(path: Path, *, weights: str, split: str, precision: str) -> tuple[list[str], bool]:
    """Scores a run on val or test, and compares the numbers with its summary.

    Args:
        weights: final or best. precision: auto (as the run was trained, where this machine can), float32 or bfloat16.

    Returns:
        The lines to print, and whether the numbers differ in a way that neither machine nor precision explains.

    Raises:
        UserError: the run cannot be read or scored here.
    """
    folder = RunFolder(path)
    trained = read_trained(folder, weights)
    config, known = trained.config, trained.images
    real = has_real_bfloat16(pick_device(config.trainer.device))
    as_trained = config.trainer.precision if real else "float32"
    compute = pick_compute(config.trainer.device, as_trained if precision == "auto" else precision, key="precision")
    data = load_images(config.data, config.seed)
    changes = known.changes(data.facts) if known else []
    data = data.as_known_to(known) if known else data
    images = data.test if split == "test" else data.val
    if not len(images):
        raise UserError(f"split={split}: this run held none out (data.val_size=0)")
    scores, _ = score_with_flip(trained.loaded(data.facts, compute), images, data.facts, compute)

    lines = [f"{folder}: {weights} weights on {data.facts.variant}, {split}, in {compute.precision_name}"]
    lines += [f"{split}/{key:<18} {scores[key]!r}" for key in SHOWN]
    if not known:
        lines.append("which images this run was trained on is not recorded, as in runs of before November 2026")
    if changes:
        lines.append(f"these are not the images of the run: {in_short(changes)}; not compared with its summary")
    elif weights == "final" and folder.summary.exists():
        machine = runtime.describe_machine(compute.device) | runtime.describe_arithmetic(compute)
        compared, unexplained = comparison.compared(folder.read_summary(), scores, split, machine)
        return lines + compared, unexplained
    return lines, False
