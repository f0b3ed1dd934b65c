"""One run in one process or several: claims the folder, trains, and keeps the status right whatever happens."""

import logging
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s9.config.schema import Config
from s9.runs import failure
from s9.runs.prepare import identity_of, prepare
from s9.runs.rank_0 import Paused, Run
from s9.system import runtime
from s9.system.compute import pick_device
from s9.system.errors import UserError
from s9.system.interrupt import SIGNALS, Interrupted, Interrupts
from s9.tracking.folder import RunFolder, TakenError
from s9.tracking.lock import RunLock
from s9.tracking.status import Status
from s9.tracking.wandb_agent import run_id_of_agent
from s9.training.ranks import Ranks, joined

log = logging.getLogger("s9")


def train(
    config: Config,
    path: Path,
    *,
    group: str | None = None,
    swept: Mapping[str, str] | None = None,
    command: str = "",
    interrupts: Interrupts | None = None,
    resumed: bool = False,
    until_epoch: int | None = None,
) -> dict[str, Any]:
    """Trains `config`, writes the run to the folder `path` and returns its summary; status.json says how the run goes.

    Args:
        group: the sweep that the run is a job of. swept: the job's values, as written. command: repeats the run.
        resumed: begin at the newest whole checkpoint in the folder, or at the start if there is none.
        until_epoch: the run pauses when this epoch has ended and is saved, unless the epoch is the last.

    Raises:
        UserError: the machine or the data cannot do what was asked; raised before the first step.
        NonFiniteLossError: the loss became infinite or NaN.
        Interrupted: a signal came; everything up to it is saved.
        Paused: `until_epoch` has ended; resuming gives the bytes of a run that never paused.
    """
    interrupts, folder = interrupts or Interrupts(), RunFolder(path)
    with interrupts.noted():
        lock, status = _claimed(folder, group), _status(folder, {"command": command, "group": group, "swept": swept})
        folder.write_config(config)  # now, because resuming needs it
    interrupts.last_words = lambda number: status.end("interrupted", reason=str(Interrupted(number)))
    try:
        interrupts.stop_if_received()
        if not resumed or not folder.checkpoints.exists():  # it may have been killed before it wrote its identity
            folder.write_identity(identity_of(config))
        more: dict[str, Any] = {"interrupts": interrupts, "resumed": resumed, "until_epoch": until_epoch}
        with joined(config.trainer, pick_device(config.trainer.device), follow, config) as ranks:
            return Run(config=config, folder=folder, ranks=ranks, status=status, **more).whole()
    except (Paused, Interrupted) as stop:
        reason = {"reason": str(stop)} if isinstance(stop, Interrupted) else {}
        status.end("interrupted" if reason else "paused", **reason)
        raise
    except Exception as error:
        if interrupts.received is not None:  # an error after a signal is taken as its consequence
            status.end("interrupted", reason=str(Interrupted(interrupts.received)))
            raise Interrupted(interrupts.received) from error
        if resumed or not isinstance(error, UserError):  # a new run that is refused leaves nothing
            failure.write_traceback(folder)
        status.end("failed", reason=failure.in_one_line(error, config), log=folder.traceback.name)
        raise
    finally:
        lock.release()


def _status(folder: RunFolder, facts: dict[str, Any]) -> Status:
    facts |= {"wandb_id": secrets.token_hex(4), **runtime.git_state()}
    agents = run_id_of_agent()
    return Status(folder, facts, {"wandb_id": agents} if agents else None)


def _claimed(folder: RunFolder, group: str | None) -> RunLock:
    """The lock of the run's folder. Raises TakenError if another process of a sweep has just ended the run."""
    lock = folder.claim()
    if group is not None and folder.is_done():
        lock.release()
        raise TakenError(f"{folder}: this run is done")
    return lock


def follow_torchrun(config: Config) -> None:
    """Trains as one of torchrun's processes that are not rank 0."""
    with joined(config.trainer, pick_device(config.trainer.device), follow) as ranks:
        for number in SIGNALS:  # from here on rank 0 says when to stop
            signal.signal(number, signal.SIG_IGN)
        follow(ranks, config)


def follow(ranks: Ranks, config: Config) -> None:
    """What a rank other than 0 does: the same steps on its part of each batch. Of files, only kept logits are its."""
    log.setLevel(logging.ERROR)  # rank 0 logs the rest
    folder = RunFolder(ranks.from_rank_0("folder", None))
    p = prepare(config, folder, ranks, ranks.from_rank_0("images", None))
    newest = ranks.from_rank_0("checkpoint", None)
    restored = p.checkpoints.restore(only=newest) if newest else None
    if ranks.any_of_all("stop", False):  # as soon as rank 0 knows from where it trains: it may have to pause there
        return
    for _ in p.fit(ranks, restored[0] if restored else None):
        if ranks.any_of_all("stop", False):  # rank 0 has been told to stop, or pauses
            return
