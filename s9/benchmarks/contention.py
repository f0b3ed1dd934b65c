"""What a busy neighbour costs: steps of a network while other programs keep cores busy, by how OpenMP waits."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from s9 import runtime
from s9.benchmarks.measures import Step
from s9.benchmarks.timing import Row, row
from s9.config import Config
from s9.data.image_set import ImageSet
from s9.process import SPINS, keep_freed_memory

NEIGHBOURS = (0, 1, 2)
SECONDS = 6.0  # of steps, timed at a time
WARM_UP = 5  # steps
# Turns that a thread spins before it sleeps. libgomp's own is 300,000 where there are no more threads than cores.
WAYS = {
    "libgomp's own waiting": ("300000", None),
    "s9": (SPINS, None),
    "no spinning": ("0", None),
    "s9, trainer.threads=1": (SPINS, 1),
}


def contention(config: Config, data: ImageSet, repeats: int) -> list[Row]:
    """Images/s of training steps on the CPU beside none, one and two busy programs, each way in turns.

    Each in a process of its own, since libgomp reads how to wait when it is loaded.
    """
    rows = []
    for neighbours in NEIGHBOURS:
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way, (spins, threads) in WAYS.items():
                with _busy(neighbours), _spinning(spins):
                    rates[way].append(_alone(config, data, threads))
        what = f"{config.model.name}, {neighbours} neighbours"
        first, *others = WAYS
        own = row("contention", f"{what}, {first}", "images/s", rates[first])
        rows += [own, *(row("contention", f"{what}, {way}", "images/s", rates[way], own) for way in others)]
    return rows


@contextmanager
def _busy(neighbours: int) -> Iterator[None]:
    """Processes that take all of a core each, at the usual priority."""
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
    """Processes that are started inside spin so many turns."""
    before = os.environ.get("GOMP_SPINCOUNT")
    os.environ["GOMP_SPINCOUNT"] = spins
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT")
        if before is not None:
            os.environ["GOMP_SPINCOUNT"] = before


def _alone(config: Config, data: ImageSet, threads: int | None) -> float:
    size = config.trainer.batch_size
    batch = data.train.take(np.arange(size) % len(data.train))
    images = torch.from_numpy(np.asarray(batch.images)).permute(0, 3, 1, 2).contiguous()
    facts = ImageSet(data.variant, data.class_names, data.mean, data.std, batch, batch.take(slice(0)), batch)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_rate, config, facts, images, torch.from_numpy(batch.labels), threads).result()


def _rate(config: Config, data: ImageSet, images: torch.Tensor, labels: torch.Tensor, threads: int | None) -> float:
    """Images/s."""
    keep_freed_memory()
    torch.set_num_threads(threads or runtime.available_cores())
    one = Step(config, data, torch.device("cpu"))
    for _ in range(WARM_UP):
        one(images, labels)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        one(images, labels)
        steps += 1
    return steps * len(labels) / (time.perf_counter() - started)
