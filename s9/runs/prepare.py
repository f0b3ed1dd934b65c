"""What a run trains: each rank makes images, batches, learner and checkpoints from the configuration for itself."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from s9.config.data import Cifar10Config, DigitsConfig
from s9.config.identity import Identity, digest, identity
from s9.config.schema import Config
from s9.data import keys
from s9.data.augmentation.augment import Augment, build_augment
from s9.data.image_set import ImageFacts, ImageSet, in_short
from s9.data.loaders import TrainLoader, train_loader
from s9.data.sources.load import load_images
from s9.models.precision import guard_bfloat16
from s9.models.s9net import S9Net, build_model, refuse_single_values
from s9.runs.donors import Donors, donors_of
from s9.system.compute import Compute, pick_compute, pick_precision
from s9.system.errors import UserError
from s9.system.process import keep_freed_memory
from s9.tracking.folder import RunFolder
from s9.tracking.lr_range import MOST, is_range_test
from s9.training import optim
from s9.training.checkpoint import Checkpoints, Position
from s9.training.kept_logits import KeptLogits
from s9.training.learner import Learner, averaged
from s9.training.loop import Reached, Watch, fit
from s9.training.operations import operations
from s9.training.ranks import Ranks
from s9.training.resolution import sizes
from s9.training.step import NonFiniteLossError

log = logging.getLogger("s9")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that training needs, and the checkpoints that save it."""

    config: Config
    compute: Compute
    data: ImageSet
    augment: Augment
    batches: TrainLoader
    learner: Learner
    checkpoints: Checkpoints

    def fit(self, ranks: Ranks, start: Position | None, watch: Watch | None = None) -> Iterator[Reached]:
        """Trains from `start` on: see loop.fit."""
        steps = fit(
            learner=self.learner,
            batches=self.batches,
            data=self.data,
            compute=self.compute,
            settings=self.config,
            ranks=ranks,
            start=start,
            watch=watch,
        )
        if not is_range_test(self.config):
            return steps
        return self._until_diverged(steps, recorded=start is not None and start.epoch > 1)

    def operations(self, steps: int) -> int:
        """Floating-point operations of the run's first `steps` steps, the teacher's included."""
        teacher, batches = self.learner.teacher, self.batches.batches
        return operations(
            self.config,
            self.data.facts,
            batch_size=batches.batch_size,
            steps=steps,
            total_steps=len(batches) * self.config.trainer.epochs,
            teachers=[model.config for model in teacher.models] if teacher else [],
        )

    def work(self, epoch: int) -> int:
        """The operations of all epochs up to this one."""
        return self.operations(epoch * len(self.batches))

    def _until_diverged(self, steps: Iterator[Reached], recorded: bool) -> Iterator[Reached]:
        """Ends a range test early where its loss is far above that of guessing, or is no number.

        recorded: whether the run has a point before these steps; one without any has failed.
        """
        most = MOST * math.log(self.data.facts.num_classes)
        try:
            for reached in steps:
                yield reached
                recorded = recorded or reached.record is not None
                if reached.record and reached.record["train/loss"] > most:
                    log.info(f"the range test ends here: the loss is more than {MOST:g} times that of guessing")
                    return
        except NonFiniteLossError as error:
            if not recorded or not self.checkpoints.restore():  # the weights of the last point, which are finite
                raise
            log.info(f"the range test ends here: {str(error).partition(';')[0]}")


def identity_of(config: Config, donors: Donors | None = None) -> Identity:
    """The run's identity on this machine, without its images.

    Raises:
        UserError: this machine does not have the device or a donor.
    """
    compute = pick_compute(config.trainer.device, config.trainer.precision)
    digests = (donors or donors_of(config)).digests
    return identity(config, device=compute.device.type, precision=compute.precision_name, donors=digests)


def fingerprint_of(config: Config) -> str | None:
    """Of the images that the run would use; None for a data set that is always the same. Raises what loading raises."""
    if isinstance(config.data, Cifar10Config | DigitsConfig):
        return None
    whole = replace(config.data, val_size=0)  # what is held out as val is no part of which images they are
    return load_images(whole, config.seed).facts.fingerprint


def identity_as_asked(config: Config, images: str | None) -> Identity:
    """The run's identity with device and precision as they are asked for, so that every machine finds the same run.

    Args:
        images: what `fingerprint_of` returns.

    Raises:
        UserError: a donor is missing or does not fit.
    """
    device, precision = config.trainer.device.partition(":")[0], config.trainer.precision
    return identity(config, device=device, precision=precision, donors=donors_of(config).digests) | {"images": images}


