"""Donors: trained networks that a run begins with (init_from=) or learns from (teacher=), and when they are refused.

Refused: a donor that has seen images that are val here, since val would be too good, and one of other images that may
have. A donor of init_from that has learned other classes gives all its layers but the head.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s9.config.data import FolderConfig
from s9.config.schema import Config
from s9.data.image_set import ImageFacts, in_short
from s9.data.split import MOST_TEST, count_of
from s9.models.s9net import S9Net
from s9.models.shipped import shipped
from s9.runs.donor_folders import folder_of, runs_of
from s9.runs.trained import Trained
from s9.system.compute import Compute
from s9.system.errors import UserError
from s9.training.distillation import Teacher
from s9.training.kept_logits import KeptLogits
from s9.training.weights import head_of, load_mean_weights, load_weights

log = logging.getLogger("s9")


@dataclass(frozen=True)
class Donor:
    """One donor of the run `here`. key, given: how the user named the donor, such as teacher and its folder."""

    key: str
    given: str
    trained: Trained
    here: Config

    def __str__(self) -> str:
        return f"{self.key}={self.given}"

    def has_other_classes(self, facts: ImageFacts) -> bool:
        """Whether it has learned other classes than those of `facts`, and may: a teacher's classes must be the same."""
        known = self.trained.images
        return self.key == "init_from" and known is not None and set(known.class_names) != set(facts.class_names)

    def refuse_other_images(self, facts: ImageFacts) -> None:
        """Raises UserError if its images are known to be others: val here may have been train there.

        Also if its classes are in another order. A donor of other classes may have other images, but none that this run
        holds out.
        """
        known = self.trained.images
        if known is None:
            return
        if self.has_other_classes(facts):
            self._refuse_held_out(known, facts)
        elif changes := known.changes(facts, ("train", "val")):
            raise UserError(f"{self}: was trained on other images than this run's: {in_short(changes)}")
        elif known.class_names != facts.class_names:  # its outputs would be taken for those of other classes
            pairs = enumerate(zip(known.class_names, facts.class_names, strict=True))
            label, (theirs, ours) = next((label, pair) for label, pair in pairs if pair[0] != pair[1])
            differ = f"its class {label} is {theirs}, this run's is {ours}"
            raise UserError(f"{self}: learned the same classes in another order: {differ}; list them in its order")
        else:
            self.refuse_other_split(facts)

    def refuse_other_split(self, facts: ImageFacts | None) -> None:
        """Raises UserError if the donor has trained on images that are held out of the same train here.

        Args:
            facts: of this run's images; None: these are not known yet, and taken for the donor's.
        """
        known = self.trained.images
        there, here = _held_out(self.trained.config, known), _held_out(self.here, facts or known)
        compared = ("data.val_size", "data.val_seed") if here["data.val_size"] != 0 else ()
        if here["data.test_size"] != 0 or compared:
            held = "test" if here["data.test_size"] != 0 else "val"
            _refuse_difference(f"{self}: has seen images that are {held} here", there, here, ("data.test_size",))
        _refuse_difference(f"{self}: has seen images that are val here", there, here, compared)

    def _refuse_held_out(self, known: ImageFacts, facts: ImageFacts) -> None:
        """Raises UserError if all images of a class that this run holds out, or holds some out of, were train there."""
        learned = {digest for count, digest in known.contents.get("train", {}).values() if count}
        held = _held_out(self.here, facts)
        parts = [name for name in ("val", "test") if held[f"data.{name}_size"] != 0]
        places = {"val": "which is val here", "test": "which is test here"}
        if parts:
            places["train"] = f"a part of which is {' and '.join(parts)} here"
        for split, place in places.items():
            for name, (count, digest) in facts.contents.get(split, {}).items():
                if count and digest in learned:
                    raise UserError(f"{self}: has learned {split}/{name} of this run, {place}; name another donor")


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

    def fill(self, model: S9Net, facts: ImageFacts) -> bool:
        """Fills the model with the mean of the weights of `init_from`, if there are any.

        Where these have learned other classes, the head keeps its values, and the log says so.

        Returns:
            Whether that is so.

        Raises:
            UserError: weights do not fit; some donors have learned the classes of `facts` and others have not.
        """
        if not self.init_from:
            return False
        runs = [donor.trained for donor in self.init_from]
        others = [donor for donor in self.init_from if donor.has_other_classes(facts)]
        if others and len(others) < len(runs):
            raise UserError(f"{others[0]}: has learned other classes than this run's, unlike others of init_from")
        sources = [(run.network(run.images or facts), run.weights) for run in runs]
        try:
            load_mean_weights(model, sources, without=head_of(model) if others else None)
        except UserError as error:
            raise UserError(f"{error}; without model= the run takes the model of init_from") from None
        if others:
            log.info(_of_other_classes(others, facts))
        return bool(others)

    def loaded_teacher(
        self, config: Config, facts: ImageFacts, compute: Compute, kept: KeptLogits | None = None
    ) -> Teacher | None:
        """The teacher's networks with their weights.

        Raises:
            UserError: weights do not fit their configuration, or are for another number of classes.
        """
        if not self.teacher:
            return None
        models = []
        for donor in self.teacher:
            model = donor.trained.network(facts)
            load_weights(model, donor.trained.weights)
            models.append(model.to(compute.device))
        return Teacher(models, config.distillation, kept)


