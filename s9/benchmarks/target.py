"""Minutes and operations of whole trainings until val reaches an accuracy: `python -m s9.bench bench=target`.

Each seed is trained by the run's own code to the last epoch of its schedule, and gets the weights that `s9.train` gets.
The time counts from the first step on, and val is scored after each epoch, as in a run. Test is never scored.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from s9.benchmarks.target_training import Clock, Training, together
from s9.benchmarks.timing import Row
from s9.cli.compose import compose_config
from s9.runs import said
from s9.runs.prepare import Prepared, prepare
from s9.runs.run import follow
from s9.system import runtime
from s9.system.compute import pick_device
from s9.system.errors import UserError, require
from s9.system.interrupt import Interrupted, Interrupts
from s9.tracking.folder import RunFolder
from s9.training.ranks import Ranks, joined
from s9.training.step import NonFiniteLossError


class Target:
    """The trainings that were asked for; `parts` trains them.

    Args:
        target, seeds: as text, such as 0.85 and 0,1,2. overrides: keys of s9.train.

    Raises:
        UserError: a value is wrong, or the machine or the data cannot do what was asked.
    """

    def __init__(self, *, target: str, seeds: str, overrides: Sequence[str], interrupts: Interrupts):
        self.target, self.seeds, self.interrupts = _fraction(target), _whole_numbers(seeds), interrupts
        for own in (a for a in overrides if a.startswith("seed=")):
            raise UserError(f"{own}: bench=target trains the seeds of seeds=; write {own.replace('=', 's=')}")
        data = [] if any(a.startswith("data=") for a in overrides) else ["data=digits"]
        fast = [] if any(a.startswith(("experiment=", "trainer.epochs=")) for a in overrides) else ["experiment=fast"]
        self.config = compose_config([*data, *fast, *overrides])
        trainer = self.config.trainer
        if trainer.devices > 1:
            raise UserError(f"trainer.devices={trainer.devices}: bench=target times one device")
        self.device = pick_device(trainer.device)
        with self._prepared(self.seeds[0]) as (p, _):  # what does not fit is said now, before anything is written
            if not len(p.data.val):
                wanted = "leaves no val, whose accuracy bench=target waits for; give data.val_size=0.1, say"
                raise UserError(f"data.val_size={self.config.data.val_size}: {wanted}")
            self.variant = p.data.facts.variant
            self.machine = runtime.describe_machine(self.device) | runtime.describe_arithmetic(p.compute)
            sizes = f"{len(p.data.train):,} train, {len(p.data.val):,} val images"
            what = f"{self.config.run_name}: {sizes}, {trainer.epochs} epochs, {p.compute.precision_name}"
            self.said = [what, *said.before(self.config, p.data, p.batches)]

    @contextmanager
    def _prepared(self, seed: int) -> Iterator[tuple[Prepared, Ranks]]:
        """What `s9.train` would train with; inside the `with` block with as many threads."""
        config = replace(self.config, seed=seed)
        with tempfile.TemporaryDirectory() as place, joined(config.trainer, self.device, follow) as ranks:
            yield prepare(config, RunFolder(Path(place)), ranks), ranks

    def parts(self) -> Iterator[list[Row]]:
        """The rows of each seed as soon as it is trained, then those of all seeds together.

        Raises:
            Interrupted: a signal came; the rows of the seed that it cut short have been yielded.
        """
        print("\n".join(self.said), flush=True)
        trainings = []
        with self.interrupts:
            for seed in self.seeds:
                trainings.append(self.train(seed))
                if rows := list(trainings[-1].rows()):
                    yield rows
                self.interrupts.stop_if_received()
        if len(trainings) > 1 and (rows := list(together(trainings))):
            yield rows

    def train(self, seed: int) -> Training:
        """Trains to the last epoch, or until a signal comes or the loss is not finite."""
        if self.config.trainer.compile:
            torch.compiler.reset()  # each seed compiles anew, as a run in a process of its own does
        with self._prepared(seed) as (p, ranks):
            clock = Clock(self.device, self.interrupts, compiles=p.config.trainer.compile)
            training = Training(config=p.config, target=self.target, clock=clock)
            try:
                with self.interrupts.noted():
                    self._fit(p, ranks, training)
            except Interrupted as stop:
                training.ended = f"interrupted by {stop}"
            except NonFiniteLossError as error:
                training.ended = str(error).partition(";")[0]
                print(f"{training}: {training.ended}", flush=True)
        return training

    def _fit(self, p: Prepared, ranks: Ranks, training: Training) -> None:
        training.clock.start()
        for reached in p.fit(ranks, None, training.clock):
            self.interrupts.stop_if_received()
            training.clock.stop()
            training.add(reached, p.operations(reached.position.step))
            print(training.line(), flush=True)
            training.clock.start()


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require("target", text, 0 < value <= 1, "an accuracy of val, more than 0 and at most 1, such as 0.85")
    return value


def _whole_numbers(text: str) -> list[int]:
    seeds = [int(seed) if seed.isdecimal() else -1 for seed in text.split(",")]
    holds = all(0 <= seed < 2**32 for seed in seeds) and len({*seeds}) == len(seeds)
    require("seeds", text, holds, "different whole numbers with commas between, such as 0,1,2")
    return seeds
