"""How long a run will take, from a few timed steps."""

import statistics
import tempfile
import time
from pathlib import Path

from s9.config.schema import Config
from s9.runs.prepare import prepare
from s9.system.compute import pick_device
from s9.tracking.folder import RunFolder
from s9.training.loop import StepDone, Watch
from s9.training.ranks import Ranks

WARM_UP, TIMED = 3, 8  # steps
FORWARD = 1 / 3  # what scoring an image takes of a training step's time for it


class _Timer(Watch):
    def __init__(self) -> None:
        self.times = [time.monotonic()]

    def step(self, done: StepDone) -> None:
        self.times.append(time.monotonic())

    def due(self) -> bool:
        return len(self.times) > WARM_UP + TIMED


def estimate(config: Config) -> float:
    """Seconds that a run of `config` takes here, by the median of a few of its steps; compiling is not counted.

    Raises:
        UserError: the machine or the data cannot do what was asked.
    """
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
