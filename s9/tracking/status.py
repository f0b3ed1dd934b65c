"""How a run is doing, kept in its status.json while it runs: running, done, failed, interrupted or paused."""

import json
import logging
import os
import platform
import time
from typing import Any

from s9.system.files import write_whole
from s9.tracking.folder import RunFolder

log = logging.getLogger("s9")


class Status:
    """The run's status.json, replaced whole at each change. Times are UTC, as 2026-11-22T14:05:00Z.

    Args:
        facts: values that never change: command, group, swept, commit, dirty, the W&B run's id; those of the first
            start stay.
        anew: facts that take the place of those of the first start.
    """

    def __init__(self, folder: RunFolder, facts: dict[str, Any], anew: dict[str, Any] | None = None):
        self.path = folder.status
        before = folder.read_status()
        self.content: dict[str, Any] = facts | {k: v for k, v in before.items() if k in facts} | (anew or {})
        self.content |= {"started": before.get("started", _now()), "starts": before.get("starts", 0) + 1}
        self.set("running")

    def set(self, state: str, **facts: Any) -> None:
        """Writes the state: running, done, failed (with reason and log), interrupted (with reason) or paused."""
        for key in ("reason", "log"):
            self.content.pop(key, None)
        self.content |= {"state": state, "host": platform.node(), "pid": os.getpid(), "updated": _now()} | facts
        try:
            write_whole(self.path, (json.dumps(self.content, indent=2) + "\n").encode())
        except OSError as error:  # the run is worth more than its status
            log.warning("%s cannot be written (%s)", self.path, error.strerror)

    def end(self, state: str, **facts: Any) -> None:
        """Calls `set`, unless the run is done: a later failure, as of its figures, does not change that."""
        if self.content.get("state") != "done":
            self.set(state, **facts)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def standing(folder: RunFolder) -> str:
    """done, running (by any process), paused, cut (resumed by the next sweep), failed, or missing."""
    status = folder.read_status()
    state = status.get("state")
    if state in ("done", "paused", "failed"):
        return str(state)
    if state == "running":
        dead = status.get("host") == platform.node() and folder.is_free()
        return "cut" if dead or not folder.lease.exists() else "running"  # the other lock's file stays when it is free
    return "cut" if state == "interrupted" or folder.config.exists() else "missing"
