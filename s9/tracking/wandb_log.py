"""W&B as a mirror of the run's files, kept in a thread beside the training: each call is guarded and bounded in time.

Whatever W&B does, the run goes on, and its first step does not wait for W&B to start.
"""

import logging
import netrc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from s9.config import WandbConfig
from s9.models.analysis import TABLE_COLUMNS, ModelFacts, table_cells

log = logging.getLogger("s9")


class WandbLog:
    """One W&B run. `mode` is what is asked for, and once `beside` has come to it what was reached.

    Args:
        beside: one thread, which W&B's calls run in, in their order.
    """

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        name: str,
        group: str,
        run_id: str,
        settings: dict[str, Any],
        beside: ThreadPoolExecutor,
    ):
        self.run: Any = None
        self.mode = pick_mode(config.mode)
        self.beside = beside
        if self.mode != "disabled":
            beside.submit(self._start, config, folder, name, config.group or group, run_id, settings)

    def _start(
        self, config: WandbConfig, folder: Path, name: str, group: str, run_id: str, settings: dict[str, Any]
    ) -> None:
        for mode in dict.fromkeys((self.mode, "offline")):
            try:
                # W&B keeps the id of a run that failed to start, and would refuse it.
                own_id = run_id if mode == self.mode else f"{run_id}-offline"
                self.run = _start_run(config, folder, name, group, own_id, settings, mode)
                self.mode = mode
                break
            except Exception as error:  # W&B's failures are of many kinds, and none may end a run
                log.warning("W&B %s did not start (%s)", mode, _first_line(error))
        if self.run is None:
            self.mode = "disabled"
            log.warning("W&B is off for this run; the run's folder has everything")
        with self._guarded("metrics"):
            for metric, best in (("val/accuracy", "max"), ("val/loss", "min"), ("train/*", "last"), ("lr", "last")):
                self.run.define_metric(metric, step_metric="epoch", summary=best)

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.run is not None:  # without a run every call fails, and that was said once
                log.warning("W&B did not take %s (%s)", what, _first_line(error))

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        """In the thread beside, once W&B has started and if it has."""
        self.beside.submit(lambda: call(*arguments) if self.run is not None else None)

    def log_epoch(self, record: dict[str, float]) -> None:
        self._later(self._log_epoch, dict(record))

    def _log_epoch(self, record: dict[str, float]) -> None:
        with self._guarded("an epoch"):
            self.run.log(record, step=int(record["epoch"]))  # so that an epoch repeated by a resumed run stays one

    def log_model(self, facts: ModelFacts, augmentation: Path) -> None:
        """The layer table with its totals, and the grid of augmented images, once that is drawn in the same thread."""
        self._later(self._log_model, facts, augmentation)

    def _log_model(self, facts: ModelFacts, augmentation: Path) -> None:
        with self._guarded("the model"):
            import wandb

            table = wandb.Table(columns=TABLE_COLUMNS, data=table_cells(facts.table))
            self.run.log({"model/layers": table, "figures/augmentation": wandb.Image(str(augmentation))})
            for key in ("parameters", "multiplies", "receptive_field"):
                self.run.summary[f"model/{key}"] = getattr(facts, key)

    def log_end(self, summary: dict[str, Any], predictions: dict[str, np.ndarray], figures: list[Path]) -> None:
        """The final numbers as the run's summary, the figures, the confusion matrix, the most confident mistakes."""
        self._later(self._log_end, summary, predictions, figures)

    def _log_end(self, summary: dict[str, Any], predictions: dict[str, np.ndarray], figures: list[Path]) -> None:
        with self._guarded("the test"):
            import wandb

            names = [str(n) for n in predictions["class_names"]]
            preds, labels = predictions["probs"].argmax(1), predictions["labels"]
            mistakes = [
                wandb.Image(image, caption=f"{names[labels[i]]}, called {names[preds[i]]}")
                for i, image in zip(predictions["worst"], predictions["worst_images"], strict=True)
            ]
            matrix = wandb.plot.confusion_matrix(y_true=labels.tolist(), preds=preds.tolist(), class_names=names)
            pictures = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}
            self.run.log({"test/confusion_matrix": matrix, "test/misclassified": mistakes, **pictures})
            # val/accuracy itself keeps its best over the epochs, so the final weights' scores have names of their own.
            for split in ("val", "test"):
                for key, value in summary.get(split, {}).items():
                    self.run.summary[f"{split}/final_{key}" if split == "val" else f"{split}/{key}"] = value

    def finish(self, exit_code: int, wait_s: float | None = None) -> None:
        """Waits until W&B has taken everything or has given up, or for `wait_s` seconds."""
        try:
            self.beside.submit(self._finish, exit_code).result(wait_s)
        except TimeoutError:
            log.warning("W&B has not taken everything within %.0f s; its folder has the rest", wait_s)

    def _finish(self, exit_code: int) -> None:
        with self._guarded("the end of the run"):
            self.run.finish(exit_code=exit_code)
        self.run = None


def pick_mode(wanted: str) -> str:
    """`auto`: what WANDB_MODE says, else online with a key and offline without."""
    if wanted != "auto":
        return wanted
    said = os.environ.get("WANDB_MODE", "")
    if said in ("online", "offline", "disabled"):
        return said
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Whether W&B would find a key without asking: in WANDB_API_KEY or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _start_run(
    config: WandbConfig, folder: Path, name: str, group: str, run_id: str, settings: dict[str, Any], mode: str
) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else python's exit waits for W&B's reports about itself
    import wandb

    if mode == "online" and not has_key():
        raise RuntimeError("no key: run wandb login, or set WANDB_API_KEY")
    return wandb.init(
        mode="online" if mode == "online" else "offline",
        project=config.project,
        entity=config.entity,
        id=run_id,
        resume="allow",
        name=name,
        group=group,
        tags=config.tags,
        job_type=config.job_type,
        dir=str(folder),
        config=settings,
        reinit="finish_previous",  # one process runs all the jobs of a sweep
        settings=wandb.Settings(init_timeout=config.timeout, finish_timeout=config.timeout, silent=True, console="off"),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
