"""Real signals to real runs: how they end, what they leave, and that they resume as if nothing had been."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from s9.system.interrupt import STEP_WITHIN_S, Interrupted, Interrupts
from s9.tracking.folder import RunFolder
from s9.training.checkpoint import found, read
from tests import processes
from tests.conftest import ROOT
from tests.processes import QUICK, WORKERS, differing, finish, group_is_empty, start, state

# One epoch ends by itself; the other is long enough to be cut, and saved only then.
LONG = (*QUICK, "trainer.steps_per_epoch=30", "trainer.save_every=1000", "hydra.run.dir=run")
KINDS = {"plain": (), "workers": WORKERS, "wandb": ("wandb=offline",)}
CASES = [
    *((signal.SIGINT, "group", "workers"), (signal.SIGTERM, "group", "workers"), (signal.SIGUSR1, "group", "workers")),
    *(
        (signal.SIGINT, "process", "plain"),
        (signal.SIGTERM, "process", "wandb"),
        (signal.SIGUSR1, "process", "workers"),
    ),
    (signal.SIGINT, "group", "wandb"),
]


def limit_s(seconds: float = 5) -> float:
    """Five seconds, on a machine that does nothing else."""
    return seconds * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def is_wandbs(pid: int) -> bool:
    """Whether W&B's service of this process is still there; it has a group of its own."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--pid" in words and words[words.index(b"--pid") + 1] == str(pid).encode():
            return True
    return False


@dataclass
class Ended:
    """A run that a signal has ended."""

    number: signal.Signals
    kind: str
    cwd: Path
    code: int
    seconds: float
    screen: str
    group_left: bool
    wandb_left: bool

    @property
    def folder(self) -> Path:
        return self.cwd / "run"


def first_epoch_is_done(folder: Path) -> Callable[[], bool]:
    return lambda: (folder / "checkpoints" / "step-00000030.pt").exists()


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0].name}-{c[1]}-{c[2]}")
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run that got a signal in its second epoch."""
    number, target, kind = request.param
    cwd = tmp_path_factory.mktemp("interrupted")
    run = start(cwd, *LONG, *KINDS[kind])
    run.when(lambda: "epoch 1/2" in run.text)  # said when all of the first epoch is saved
    time.sleep(0.05)
    sent = time.monotonic()
    (os.killpg if target == "group" else os.kill)(run.pid, number)
    code = run.wait()
    seconds = time.monotonic() - sent
    wait_until(lambda: group_is_empty(run.pid))
    wait_until(lambda: not is_wandbs(run.pid))
    return Ended(number, kind, cwd, code, seconds, run.text, not group_is_empty(run.pid), is_wandbs(run.pid))


def wait_until(holds: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + limit_s(seconds)
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.slow
def test_the_exit_code_names_the_signal(ended: Ended) -> None:
    assert ended.code == 128 + ended.number, ended.screen


@pytest.mark.slow
def test_it_ends_within_five_seconds(ended: Ended) -> None:
    assert ended.seconds < limit_s()


@pytest.mark.slow
def test_the_status_is_interrupted_by_its_name(ended: Ended) -> None:
    said = RunFolder(ended.folder).read_status()
    assert (said["state"], said["reason"]) == ("interrupted", ended.number.name)


@pytest.mark.slow
def test_the_step_that_was_reached_is_saved(ended: Ended) -> None:
    newest = found(ended.folder / "checkpoints")[0]
    position = read(newest)["position"]
    assert newest.stem == f"step-{position['step']:08d}" and position["step"] == 30 + position["batch"] > 30


@pytest.mark.slow
def test_no_process_is_left(ended: Ended) -> None:
    assert not ended.group_left and not ended.wandb_left


@pytest.mark.slow
def test_the_last_line_says_how_to_go_on(ended: Ended) -> None:
    wanted = f"interrupted by {ended.number.name}; resume with: python -m s9.train resume=run"
    assert ended.screen.splitlines()[-1] == wanted


@pytest.mark.slow
def test_the_run_is_free_again(ended: Ended) -> None:
    assert RunFolder(ended.folder).is_free()


@pytest.mark.slow
def test_no_half_file_is_left(ended: Ended) -> None:
    assert list(ended.folder.rglob("*.part")) == []


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """The files of a run of this kind that nothing ended."""
    made: dict[str, dict[str, bytes]] = {}

    def files(kind: str) -> dict[str, bytes]:
        if kind not in made:
            cwd = tmp_path_factory.mktemp("uncut")
            finish(cwd, *LONG, *KINDS[kind])
            made[kind] = processes.content(cwd / "run")
        return made[kind]

    return files


@pytest.mark.slow
def test_it_goes_on_as_if_nothing_had_been(ended: Ended, uncut: Callable[[str], dict[str, bytes]]) -> None:
    finish(ended.cwd, "resume=run")
    assert differing(ended.folder, uncut(ended.kind)) == []


@pytest.fixture(scope="module")
def cut_while_testing(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run that got a signal after its last step, before its summary."""
    cwd = tmp_path_factory.mktemp("testing")
    run = start(cwd, *LONG)
    run.when((cwd / "run" / "weights" / "final.safetensors").exists)
    os.kill(run.pid, signal.SIGTERM)
    code = run.wait()
    return Ended(signal.SIGTERM, "plain", cwd, code, 0, run.text, False, False)


@pytest.mark.slow
def test_a_signal_while_it_tests_ends_it_too(cut_while_testing: Ended) -> None:
    assert (cut_while_testing.code, state(cut_while_testing.folder)) == (143, "interrupted")


