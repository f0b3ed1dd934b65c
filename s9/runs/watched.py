"""How rank 0 follows each step: on the screen, and for checkpoints within an epoch."""

from s9.system.interrupt import Interrupts
from s9.tracking.progress import Progress
from s9.training.checkpoint import Checkpoints
from s9.training.loop import StepDone, Watch


class Watched(Watch):
    """Rank 0's watch: shows steps on the screen; a checkpoint is due every `save_every` seconds and after a signal."""

    def __init__(self, progress: Progress, checkpoints: Checkpoints, interrupts: Interrupts):
        self.progress, self.checkpoints, self.interrupts = progress, checkpoints, interrupts

    def step(self, done: StepDone) -> None:
        self.progress.step(done)

    def due(self) -> bool:
        return self.interrupts.received is not None or self.checkpoints.due()
