"""Kills runs at random instants until it is believed that none is ever lost.   python tests/soak.py kills=60 minutes=14

Short runs of four kinds are killed (SIGKILL to the process group) at uniformly random instants of their expected
duration and resumed, some of them several times. In the end each has to hold the same bytes as one that was never
killed, and nothing may be left over. Exit code 1 where anything is not so.
"""

import hashlib
import json
import math
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COMMON = (
    "data=digits",
    "model=strided",
    "optimizer=sgd",
    "trainer.epochs=4",
    "trainer.steps_per_epoch=8",
    "trainer.batch_size=32",
)
KINDS = {
    "sgd": ("wandb=disabled", "aug=basic", "trainer.ema_decay=0.9", "model.dropout=0.1", "trainer.save_every=0.3"),
    "muon": (
        *("wandb=offline", "aug=basic", "optimizer=muon", "trainer.save_every=0"),
        *("aug.backend=albumentations", "data.loader=workers", "data.workers=2"),
    ),
    "strong": ("wandb=disabled", "aug=strong", "optimizer=adamw"),
    "ranks": ("wandb=disabled", "aug=basic", "trainer.devices=2", "trainer.save_every=0.3"),
}
AT_ONCE = 2
KILLS_A_RUN = 3
LONGEST_S = 300  # that one start may take
LEFT_WAIT_S = 15  # for workers and W&B to notice that their run is gone
SAME = ("config.yaml", "metrics.jsonl", "summary.json", "samples.npz", "predictions.npz", "insight.npz")
SAME_WEIGHTS = ("weights/final.safetensors", "weights/best.safetensors")
MARK = "S9_SOAK"  # in the environment of all that is started, so that it is found again


@dataclass
class Outcome:
    """How one run went."""

    number: int
    kind: str
    folder: Path | None = None  # None: lost
    kills: int = 0
    resumed: int = 0
    problems: list[str] = field(default_factory=list)


class Soak:
    """All runs of one soak, below `work`."""

    def __init__(self, work: Path, kills: int, minutes: float, seed: int):
        self.work, self.wanted, self.seed = work, kills, seed
        self.deadline = time.monotonic() + 60 * minutes
        self.mark = secrets.token_hex(8)
        self.groups: set[int] = set()
        self.reference: dict[str, Path] = {}
        self.duration: dict[str, float] = {}
        self.kills, self.aimed, self.runs = 0, 0, 0  # aimed: kills whose instant has not come yet
        self.lock = threading.Lock()

    def start(self, cwd: Path, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """One `python -m s9.train`, in a process group of its own, writing to <cwd>/output.txt."""
        cwd.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "MPLCONFIGDIR": str(Path(tempfile.gettempdir()) / "s9-tests-matplotlib"),
            "HOME": str(self.work),
            MARK: self.mark,
        }
        with (cwd / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "s9.train", *arguments],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        with self.lock:
            self.groups.add(process.pid)
        return process

    def make_reference(self, kind: str) -> None:
        """A run that nobody kills, for its files and how long it takes."""
        cwd = self.work / f"reference-{kind}"
        started = time.monotonic()
        code = wait(self.start(cwd, (*COMMON, *KINDS[kind])))
        if code:
            raise RuntimeError(f"the reference {kind} ended with {code}: {last_line(cwd)}")
        self.duration[kind] = time.monotonic() - started
        self.reference[kind] = run_folders(cwd)[0]
        say(f"reference {kind}: {self.duration[kind]:.1f} s")

    def soak(self) -> list[Outcome]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.make_reference, KINDS))
            return [
                outcome for some in pool.map(lambda _: list(self.until_enough()), range(AT_ONCE)) for outcome in some
            ]

    def until_enough(self) -> Iterator[Outcome]:
        while True:
            with self.lock:
                if self.kills >= self.wanted or time.monotonic() > self.deadline:
                    return
                number, self.runs = self.runs, self.runs + 1
            outcome = Outcome(number, list(KINDS)[number % len(KINDS)])
            try:
                self.one_run(outcome)
            except Exception as error:
                outcome.problems.append(f"{type(error).__name__}: {error}")
            for problem in outcome.problems:
                say(f"FAILED run {number} ({outcome.kind}): {problem}")
            yield outcome

    def one_run(self, outcome: Outcome) -> None:
        """Starts, kills and resumes one run until it ends by itself. Every other one is resumed by its folder."""
        chance = random.Random(f"{self.seed} {outcome.number}")
        cwd, command = self.work / f"run-{outcome.number:03d}", (*COMMON, *KINDS[outcome.kind])
        code = None
        while code is None:
            folders = run_folders(cwd)
            by_folder = outcome.number % 2 == 1
            arguments = (*command, "resume=auto")
            if by_folder:
                arguments = (f"resume={folders[-1].relative_to(cwd)}",) if folders else command
            process = self.start(cwd, arguments)
            code = self.wait_or_kill(outcome, process, cwd, chance)
            folders = run_folders(cwd)
            if code is None and folders and state_of(folders[-1]) == "done":
                code = 0  # killed after its end
            outcome.resumed += code is None
        if code:
            outcome.problems.append(f"ended with {code}: {last_line(cwd)}")
            return
        folders = run_folders(cwd)
        if len(folders) != 1:
            outcome.problems.append(f"has {len(folders)} folders; one was to be resumed")
            return
        outcome.folder = folders[0]

    def wait_or_kill(
        self, outcome: Outcome, process: subprocess.Popen[bytes], cwd: Path, chance: random.Random
    ) -> int | None:
        """The exit code, or None where the process was killed before it had one."""
        expected = self.duration[outcome.kind]
        after = chance.uniform(0, expected)
        with self.lock:
            enough = self.kills + self.aimed >= self.wanted or time.monotonic() > self.deadline
            if enough or outcome.kills >= KILLS_A_RUN:
                after = math.inf
            else:
                self.aimed += 1
        if after == math.inf:
            return wait(process)
        try:
            return process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            with self.lock:
                self.kills += 1
                number = self.kills
        finally:
            with self.lock:
                self.aimed -= 1
        outcome.kills += 1
        folders = run_folders(cwd)
        steps = sorted(p.stem for p in folders[-1].glob("checkpoints/*.pt")) if folders else []
        at = steps[-1] if steps else "no checkpoint yet" if folders else "no config.yaml yet"
        say(f"kill {number}: run {outcome.number} ({outcome.kind}) after {after:.1f} of {expected:.1f} s, {at}")
        return None

    def processes_left(self) -> list[str]:
        """Of those that were started, and of theirs, which are still there."""
        for _ in range(LEFT_WAIT_S * 10):
            left = [line for pid in process_ids() if (line := self.describe_own(pid))]
            if not left:
                return []
            time.sleep(0.1)
        return left

    def describe_own(self, pid: int) -> str:
        """`pid command line` where the process comes from this soak; nothing otherwise, or where it has just ended."""
        place = Path("/proc") / str(pid)
        try:
            words = (place / "stat").read_text().rpartition(")")[2].split()
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            marked = f"{MARK}={self.mark}".encode() in (place / "environ").read_bytes()
        except OSError:
            return ""
        own = marked or int(words[2]) in self.groups or str(self.work) in command
        return f"{pid} {command}" if own and words[0] != "Z" and pid != os.getpid() else ""


def wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code. A process that does not end is killed, which is a failure."""
    try:
        return process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def process_ids() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def run_folders(cwd: Path) -> list[Path]:
    """The runs in a working folder, oldest first; one that was killed before it had a configuration is none."""
    return sorted(p.parent for p in cwd.glob("outputs/*/*/config.yaml"))


def state_of(folder: Path) -> Any:
    return json.loads((folder / "status.json").read_text()).get("state")


def last_line(cwd: Path) -> str:
    return ((cwd / "output.txt").read_text(errors="replace").strip().splitlines() or [""])[-1]


def differences(folder: Path, reference: Path) -> list[str]:
    """Names of files whose bytes differ."""
    names = (*SAME, *SAME_WEIGHTS)
    return [n for n in names if not (folder / n).is_file() or (folder / n).read_bytes() != (reference / n).read_bytes()]


def corruption(folder: Path) -> list[str]:
    """What is wrong with the folder of a run that has ended."""
    wrong = [] if state_of(folder) == "done" else [f"status.json says {state_of(folder)}"]
    json.loads((folder / "summary.json").read_text())
    wrong += [f"{p.relative_to(folder)} is left" for p in folder.rglob("*.part")]
    checkpoints = sorted((folder / "checkpoints").glob("*.pt"))
    wrong += [
        f"{p.name} has no checkpoint" for p in folder.glob("checkpoints/*.sha256") if not p.with_suffix(".pt").exists()
    ]
    for path in checkpoints:
        said = path.with_suffix(".sha256").read_text().split()
        if said != [hashlib.sha256(path.read_bytes()).hexdigest(), path.name]:
            wrong.append(f"{path.name} has another sha256")
    return wrong if len(checkpoints) == 2 else [*wrong, f"{len(checkpoints)} checkpoints"]


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main(kills: int = 60, minutes: float = 14, seed: int = 0) -> int:
    work = Path(tempfile.mkdtemp(prefix="s9-soak-"))
    soak = Soak(work, kills, minutes, seed)
    outcomes = soak.soak()
    left = soak.processes_left()
    identical, corrupt, ended_well = 0, 0, 0
    for outcome in outcomes:
        if outcome.folder is None:
            continue
        other = differences(outcome.folder, soak.reference[outcome.kind])
        wrong = corruption(outcome.folder)
        identical, corrupt = identical + (not other), corrupt + bool(wrong)
        ended_well += 0 if other else outcome.kills
        for problem in (*(f"{name} differs" for name in other), *wrong):
            say(f"FAILED {outcome.folder} ({outcome.kind}): {problem}")
    for line in left:
        say(f"FAILED left: {line}")
    lost = sum(outcome.folder is None for outcome in outcomes)
    resumed = sum(outcome.resumed for outcome in outcomes)
    say(
        f"{soak.kills} kills, {ended_well} of {soak.kills} with a bit-identical end; {len(outcomes)} runs, {resumed} "
        f"resumed, {identical} of {len(outcomes)} bit-identical, {lost} lost, {len(left)} processes left, "
        f"{corrupt} folders corrupt"
    )
    if soak.kills < kills:
        say(f"FAILED only {soak.kills} of {kills} kills in {minutes:g} minutes; give minutes=")
    good = identical == len(outcomes) and not (lost or left or corrupt) and soak.kills >= kills
    if good:
        shutil.rmtree(work, ignore_errors=True)
    else:
        say(f"everything is kept in {work}")
    return 0 if good else 1


if __name__ == "__main__":
    given = dict(a.split("=", 1) for a in sys.argv[1:])
    sys.exit(main(int(given.pop("kills", 60)), float(given.pop("minutes", 14)), int(given.pop("seed", 0)), **given))
