"""What a person sees while a run trains: a bar in a terminal, one plain line per epoch elsewhere."""

import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tqdm import tqdm

from s9.training.loop import StepDone

log = logging.getLogger("s9")

MANY_STEPS, MANY_S = 20, 10.0  # each look at the pace covers at least so many steps and seconds
FAR_LONGER = 1.7  # times the usual; a warmer processor or another program's short job stays below
REFRESH_S = 0.5  # seconds between looks at the running sums: each look waits for the device


class Progress:
    """Shows the steps of `fit` as they are done, and the time that is left.

    Args:
        balanced: whether the balanced accuracy is shown too, as where classes are uneven.
        work: of all epochs up to this one, in any unit; epochs of small images are less work than others.
    """

    def __init__(self, epochs: int, *, balanced: bool = False, work: Callable[[int], float] = float):
        self.epochs, self.balanced, self.work = epochs, balanced, work
        self.bar: tqdm[Any] | None = None
        self.shows_bars = sys.stderr.isatty()
        self.spent_s, self.done = 0.0, 0.0
        self.refreshed = time.monotonic()
        self.pace, self.stepped = Pace(), 0.0

    def step(self, done: StepDone) -> None:
        now = time.monotonic()
        if self.stepped:
            self.note_pace(now - self.stepped, done.loss_sum.device.type, done.size)
        self.stepped = now
        if not self.shows_bars:
            return
        if self.bar is None:
            self.bar = tqdm(total=done.batches, desc=f"epoch {done.epoch}/{self.epochs}", unit="batch", leave=False)
        self.bar.update()
        if time.monotonic() - self.refreshed > REFRESH_S:
            self.refreshed = time.monotonic()
            loss, accuracy = done.loss_sum.item() / done.images, 100 * done.correct.item() / done.images
            self.bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2f} %")

    def note_pace(self, seconds: float, device: str, size: int = 0) -> None:
        """Warns once if steps take far longer than before."""
        slower = self.pace.slower(seconds, size)
        if slower is None:
            return
        usual, recent = slower
        told = (
            f"steps take {recent / usual:.1f} times as long as before ({1000 * recent:.0f} ms, were {1000 * usual:.0f})"
        )
        told += ": another program may be using this machine"
        threads = torch.get_num_threads() if device == "cpu" else 1
        if threads > 1:
            told += f"; where that lasts, a run with trainer.threads={threads - 1} waits less for it"
            if os.environ.get("GOMP_SPINCOUNT") != "0":  # its threads spin: see process.py
                told += ", and so does this one once it is interrupted and resumed"
        log.warning(told)

    def epoch_end(self, record: dict[str, float], val_size: int) -> None:
        """Logs the epoch's line: train, val, learning rate, time, and time left."""
        self.stepped = 0.0  # scoring and saving are not part of a step
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        epoch = int(record["epoch"])
        self.spent_s += record["time/epoch_s"]
        self.done += self.work(epoch) - self.work(epoch - 1)
        line = f"epoch {epoch}/{self.epochs}: "
        line += f"train loss {record['train/loss']:.4f}, {100 * record['train/accuracy']:.2f} %"
        if "val/accuracy" in record:
            correct = round(record["val/accuracy"] * val_size)
            scores = {key.removeprefix("val/"): value for key, value in record.items() if key.startswith("val/")}
            accuracy = accuracy_in_words(scores, balanced=self.balanced)
            line += f" | val loss {record['val/loss']:.4f}, {correct}/{val_size} ({accuracy})"
        left = duration(self.spent_s / self.done * (self.work(self.epochs) - self.work(epoch)))
        log.info("%s | lr %.4g | %.1f s, %s left", line, record["lr"], record["time/epoch_s"], left)


def accuracy_in_words(scores: Mapping[str, float], *, balanced: bool) -> str:
    """`83.33 %`; where the balanced accuracy is asked for, `83.33 %, balanced 71.20 %`."""
    said = f"{100 * scores['accuracy']:.2f} %"
    return f"{said}, balanced {100 * scores['balanced_accuracy']:.2f} %" if balanced else said


class Pace:
    """Detects, once, that steps take FAR_LONGER times the shortest median so far of images of the same size."""

    def __init__(self) -> None:
        self.size, self.usual = 0, float("inf")
        self.recent: list[float] = []
        self.looks, self.told = 0, False

    def slower(self, seconds: float, size: int = 0) -> tuple[float, float] | None:
        """Adds one step; after two far longer looks in a row, returns the (usual, recent) median seconds per step."""
        if size != self.size:
            self.size, self.usual, self.recent, self.looks = size, float("inf"), [], 0
        self.recent.append(seconds)
        if len(self.recent) < MANY_STEPS or sum(self.recent) < MANY_S:
            return None
        median = statistics.median(self.recent)
        self.recent, self.usual = [], min(self.usual, median)
        self.looks = self.looks + 1 if median > FAR_LONGER * self.usual else 0
        if self.looks < 2 or self.told:
            return None
        self.told = True
        return self.usual, median


def duration(seconds: float) -> str:
    """`3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