def digest_of(config: Config, images: str | None) -> str:
    """The name of the run as a job."""
    return digest(identity_as_asked(config, images))


def prepare(config: Config, folder: RunFolder, ranks: Ranks, known: ImageFacts | None = None) -> Prepared:
    """Images, batches, learner and checkpoints of one rank; nothing is written.

    Args:
        known: facts of the images that a resumed run has trained on.

    Raises:
        UserError: the machine or the data cannot do what was asked.
    """
    compute = Compute(ranks.device, pick_precision(config.trainer.precision, ranks.device))
    donors = donors_of(config)  # before the data, which may have to be downloaded
    keys.seed_everything(config.seed)
    keep_freed_memory()  # here too: not every run is started by a command, and ranks never are
    data = load_images(config.data, config.seed)
    if known:
        refuse_changed_images(folder, known, data.facts)
        data = data.as_known_to(known)
    donors.refuse_other_images(data.facts)
    augment = build_augment(config.aug, data.facts, config.seed)
    batches = train_loader(config, data.train, augment, ranks.device, rank=ranks.rank, world=ranks.world)
    model = build_model(config.model, data)
    rate = config.transfer_lr if donors.fill(model, data.facts) else 1.0
    _try_all_sizes(model, data.facts, compute, config=config, batches=batches)
    model.to(compute.device)
    optimizer = optim.build_optimizer(optim.at_rate(config.optimizer, rate), model)
    learner = Learner(
        model=model,
        optimizer=optimizer,
        scheduler=optim.build_scheduler(config.scheduler, optimizer, len(batches) * config.trainer.epochs),
        ema=averaged(model, config.trainer.ema_decay),
        teacher=donors.loaded_teacher(config, data.facts, compute, _kept_logits(config, data.facts, batches, folder)),
    )
    images = {"images": data.facts.fingerprint, "class names": list(data.facts.class_names)}
    checkpoints = Checkpoints(
        folder.checkpoints,
        learner,
        identity_of(config, donors) | images,
        world=ranks.world,
        save_every=config.trainer.save_every,
    )
    return Prepared(
        config=config,
        compute=compute,
        data=data,
        augment=augment,
        batches=batches,
        learner=learner,
        checkpoints=checkpoints,
    )


def _kept_logits(config: Config, facts: ImageFacts, loader: TrainLoader, folder: RunFolder) -> KeptLogits | None:
    """Where this rank keeps what the teacher says of the images that later epochs repeat; None: none does."""
    batches = loader.batches
    if config.distillation.views is None:
        return None
    shape = (batches.batch_size // batches.world, facts.num_classes)
    return KeptLogits(folder.kept_logits / str(batches.rank), batches=len(batches), shape=shape)


def _try_all_sizes(model: S9Net, facts: ImageFacts, compute: Compute, *, config: Config, batches: TrainLoader) -> None:
    """Checks bfloat16 at each size of the run's images.

    Raises:
        UserError: small images leave the network no pixel, or a batch norm one value.
    """
    steps, of_rank = config.trainer.epochs * len(batches), batches.batches.batch_size // batches.batches.world
    for size, _ in sizes(config.trainer, facts.image_size, steps=steps, total_steps=steps):
        at_size = model
        if size != facts.image_size:
            try:
                at_size = S9Net(config.model, replace(facts, image_size=size))
            except UserError as error:
                start = config.trainer.resolution.start
                raise UserError(
                    f"trainer.resolution.start={start}: too small for {config.model.name}: {error}"
                ) from None
        refuse_single_values(at_size, of_rank)
        guard_bfloat16(model, size, compute)


def refuse_changed_images(folder: RunFolder, known: ImageFacts, now: ImageFacts) -> None:
    """Raises UserError, which names what has changed, if the images are not those that the run began with."""
    changes = known.changes(now)
    if not changes and known.bits != now.bits:
        before = "began before s9 compared images of more than 8 bits in the depth that they get"
        raise UserError(f"resume={folder}: {before}, so it may have had other images; start a new run")
    if changes:
        raise UserError(
            f"resume={folder}: the images have changed since the run began: {in_short(changes)}; "
            "bring them back as they were, or start a new run"
        )
