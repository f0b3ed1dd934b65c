"""What a run has measured so far; part of every checkpoint."""

import time
from dataclasses import dataclass, field
from typing import Any

EpochRecord = dict[str, float]


@dataclass
class History:
    """records: a line of metrics.jsonl each; times: a line of times.jsonl each; best: the record with the best val."""

    records: list[EpochRecord] = field(default_factory=list)
    times: list[EpochRecord] = field(default_factory=list)
    best: EpochRecord = field(default_factory=dict)
    spent_s: float = 0.0  # before this process

    def __post_init__(self) -> None:
        self.started = time.perf_counter()

    def add(self, record: EpochRecord, times: EpochRecord) -> bool:
        """Notes an epoch; True where its val accuracy is the best so far."""
        self.records.append(record)
        self.times.append({"epoch": record["epoch"]} | times)
        best = "val/accuracy" in record and record["val/accuracy"] > self.best.get("val/accuracy", -1.0)
        if best:
            self.best = record
        return best

    @property
    def seconds(self) -> float:
        """Of work on this run, in all processes that had a part in it."""
        return self.spent_s + time.perf_counter() - self.started

    def as_dict(self) -> dict[str, Any]:
        """Plain values that make it again."""
        return {"records": self.records, "times": self.times, "best": self.best, "spent_s": self.seconds}
