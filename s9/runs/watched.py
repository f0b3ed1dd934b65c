"""How rank 0 follows each step: on the screen, and for checkpoints within an epoch."""

from s9.runs.drawing import Drawing
from s9.system.interrupt import Interrupts
from s9.tracking.progress import Progress
from s9.training.checkpoint import Checkpoints
from s9.training.loop import StepDone, Watch


class Watched(Watch):
    """Rank 0's watch: shows steps on the screen, and allows drawing from the first one on.

    A checkpoint is due every `save_every` seconds and after a signal.
    """

    def __init__(self, progress: Progress, checkpoints: Checkpoints, interrupts: Interrupts, drawing: Drawing):
        self.progress, self.checkpoints, self.interrupts, self.drawing = progress, checkpoints, interrupts, drawing

    def step(self, done: StepDone) -> None:
        self.drawing.allow()
        self.progress.step(done)

    def due(self) -> bool:
        return self.interrupts.received is not None or self.checkpoints.due()
