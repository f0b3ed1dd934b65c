"""The training of one seed in `bench=target`: what each epoch has reached, and the rows that this makes.

The time to compile is no part of the minutes. It is measured by the first steps of each image size: what these take
longer than the steps that follow them.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from s9.benchmarks.timing import Row, row, wait_for
from s9.config.schema import Config
from s9.system.interrupt import Interrupts
from s9.tracking.progress import duration
from s9.training.loop import Reached, StepDone, Watch

COMPILING, USUAL = 4, 8  # steps of each image size: those that compile and record CUDA graphs, and those after them
TERA = 10**12


class Clock(Watch):
    """Times the first steps of each image size, if these compile; lets `fit` yield as soon as a signal has come."""

    def __init__(self, device: torch.device, interrupts: Interrupts, *, compiles: bool):
        self.device, self.interrupts, self.compiles = device, interrupts, compiles
        self.first: dict[int, list[tuple[int, float]]] = {}  # by image size: (epoch, seconds) of each step
        self.began = self.stopped = self.started = 0.0  # of the epoch: began and stopped; of the step: started

    def start(self) -> None:
        """The next epoch and its first step begin now."""
        wait_for(self.device)
        self.began = self.started = time.perf_counter()

    def stop(self) -> None:
        """The epoch has just ended."""
        wait_for(self.device)
        self.stopped = time.perf_counter()

    def step(self, done: StepDone) -> None:
        if not self.compiles:
            return
        steps = self.first.setdefault(done.size, [])
        if len(steps) < COMPILING + USUAL:
            wait_for(self.device)
            steps.append((done.epoch, time.perf_counter() - self.started))
        self.started = time.perf_counter()

    def due(self) -> bool:
        return self.interrupts.received is not None

    def compile_s(self, last: int) -> float:
        """Seconds that the first steps of each size took longer than usual ones, in the epochs up to `last`."""
        found = 0.0
        for steps in self.first.values():
            seconds = [s for _, s in steps]
            usual = statistics.median(seconds[COMPILING:] or [min(seconds)])
            found += sum(max(0, s - usual) for epoch, s in steps[:COMPILING] if epoch <= last)
        return found


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """An epoch that has ended. val: accuracy, a fraction. operations: of the training so far, floating-point ones.

    seconds: of all that the epoch took, also of compiling and of scoring, which took scoring_s.
    """

    val: float
    operations: int
    seconds: float
    scoring_s: float


@dataclass(kw_only=True)
class Training:
    """One seed's. target: of val, a fraction. ended: why before the last epoch, if it did."""

    config: Config
    target: float
    clock: Clock
    epochs: list[Epoch] = field(default_factory=list)
    ended: str = ""

    def __str__(self) -> str:
        return f"{self.config.model.name}, seed {self.config.seed}"

    @property
    def reached(self) -> int | None:
        """The first epoch, from 1, whose val accuracy is at least the target."""
        return next((n for n, epoch in enumerate(self.epochs, start=1) if epoch.val >= self.target), None)

    def add(self, reached: Reached, operations: int) -> None:
        """Notes an epoch that has just ended; `operations`: of the training so far."""
        record, times = reached.record or {}, reached.times
        scoring_s = times["time/epoch_s"] - times["time/train_s"]
        taken = {"seconds": self.clock.stopped - self.clock.began, "scoring_s": scoring_s}
        self.epochs.append(Epoch(val=record["val/accuracy"], operations=operations, **taken))

    def seconds(self, last: int, *, scoring: bool = True) -> float:
        """Of the epochs up to `last`, without compiling."""
        seconds = sum(epoch.seconds - (0 if scoring else epoch.scoring_s) for epoch in self.epochs[:last])
        return seconds - self.clock.compile_s(last)

    def line(self) -> str:
        """What the newest epoch has reached, for the screen."""
        now = len(self.epochs)
        first = f"; {percent(self.target)} val reached" if self.reached == now else ""
        val = f"val {100 * self.epochs[-1].val:.2f} %, {duration(self.seconds(now))}"
        return f"{self}, epoch {now}/{self.config.trainer.epochs}: {val}{first}"

    def rows(self) -> Iterator[Row]:
        """What it took to the target and to the end, or how near val came; none if a signal cut epoch 1 short."""
        last, of = len(self.epochs), self.config.trainer.epochs
        if last == 0:
            if not self.clock.due():
                yield self._row(f"no epoch of {of} ended: {self.ended}", "epochs", 0)
            return
        if self.reached:
            yield from self._took(self.reached, f"to {percent(self.target)} val, epoch {self.reached} of {of}")
        else:
            missed = f"{percent(self.target)} val not reached in {last} of {of} epochs: best"
            yield self._row(missed, "% val", 100 * max(epoch.val for epoch in self.epochs))
        whole = f"all {of} epochs" if last == of else f"{last} of {of} epochs ({self.ended})"
        yield self._row(whole, "% val", 100 * self.epochs[-1].val)
        yield from self._took(last, whole)
        if self.clock.first:
            yield self._row("to compile", "s", self.clock.compile_s(last))

    def _took(self, last: int, what: str) -> Iterator[Row]:
        yield took(f"{self}, {what}", [self.seconds(last)])
        yield took(f"{self}, {what}, without scoring", [self.seconds(last, scoring=False)])
        yield self._row(what, "10^12 operations", self.epochs[last - 1].operations / TERA)

    def _row(self, what: str, unit: str, value: float) -> Row:
        return row("target", f"{self}, {what}", unit, [value])


def together(trainings: Sequence[Training]) -> Iterator[Row]:
    """The median, the lowest and the highest of several seeds."""
    name, of = trainings[0].config.model.name, trainings[0].config.trainer.epochs
    reached = [(training, training.reached) for training in trainings]
    seconds = [training.seconds(last) for training, last in reached if last]
    if seconds:
        yield took(f"{name}, {len(seconds)} of {len(trainings)} seeds, to {percent(trainings[0].target)} val", seconds)
    whole = [100 * training.epochs[-1].val for training in trainings if len(training.epochs) == of]
    if whole:
        yield row("target", f"{name}, {len(whole)} of {len(trainings)} seeds, all {of} epochs", "% val", whole)


def took(what: str, seconds: list[float]) -> Row:
    """A row in minutes, or in seconds where all are less than a minute."""
    if max(seconds) < 60:
        return row("target", what, "s", seconds)
    return row("target", what, "min", [s / 60 for s in seconds])


def percent(share: float) -> str:
    """`85 %`."""
    return f"{100 * share:g} %"
