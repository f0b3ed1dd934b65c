"""What a run has measured so far; part of every checkpoint."""

import time
from dataclasses import dataclass, field
from typing import Any

EpochRecord = dict[str, float]


@dataclass
class History:
    """records: lines of metrics.jsonl; times: lines of times.jsonl; best: the record with the best val accuracy."""

    records: list[EpochRecord] = field(default_factory=list)
    times: list[EpochRecord] = field(default_factory=list)
    best: EpochRecord = field(default_factory=dict)
    spent_s: float = 0.0  # in earlier processes

    def __post_init__(self) -> None:
        self.started = time.perf_counter()

    def add(self, record: EpochRecord, times: EpochRecord) -> bool:
        """Adds an epoch; returns True if its val accuracy is the best so far."""
        self.records.append(record)
        self.times.append({"epoch": record["epoch"]} | times)
        best = "val/accuracy" in record and record["val/accuracy"] > self.best.get("val/accuracy", -1.0)
        if best:
            self.best = record
        return best

    @property
    def seconds(self) -> float:
        """Seconds of work on this run, in this process and in those before a resume."""
        return self.spent_s + time.perf_counter() - self.started

    def as_dict(self) -> dict[str, Any]:
        """Plain values, from which History(**values) makes the same history."""
        return {"records": self.records, "times": self.times, "best": self.best, "spent_s": self.seconds}
