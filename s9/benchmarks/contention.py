"""The cost of busy neighbours: training steps while other programs keep cores busy, by the way OpenMP waits."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from s9.benchmarks.measures import Step, batch_of
from s9.benchmarks.timing import Row, row
from s9.config.schema import Config
from s9.data.image_set import ImageSet
from s9.system.process import available_cores, keep_freed_memory

NEIGHBOURS = (0, 1, 2)
SECONDS = 1.0  # of steps per timing
TURNS = 3  # timings per way and repeat: how programs share cores differs from second to second
WARM_UP = 5  # steps
# (GOMP_SPINCOUNT, threads): a thread spins so many turns before it sleeps. libgomp's default is 300,000; s9 sets 0 when
# other programs are busy.
WAYS = {
    "spinning": ("300000", None),
    "not spinning": ("0", None),
    "trainer.threads=1": ("0", 1),
}


def contention(config: Config, data: ImageSet, repeats: int) -> Iterator[Row]:
    """Images/s of training steps on the CPU with no, one and two busy programs; the ways take turns.

    Each way has its own process, since libgomp reads how to wait when it is loaded; a process sleeps between its turns.
    """
    size = batch_of(config)
    batch = data.train.take(np.arange(size) % len(data.train))
    one = ImageSet(data.facts, batch, batch.take(slice(0)), batch)
    with ExitStack() as stack:
        processes = {}
        for way, (spins, threads) in WAYS.items():
            with _spinning(spins):
                context = multiprocessing.get_context("spawn")
                processes[way] = stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
                processes[way].submit(_begin, config, one, threads).result()
        for neighbours in NEIGHBOURS:
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            with _busy(neighbours):
                for _ in range(TURNS * repeats):
                    for way, process in processes.items():
                        rates[way].append(process.submit(_rate).result())
            what = f"{config.model.name}, {neighbours} busy programs"
            first, *others = WAYS
            own = row("contention", f"{what}, {first}", "images/s", rates[first])
            yield own
            yield from (row("contention", f"{what}, {way}", "images/s", rates[way], than=own) for way in others)


@contextmanager
def _busy(neighbours: int) -> Iterator[None]:
    """Runs `neighbours` processes that each keep one core fully busy, at the usual priority."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_never_rest, daemon=True) for _ in range(neighbours)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _never_rest() -> None:
    while True:
        pass


@contextmanager
def _spinning(spins: str) -> Iterator[None]:
    """Sets GOMP_SPINCOUNT for the processes that are started inside the `with` block."""
    before = os.environ.get("GOMP_SPINCOUNT")
    os.environ["GOMP_SPINCOUNT"] = spins
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT")
        if before is not None:
            os.environ["GOMP_SPINCOUNT"] = before


_STEPS: list[tuple[Step, torch.Tensor, torch.Tensor]] = []  # in a process that `contention` has started


def _begin(config: Config, data: ImageSet, threads: int | None) -> None:
    keep_freed_memory()
    torch.set_num_threads(threads or available_cores())
    images = torch.from_numpy(np.asarray(data.train.images)).permute(0, 3, 1, 2).contiguous()
    step, labels = Step(config, data, torch.device("cpu")), torch.from_numpy(data.train.labels)
    for _ in range(WARM_UP):
        step(images, labels)
    _STEPS.append((step, images, labels))


def _rate() -> float:
    """Images/s over about SECONDS of steps."""
    step, images, labels = _STEPS[0]
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        step(images, labels)
        steps += 1
    return steps * len(labels) / (time.perf_counter() - started)
