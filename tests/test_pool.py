"""Processes work on many files, in order; one that is killed is one line, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s9.data.sources.pool import MANY, in_order
from s9.system.errors import UserError
from tests.conftest import ROOT


def doubled(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def killed_at_700(number: int) -> int:
    if number == 700:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refused_at_700(number: int) -> int:
    if number == 700:
        raise UserError(f"{number}.jpg: cannot be read")
    return number


@pytest.mark.parametrize("count", [0, 1, MANY - 1])
def test_few_are_worked_on_in_this_process_in_order(count: int) -> None:
    made = list(in_order(doubled, range(count)))
    assert made == [(2 * number, os.getpid()) for number in range(count)]


@pytest.mark.slow
def test_many_are_worked_on_by_processes_in_order() -> None:
    made = list(in_order(doubled, range(MANY)))
    assert [number for number, _ in made] == [2 * number for number in range(MANY)]
    assert os.getpid() not in {process for _, process in made} or os.cpu_count() == 1


@pytest.mark.slow
def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^a process that decodes images was killed, perhaps because memory ran out$"):
        list(in_order(killed_at_700, range(MANY)))


@pytest.mark.slow
def test_what_is_refused_is_said_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^700\.jpg: cannot be read$"):
        list(in_order(refused_at_700, range(MANY)))


SLEEPS = """
import time
from s9.data.sources.pool import MANY, in_order
from tests.test_pool import slowly
if __name__ == "__main__":
    for _ in in_order(slowly, range(MANY)):
        print(_, flush=True)
"""


def slowly(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SLEEPS)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    if worker == parent.pid:
        pytest.skip("needs two cores")
    end = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()
