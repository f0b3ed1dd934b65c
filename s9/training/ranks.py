"""Training on several devices: one process a device, each with its part of every batch, gradients averaged (DDP).

The run's own process is rank 0 and the only one that writes; it starts the others inside the job, so that a multirun
can do so too. With torchrun the processes are there already. gloo on CPUs, nccl on GPUs.

BatchNorm: on GPUs the statistics are of the whole batch (SyncBatchNorm). On CPUs, where torch has none, each rank
normalises with the statistics of its own part, and the running ones that val and test see are those of rank 0's parts.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from s9 import runtime
from s9.errors import UserError
from s9.interrupt import leave, shielded
from s9.process import available_cores

TIMEOUT = timedelta(minutes=10)  # for the slowest rank to arrive: val is scored by rank 0 alone


class RankLostError(Exception):
    """A rank's process has ended before the run has."""


@dataclass(frozen=True)
class Ranks:
    """This process' place among those that train together. The default is to be alone."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    others: Sequence[BaseProcess] = ()  # what rank 0 has started
    said: Connection | None = None  # how they have failed

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over all ranks; the model itself when alone."""
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            return DistributedDataParallel(model, device_ids=[self.device])
        return DistributedDataParallel(model)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, everywhere."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, value: bool) -> bool:
        """Whether it holds on one of the ranks at least; so all of them do the same next."""
        if self.world == 1:
            return value
        self.stop_if_lost()
        return bool(self.sum(torch.tensor(float(value), device=self.device)).item() > 0)

    def same(self, value: Any) -> Any:
        """Rank 0's value, everywhere."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def stop_if_lost(self) -> None:
        """Raises RankLostError where a process that this one has started is gone."""
        for rank, process in enumerate(self.others, start=1):
            process.join(0)
            if process.exitcode is not None:
                how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"code {process.exitcode}"
                if self.said is not None and self.said.poll():
                    how = self.said.recv()
                raise RankLostError(f"rank {rank} (pid {process.pid}) has ended with {how}")


@contextmanager
def joined(
    devices: int, device: torch.device, threads: int | None, follow: Callable[..., None], *arguments: Any
) -> Iterator[Ranks]:
    """This process as one of the ranks; rank 0 starts the others, each with `follow(ranks, *arguments)`.

    Args:
        threads: that compute on a CPU, in each process; None: the cores shared out over the devices.

    Raises:
        UserError: there are not as many devices.
        RankLostError: a rank has ended while the others still train.
    """
    if runtime.under_torchrun():
        world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
        own = torch.device("cuda", local) if device.type == "cuda" else device
        _enter(int(os.environ["RANK"]), world, own, "env://", threads or 1)
        yield Ranks(dist.get_rank(), world, own)
        dist.destroy_process_group()
        return
    before = torch.get_num_threads()
    if devices == 1:
        torch.set_num_threads(threads or before)
        try:
            yield Ranks(device=device)
        finally:
            torch.set_num_threads(before)  # the next job of a sweep, in this process, has its own number
        return
    if device.type == "cuda" and torch.cuda.device_count() < devices:
        raise UserError(f"trainer.devices={devices}: this machine has {torch.cuda.device_count()} GPUs")
    threads = threads or max(1, available_cores() // devices)
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        context = multiprocessing.get_context("spawn")
        said, to_say = context.Pipe(duplex=False)
        others = [
            context.Process(target=_other, args=(rank, devices, device.type, store, threads, to_say, follow, arguments))
            for rank in range(1, devices)
        ]
        with shielded():  # when to stop is rank 0's affair: it tells the others
            for process in others:
                process.start()
        own = torch.device("cuda", 0) if device.type == "cuda" else device
        ranks = Ranks(0, devices, own, others, said)
        try:
            _enter(0, devices, own, store, threads)
            yield ranks
            for process in others:
                process.join()
            dist.destroy_process_group()
        except RuntimeError:  # gloo says no more than that a connection was closed
            for process in others:
                process.join(2)
            ranks.stop_if_lost()
            raise
        finally:
            for process in others:
                process.kill()
                process.join()
            torch.set_num_threads(before)


def _other(
    rank: int,
    world: int,
    kind: str,
    store: str,
    threads: int,
    to_say: Connection,
    follow: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """A process that rank 0 has started."""
    device = torch.device("cuda", rank) if kind == "cuda" else torch.device(kind)
    _enter(rank, world, device, store, threads)
    try:
        follow(Ranks(rank, world, device), *arguments)
    except Exception as error:  # its own, or that rank 0 has ended; either way it is rank 0 that says why
        with suppress(OSError):  # rank 0 is gone
            to_say.send(" ".join(str(error).split()) or type(error).__name__)
        leave(1)
    dist.destroy_process_group()
    leave(0)  # gloo's threads make python's own way out end in an abort now and then


def _enter(rank: int, world: int, device: torch.device, store: str, threads: int) -> None:
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=world, timeout=TIMEOUT)
