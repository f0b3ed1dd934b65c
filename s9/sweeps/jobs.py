"""A sweep's folder: its jobs, each named by what it computes, and how each of them stands, by the runs' files."""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from s9.config.schema import Config
from s9.sweeps.belonging import common, strangers
from s9.sweeps.table import Row, read_summary, write_summary
from s9.sweeps.task import Outcome
from s9.sweeps.values import one_spelling
from s9.system.errors import UserError
from s9.system.files import write_whole
from s9.tracking.folder import RunFolder
from s9.tracking.status import standing

log = logging.getLogger("s9")

SWEEPS = Path("outputs/sweeps")


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    digest: of what it computes. values: of the swept keys, as written. cell: the digest of what it shares with jobs
    that differ by seed alone; "" where nobody knows.
    """

    digest: str
    values: dict[str, str]
    config: Config = field(hash=False)
    command: str  # trains it alone
    cell: str = ""


class SweepFolder:
    """The folder of a sweep, which holds the folders of its jobs."""

    def __init__(self, path: Path):
        self.path = path
        self.summary = path / "summary.csv"
        self.asked = path / "sweep.json"  # the last command, and the jobs that belong to it
        self.lock = path / ".sweep.lock"
        self.screens = path / ".workers"  # what libraries print while jobs run

    @property
    def name(self) -> str:
        return self.path.name

    def run(self, job: str) -> RunFolder:
        """The job's folder: here, or where another sweep of outputs/sweeps has finished the same job."""
        here = RunFolder(self.path / job)
        beside = self.path.parent.resolve() == SWEEPS.resolve()
        if beside and not here.read_status():  # an empty folder may have been made for a job that was never started
            for other in map(RunFolder, sorted(self.path.parent.glob(f"*/{job}"))):
                if other.is_done():
                    return other
        return here

    def note(
        self,
        arguments: Sequence[str],
        keys: Sequence[str],
        jobs: Collection[Job],
        *,
        paired: bool = False,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds these jobs to those of the sweep, less `strangers`, and stores the arguments that ask for them.

        Args:
            paired: stored by the sweep's first command alone, since later ones may have seen results.
            fixed: what the identities of all these jobs have in common, as `belonging.flat` has it; None: not known.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._locked():
                known = self.read()
                out, _ = strangers(known, keys, jobs, fixed or {})
                held = {job: values for job, values in known.get("jobs", {}).items() if job not in out}
                before = [key for key in known.get("keys", []) if any(key in values for values in held.values())]
                cells = {job: cell for job, cell in known.get("cells", {}).items() if job in held}
                content = {
                    "arguments": list(arguments),
                    "keys": list(dict.fromkeys([*before, *keys])),
                    "paired": known.get("paired", False) if known else paired,
                    "jobs": held | {job.digest: job.values for job in jobs},
                    "cells": cells | {job.digest: job.cell for job in jobs if job.cell},
                    "fixed": common(known["fixed"], fixed) if held and fixed and "fixed" in known else fixed or {},
                }
                write_whole(self.asked, (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            where = "the sweep is written there, choose with hydra.sweep.dir="
            raise UserError(f"{error.filename or self.path}: {error.strerror}; {where}") from None

    def read(self) -> dict[str, Any]:
        """arguments, keys, jobs, and what older versions do not store; empty where nothing readable is stored."""
        try:
            stored = json.loads(self.asked.read_bytes())
        except (OSError, ValueError):
            return {}
        kinds = {"arguments": list, "keys": list, "jobs": dict}
        whole = isinstance(stored, dict) and all(isinstance(stored.get(key), kind) for key, kind in kinds.items())
        whole = whole and all(isinstance(stored.get(key, {}), dict) for key in ("cells", "fixed"))
        return stored if whole else {}

    def rows(self) -> tuple[list[str], list[Row]]:
        """(the swept keys, how every job of the sweep stands)."""
        stored = self.read()
        jobs = one_spelling(stored.get("jobs", {}))
        return stored.get("keys", []), [self.row(job, values) for job, values in jobs.items()]

    def row(self, job: str, values: dict[str, str]) -> Row:
        folder = self.run(job)
        status, state = folder.read_status(), standing(folder)
        reason = status.get("reason", "") if state != "cut" or status.get("state") != "running" else "killed"
        origin: dict[str, Any] = {}
        if state == "done":
            try:
                origin = _origin(folder.read_summary())
            except UserError as error:  # it is damaged: the other jobs are shown all the same
                reason = str(error)
        commit = f"{(status.get('commit') or status.get('wheel') or '')[:9]}{'+' if status.get('dirty') else ''}"
        failed = state == "failed" and folder.traceback.exists()
        return Row(
            job=job,
            values=values,
            state=state,
            minutes=status.get("minutes"),
            commit=commit,
            folder=str(folder),
            reason=reason,
            traceback=str(folder.traceback) if failed else "",
            **origin,
        )

    def write_summary(self) -> tuple[list[str], list[Row]]:
        """Writes summary.csv anew from the runs' files, or warns that it cannot; returns (the swept keys, the rows)."""
        try:
            with self._locked():
                keys, rows = self.rows()
                write_summary(self.summary, keys, rows)
        except OSError as error:
            log.warning("%s cannot be written (%s); the sweep goes on", self.summary, error.strerror)
            return self.rows()
        return keys, rows

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other processes from the sweep's own files."""
        lock = FileLock(self.lock)
        with suppress(NotImplementedError):  # a file system without locks
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def read_summary(self) -> list[dict[str, str]]:
        return read_summary(self.summary)


def _origin(summary: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of a finished run's summary: its scores on val, and what may have changed them."""
    val, machine = summary.get("val", {}), summary.get("machine", {})
    versions = {name: machine.get("versions", {}).get(name, "?") for name in ("torch", "torchvision", "numpy")}
    device = machine.get("device", "cpu")
    return {
        "accuracy": val.get("accuracy"),
        "loss": val.get("loss"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "processor": device if device != "cpu" else machine.get("processor", ""),
        "precision": machine.get("precision", ""),
    }


def record(folder: RunFolder, outcome: Outcome) -> None:
    """Writes into the run's status how it ended, where the run could not do so itself: its process was killed, say."""
    status = folder.read_status()
    if outcome.state not in ("failed", "interrupted") or status.get("state") not in (None, "running"):
        return
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if folder.is_free():
            content = status | {"state": outcome.state, "reason": outcome.reason}
            write_whole(folder.status, (json.dumps(content, indent=2) + "\n").encode())
    except (OSError, UserError) as error:
        log.warning("%s cannot be written (%s); the sweep goes on", folder.status, error)
