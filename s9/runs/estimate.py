"""How long a run will take: as long as like runs took on this machine, else by a few timed steps."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from s9.config.identity import Identity
from s9.config.schema import Config
from s9.models.analysis import model_facts
from s9.runs.prepare import fingerprint_of, identity_of, prepare
from s9.system.compute import pick_device
from s9.system.errors import UserError
from s9.system.runtime import processor_name
from s9.tracking.folder import RunFolder
from s9.training.loop import StepDone, Watch
from s9.training.operations import PER_MULTIPLY
from s9.training.ranks import Ranks

WARM_UP, TIMED = 3, 8  # steps
# Parts of the identity that a run's time depends on, beside its networks.
LIKE = ("data", "trainer", "device", "precision", "aug", "distillation")
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
    """The seconds of finished runs with the same images, networks and trainer, on a processor of the same name."""
    wanted = _shape(identity_of(config))
    places = [path.parent for depth in ("*/*", "*/*/*") for path in outputs.glob(f"{depth}/identity.json")]
    found: list[tuple[float, Any]] = []  # with the fingerprint of the images
    for folder in map(RunFolder, sorted(places, key=lambda place: place.stat().st_mtime, reverse=True)[:MOST]):
        stored = folder.read_identity()
        if stored is not None and folder.is_done() and _shape(stored) == wanted:
            minutes, summary = folder.read_status().get("minutes"), _summary(folder)
            if minutes is not None and summary.get("machine", {}).get("processor") == processor_name():
                found.append((60 * float(minutes), summary.get("images")))
    images = fingerprint_of(config) if found else None  # only now: all images have to be read
    return [seconds for seconds, theirs in found if images in (None, theirs)]


def timed_seconds(config: Config) -> float:
    """By the median of a few steps of the run itself, and the operations of all others; compiling is not counted.

    Only GPUs are faster together: on a CPU the ranks share the cores.
    """
    with tempfile.TemporaryDirectory() as place:
        alone = Ranks(0, 1, pick_device(config.trainer.device))
        p = prepare(config, RunFolder(Path(place)), alone)
        timer = _Timer()
        for _ in p.fit(alone, None, timer):
            break
    steps = [after - before for before, after in zip(timer.times, timer.times[1:], strict=False)]
    first = min(WARM_UP, len(steps) - 1)
    timed = (p.operations(len(steps)) - p.operations(first)) / (len(steps) - first)  # of one step
    scored = PER_MULTIPLY * model_facts(config.model, p.data.facts).multiplies * len(p.data.val)  # after one epoch
    together = config.trainer.devices if p.compute.device.type == "cuda" else 1
    whole = p.work(config.trainer.epochs) / together + config.trainer.epochs * scored
    return statistics.median(steps[first:]) * whole / timed


def _shape(identity: Identity) -> str:
    layers: Any = identity.get("model", {}).get("blocks")
    teachers: Any = identity.get("weights of", {}).get("teacher")
    return json.dumps([layers, teachers, *(identity.get(key) for key in LIKE)], sort_keys=True)


def _summary(folder: RunFolder) -> dict[str, Any]:
    try:
        return folder.read_summary()
    except UserError:
        return {}
