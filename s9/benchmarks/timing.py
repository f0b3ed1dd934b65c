"""Times of competing pieces of work, taken in turns within one run, since a machine's speed changes by the minute."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One measured number: the median of `repeats`, with the lowest and the highest.

    ratio: the median divided by that of `against`, the row it is compared with; None without such a row.
    """

    part: str
    what: str
    unit: str
    median: float
    low: float
    high: float
    repeats: int
    ratio: float | None = None
    against: str | None = None


def row(part: str, what: str, unit: str, values: list[float], *, than: Row | None = None) -> Row:
    """The row of these repeats, compared with the row `than`."""
    middle = statistics.median(values)
    ratio, against = (middle / than.median, than.what) if than else (None, None)
    ends = {"low": min(values), "high": max(values)}
    return Row(part, what, unit, middle, **ends, repeats=len(values), ratio=ratio, against=against)


def seconds_in_turns(
    work: Mapping[str, Callable[[], None]], repeats: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[float]]:
    """Runs every piece of work once per round; returns the seconds of each, without the first `warm_up` rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warm_up + repeats):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            wait_for(device)
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def wait_for(device: torch.device) -> None:
    """Waits until the device has done all the work it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