@pytest.mark.slow
def test_cut_while_it_tests_it_goes_on(cut_while_testing: Ended, uncut: Callable[[str], dict[str, bytes]]) -> None:
    finish(cut_while_testing.cwd, "resume=run")
    assert differing(cut_while_testing.folder, uncut("plain")) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_before_the_first_step_it_ends_at_once_and_can_go_on(tmp_path: Path, number: signal.Signals) -> None:
    run = start(tmp_path, *QUICK, "hydra.run.dir=run")
    run.when((tmp_path / "run" / "status.json").exists)
    os.kill(run.pid, number)
    assert (run.wait(), state(tmp_path / "run")) == (128 + number, "interrupted"), run.text
    assert (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.slow
def test_before_it_listens_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    process = processes.command(tmp_path, *QUICK)
    time.sleep(0.3)  # python has started, hydra is being imported
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=processes.PATIENCE_S)
    assert process.returncode in (130, -signal.SIGINT) and "s9/train.py" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_step_that_does_not_end_is_left_in_time(number: signal.Signals) -> None:
    started = time.monotonic()
    with Interrupts() as interrupts, pytest.raises(Interrupted) as stop, interrupts.noted():
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert stop.value.number == number
    assert time.monotonic() - started < STEP_WITHIN_S + 1 and interrupts.seconds_left() > 1


def test_a_step_that_ends_in_time_is_not_left() -> None:
    with pytest.raises(Interrupted), Interrupts() as interrupts:
        with interrupts.noted():
            os.kill(os.getpid(), signal.SIGTERM)
            ended = interrupts.received
        assert ended == signal.SIGTERM
        interrupts.stop_if_received()
    time.sleep(STEP_WITHIN_S + 0.5)  # no alarm comes afterwards


@pytest.mark.parametrize("end", ["leave", "None"])
def test_a_signal_that_comes_again_while_a_command_ends_does_not_change_its_exit_code(end: str) -> None:
    code = f"""
import os, signal
from s9.system.interrupt import Interrupted, Interrupts, leave
try:
    with Interrupts(end={end}):
        os.kill(os.getpid(), signal.SIGTERM)
except Interrupted as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    leave(128 + stop.number)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143 if end == "leave" else -signal.SIGTERM, "")


@pytest.fixture
def slow_step(tmp_path: Path) -> Iterator[processes.Started]:
    """A run within a step that takes many seconds."""
    run = start(
        tmp_path,
        *("data=digits", "model=dilated", "aug=none", "wandb=disabled", "trainer.device=cpu"),
        *("trainer.batch_size=1287", "trainer.precision=float32", "hydra.run.dir=run"),
    )
    run.when(lambda: "W&B disabled" in run.text)
    time.sleep(1)
    yield run
    if run.process.exitcode is None:
        run.kill()


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_the_step(slow_step: processes.Started, tmp_path: Path) -> None:
    os.kill(slow_step.pid, signal.SIGINT)
    time.sleep(0.3)
    assert slow_step.process.exitcode is None  # the first one waits for the step
    os.kill(slow_step.pid, signal.SIGINT)
    sent = time.monotonic()
    assert slow_step.wait() == 130
    assert time.monotonic() - sent < limit_s(2)
    assert not list((tmp_path / "run").rglob("step-*.pt"))


@pytest.mark.slow
def test_a_step_of_many_seconds_does_not_keep_it(slow_step: processes.Started, tmp_path: Path) -> None:
    os.kill(slow_step.pid, signal.SIGTERM)
    sent = time.monotonic()
    assert slow_step.wait() == 143
    assert time.monotonic() - sent < limit_s(5)
    assert state(tmp_path / "run") == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_rank_that_does_not_answer_does_not_keep_it(tmp_path: Path, number: signal.Signals) -> None:
    """Rank 0 waits for it in a library, where python answers no signal."""
    run = start(tmp_path, *LONG, "trainer.devices=2")
    run.when(lambda: "epoch 1/2" in run.text)
    (other,) = [pid for pid in processes.group(run.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(other, signal.SIGSTOP)
    os.kill(run.pid, number)
    sent = time.monotonic()
    assert (run.wait(), state(tmp_path / "run")) == (128 + number, "interrupted"), run.text
    assert time.monotonic() - sent < limit_s(5)
    wait_until(lambda: group_is_empty(run.pid))
    assert processes.group(run.pid) == []


@pytest.mark.slow
def test_a_killed_worker_does_not_keep_a_run_that_was_told_to_stop(tmp_path: Path) -> None:
    """torch's handler raises an error where a worker is gone, also when the run itself has ended it."""
    for number in range(3):
        run = start(tmp_path, *QUICK, *WORKERS, "trainer.epochs=200", f"hydra.run.dir=run-{number}")
        run.when((tmp_path / f"run-{number}" / "weights").exists)
        run.signal_group(signal.SIGTERM)
        sent = time.monotonic()
        assert run.wait() == 143, run.text
        assert time.monotonic() - sent < limit_s(5) and "Traceback" not in run.text
        wait_until(partial(group_is_empty, run.pid))
        assert processes.group(run.pid) == []


@pytest.mark.slow
def test_a_scheduler_may_send_its_signal_more_than_once(tmp_path: Path) -> None:
    run = start(tmp_path, *LONG)
    run.when(first_epoch_is_done(tmp_path / "run"))
    os.kill(run.pid, signal.SIGTERM)
    for _ in range(2):
        time.sleep(0.01)
        with suppress(ProcessLookupError):  # it may have saved and gone by then
            os.kill(run.pid, signal.SIGTERM)
    assert run.wait() == 143
    assert state(tmp_path / "run") == "interrupted" and not re.search("Traceback|Error", run.text)
