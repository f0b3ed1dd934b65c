"""One run from its configuration to its figures: data -> model -> optimizer -> loop -> record -> test -> figures.

Everything heavy is imported inside, so that --help and a mistake are answered at once.
"""

import logging
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s9 import failure
from s9.config import Config
from s9.errors import UserError
from s9.interrupt import SIGNALS, Interrupted, Interrupts

if TYPE_CHECKING:
    from s9.models.analysis import ModelFacts
    from s9.prepared import Prepared
    from s9.tracking.status import Status
    from s9.tracking.wandb_log import WandbLog
    from s9.training.checkpoint import Position
    from s9.training.history import History
    from s9.training.ranks import Ranks

log = logging.getLogger("s9")

SAMPLES_SHOWN = 10  # images in the augmentation grid


def train(
    config: Config,
    folder: Path,
    group: str | None = None,
    command: str = "",
    interrupts: Interrupts | None = None,
    resumed: bool = False,
) -> dict[str, Any]:
    """Trains what `config` says and leaves the run in `folder`; returns its summary. status.json says how it goes.

    Args:
        resumed: go on from the newest whole checkpoint in `folder`, or from the start where there is none.

    Raises:
        UserError: the machine or the data cannot do what was asked; raised before the first step.
        NonFiniteLossError: the loss became infinite or NaN.
        Interrupted: a signal came; everything up to it is saved.
    """
    from s9 import runtime
    from s9.tracking import record
    from s9.tracking.status import Status, claim
    from s9.training.ranks import joined

    interrupts = interrupts or Interrupts()
    tree = runtime.git_state()
    with interrupts.noted():
        lock = claim(folder)
        status = Status(folder, {"command": command, "group": group, "wandb_id": secrets.token_hex(4), **tree})
        # With it the run can be gone on with, so before anything that takes time, and after what it cannot do without.
        record.write_config(folder, config)
    interrupts.last_words = lambda number: status.end("interrupted", reason=str(Interrupted(number)))
    try:
        interrupts.stop_if_received()
        device = runtime.pick_device(config.trainer.device)
        with joined(config.trainer.devices, device, config.trainer.threads, follow, config, folder) as ranks:
            summary = fit_and_test(config, folder, status, interrupts, resumed, ranks)
    except Interrupted as stop:
        status.end("interrupted", reason=str(stop))
        raise
    except Exception as error:
        if interrupts.received is not None:  # what fails once a signal has come fails because of it
            status.end("interrupted", reason=str(Interrupted(interrupts.received)))
            raise Interrupted(interrupts.received) from error
        if resumed or not isinstance(error, UserError):  # a new run that is refused leaves nothing
            failure.write_traceback(folder)
        status.end("failed", reason=failure.in_one_line(error, config), log=failure.TRACEBACK)
        raise
    finally:
        lock.release()
    return summary


def follow_torchrun(config: Config) -> None:
    """Trains as one of torchrun's processes that are not rank 0."""
    from s9 import runtime
    from s9.training.ranks import joined

    with joined(1, runtime.pick_device(config.trainer.device), config.trainer.threads, follow) as ranks:
        for number in SIGNALS:  # from here on rank 0 says when to stop
            signal.signal(number, signal.SIG_IGN)
        follow(ranks, config, Path())


def follow(ranks: "Ranks", config: Config, folder: Path) -> None:
    """What a rank other than 0 does: the same steps on its part of each batch; it writes nothing."""
    from s9.prepared import prepare

    logging.getLogger("s9").setLevel(logging.ERROR)  # rank 0 has said it
    p = prepare(config, folder, ranks, ranks.same(None))
    newest = ranks.same(None)
    restored = p.checkpoints.restore(only=newest) if newest else None
    for _ in p.fit(Nobody(), restored[0] if restored else None):
        if ranks.any(False):  # rank 0 has been told to stop
            return


class Nobody:
    """Watches no step."""

    def step(self, *_: object) -> None:
        pass


