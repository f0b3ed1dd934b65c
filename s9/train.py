"""The main door: compose -> data -> model -> fit -> test -> figures.   python -m s9.train model=dilated aug=full

Everything heavy is imported inside, so that --help and a mistake are answered at once.
"""

import logging
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s9 import command_line
from s9.config import Config, to_config
from s9.errors import UserError

if TYPE_CHECKING:
    from s9.models.analysis import ModelFacts

log = logging.getLogger("s9")

SAMPLES_SHOWN = 10  # images in the augmentation grid

HELP = """Trains one network, tests it once, and leaves a folder with everything there is to know about the run.

  python -m s9.train model=dilated aug=full"""


def main(arguments: list[str]) -> None:
    command_line.launch(job, arguments, HELP)


def job(composed: Any) -> None:
    """One run, alone or in a sweep. In a sweep a failed job becomes a line of summary.csv and the others go on."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from s9.sweeps.summary import add_row
    from s9.training.loop import NonFiniteLossError

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # shorter to read, and to paste into the next command
    sweep_dir = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    overrides = " ".join(hydra.overrides.task)
    row: dict[str, Any] = {"job": hydra.job.get("num", 0), "overrides": overrides, "folder": folder.name}
    try:
        summary = train(to_config(composed), folder, group=sweep_dir.name if sweep_dir else None, overrides=overrides)
        val = summary.get("val", {})
        row |= {
            "status": "done",
            "val/accuracy": val.get("accuracy"),
            "val/loss": val.get("loss"),
            "minutes": summary["minutes"],
        }
    except Exception as error:
        row |= {"status": "failed", "reason": " ".join(str(error).split()) or type(error).__name__}
        refused, diverged = isinstance(error, UserError), isinstance(error, NonFiniteLossError)
        if refused:
            remove_refused(folder)  # nothing was trained: nothing to keep
        else:
            (folder / "error.txt").write_text(traceback.format_exc())
        if sweep_dir is None:
            if refused or diverged:
                command_line.exit_with_line(error, 2 if refused else 1)
            raise
        print(f"error: job {row['job']} ({overrides}): {row['reason']}", file=sys.stderr)
    if sweep_dir is not None:
        add_row(sweep_dir, row)


def remove_refused(folder: Path) -> None:
    """Takes away what a run left that was refused before its first step: its log, and the folders that are then empty.

    Nothing else: hydra.run.dir may name a folder that holds files of the user's.
    """
    (folder / "train.log").unlink(missing_ok=True)
    for made in (folder, *list(folder.parents)[:2]):  # the run's, outputs/<date> or the sweep's, outputs
        if made == Path() or any(made.iterdir()):
            return
        made.rmdir()


def train(config: Config, folder: Path, group: str | None = None, overrides: str = "") -> dict[str, Any]:
    """Trains what `config` says and leaves the run in `folder`; returns its summary.

    Raises:
        UserError: the machine or the data cannot do what was asked; raised before the first step.
        NonFiniteLossError: the loss became infinite or NaN.
    """
    import numpy as np

    from s9 import runtime
    from s9.data import sources
    from s9.data.augment import build_augment, sample_grid
    from s9.data.loaders import train_loader
    from s9.models.analysis import model_facts
    from s9.models.precision import guard_bfloat16
    from s9.models.s9net import build_model
    from s9.tracking import record
    from s9.tracking.progress import Progress
    from s9.tracking.wandb_log import WandbLog
    from s9.training import loop, optim
    from s9.training.checkpoint import plain_module, save_weights
    from s9.training.evaluation import score_with_flip

    started = time.perf_counter()
    device = runtime.pick_device(config.trainer.device)
    machine = runtime.describe_machine(device)  # now: the commit may be another when the run ends
    precision = runtime.pick_precision(config.trainer.precision, device)
    runtime.seed_everything(config.seed)
    runtime.keep_freed_memory()

    data = sources.load(config.data, config.seed)
    augment = build_augment(config.aug, data.mean, config.seed, data.image_size)
    loader = train_loader(config, data.train, augment, device)

    model = build_model(config.model, data)
    guard_bfloat16(model, data.image_size, device, precision)
    model.to(device)
    optimizer = optim.build_optimizer(config.optimizer, model)
    scheduler = optim.build_scheduler(config.scheduler, optimizer, len(loader) * config.trainer.epochs)
    averaged = loop.averaged(model, config.trainer.ema_decay)
    tested = plain_module(averaged or model)  # what val and test see, and what is saved

    record.write_config(folder, config)
    shown = data.examples(SAMPLES_SHOWN)
    grid = sample_grid(np.asarray(shown.images), augment)
    record.write_samples(folder, np.asarray(shown.images), grid, data.names_of(shown.labels))
    facts = model_facts(config.model, len(data.class_names), data.image_size)
    sizes = f"{len(data.train):,} train, {len(data.val):,} val, {len(data.test):,} test images"
    log.info(f"{config.run_name} on {data.variant}: {sizes}")
    log.info(f"{facts.parameters:,} parameters, receptive field {facts.receptive_field}")
    beside = ThreadPoolExecutor(max_workers=1)  # W&B and the figures: training does not wait for them
    mirror = WandbLog(config.wandb, folder, config.run_name, group or config.model.name, record.as_dict(config), beside)
    log.info(f"{device}, {str(precision).removeprefix('torch.')}, W&B {mirror.mode}, {folder}")
    exit_code = 1
    try:
        beside.submit(draw_figures, folder)
        mirror.log_model(facts, folder / record.FIGURES / "augmentation.png")
        best: dict[str, float] = {}
        progress = Progress(config.trainer.epochs)
        for epoch in loop.fit(model, averaged, optimizer, scheduler, loader, data, config, device, precision, progress):
            record.add_metrics(folder, epoch)
            mirror.log_epoch(epoch)
            progress.epoch_end(epoch, len(data.val))
            if "val/accuracy" in epoch and epoch["val/accuracy"] > best.get("val/accuracy", -1.0):
                best = epoch
                save_weights(tested, folder / record.BEST)
        save_weights(tested, folder / record.FINAL)

        summary = describe_run(config, data.variant, facts, overrides, best)
        summary["machine"] = machine
        if len(data.val):
            summary["val"], _ = score_with_flip(tested, data.val, data, device, precision)
        summary["test"], probs = score_with_flip(tested, data.test, data, device, precision)
        record.write_predictions(folder, probs.numpy(), data.test.labels, data.test.images, data.class_names)
        summary["minutes"] = round((time.perf_counter() - started) / 60, 2)
        record.write_summary(folder, summary)
        drawn = beside.submit(draw_figures, folder).result()
        mirror.log_end(summary, record.read_arrays(folder / record.PREDICTIONS), drawn)
        exit_code = 0
    finally:
        mirror.finish(exit_code)
        beside.shutdown()
    say_where(summary, folder)
    return summary


def draw_figures(folder: Path) -> list[Path]:
    """Draws what the run's files have so far."""
    from s9.tracking.figures import draw_all  # in the thread beside: matplotlib takes half a second to import

    return draw_all(folder)


