"""Rank 0's part of a run: prepare -> fit -> record -> test -> figures. Only rank 0 writes files."""

import logging
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from shutil import rmtree
from typing import Any

import numpy as np

from s9.config.components import allow_words
from s9.config.schema import Config
from s9.data.augmentation.augment import sample_grid
from s9.models.analysis import ModelFacts, model_facts
from s9.runs import failure, said
from s9.runs.about import Metrics, about_run, scores_of_val
from s9.runs.drawing import Drawing
from s9.runs.insight import write_insight
from s9.runs.prepare import Prepared, prepare
from s9.runs.said import uneven
from s9.runs.watched import Watched
from s9.system import runtime
from s9.system.interrupt import Interrupted, Interrupts
from s9.tracking.folder import RunFolder
from s9.tracking.lr_range import FIGURE, SUGGESTED, is_range_test, suggested
from s9.tracking.progress import Progress
from s9.tracking.status import Status
from s9.tracking.wandb_agent import run_id_of_agent
from s9.tracking.wandb_log import WandbLog
from s9.training.checkpoint import Position
from s9.training.evaluation import class_scores, score_with_flip
from s9.training.history import History
from s9.training.ranks import Ranks
from s9.training.step import NonFiniteLossError
from s9.training.weights import save_weights

log = logging.getLogger("s9")

SAMPLES_SHOWN = 10  # images in the augmentation grid
ORIGINAL = 128  # pixels: the longer side of a photo as it is, there


class Paused(BaseException):
    """The run has reached its `until_epoch` and is saved. Not an Exception, so that nothing takes it for a failure.

    Args:
        value: val accuracy of that epoch, a fraction; None if there is no val.
    """

    def __init__(self, value: float | None):
        super().__init__(value)
        self.value = value