def fit_and_test(
    config: Config, folder: Path, status: "Status", interrupts: Interrupts, resumed: bool, ranks: "Ranks"
) -> dict[str, Any]:
    """The run itself: data -> model -> optimizer -> loop -> record -> test -> figures."""
    from s9 import runtime
    from s9.models.analysis import model_facts
    from s9.prepared import prepare
    from s9.tracking import record
    from s9.tracking.wandb_log import WandbLog
    from s9.training.loop import NonFiniteLossError

    machine = runtime.describe_machine(ranks.device)  # now: the commit may be another when the run ends
    p = prepare(config, folder, ranks, ranks.same(record.read_images(folder) if resumed else None))
    record.write_images(folder, p.data.facts)
    facts = model_facts(config.model, len(p.data.class_names), p.data.image_size)
    write_samples(folder, p)
    position, history = restore(folder, p, resumed)
    beside = ThreadPoolExecutor(max_workers=1)  # the figures: training does not wait for them
    earlier = [of | times for of, times in zip(history.records, history.times, strict=True)]
    mirror = WandbLog(config, folder, status.content["group"], status.content["wandb_id"], earlier)
    say_what(folder, p, facts)
    if resumed:
        log.info(f"goes on from {p.checkpoints.last or 'the start: there is no whole checkpoint'}")
    ends: dict[str, Any] = {"exit_code": 1}
    try:
        mirror.log_model(facts, beside.submit(draw_figures, folder))
        with interrupts.noted():
            fit(folder, p, position, history, interrupts, mirror)
        interrupts.stop_if_received()  # one that came since the last look
        summary = describe_run(config, p.data.variant, facts, status.content["command"], history.best)
        summary |= {"machine": machine | runtime.describe_arithmetic(p.precision), "images": p.data.facts.fingerprint}
        test(folder, p, history, summary)
        # Before what the run can do without: a run that is killed while it draws is done.
        status.set("done", minutes=round(history.seconds / 60, 2))
        say_where(summary, folder, history.seconds)
        show_end(folder, summary, mirror, beside)
        ends = {"exit_code": 0}
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error}; the last good checkpoint is {p.checkpoints.last or 'none'}") from None
    except Interrupted as stop:
        ends = {"exit_code": 128 + stop.number, "wait_s": interrupts.seconds_left()}
        raise
    finally:
        mirror.finish(**ends)
        beside.shutdown(wait="wait_s" not in ends)
    return summary


def write_samples(folder: Path, p: "Prepared") -> None:
    """What training sees, for the figure."""
    import numpy as np

    from s9.data.augment import sample_grid
    from s9.tracking import record

    shown = p.data.examples(SAMPLES_SHOWN)
    images = np.asarray(shown.images)
    record.write_samples(folder, images, sample_grid(images, p.augment), p.data.names_of(shown.labels))


def restore(folder: Path, p: "Prepared", resumed: bool) -> "tuple[Position | None, History]":
    """Where to begin, and what was measured before; on every rank the same. The lines of epochs that are to come go."""
    from s9.tracking import record
    from s9.training.history import History

    restored = p.checkpoints.restore() if resumed else None
    p.ranks.same(str(p.checkpoints.last) if restored else None)
    position, history = (restored[0], History(**restored[1])) if restored else (None, History())
    record.write_lines(folder, record.METRICS, history.records)
    record.write_lines(folder, record.TIMES, history.times)
    return position, history


def fit(
    folder: Path,
    p: "Prepared",
    position: "Position | None",
    history: "History",
    interrupts: Interrupts,
    mirror: "WandbLog",
) -> None:
    """Trains to the last epoch; after each one, and whenever it is due, records and saves.

    Raises:
        Interrupted: a signal came; what was reached is saved.
    """
    from s9.tracking import record
    from s9.tracking.progress import Progress
    from s9.training.weights import save_weights

    progress = Progress(p.config.trainer.epochs)
    due = lambda: interrupts.received is not None or p.checkpoints.due()  # noqa: E731
    for reached in p.fit(progress, position, due):
        if reached.record:
            best = history.add(reached.record, reached.times)
            if best and not failure.survive("the best weights", save_weights, p.tested, folder / record.BEST):
                with suppress(OSError):  # none at all rather than those of another epoch
                    (folder / record.BEST).unlink(missing_ok=True)
            failure.survive("an epoch's line", record.add_line, folder, record.METRICS, history.records[-1])
            failure.survive("an epoch's times", record.add_line, folder, record.TIMES, history.times[-1])
        p.checkpoints.save(reached.position, history.as_dict())
        if reached.record:
            mirror.log_epoch(reached.record | reached.times)
            progress.epoch_end(reached.record | reached.times, len(p.data.val))
        if p.ranks.any(interrupts.received is not None):
            interrupts.stop_if_received()


