"""status.json, how a run is doing: running, done, failed or interrupted; and the lock that keeps a second one out."""

import json
import logging
import os
import platform
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from s9.errors import UserError
from s9.files import write_whole
from s9.tracking.record import SUMMARY

log = logging.getLogger("s9")

STATUS, LOCK = "status.json", ".lock"
KINDS = {"state": str, "command": str, "group": str | None, "wandb_id": str, "started": str, "starts": int}
UNFINISHED = ("running", "failed", "interrupted")  # `running` without a process that holds the lock was killed


class TakenError(UserError):
    """Another process trains the run: what lies in its folder is not ours."""


class Status:
    """The run's status.json, replaced whole at each change. Times are UTC, as 2026-11-22T14:05:00Z.

    Args:
        facts: what holds throughout: command, group, commit, dirty, the W&B run's id; the first start's stay.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]):
        self.path = folder / STATUS
        before = read_status(folder)
        self.content: dict[str, Any] = facts | {k: v for k, v in before.items() if k in facts}
        self.content |= {"started": before.get("started", _now()), "starts": before.get("starts", 0) + 1}
        self.set("running")

    def set(self, state: str, **facts: Any) -> None:
        """running, done, failed (with reason and log) or interrupted (with reason)."""
        for key in ("reason", "log"):
            self.content.pop(key, None)
        self.content |= {"state": state, "host": platform.node(), "pid": os.getpid(), "updated": _now()} | facts
        try:
            write_whole(self.path, (json.dumps(self.content, indent=2) + "\n").encode())
        except OSError as error:  # the run is worth more than its status
            log.warning("%s cannot be written (%s)", self.path, error.strerror)

    def end(self, state: str, **facts: Any) -> None:
        """The same, unless the run is done: what comes after that, as its figures, takes nothing from it."""
        if self.content.get("state") != "done":
            self.set(state, **facts)


def read_status(folder: Path) -> dict[str, Any]:
    """What status.json says; nothing where there is none that can be read."""
    try:
        content = json.loads((folder / STATUS).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, KINDS.get(key, object))}


def is_done(folder: Path) -> bool:
    """Whether the run has ended well; without a status that can be read, what it ends with tells: its summary.

    Shipped weights, and a run's folder that was copied in part, have no status.json.
    """
    return read_status(folder).get("state", "done" if (folder / SUMMARY).exists() else None) == "done"


def claim(folder: Path) -> FileLock:
    """Holds the run until the process ends, however it ends.

    Raises:
        TakenError: another process trains it.
        UserError: nothing can be written there.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        pid = read_status(folder).get("pid", "unknown")
        raise TakenError(f"{folder}: is being trained by another process (pid {pid})") from None
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
    return lock


def is_free(folder: Path) -> bool:
    """Whether no process trains it.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        claim(folder).release()
    except TakenError:
        return False
    return True


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
