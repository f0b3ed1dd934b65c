"""Checkpoints of a run: all that the next step depends on; a crash at any instant leaves a whole checkpoint.

Each file step-00001234.pt holds tensors, numbers and strings only and is read with weights_only=True. Its
sha256 is in step-00001234.sha256, in the form that `sha256sum -c` reads. The last two checkpoints are kept.
"""

import hashlib
import io
import logging
import random
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s9.config.identity import Identity, differences
from s9.system.errors import UserError
from s9.system.files import write_whole
from s9.training.learner import Learner

log = logging.getLogger("s9")

KEPT = 2
FORMAT = 3  # raised when the stored content changes, or what a configuration trains; 3: the identity of November 2026
PARTS = ("format", "identity", "world", "threads", "position", "extra", "random", "learner")


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far training is, with the sums of the current epoch.

    epoch: the current one, from 1. batch: batches done in this epoch. step: optimizer steps so far.
    images: seen in this epoch. loss_sum: the sum of their losses (nats). correct: how many were predicted right.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    images: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0


class Checkpoints:
    """Saves and restores a learner, the random streams and the position, in the files of one folder.

    Args:
        identity: of the run; a checkpoint with another identity is refused.
        world: how many processes train together.
        save_every: seconds after which the next checkpoint is due.
    """

    def __init__(self, folder: Path, learner: Learner, identity: Identity, *, world: int, save_every: float):
        self.folder, self.learner, self.identity, self.world = folder, learner, identity, world
        self.save_every = save_every
        self.last: Path | None = None
        self.tried = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.tried >= self.save_every

    def save(self, position: Position, extra: dict[str, Any]) -> bool:
        """Writes a checkpoint; if that fails, logs a warning, keeps the earlier checkpoints and returns False.

        Args:
            extra: plain values, which `restore` returns.
        """
        content = {
            "format": FORMAT,
            "identity": self.identity,
            "world": self.world,
            "threads": torch.get_num_threads(),
            "position": asdict(position),
            "extra": extra,
            "random": random_state(),
            "learner": self.learner.state_dict(),
        }
        self.tried = time.monotonic()
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path = self.folder / f"step-{position.step:08d}.pt"
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
        try:
            self.folder.mkdir(exist_ok=True)
            # The sha256 first: a checkpoint without its sha256 is useless, a sha256 without its checkpoint harmless.
            write_whole(path.with_suffix(".sha256"), f"{digest}  {path.name}\n".encode())
            write_whole(path, buffer.getbuffer())
        except OSError as error:
            kept = f"{self.last} is the last" if self.last else "no checkpoint has been written yet"
            log.warning("checkpoint %s cannot be written (%s); %s; training continues", path, error.strerror, kept)
            with suppress(OSError):  # a disk that takes no file may not let go of one either
                path.with_suffix(".sha256").unlink(missing_ok=True)
            return False
        self.last = path
        keep = [p for p in found(self.folder) if p <= path][:KEPT]  # newer ones were found damaged
        for other in self.folder.glob("*step-*"):  # killed processes leave .part files and lone .sha256 files too
            if other.with_suffix(".pt") not in keep:
                with suppress(OSError):  # the new checkpoint is whole; the next one tries again
                    other.unlink(missing_ok=True)
        return True

    def restore(self, only: str | None = None) -> tuple[Position, dict[str, Any]] | None:
        """Loads the newest whole checkpoint into the learner; returns (position, extra), or None if there is none.

        Args:
            only: the path of the checkpoint to load; by default the newest.

        Raises:
            UserError: the checkpoint is of another configuration, network or version.
        """
        for path in [Path(only)] if only else found(self.folder):
            try:
                content = read(path)
            except ValueError as error:
                log.warning(
                    "checkpoint %s is damaged (%s); the previous checkpoint is used, if there is one", path, error
                )
                continue
            self._take_up(path, content)
            self.last = path
            return Position(**content["position"]), content["extra"]
        return None

    def _take_up(self, path: Path, content: dict[str, Any]) -> None:
        if content["format"] != FORMAT:
            raise UserError(
                f"{path}: written by another version of s9 (format {content['format']}, not {FORMAT}); resume it with "
                "that version (its status names the commit), or start a new run"
            )
        if others := differences(content["identity"], self.identity):
            raise UserError(f"{path}: of another run; {others[0]}")
        try:
            self.learner.load_state_dict(content["learner"])
        except (KeyError, RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path}: of another version of s9; its content does not fit this version ({why})"
            ) from None
        if content["world"] != self.world:
            was, now = content["world"], self.world
            log.warning(
                "%s was saved by %d processes and is resumed by %d: the result is not that of an uninterrupted run",
                path,
                was,
                now,
            )
        if content["threads"] != torch.get_num_threads():
            log.info("%s: uses %d threads, as when the run began", path, content["threads"])
            torch.set_num_threads(content["threads"])  # another number of threads rounds sums in another order
        set_random_state(content["random"])


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint whose sha256 is right.

    Raises:
        ValueError: says what is wrong with the file.
    """
    try:
        data, said = path.read_bytes(), path.with_suffix(".sha256").read_text().split()
    except OSError as error:
        raise ValueError(f"{Path(error.filename).name}: {error.strerror}") from None
    if not said or hashlib.sha256(data).hexdigest() != said[0]:
        raise ValueError("its sha256 does not match")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load may raise anything on a file that is not ours
        raise ValueError(f"not a checkpoint: {(str(error) or type(error).__name__).splitlines()[0]}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError("not a checkpoint of s9")
    if content["format"] == FORMAT and not set(PARTS) <= content.keys():
        raise ValueError("not a whole checkpoint of s9")
    return content


def random_state() -> dict[str, Any]:
    """The states of all global random streams; training draws from torch's alone, libraries may draw from others."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])  # now there may be fewer GPUs