def test(folder: Path, p: "Prepared", history: "History", summary: dict[str, Any]) -> None:
    """Scores the final weights, test for the one time, and writes all that a finished run leaves; fills `summary`."""
    from s9.tracking import record
    from s9.training.evaluation import score_with_flip
    from s9.training.weights import save_weights

    data = p.data
    save_weights(p.tested, folder / record.FINAL)
    if len(data.val):
        summary["val"], _ = score_with_flip(p.tested, data.val, data, p.device, p.precision)
    summary["test"], probs = score_with_flip(p.tested, data.test, data, p.device, p.precision)
    record.write_lines(folder, record.METRICS, history.records)  # again: the disk may have been full for a while
    record.write_lines(folder, record.TIMES, history.times)
    record.write_predictions(folder, probs.numpy(), data.test.labels, data.test.images, data.class_names)
    record.write_summary(folder, summary)


def show_end(folder: Path, summary: dict[str, Any], mirror: "WandbLog", beside: ThreadPoolExecutor) -> None:
    """The figures, and W&B's copy of what the run has come to; a run that is done does not fail for want of them."""
    from s9.tracking import record

    drawn = beside.submit(draw_figures, folder).result()
    try:
        mirror.log_end(summary, record.read_arrays(folder / record.PREDICTIONS), drawn)
    except Exception as error:
        log.warning(f"W&B does not get the test's results ({failure.in_one_line(error, None)})")


def draw_figures(folder: Path) -> list[Path]:
    """Draws what the run's files have so far; the run goes on where that fails."""
    try:
        from s9.tracking.figures import draw_all  # in the thread beside: matplotlib takes half a second to import

        return draw_all(folder)
    except Exception as error:
        later = f"later: python -m s9.report run={folder}"
        log.warning(f"figures cannot be drawn ({failure.in_one_line(error, None)}); {later}")
        return []


def describe_run(
    config: Config, variant: str, facts: "ModelFacts", command: str, best: dict[str, float]
) -> dict[str, Any]:
    """The part of summary.json that says what was trained."""
    return {
        "name": config.run_name,
        "command": command,
        "data": variant,
        "seed": config.seed,
        "epochs": config.trainer.epochs,
        "parameters": facts.parameters,
        "receptive_field": facts.receptive_field,
        "multiplies": facts.multiplies,
        "best": {k: best[k] for k in ("epoch", "val/accuracy") if k in best},
    }


def say_what(folder: Path, p: "Prepared", facts: "ModelFacts") -> None:
    """The first lines on the screen."""
    data = p.data
    sizes = f"{len(data.train):,} train, {len(data.val):,} val, {len(data.test):,} test images"
    log.info(f"{p.config.run_name} on {data.variant}: {sizes}")
    log.info(f"{facts.parameters:,} parameters, receptive field {facts.receptive_field}")
    devices = f"{p.device}" if p.ranks.world == 1 else f"{p.ranks.world} x {p.device.type}"
    log.info(f"{devices}, {str(p.precision).removeprefix('torch.')}, {folder}")


def say_where(summary: dict[str, Any], folder: Path, seconds: float) -> None:
    """The last lines on the screen: the numbers, and where everything lies."""
    for split in ("val", "test"):
        if split in summary:
            of = summary[split]
            accuracy = f"{of['correct']}/{of['total']} correct ({100 * of['accuracy']:.2f} %)"
            flip = f"with flip averaging {100 * of['accuracy_flip']:.2f} %"
            log.info(f"{split}: average loss {of['loss']:.4f}, {accuracy}, {flip}")
    log.info(f"{seconds / 60:.2f} min, everything is in {folder}")
    log.info(f"score it again: python -m s9.evaluate run={folder}")