@dataclass(kw_only=True)
class Run:
    """A run that is under way, as rank 0 sees it. until_epoch: the run pauses when this epoch has ended."""

    config: Config
    folder: RunFolder
    ranks: Ranks
    status: Status
    interrupts: Interrupts
    resumed: bool
    until_epoch: int | None = None
    drawing: Drawing = field(default_factory=Drawing)

    def whole(self) -> dict[str, Any]:
        """Prepares, trains, tests and draws; returns the summary. Raises Paused where it ends at `until_epoch`."""
        machine = runtime.describe_machine(self.ranks.device)  # now: the commit may have changed when the run ends
        known = self.folder.read_images() if self.resumed else None
        self.ranks.from_rank_0("folder", self.folder.path)
        p = prepare(self.config, self.folder, self.ranks, self.ranks.from_rank_0("images", known))
        self.folder.write_images(p.data.facts, p.data.problems)
        facts = model_facts(self.config.model, p.data.facts)
        self.write_samples(p)
        position, history = self.restore(p)
        mirror = self.begin_mirror(history)
        self.say_what(p, facts)
        ends: dict[str, Any] = {"exit_code": 1}
        try:
            mirror.log_model(facts, self.drawing.draw(self.folder))
            with self.interrupts.noted():
                whole = self.fit(p, position, history, mirror)
            self.drawing.allow()  # also where the run was resumed behind its last step
            self.interrupts.stop_if_received()  # for a signal since the last check
            if not whole:
                ends = {"exit_code": 0}
                raise Paused(history.records[-1].get("val/accuracy"))
            summary = self.describe(p, facts, history) | suggested(self.config, history.records)
            arithmetic = runtime.describe_arithmetic(p.compute)
            summary |= {"machine": machine | arithmetic, "images": p.data.facts.fingerprint}
            self.test(p, history, summary)
            if not is_range_test(self.config):
                write_insight(p, self.folder)  # a run that is killed here is resumed, so that no finished run lacks it
            # Before figures and W&B, which the run can do without: a run that is killed while it draws is done.
            rmtree(self.folder.kept_logits, ignore_errors=True)
            self.status.set("done", minutes=round(history.seconds / 60, 2))
            self.say_where(p, summary, history.seconds)
            self.show_end(summary, mirror)
            ends = {"exit_code": 0}
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"{error}; the last good checkpoint is {p.checkpoints.last or 'none'}") from None
        except Interrupted as stop:
            ends = {"exit_code": 128 + stop.number, "wait_s": self.interrupts.seconds_left()}
            raise
        finally:
            self.drawing.allow()
            mirror.finish(**ends)
            self.drawing.close(wait="wait_s" not in ends)
            p.batches.close()
        return summary

    def write_samples(self, p: Prepared) -> None:
        """Writes examples of what training sees, for the figure."""
        shown = p.data.examples(SAMPLES_SHOWN)
        images = np.asarray(shown.images)
        originals = p.data.originals(SAMPLES_SHOWN, ORIGINAL)
        self.folder.write_samples(originals, sample_grid(images, p.augment), p.data.names_of(shown.labels))

    def restore(self, p: Prepared) -> tuple[Position | None, History]:
        """Where to begin, the same on all ranks, and the history. Lines of later epochs are removed from the files."""
        restored = p.checkpoints.restore() if self.resumed else None
        self.ranks.from_rank_0("checkpoint", str(p.checkpoints.last) if restored else None)
        position, history = (restored[0], History(**restored[1])) if restored else (None, History())
        self.folder.write_epochs(history.records, history.times)
        return position, history

    def begin_mirror(self, history: History) -> WandbLog:
        earlier = [of | times for of, times in zip(history.records, history.times, strict=True)]
        of = self.status.content
        named = {"group": of["group"], "swept": of.get("swept"), "run_id": of["wandb_id"]}
        return WandbLog(self.config, self.folder.path, earlier=earlier, **named)

    def pauses(self, position: Position | None) -> bool:
        """Whether the run pauses at this position. One that was killed just before it paused is resumed behind it."""
        end = self.until_epoch
        return position is not None and end is not None and end < min(position.epoch, self.config.trainer.epochs)

    def fit(self, p: Prepared, position: Position | None, history: History, mirror: WandbLog) -> bool:
        """Trains to the last epoch; records each epoch; saves a checkpoint after each epoch and whenever one is due.

        Returns:
            Whether all epochs are trained, rather than those until the run pauses.

        Raises:
            Interrupted: a signal came; the steps so far are saved.
        """
        folder, interrupts = self.folder, self.interrupts
        if self.ranks.any_of_all("stop", self.pauses(position)):
            return False
        progress = Progress(self.config.trainer.epochs, balanced=uneven(p.data), work=p.work)
        watch = Watched(progress, p.checkpoints, interrupts, self.drawing)
        for reached in p.fit(self.ranks, position, watch):
            if reached.record:
                best = history.add(reached.record, reached.times)
                if best:
                    about = self.about(p, {"val": scores_of_val(history.records[-1])})
                    if not failure.survive("the best weights", save_weights, p.learner.tested, folder.best, about):
                        with suppress(OSError):  # no best weights rather than another epoch's
                            folder.best.unlink(missing_ok=True)
                failure.survive("an epoch's line", folder.add_epoch, folder.metrics, history.records[-1])
                failure.survive("an epoch's times", folder.add_epoch, folder.times, history.times[-1])
            p.checkpoints.save(reached.position, history.as_dict())
            if reached.record:
                mirror.log_epoch(reached.record | reached.times)
                progress.epoch_end(reached.record | reached.times, len(p.data.val))
            if self.ranks.any_of_all("stop", interrupts.received is not None or self.pauses(reached.position)):
                interrupts.stop_if_received()
                return False
        return True

    def test(self, p: Prepared, history: History, summary: dict[str, Any]) -> None:
        """Scores the final weights, on test for the only time, and writes all files of a finished run."""
        data, tested, test, names = p.data, p.learner.tested, p.data.test, p.data.facts.class_names
        save_weights(tested, self.folder.final, self.about(p))  # before the scores, which may fail
        scored = {}
        for name, split in (("val", data.val), ("test", data.test)):
            if len(split):
                summary[name], probs = score_with_flip(tested, split, data.facts, p.compute)
                scored[name] = split, probs
        summary["classes"] = class_scores(data.facts.class_names, data.train, scored)
        self.folder.write_epochs(history.records, history.times)  # again: the disk may have been full for a while
        save_weights(tested, self.folder.final, self.about(p, {name: summary[name] for name in scored}))
        self.folder.write_predictions(probs.numpy(), test.labels, test.images, names, names=data.test_names)
        self.folder.write_summary(summary)

    def about(self, p: Prepared, metrics: Metrics | None = None) -> dict[str, Any]:
        """What the weights say about themselves."""
        return about_run(self.config, p.data.facts, self.folder.read_identity(), metrics).as_dict()

    def show_end(self, summary: dict[str, Any], mirror: WandbLog) -> None:
        """Draws the figures and sends W&B the results; the run is done and does not fail if either fails."""
        drawn = self.drawing.draw(self.folder).result()
        try:
            mirror.log_end(summary, self.folder.read_predictions(), drawn)
        except Exception as error:
            log.warning(f"the test results cannot be sent to W&B ({failure.in_one_line(error, None)})")

    def describe(self, p: Prepared, facts: ModelFacts, history: History) -> dict[str, Any]:
        """The part of the summary that says what was trained."""
        return {
            "name": self.config.run_name,
            "command": self.status.content["command"],
            "data": p.data.facts.variant,
            "seed": self.config.seed,
            "epochs": self.config.trainer.epochs,
            "batch_size": p.batches.batches.batch_size,
            "parameters": facts.parameters,
            "receptive_field": facts.receptive_field,
            "multiplies": facts.multiplies,
            "operations": p.operations(int(history.records[-1]["step"])),
            "best": {k: history.best[k] for k in ("epoch", "val/accuracy") if k in history.best},
        }

    def say_what(self, p: Prepared, facts: ModelFacts) -> None:
        """The first lines on the screen."""
        data, ranks = p.data, self.ranks
        sizes = f"{len(data.train):,} train, {len(data.val):,} val, {len(data.test):,} test images"
        log.info(f"{self.config.run_name} on {data.facts.variant}: {sizes}")
        log.info(f"{facts.parameters:,} parameters, receptive field {facts.receptive_field}")
        devices = f"{ranks.device}" if ranks.world == 1 else f"{ranks.world} x {ranks.device.type}"
        log.info(f"{devices}, {p.compute.precision_name}, {self.folder}")
        if data.problems:
            log.info(f"the copies and broken files are named in {self.folder.problems}")
        for line in said.before(self.config, data, p.batches):
            log.info(line)
        if self.resumed and self.status.content["starts"] > 1:
            log.info(f"resumes from {p.checkpoints.last or 'the start: there is no whole checkpoint'}")

    def say_where(self, p: Prepared, summary: dict[str, Any], seconds: float) -> None:
        """The last lines on the screen: the scores, and where everything lies."""
        # A job of a sweep: who compares jobs must not see test.
        chooses = self.status.content["group"] is not None or run_id_of_agent() is not None
        for line in said.after(summary, ("val",) if chooses else ("val", "test"), balanced=uneven(p.data)):
            log.info(line)
        log.info(f"{seconds / 60:.2f} min, everything is in {self.folder}")
        if SUGGESTED in summary:  # a range test, whose weights are of no use
            log.info(f"the loss over the learning rate: {self.folder.figures / f'{FIGURE}.png'}")
        else:
            log.info(f"score it again: python -m s9.evaluate {shlex.quote(f'run={self.folder}')}{allow_words()}")
