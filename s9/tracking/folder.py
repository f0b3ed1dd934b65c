"""A run's folder: every file's name, how each is written, how each is read again, and the lock that keeps others out.

The files are the truth; W&B mirrors them. Times are in separate files: all other files are the same, byte for byte,
when a run is repeated or resumed on the same machine.
"""

import csv
import io
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from s9.config.identity import Identity
from s9.config.schema import Config
from s9.config.stored import as_yaml, read_stored
from s9.data.image_set import ImageFacts, Problem, Rows
from s9.system.errors import UserError
from s9.system.files import write_whole
from s9.tracking.lock import RunLock

SHOWN_MISTAKES = 40  # images kept for the misclassified grid
STATUS_KINDS = {
    "state": str,
    "command": str,
    "wandb_id": str,
    "started": str,
    "starts": int,
    "group": str | None,
    "swept": dict | None,
}
UNFINISHED = ("running", "failed", "interrupted", "paused")  # a `running` run whose lock no process holds was killed


class TakenError(UserError):
    """Another process trains the run, so the files in the run's folder belong to that process."""


class RunFolder:
    """A run on disk: its own folder, or a folder of shipped weights, which has only some of the files."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"  # the whole configuration
        self.identity = path / "identity.json"  # all that can change the result, as of the run's start
        self.images = path / "images.json"  # ImageFacts
        self.problems = path / "image_problems.csv"  # files that are broken or copies, if there are any
        self.status = path / "status.json"  # running, done, failed, interrupted or paused
        self.lock, self.lease = path / ".lock", path / ".lease"
        self.metrics, self.times = path / "metrics.jsonl", path / "times.jsonl"  # one line per epoch
        self.summary = path / "summary.json"  # the results of a finished run
        self.samples, self.predictions = path / "samples.npz", path / "predictions.npz"
        self.insight = path / "insight.npz"  # what the network looks at
        self.final, self.best = path / "weights" / "final.safetensors", path / "weights" / "best.safetensors"
        self.checkpoints, self.figures = path / "checkpoints", path / "figures"
        self.kept_logits = path / "teacher"  # what the teacher said, for epochs that repeat; gone when the run is done
        self.log, self.traceback = path / "train.log", path / "error.txt"

    def __str__(self) -> str:
        return str(self.path)

    def left_by_refused(self) -> tuple[Path, ...]:
        """The files of a run that was refused before its first step."""
        return (self.log, self.config, self.identity, self.images, self.status, self.lock, self.lease)

    def write_config(self, config: Config) -> None:
        write_whole(self.config, as_yaml(config).encode())

    def read_config(self) -> Config:
        """Raises UserError if the file is missing or not valid, which includes a `_target_` outside the allow-list."""
        if not self.config.is_file():
            wanted = "give the folder of a run, as outputs/<date>/<time>-<suffix> or outputs/sweeps/<name>/<job>"
            raise UserError(f"run={self}: there is no {self.config.name} in it; {wanted}")
        return read_stored(self.config)

    def write_identity(self, identity: Identity) -> None:
        write_whole(self.identity, (json.dumps(identity, indent=1) + "\n").encode())

    def read_identity(self) -> Identity | None:
        """None if no identity can be read: the run is from before December 2026, or was killed at its start."""
        try:
            found = json.loads(self.identity.read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write_images(self, facts: ImageFacts, problems: Sequence[Problem] = ()) -> None:
        """Stores what the run's network must know about its images, and a line for each file with a problem."""
        write_whole(self.images, (json.dumps(asdict(facts), indent=1) + "\n").encode())
        if problems:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([Problem._fields, *problems])
            write_whole(self.problems, text.getvalue().encode(errors="surrogateescape"))

    def read_images(self) -> ImageFacts | None:
        """None for a run from before November 2026, which has no such file.

        Raises:
            UserError: the file is damaged.
        """
        if not self.images.is_file():
            return None
        try:
            stored = json.loads(self.images.read_bytes())
            contents = {
                split: {name: (int(count), str(digest)) for name, (count, digest) in classes.items()}
                for split, classes in stored["contents"].items()
            }
            tuples = {key: tuple(stored[key]) for key in ("class_names", "mean", "std")}
            size, bits = int(stored["image_size"]), stored.get("bits")
            return ImageFacts(stored["variant"], image_size=size, contents=contents, bits=bits, **tuples)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.images}: is damaged ({type(error).__name__}: {error})") from None

    def add_epoch(self, path: Path, record: dict[str, float]) -> None:
        """Appends one epoch's line to `metrics` or `times`; on disk when this returns."""
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_epochs(self, records: list[dict[str, float]], times: list[dict[str, float]]) -> None:
        """Replaces the lines of `metrics` and `times`: a killed run may have epochs there that its checkpoint lacks."""
        for path, lines in ((self.metrics, records), (self.times, times)):
            write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def read_metrics(self) -> list[dict[str, float]]:
        """The epochs' records. A last line that a crash cut off is left out; resuming writes it again.

        Raises:
            UserError: another line is damaged.
        """
        text = self.metrics.read_text(errors="replace") if self.metrics.exists() else ""
        try:
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        except ValueError as error:
            raise UserError(f"{self.metrics}: is damaged ({error})") from None

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_whole(self.summary, (json.dumps(summary, indent=2) + "\n").encode())

    def read_summary(self) -> dict[str, Any]:
        """Raises UserError where the run has not finished, or the file is damaged."""
        if not self.summary.is_file():
            raise UserError(f"run={self}: there is no {self.summary.name} in it; the run has not finished")
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_bytes())
        except ValueError as error:
            raise UserError(f"{self.summary}: is damaged ({error})") from None
        return summary

    def write_samples(self, original: np.ndarray, augmented: np.ndarray, names: list[str]) -> None:
        """original: uint8 (N, L, L, 3); augmented: uint8 (N, K, H, H, 3), each image in K epochs; names: (N,)."""
        self.write_arrays(self.samples, original=original, augmented=augmented, names=np.array(names))

    def write_predictions(
        self,
        probs: np.ndarray,
        labels: np.ndarray,
        images: np.ndarray | Rows,
        class_names: tuple[str, ...],
        *,
        names: tuple[str, ...] = (),
    ) -> None:
        """Stores the final weights' predictions on test, with the images of the most confident mistakes.

        Args:
            probs: float32 (N, num_classes). labels: (N,). images: uint8 (N, H, W, 3). names: (N,), or empty.
        """
        preds = probs.argmax(1)
        wrong = np.flatnonzero(preds != labels)
        worst = wrong[np.argsort(-probs[wrong, preds[wrong]], kind="stable")][:SHOWN_MISTAKES]
        texts = {"class_names": np.array(class_names), "names": np.array(names, np.str_)}
        shown = {"worst": worst, "worst_images": images[worst]}
        self.write_arrays(self.predictions, probs=probs, labels=labels, **texts, **shown)

    def read_predictions(self) -> dict[str, np.ndarray]:
        """The arrays of `predictions`; `names` is (N,), with `test image 17` where the data set has no names.

        Raises:
            UserError: as `read_arrays`.
        """
        stored = self.read_arrays(self.predictions)
        count = len(stored["labels"])
        if "names" not in stored or stored["names"].shape != (count,):  # none, or a run from before December 2026
            stored["names"] = np.array([f"test image {index}" for index in range(count)], np.str_)
        return stored

    def write_arrays(self, path: Path, **arrays: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # takes the arrays for allow_pickle
        write_whole(path, buffer.getbuffer())

    def read_arrays(self, path: Path) -> dict[str, np.ndarray]:
        """The arrays of a file that `write_arrays` wrote. Raises UserError: it is missing, damaged or has pickles."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, AttributeError, BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None

    def read_status(self) -> dict[str, Any]:
        """The content of status.json; empty if the file cannot be read."""
        try:
            content = json.loads(self.status.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        return {key: value for key, value in content.items() if isinstance(value, STATUS_KINDS.get(key, object))}

    def is_done(self) -> bool:
        """Whether the run has ended well; without a readable status, whether it has a summary, written at its end.

        Shipped weights, and a run's folder that was copied in part, have no status.
        """
        return self.read_status().get("state", "done" if self.summary.exists() else None) == "done"

    def claim(self, *, patient: bool = False) -> RunLock:
        """Locks the run until the process ends, however it ends. patient: as in `RunLock.acquire`.

        Raises:
            TakenError: another process trains the run.
            UserError: the run's folder cannot be written.
        """
        lock = RunLock(self.lock, self.lease, stop=True)
        try:
            taken = lock.acquire(patient=patient)
        except OSError as error:
            raise UserError(f"{self}: cannot be written ({error.strerror or error})") from None
        if not taken:
            status = self.read_status()
            where = f"pid {status.get('pid', 'unknown')} on {status.get('host', 'an unknown machine')}"
            raise TakenError(f"{self}: is being trained by another process ({where})")
        return lock

    def is_free(self, *, patient: bool = False) -> bool:
        """Whether no process trains the run. Raises UserError if the run's folder cannot be written."""
        try:
            self.claim(patient=patient).release()
        except TakenError:
            return False
        return True
