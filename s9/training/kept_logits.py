"""The teacher's logits of the first epochs, kept in a file: later epochs repeat these views and need no teacher.

Source: Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition", 2021 (arXiv 2112.01528).
"""

import logging
import math
import zlib
from pathlib import Path

import numpy as np
import torch

log = logging.getLogger("s9")

CHECKSUM = 4  # bytes before each batch


class KeptLogits:
    """Logits by view and batch of one rank. A batch that was not written whole is missing, and is asked for again.

    Args:
        path: of the file, which the first batch makes. batches: of an epoch.
        shape: of a batch's logits: (batch size of this rank, num_classes).
    """

    def __init__(self, path: Path, *, batches: int, shape: tuple[int, int]):
        self.path, self.batches, self.shape = path, batches, shape
        self.full = False  # whether a batch could not be written

    def read(self, view: int, batch: int) -> torch.Tensor | None:
        """The logits (B, num_classes) in float32; view and batch count from 1. None: not kept."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._place(view, batch))
                row = file.read(self._bytes)
        except OSError:
            return None
        checksum, values = row[:CHECKSUM], row[CHECKSUM:]
        if len(row) < self._bytes or checksum != _checksum(values):
            return None
        return torch.from_numpy(np.frombuffer(values, "<f4").reshape(self.shape).copy())

    def write(self, view: int, batch: int, logits: torch.Tensor) -> None:
        """Keeps a batch. Where that fails, a warning says so once, and training goes on with the teacher itself."""
        if self.full:
            return
        values = logits.float().cpu().numpy().astype("<f4").tobytes()
        try:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                file.seek(self._place(view, batch))
                file.write(_checksum(values) + values)
        except OSError as error:
            self.full = True
            log.warning(f"the teacher's logits cannot be kept ({error.strerror}): it is asked again in later epochs")

    @property
    def _bytes(self) -> int:
        """Of one batch: its checksum, which tells a whole batch from a torn one, and its logits."""
        return CHECKSUM + 4 * math.prod(self.shape)

    def _place(self, view: int, batch: int) -> int:
        return ((view - 1) * self.batches + batch - 1) * self._bytes


def _checksum(values: bytes) -> bytes:
    """That of bytes of zeros, as in a file's holes, is not zero."""
    return zlib.crc32(values).to_bytes(CHECKSUM, "little")
