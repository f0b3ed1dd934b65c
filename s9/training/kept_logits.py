"""The teacher's logits of the first epochs, kept in a file: later epochs repeat these views and need no teacher.

Source: Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition", 2021 (arXiv 2112.01528).
"""

import math
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch


class KeptLogits:
    """Logits by view and batch of one rank. A batch that was not written whole is missing, and is asked for again.

    Args:
        path: of the file; made where it is missing or of another shape. views: epochs until images repeat.
        batches: of an epoch. shape: (batch size of this rank, num_classes).
    """

    def __init__(self, path: Path, *, views: int, batches: int, shape: tuple[int, int]):
        self.path, self.shape = path, (views, batches)
        self.row = np.dtype([("crc", "<u4"), ("logits", "<f4", shape)])  # a new file is zeros, whose checksum is not 0

    @cached_property
    def rows(self) -> np.ndarray:
        """The file's rows (views, batches), mapped; the first use makes the file."""
        self.path.parent.mkdir(exist_ok=True)
        whole = self.path.is_file() and self.path.stat().st_size == math.prod(self.shape) * self.row.itemsize
        return np.memmap(self.path, self.row, "r+" if whole else "w+", shape=self.shape)

    def read(self, view: int, batch: int) -> torch.Tensor | None:
        """The logits (B, num_classes) in float32; view and batch count from 1. None: not kept yet."""
        row = self.rows[view - 1, batch - 1]
        logits = np.array(row["logits"])
        return torch.from_numpy(logits) if row["crc"] == zlib.crc32(logits.tobytes()) else None

    def write(self, view: int, batch: int, logits: torch.Tensor) -> None:
        values = logits.float().cpu().numpy()
        self.rows[view - 1, batch - 1] = (zlib.crc32(values.tobytes()), values)
