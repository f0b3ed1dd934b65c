"""W&B as a mirror of the run's files, kept in its own thread: each call is guarded and bounded in time.

Whatever W&B does, the run continues, and the run's first step does not wait for W&B to start.

W&B's step is the epoch: step 0 is the network, the step after the last epoch is the test. So, when a run is resumed,
W&B's last step says which epochs W&B lacks, and the folders of a run resumed offline agree on the steps they share.
"""

import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from s9.config.schema import Config
from s9.models.analysis import ModelFacts
from s9.tracking.wandb_leet import show_in_leet

log = logging.getLogger("s9")

# Which value of each metric the summary shows.
BEST = {"val/accuracy": "max", "val/balanced_accuracy": "max", "val/loss": "min"}
INIT_GRACE_S = 12.0  # wandb.init may take its timeout and 10 s more


class WandbLog:
    """One W&B run. `mode` is the configuration's until W&B has started, then the mode that was reached.

    Args:
        folder: the run's folder.
        group: the sweep of which the run is a job. swept: the job's values there, as written; None: no job of a sweep.
        earlier: the records of the epochs before a run was resumed, metrics and times joined.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        group: str | None,
        swept: Mapping[str, str] | None = None,
        run_id: str,
        earlier: list[dict[str, float]],
    ):
        self.run: Any = None
        self.wandb: Any = None  # the module wandb_run, once the thread has imported it
        self.mode = config.wandb.mode
        self.timeout = config.wandb.timeout
        self.step = 0  # the first step that W&B does not have yet
        self.earlier = earlier
        self.best: dict[str, float] = {}  # the best so far of each metric in BEST
        self.calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.give_up_start_at = time.monotonic() + self.timeout + INIT_GRACE_S
        self.started = threading.Event()
        self.given_up = False
        # A daemon, since python waits for all other threads before it ends.
        self.thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        if self.mode == "disabled":
            log.info("W&B disabled")
            return
        self.calls.put(lambda: self._start(config, folder, {"group": group, "swept": swept}, run_id))
        self.thread.start()

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            call()

    def _start(self, config: Config, folder: Path, of_sweep: dict[str, Any], run_id: str) -> None:
        try:
            from s9.tracking import wandb_run  # here, in the thread: W&B takes most of a second to import
        except Exception as error:  # an installation that is broken
            self.mode = "disabled"
            log.warning("W&B is off for this run: it cannot be imported (%s)", error)
            self.started.set()
            return
        self.wandb, wanted = wandb_run, self.mode
        for mode in dict.fromkeys((wanted, "offline")):
            try:
                own = wandb_run.own_settings()
                self.mode = wandb_run.pick_mode(mode, own)
                if self.mode != "disabled":
                    # W&B keeps the id of a run that failed to start, and would refuse it.
                    own_id = run_id if mode == wanted else f"{run_id}-offline"
                    self.run = wandb_run.begin_anew(config, own, folder, run_id=own_id, mode=self.mode, **of_sweep)
                break
            except Exception as error:  # W&B's failures are of many kinds, and none may end a run
                log.warning("W&B %s did not start (%s)", self.mode, wandb_run.in_one_line(error))
        if self.run is not None:
            log.info("W&B %s: %s", self.mode, self.run.url or f"to send it later: {self._sync()}")
            self.step = self.run.starting_step
        elif self.mode == "disabled":
            log.info("W&B disabled, by its own settings")
        else:
            self.mode = "disabled"
            log.warning("W&B is off for this run; the run's folder has everything")
        with self._guarded("the places where wandb leet looks"):
            show_in_leet(self._place(), folder, of_sweep["swept"] is not None)
        with self._guarded("metrics"):
            for metric, shown in {**BEST, "train/*": "last", "lr": "last"}.items():
                self.run.define_metric(metric, step_metric="epoch", summary=shown)
        self.started.set()

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.run is not None and not self.given_up:  # without a run every call fails, and that was said once
                log.warning("W&B did not accept %s (%s)", what, self.wandb.in_one_line(error))

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        """Queues `call` for the thread, which makes the call if W&B has started."""
        self.calls.put(lambda: call(*arguments) if self.run is not None else None)

    def log_epoch(self, record: dict[str, float]) -> None:
        self._later(self._log_epoch, dict(record))

    def _log_epoch(self, record: dict[str, float]) -> None:
        for metric, better in BEST.items():
            if metric in record:
                pick = max if better == "max" else min
                self.best[metric] = pick(record[metric], self.best.get(metric, record[metric]))
        step = int(record["epoch"])
        if step < self.step:  # W&B has this epoch: it was trained before the run was cut, and is repeated
            return
        with self._guarded("an epoch"):
            self.run.log(record, step=step, commit=True)  # else it is only sent with the next epoch
            self.step = step + 1
            if self.earlier:  # W&B's own best covers only the epochs since the run was resumed
                self.run.summary.update({key: {BEST[key]: value} for key, value in self.best.items()})

    def log_model(self, facts: ModelFacts, drawn: "Future[list[Path]]") -> None:
        """Sends the layer table with its totals, the grid of augmented images, and the epochs that W&B lacks.

        Args:
            drawn: the pictures drawn before the first step.
        """
        self._later(self._log_model, facts, drawn)

    def _log_model(self, facts: ModelFacts, drawn: "Future[list[Path]]") -> None:
        with self._guarded("the model"):
            pictures = [path for path in drawn.result() if path.stem == "augmentation"]
            row = {"model/layers": self.wandb.layers(facts), **self.wandb.pictures(pictures)}
            new = self.step == 0
            self.run.log(row, step=self.step, commit=new)  # for a resumed run: together with the next epoch
            self.step += new
            for key in ("parameters", "multiplies", "receptive_field"):
                self.run.summary[f"model/{key}"] = getattr(facts, key)
        for record in self.earlier:
            self._log_epoch(record)

    def log_end(self, summary: dict[str, Any], predictions: dict[str, np.ndarray], figures: list[Path]) -> None:
        """Sends the final scores as the run's summary, the figures, confusion matrix and most confident mistakes."""
        self._later(self._log_end, summary, predictions, figures)

    def _log_end(self, summary: dict[str, Any], predictions: dict[str, np.ndarray], figures: list[Path]) -> None:
        with self._guarded("the test"):
            # val/accuracy itself keeps its best over the epochs, so the final weights' scores have names of their own.
            for split in ("val", "test"):
                for key, value in summary.get(split, {}).items():
                    self.run.summary[f"{split}/final_{key}" if split == "val" else f"{split}/{key}"] = value
            mistakes = {"test/misclassified": self.wandb.mistakes(predictions)}
            self.run.log(mistakes | self.wandb.pictures(figures), step=self.step)
            # A call of its own, since a table needs W&B's server first, which may be unreachable.
            self.run.log(self.wandb.confusion(predictions), step=self.step, commit=True)

    def finish(self, exit_code: int, wait_s: float | None = None) -> None:
        """Waits until W&B has taken everything, at most for `wait_s` seconds, by default for `wandb.timeout`.

        By default, if W&B has not started yet, the rest of the timeout of W&B's start is added.
        """
        if not self.thread.is_alive():
            return
        self._later(self._finish, exit_code)
        self.calls.put(None)
        if wait_s is None:
            self.started.wait(max(0.0, self.give_up_start_at - time.monotonic()))
            wait_s = self.timeout + 2  # W&B's own timeout comes first, since it ends more cleanly
        self.thread.join(wait_s)
        if self.thread.is_alive():
            self._say_unfinished(wait_s)

    def _finish(self, exit_code: int) -> None:
        try:
            self.run.finish(exit_code=exit_code)
            self._supersede()
        except TimeoutError:
            self._say_unfinished(self.timeout)
        except Exception as error:
            if not self.given_up:
                log.warning("W&B did not accept the end of the run (%s)", self.wandb.in_one_line(error))
        self.run = None

    def _supersede(self) -> None:
        """Makes `wandb sync` skip this run's older folders, from before it was resumed: the newest has all epochs.

        A killed run's folder may be empty, and `wandb sync` stops at the first folder that it cannot read.
        """
        here = self._place().resolve()
        for older in here.parent.glob(f"offline-run-*-{self.run.id}/*.wandb"):
            if older.parent.resolve() != here:
                older.with_name(f"{older.name}.synced").touch()

    def _say_unfinished(self, waited_s: float) -> None:
        self.given_up = True  # what fails from here on fails because the process ends
        # `wandb sync` skips the folder of an online run unless told not to, and adds the folder's rows to the server's:
        # only under another id does the run have every epoch once. A resumed run's folder lacks epochs: no other id.
        rest = ""
        if self.run is not None:
            own = "" if self.earlier else f" --id {self.run.id}-whole"
            options = f" --include-online{own}" if self.mode == "online" else ""
            rest = f"; to send it later: {self._sync(options)}"
        log.warning("W&B has not received everything within %.0f s%s", waited_s, rest)

    def _sync(self, options: str = "") -> str:
        """The command that sends the run."""
        return f"wandb sync{options} {shlex.quote(str(self._place()))}"

    def _place(self) -> Path:
        """The folder that `wandb sync` sends."""
        return Path(self.run.dir).parent