def _of_other_classes(donors: Sequence[Donor], facts: ImageFacts) -> str:
    """`init_from=frontier: learned 10 other classes of CIFAR-10 (JPEG); all layers are copied but the head, ...`."""
    known = [donor.trained.images for donor in donors]
    learned = dict.fromkeys(f"{of.num_classes} other classes of {of.variant}" for of in known if of is not None)
    copied = "all layers are copied" if len(donors) == 1 else "the mean of all layers is copied"
    said = f"{donors[0].here.init_from}: learned {' and '.join(learned)}; {copied} but the head"
    rates = f"all learning rates are multiplied by {donors[0].here.transfer_lr:g} (transfer_lr)"
    return f"init_from={said}, which begins anew for {facts.num_classes} classes; {rates}"


def donors_of(config: Config) -> Donors:
    """The donors that a configuration names; no image is read. Raises what `donor_of` raises."""
    return Donors(
        *(
            [donor_of(key, run, config) for run in ([] if given is None else runs_of(given))]
            for key, given in (("init_from", config.init_from), ("teacher", config.teacher))
        )
    )


def donor_of(key: str, given: str, config: Config) -> Donor:
    """The run that `key=given` names, by its folder, by a file of its weights or by the name of shipped weights.

    What a donor of init_from has learned is judged when the images of this run are known, unless its own are not.

    Raises:
        UserError: the run does not exist, is not finished, is of other data, or has seen images that are val here.
    """
    said, (folder, weights) = f"{key}={given}", folder_of(given)
    for path in (folder.config, folder.final, folder.summary, weights):
        if not path.is_file():
            give = f"give the folder of a finished run, or a name of shipped weights: {', '.join(shipped())}"
            missing = "it lies in no run's folder" if folder.path.is_file() else f"there is no {path}"
            raise UserError(f"{said}: {missing}; {give}")
    try:
        theirs = folder.read_config()
        folder.read_summary()
        images = folder.read_images()
    except UserError as error:
        raise UserError(f"{said}: {error}") from None
    donor = Donor(key, given, Trained(theirs, weights, images), config)
    if key == "teacher" or images is None:
        there, here = _which_images(theirs, images), _which_images(config, images)
        _refuse_difference(f"{said}: was trained on other images", there, here)
        donor.refuse_other_split(None)
    return donor


def _which_images(config: Config, known: ImageFacts | None) -> dict[str, object]:
    """The settings that tell images apart before any is read. Folders may move: a name counts only without facts."""
    data = config.data
    found: dict[str, object] = {"data": data.kind}
    if isinstance(data, FolderConfig) and known is None:
        found["data.root"] = Path(data.root).name
        if data.image_size is not None:  # else the images say which
            found["data.image_size"] = data.image_size
    return found


def _held_out(config: Config, known: ImageFacts | None) -> dict[str, object]:
    """What is held out of train: how many images as test and as val, if `known` tells, and by which seed as val."""
    data, contents = config.data, known.contents if known else {}
    counts = [count for count, _ in contents.get("train", {}).values() if count]
    test, val = 0, data.val_size
    if counts and isinstance(data, FolderConfig) and not {"val", "test"} & contents.keys():
        test = count_of(data.test_size, sum(counts), len(counts), MOST_TEST)
    if counts:
        val = count_of(data.val_size, sum(counts) - test, len(counts))
    if "val" in contents:  # a folder, which is compared with the images
        val = 0
    return {"data.test_size": test, "data.val_size": val, "data.val_seed": data.val_seed_of(config.seed)}


def _refuse_difference(
    why: str, there: Mapping[str, object], here: Mapping[str, object], keys: Iterable[str] | None = None
) -> None:
    for key in here if keys is None else keys:
        if there.get(key) != here[key]:
            raise UserError(f"{why}; it was trained with {key}={there.get(key)}, this run has {here[key]}")
