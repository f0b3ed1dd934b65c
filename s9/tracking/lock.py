"""Keeps every process but one out of a run's folder, on this machine and on others that share the folder."""

import os
import signal
import time
from pathlib import Path

from filelock import FileLock, LeaseCompromise, SoftFileLease, Timeout

LEASE_S, HEARTBEAT_S = 30.0, 5.0  # a lease on another machine counts as dead after LEASE_S without a heartbeat


class RunLock:
    """Two locks, taken together: of the operating system, and a lease, a file with pid, host and a heartbeat.

    The first ends with its process, but not every shared folder passes it on to other machines. The second is taken
    over where the owner's pid is gone from this machine, or the owner on another machine has no heartbeat any more.

    Args:
        stop: whether the process gets SIGTERM when another machine has taken over its lease, as after a long sleep.
    """

    def __init__(self, lock: Path, lease: Path, *, stop: bool = False):
        self.here = FileLock(lock)
        lost = _stop_this_process if stop else None
        self.lease = SoftFileLease(lease, lease_duration=LEASE_S, heartbeat_interval=HEARTBEAT_S, on_compromise=lost)

    def acquire(self, *, patient: bool = False) -> bool:
        """Takes both locks, or none and returns False. Over another machine's lease, it has to be asked for LEASE_S.

        Args:
            patient: asks for as long as another machine's lease shows no heartbeat, so for LEASE_S at most.

        Raises:
            OSError: the folder cannot be written.
        """
        try:
            self.here.acquire(blocking=False)
        except Timeout:
            return False
        except NotImplementedError:  # a file system without locks: the lease alone
            pass
        taken = False
        try:
            taken = self._lease(patient)
        finally:
            if not taken:
                self.here.release()
        return taken

    def _lease(self, patient: bool) -> bool:
        """Takes the lease; one that is empty, as after a power cut, is of nobody once it has been still."""
        first, end = self._beat(), time.monotonic() + 2 * LEASE_S
        while True:
            try:
                self.lease.acquire(blocking=False)
                return True
            except Timeout:
                beat = self._beat()
            if beat and not beat[0] and time.time() - beat[1] > LEASE_S:
                Path(self.lease.lock_file).unlink(missing_ok=True)
            elif not patient or beat != first or time.monotonic() > end:
                return False
            else:
                time.sleep(HEARTBEAT_S / 10)

    def _beat(self) -> tuple[int, float] | None:
        """(size, time) of the lease."""
        try:
            found = Path(self.lease.lock_file).stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime

    def release(self) -> None:
        self.lease.release()
        self.here.release()


def _stop_this_process(_: LeaseCompromise) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
