"""A trained network on disk, of a run or of shipped weights: its configuration, its images' facts, its weights."""

from dataclasses import dataclass
from pathlib import Path

from s9.config.schema import Config
from s9.data.image_set import ImageFacts
from s9.models.precision import guard_bfloat16
from s9.models.s9net import S9Net
from s9.system.compute import Compute
from s9.tracking.folder import RunFolder
from s9.training.weights import digest_of, load_weights


@dataclass(frozen=True)
class Trained:
    """weights: the file. images: facts of the training images; None for a run from before November 2026."""

    config: Config
    weights: Path
    images: ImageFacts | None

    @property
    def digest(self) -> str:
        """sha256 of the weights' numbers."""
        return digest_of(self.weights)

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
