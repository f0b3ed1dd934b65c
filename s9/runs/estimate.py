"""How long a run will take: as long as like runs took on this machine, else by a few timed steps."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from s9.config.identity import Identity
from s9.config.schema import Config
from s9.runs.prepare import identity_of, prepare
from s9.system.compute import pick_device
from s9.system.errors import UserError
from s9.system.runtime import processor_name
from s9.tracking.folder import RunFolder
from s9.training.loop import StepDone, Watch
from s9.training.ranks import Ranks

WARM_UP, TIMED = 3, 8  # steps
FORWARD = 1 / 3  # what scoring an image takes of a training step's time for it
LIKE = ("data", "trainer", "device", "precision", "aug")  # parts of the identity that a run's time depends on
MOST = 200  # runs that are looked at, the newest first


class _Timer(Watch):
    def __init__(self) -> None:
        self.times = [time.monotonic()]

    def step(self, done: StepDone) -> None:
        self.times.append(time.monotonic())

    def due(self) -> bool:
        return len(self.times) > WARM_UP + TIMED


def estimate(config: Config, outputs: Path) -> tuple[float, str]:
    """(seconds that a run of `config` takes here, how they are known).

    Args:
        outputs: the folder below which finished runs are looked for.

    Raises:
        UserError: the machine or the data cannot do what was asked.
    """
    like = like_seconds(config, outputs)
    if like:
        return statistics.fmean(like), f"from {len(like)} like run{'s' if len(like) > 1 else ''}"
    return timed_seconds(config), f"from {TIMED} timed steps, without compiling"


def like_seconds(config: Config, outputs: Path) -> list[float]:
    """The seconds of finished runs with the same images, network and trainer, on a processor of the same name."""
    wanted = _shape(identity_of(config))
    places = [path.parent for depth in ("*/*", "*/*/*") for path in outputs.glob(f"{depth}/identity.json")]
    found = []
    for folder in map(RunFolder, sorted(places, key=lambda place: place.stat().st_mtime, reverse=True)[:MOST]):
        stored = folder.read_identity()
        if stored is not None and folder.is_done() and _shape(stored) == wanted:
            minutes = folder.read_status().get("minutes")
            if minutes is not None and _processor(folder) == processor_name():
                found.append(60 * float(minutes))
    return found


def timed_seconds(config: Config) -> float:
    """By the median of a few steps of the run itself; compiling is not counted."""
    with tempfile.TemporaryDirectory() as place:
        alone = Ranks(0, 1, pick_device(config.trainer.device))
        p = prepare(config, RunFolder(Path(place)), alone)
        timer = _Timer()
        for _ in p.fit(alone, None, timer):
            break
    steps = [after - before for before, after in zip(timer.times, timer.times[1:], strict=False)]
    step = statistics.median(steps[min(WARM_UP, len(steps) - 1) :])
    scored = step * FORWARD * len(p.data.val) / p.batches.batches.batch_size
    return config.trainer.epochs * (step * len(p.batches) + scored)


def _shape(identity: Identity) -> str:
    layers: Any = identity.get("model", {}).get("blocks")
    return json.dumps([layers, *(identity.get(key) for key in LIKE)], sort_keys=True)


def _processor(folder: RunFolder) -> str:
    try:
        return str(folder.read_summary().get("machine", {}).get("processor"))
    except UserError:
        return ""