def describe_run(
    config: Config, variant: str, facts: "ModelFacts", overrides: str, best: dict[str, float]
) -> dict[str, Any]:
    """The part of summary.json that says what was trained."""
    return {
        "name": config.run_name,
        "command": f"python -m s9.train {overrides}".strip(),
        "data": variant,
        "seed": config.seed,
        "epochs": config.trainer.epochs,
        "parameters": facts.parameters,
        "receptive_field": facts.receptive_field,
        "multiplies": facts.multiplies,
        "best": {k: best[k] for k in ("epoch", "val/accuracy") if k in best},
    }


def say_where(summary: dict[str, Any], folder: Path) -> None:
    """The last lines on the screen: the numbers, and where everything lies."""
    for split in ("val", "test"):
        if split in summary:
            of = summary[split]
            accuracy = f"{of['correct']}/{of['total']} correct ({100 * of['accuracy']:.2f} %)"
            flip = f"with flip averaging {100 * of['accuracy_flip']:.2f} %"
            log.info(f"{split}: average loss {of['loss']:.4f}, {accuracy}, {flip}")
    log.info(f"{summary['minutes']} min, everything is in {folder}")
    log.info(f"score it again: python -m s9.evaluate run={folder}")


if __name__ == "__main__":
    command_line.open_door(main)
