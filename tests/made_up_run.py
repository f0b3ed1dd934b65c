"""A made-up run's folder, written by the run's own writers, for tests of pages."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s9.config.identity import identity
from s9.data.image_set import ImageFacts
from s9.tracking.folder import RunFolder
from tests.conftest import composed

COMMAND = "python -m s9.train data=digits model=strided trainer.epochs=3 wandb=disabled"
STEPS = 10  # an epoch
HEAD = "strided-basic-digits on digits (scikit-learn): 1,287 train, 150 val, 360 test images"


@dataclass(frozen=True)
class MadeUp:
    """What the made-up network says: of each class, `images` images, of which `wrong` are called the next class.

    sure: the probability of the predicted class; mistakes are less sure the later they come. side: pixels of an image.
    """

    classes: tuple[str, ...] = ("ant", "bee", "cat")
    images: int = 10
    wrong: int = 2
    sure: float = 0.9
    side: int = 8

    @property
    def labels(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.classes)), self.images)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.classes[label]}/{number:04}.png" for number, label in enumerate(self.labels))

    @property
    def probs(self) -> np.ndarray:
        count, labels = len(self.classes), self.labels
        is_wrong = np.arange(len(labels)) % self.images < self.wrong
        sure = np.where(is_wrong, np.linspace(self.sure, self.sure - 0.1, len(labels)), self.sure)
        probs = np.repeat((1 - sure)[:, None] / (count - 1), count, axis=1)
        probs[np.arange(len(labels)), np.where(is_wrong, (labels + 1) % count, labels)] = sure
        return probs.astype(np.float32)


def write_asked(folder: RunFolder, *overrides: str, classes: tuple[str, ...] = ("ant", "bee", "cat")) -> None:
    """Configuration, identity and images, as at a run's start."""
    config = composed("data=digits", "model=strided", "trainer.epochs=3", "wandb=disabled", *overrides)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_config(config)
    folder.write_identity(identity(config, device="cpu", precision="float32", donors={}))
    folder.write_images(ImageFacts("made up", classes, 32, (0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)))


def write_status(folder: RunFolder, state: str, **more: Any) -> None:
    content = {"command": COMMAND, "group": None, "started": "2026-11-26T01:00:00Z", "starts": 1, "state": state}
    folder.status.write_text(json.dumps(content | {"host": "elsewhere", "commit": "abc123", "dirty": False} | more))


def write_epochs(folder: RunFolder, count: int = 3) -> None:
    epochs = range(1, count + 1)
    train = [{"train/loss": 2 / n, "train/accuracy": 1 - 0.5 / n, "lr": 0.1 / n} for n in epochs]
    val = [{"val/loss": 2.5 / n, "val/accuracy": 1 - 0.6 / n} for n in epochs]
    records = [{"epoch": n, "step": STEPS * n, **train[n - 1], **val[n - 1]} for n in epochs]
    folder.write_epochs(records, [{"epoch": n, "time/epoch_s": 5.5} for n in epochs])


def write_log(folder: RunFolder, *resumed_at: int) -> None:
    """A log of a first start and of one more for each of these steps."""
    lines = [f"2026-11-26 01:00:00,123 INFO {HEAD}", "2026-11-26 01:00:07,000 INFO epoch 1/3: train loss 2.0"]
    for hour, step in enumerate(resumed_at, start=2):
        at = f"2026-11-26 {hour:02}:00"
        where = f"{folder}/checkpoints/step-{step:08}.pt" if step else "the start: there is no whole checkpoint"
        lines += [
            f"{at}:00,000 INFO W&B disabled",
            f"{at}:00,500 INFO {HEAD}",
            f"{at}:01,000 INFO resumes from {where}",
        ]
        lines += [f"{at}:09,000 WARNING Bypassing signal SIGCONT"]
    folder.log.write_text("\n".join(lines) + "\n")


def write_outcome(folder: RunFolder, said: MadeUp, *, named: bool = True) -> None:
    """Predictions and summary, as at a run's end."""
    images = np.full((len(said.labels), said.side, said.side, 3), 128, np.uint8)
    folder.write_predictions(said.probs, said.labels, images, said.classes, names=said.names if named else ())
    right = int((said.probs.argmax(1) == said.labels).sum())
    test = {"loss": 0.5, "accuracy": right / len(images), "correct": right, "total": len(images)}
    machine = {"processor": "a processor", "precision": "float32", "threads": 2, "versions": {"torch": "2.99"}}
    best = {"epoch": 3, "val/accuracy": 0.8}
    scores = {"val": {"loss": 0.6, "accuracy": 0.75, "correct": 75, "total": 100}, "test": test}
    folder.write_summary({"name": "made-up", "epochs": 3, "best": best, "machine": machine, **scores})


def finished(path: Path, said: MadeUp | None = None, *overrides: str) -> RunFolder:
    """A run that is done, with all files of the page."""
    said, folder = said or MadeUp(), RunFolder(path)
    write_asked(folder, *overrides, classes=said.classes)
    write_status(folder, "done", minutes=1.5)
    write_epochs(folder)
    write_log(folder)
    write_outcome(folder, said)
    return folder
