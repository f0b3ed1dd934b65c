"""Training on several devices: one process per device, each with its part of every batch, gradients averaged (DDP).

The run's own process is rank 0 and the only one that writes. Rank 0 starts the others inside the job, so that jobs of a
multirun can do so too; under torchrun all ranks are already running. The backend is gloo on CPUs, nccl on GPUs.

Ranks communicate only in calls that all of them must make together: `all_sum`, `any_of_all` and `from_rank_0` of Ranks,
and the backward pass of the model that `wrapped` returns. In the order of a run:
  from_rank_0   the run's folder; the images that a resumed run began with; the checkpoint that it resumes from
  any_of_all    after each step but an epoch's last: whether a rank is due to save
  all_sum       every CHECK_EVERY steps and at an epoch's end: losses; where `fit` yields: the epoch's sums
  any_of_all    wherever `fit` has yielded: whether a signal has come
A call that some ranks do not make ends the run with a RankLostError that names the call.

BatchNorm: on GPUs the statistics are of the whole batch (SyncBatchNorm). On CPUs, where torch has none, each rank
normalises with the statistics of its own part, and val and test use the running statistics of rank 0's parts.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from s9.config.schema import TrainerConfig
from s9.system.errors import UserError
from s9.system.interrupt import leave, shielded
from s9.system.process import available_cores, under_torchrun

TIMEOUT = timedelta(minutes=10)  # how long ranks wait for the slowest: rank 0 alone scores val


class RankLostError(Exception):
    """A rank's process has ended before the run has."""


@dataclass(frozen=True)
class Ranks:
    """This process's rank among those that train together; by default it is the only one."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    others: Sequence[BaseProcess] = ()  # the processes that rank 0 has started
    said: Connection | None = None  # where they report how they failed

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that its backward pass averages gradients over all ranks if there are several."""
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            return DistributedDataParallel(model, device_ids=[self.device])
        return DistributedDataParallel(model)

    def all_sum(self, what: str, value: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, on every rank. what: the call's name, for the error if a rank does not make it."""
        if self.world > 1:
            value = value.clone()
            with self._together(what):
                dist.all_reduce(value)
        return value

    def any_of_all(self, what: str, value: bool) -> bool:
        """Whether `value` is true on at least one rank, so that all ranks do the same next."""
        if self.world == 1:
            return value
        self.stop_if_lost()
        return bool(self.all_sum(what, torch.tensor(float(value), device=self.device)).item() > 0)

    def from_rank_0(self, what: str, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        with self._together(what):
            dist.broadcast_object_list(box, device=self.device)
        return box[0]

    @contextmanager
    def _together(self, what: str) -> Iterator[None]:
        """Wraps a call that all ranks must make, and turns its failure into a RankLostError."""
        try:
            yield
        except RuntimeError as error:  # gloo says only that a connection was closed or has timed out
            self.stop_if_lost(within_s=2)
            raise RankLostError(
                f"rank {self.rank} waited in vain for the other ranks in «{what}»: {' '.join(str(error).split())}"
            ) from error

    def stop_if_lost(self, within_s: float = 0) -> None:
        """Raises RankLostError if a rank that this process started has ended, or ends within `within_s` seconds."""
        for rank, process in enumerate(self.others, start=1):
            process.join(within_s)
            if process.exitcode is not None:
                how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"code {process.exitcode}"
                if self.said is not None and self.said.poll():
                    how = self.said.recv()
                raise RankLostError(f"rank {rank} (pid {process.pid}) has ended with {how}")


@contextmanager
def joined(
    trainer: TrainerConfig, device: torch.device, follow: Callable[..., None], *arguments: Any
) -> Iterator[Ranks]:
    """Makes this process one of the ranks; rank 0 starts the others, which run `follow(ranks, *arguments)`.

    Raises:
        UserError: this machine has fewer devices.
        RankLostError: a rank has ended while the others still train.
    """
    before = torch.get_num_threads()
    try:
        if under_torchrun():
            yield _joined_torchrun(device, trainer.threads or 1)
            dist.destroy_process_group()
        elif trainer.devices == 1:
            torch.set_num_threads(trainer.threads or before)
            yield Ranks(device=device)
        else:
            with _with_others(trainer, device, follow, arguments) as ranks:
                yield ranks
    finally:
        torch.set_num_threads(before)  # the next job of a sweep runs in this process, with its own number


def _joined_torchrun(device: torch.device, threads: int) -> Ranks:
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    own = torch.device("cuda", local) if device.type == "cuda" else device
    _enter(Ranks(rank, world, own), "env://", threads)
    return Ranks(rank, world, own)


@contextmanager
def _with_others(
    trainer: TrainerConfig, device: torch.device, follow: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[Ranks]:
    """Starts the other ranks as processes, and yields rank 0."""
    devices = trainer.devices
    if device.type == "cuda" and torch.cuda.device_count() < devices:
        raise UserError(f"trainer.devices={devices}: this machine has {torch.cuda.device_count()} GPUs")
    threads = trainer.threads or max(1, available_cores() // devices)
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        context = multiprocessing.get_context("spawn")
        said, to_say = context.Pipe(duplex=False)
        places = [Ranks(rank, devices, _device_of(device.type, rank)) for rank in range(devices)]
        work = {"follow": follow, "arguments": arguments}
        others = [
            context.Process(target=_other, args=(place, store, threads, to_say), kwargs=work) for place in places[1:]
        ]
        with shielded():  # signals are for rank 0, which tells the others when to stop
            for process in others:
                process.start()
        ranks = replace(places[0], others=others, said=said)
        try:
            _enter(ranks, store, threads)
            yield ranks
            dist.destroy_process_group()  # before the wait: with nccl a rank may leave the group only when all do
            for process in others:
                process.join()
        except RuntimeError:  # in a backward pass; gloo says only that a connection was closed
            ranks.stop_if_lost(within_s=2)
            raise
        finally:
            for process in others:
                process.kill()
                process.join()
            if dist.is_initialized():  # else the next job of this process could not begin
                dist.destroy_process_group()


def _device_of(kind: str, rank: int) -> torch.device:
    return torch.device("cuda", rank) if kind == "cuda" else torch.device(kind)


def _other(
    place: Ranks,
    store: str,
    threads: int,
    to_say: Connection,
    *,
    follow: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """The main function of a process that rank 0 has started; it also ends the process."""
    _enter(place, store, threads)
    try:
        follow(place, *arguments)
    except Exception as error:  # this rank's error, or rank 0 has ended; either way rank 0 says why
        with suppress(OSError):  # rank 0 is gone
            to_say.send(" ".join(str(error).split()) or type(error).__name__)
        leave(1)
    dist.destroy_process_group()
    leave(0)  # python's normal exit aborts now and then because of gloo's threads


def _enter(place: Ranks, store: str, threads: int) -> None:
    torch.set_num_threads(threads)
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
    backend = "nccl" if place.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=store, rank=place.rank, world_size=place.world, timeout=TIMEOUT)
