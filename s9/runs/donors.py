"""Donors: trained networks that a run begins with (init_from=) or learns from (teacher=), and when they are refused.

Refused: a donor trained on other images, and one that has seen images that are val here, since val would be too good.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from s9.config.data import FolderConfig
from s9.config.schema import Config
from s9.data.image_set import ImageFacts, in_short
from s9.runs.trained import Trained
from s9.system.compute import Compute
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.training.distillation import Teacher
from s9.training.weights import load_mean_weights, load_weights


@dataclass(frozen=True)
class Donor:
    """One donor. said: how the user named the donor, such as teacher=<folder>."""

    said: str
    trained: Trained

    def refuse_other_images(self, facts: ImageFacts) -> None:
        """Raises UserError if its images are known to be others: val here may have been train there."""
        known = self.trained.images
        changes = known.changes(facts, ("train", "val")) if known else []
        if changes:
            raise UserError(f"{self.said}: was trained on other images than this run's: {in_short(changes)}")


@dataclass(frozen=True)
class Donors:
    """The donors that `init_from` and `teacher` name, none or more each."""

    init_from: Sequence[Donor] = ()
    teacher: Sequence[Donor] = ()

    @property
    def digests(self) -> dict[str, list[str]]:
        """The sha256 of each donor's weights, by key."""
        return {key: [donor.trained.digest for donor in of] for key, of in vars(self).items()}

    def refuse_other_images(self, facts: ImageFacts) -> None:
        for donor in (*self.init_from, *self.teacher):
            donor.refuse_other_images(facts)

    def fill(self, model: nn.Module, facts: ImageFacts) -> None:
        """Fills the model with the mean of the weights of `init_from`, if there are any."""
        if self.init_from:
            runs = [donor.trained for donor in self.init_from]
            load_mean_weights(model, [(run.network(facts), run.weights) for run in runs])

    def loaded_teacher(self, config: Config, facts: ImageFacts, compute: Compute) -> Teacher | None:
        """The teacher's networks with their weights.

        Raises:
            UserError: weights do not fit their configuration, or are for another number of classes.
        """
        if not self.teacher:
            return None
        models: list[nn.Module] = []
        for donor in self.teacher:
            model = donor.trained.network(facts)
            load_weights(model, donor.trained.weights)
            models.append(model.to(compute.device))
        return Teacher(models, config.distillation)


def donors_of(config: Config) -> Donors:
    """The donors that a configuration names; no image is read. Raises what `donor_of` raises."""
    return Donors(
        *(
            [donor_of(key, run, config) for run in ([] if given is None else runs_of(given))]
            for key, given in (("init_from", config.init_from), ("teacher", config.teacher))
        )
    )


def runs_of(given: str) -> list[str]:
    """Splits runs that are joined as in PATH; an existing path that itself contains the separator stays whole."""
    parts, runs = given.split(os.pathsep), []
    while parts:
        joined = [os.pathsep.join(parts[:count]) for count in range(len(parts), 0, -1)]
        runs.append(next((path for path in joined if Path(path).expanduser().exists()), parts[0]))
        parts = parts[runs[-1].count(os.pathsep) + 1 :]
    return runs


def donor_of(key: str, given: str, config: Config) -> Donor:
    """The run that `key=given` names, by its folder or by a file of its weights.

    Raises:
        UserError: the run does not exist, is not finished, is of other data, or has seen images that are val here.
    """
    said, named = f"{key}={given}", Path(given).expanduser()
    folder = RunFolder(named.parent.parent if named.suffix == ".safetensors" else named)
    weights = named if named.suffix == ".safetensors" else folder.final
    for path in (folder.config, folder.final, folder.summary, weights):
        if not path.is_file():
            raise UserError(f"{said}: there is no {path}; give the folder of a finished run")
    try:
        theirs = folder.read_config()
        folder.read_summary()
        images = folder.read_images()
    except UserError as error:
        raise UserError(f"{said}: {error}") from None
    _refuse_difference(
        f"{said}: was trained on other images", _which_images(theirs, images), _which_images(config, images)
    )
    given_val = images is not None and "val" in images.contents  # a val folder is compared with the images
    if config.data.val_size and not given_val:
        _refuse_difference(f"{said}: has seen images that are val here", _which_val(theirs), _which_val(config))
    return Donor(said, Trained(theirs, weights, images))


def _which_images(config: Config, known: ImageFacts | None) -> dict[str, object]:
    """The settings that tell images apart before any is read. Folders may move: a name counts only without facts."""
    data = config.data
    found: dict[str, object] = {"data": data.kind}
    if isinstance(data, FolderConfig):
        found["data.image_size"] = data.image_size
        if known is None:
            found["data.root"] = Path(data.root).name
    return found


def _which_val(config: Config) -> dict[str, object]:
    return {"data.val_size": config.data.val_size, "data.val_seed": config.data.val_seed_of(config.seed)}


def _refuse_difference(why: str, there: dict[str, object], here: dict[str, object]) -> None:
    for key, value in here.items():
        if there.get(key) != value:
            raise UserError(f"{why}; it was trained with {key}={there.get(key)}, this run has {value}")
