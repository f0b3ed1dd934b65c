"""What a person sees while a run trains: a bar in a terminal, one plain line an epoch elsewhere."""

import logging
import sys
import time
from typing import Any

import torch
from tqdm import tqdm

log = logging.getLogger("s9")

REFRESH_S = 0.5  # seconds between looks at the running sums: each look waits for the device


class Progress:
    """Shows the steps of `fit` as they come, with the time that is left."""

    def __init__(self, epochs: int):
        self.epochs = epochs
        self.bar: tqdm[Any] | None = None
        self.shows_bars = sys.stderr.isatty()
        self.spent_s, self.seen = 0.0, 0
        self.refreshed = time.monotonic()

    def step(
        self, epoch: int, batch: int, batches: int, images: int, loss_sum: torch.Tensor, correct: torch.Tensor
    ) -> None:
        if not self.shows_bars:
            return
        if self.bar is None:
            self.bar = tqdm(total=batches, desc=f"epoch {epoch}/{self.epochs}", unit="batch", leave=False)
        self.bar.update()
        if time.monotonic() - self.refreshed > REFRESH_S:
            self.refreshed = time.monotonic()
            self.bar.set_postfix_str(
                f"loss {loss_sum.item() / images:.4f}, accuracy {100 * correct.item() / images:.2f} %"
            )

    def epoch_end(self, record: dict[str, float], val_size: int) -> None:
        """The epoch's line: train, val, learning rate, time, and what is left."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        epoch = int(record["epoch"])
        self.spent_s, self.seen = self.spent_s + record["time/epoch_s"], self.seen + 1
        line = f"epoch {epoch}/{self.epochs}: "
        line += f"train loss {record['train/loss']:.4f}, {100 * record['train/accuracy']:.2f} %"
        if "val/accuracy" in record:
            correct = round(record["val/accuracy"] * val_size)
            line += f" | val loss {record['val/loss']:.4f}, {correct}/{val_size} ({100 * record['val/accuracy']:.2f} %)"
        left = duration(self.spent_s / self.seen * (self.epochs - epoch))
        log.info("%s | lr %.4g | %.1f s, %s left", line, record["lr"], record["time/epoch_s"], left)


def duration(seconds: float) -> str:
    """`3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
