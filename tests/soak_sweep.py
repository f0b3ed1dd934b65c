"""Kills sweeps at random instants, and gives their command again.   python tests/soak_sweep.py kills=20 workers=6

Some kills are of the sweep's process, `workers` of them of a process that trains one of its jobs; all by SIGKILL. In
the end each job has to hold the same bytes as its own command alone gives, no job that is done may have been started
again, and no process may be left. Other arguments are those of the sweep. Exit code 1 where anything is not so.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from s9.sweeps.table import read_summary
from tests.soak import Soak, differences, say, state_of

SWEEP = (
    *("data=digits", "model=strided", "aug=basic", "optimizer=sgd", "wandb=disabled", "trainer.save_every=0.3"),
    *("trainer.epochs=3", "trainer.steps_per_epoch=8", "trainer.batch_size=32", "model.dropout=0,0.1", "seed=0,1"),
)
KILLS_A_SWEEP = 5
LONGEST_S = 3600


@dataclass
class Swept:
    """One sweep and what happened to it. starts: of each job that was done, when it was first seen to be."""

    folder: Path
    starts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    kills: int = 0


class SweepSoak:
    """Sweeps of the same jobs, below `work`, and the runs that each job's own command gives."""

    def __init__(self, work: Path, arguments: tuple[str, ...], kills: int, workers: int, seed: int):
        self.soak = Soak(work, kills, 600, seed)  # starts processes, finds those that are left
        self.work, self.arguments = work, arguments
        self.chance = random.Random(seed)
        self.victims = ["worker"] * workers + ["sweep"] * (kills - workers)
        self.chance.shuffle(self.victims)
        self.expected = 0.0
        self.reference: dict[str, Path] = {}

    def start(self, folder: Path) -> "subprocess.Popen[bytes]":
        return self.soak.start(self.work, ("-m", *self.arguments, f"hydra.sweep.dir={folder.name}"))

    def make_reference(self) -> None:
        """A sweep that nobody kills, for the time that it takes and the jobs' commands; then each command alone."""
        folder = self.work / "untouched"
        began = time.monotonic()
        if code := self.start(folder).wait(LONGEST_S):
            raise RuntimeError(
                f"the untouched sweep ended with {code}: {(self.work / 'output.txt').read_text()[-2000:]}"
            )
        self.expected = time.monotonic() - began
        jobs = [row["job"] for row in read_summary(folder / "summary.csv")]
        say(f"untouched sweep: {len(jobs)} jobs, {self.expected:.0f} s")
        for job in jobs:
            command = json.loads((folder / job / "status.json").read_text())["command"].split()
            self.reference[job] = self.work / "alone" / job
            done = self.soak.start(self.work, (*command[3:], f"hydra.run.dir={self.reference[job]}"))
            if code := done.wait(LONGEST_S):
                raise RuntimeError(f"{' '.join(command)} ended with {code}")
        same = sum(map(self.same_as_untouched, jobs))
        say(f"each of the {len(jobs)} jobs alone: {same} the same bytes as in the sweep")

    def same_as_untouched(self, job: str) -> bool:
        one, other = self.work / "untouched" / job, self.reference[job]
        return all(same(one / name, other / name) for name in differences(one, other))

    def one_sweep(self, number: int) -> Swept:
        """Starts the sweep, kills it or a worker a few times, and gives its command again until it ends by itself."""
        swept = Swept(self.work / f"sweep-{number:02d}")
        for _ in range(LONGEST_S):
            before = swept.kills
            code = self.kill_some(self.start(swept.folder), swept)
            self.look(swept)
            if code == 0:
                return swept
            if code is not None and swept.kills == before:
                swept.problems.append(f"ended with {code}: {(self.work / 'output.txt').read_text()[-2000:]}")
                return swept
        return swept

    def kill_some(self, process: "subprocess.Popen[bytes]", swept: Swept) -> int | None:
        """Kills workers, or the sweep, at random instants; returns the sweep's exit code, None where it was killed."""
        while self.victims and swept.kills < KILLS_A_SWEEP:
            after = self.chance.uniform(0, self.expected / 3)  # so that most sweeps are killed more than once
            try:
                return process.wait(after)
            except subprocess.TimeoutExpired:
                pass
            who, victims = self.victims.pop(), workers_of(process.pid)
            worker = who == "worker" and bool(victims)
            os.kill(self.chance.choice(victims) if worker else process.pid, signal.SIGKILL)
            swept.kills += 1
            how = f"kill of {'a worker' if worker else 'the sweep'} after {after:.0f} s; {self.stand(swept)}"
            say(f"{swept.folder.name}: {how}; {len(self.victims)} to come")
            if not worker:
                process.wait(LONGEST_S)
                return None
        return process.wait(LONGEST_S)

    def stand(self, swept: Swept) -> str:
        states = [state_of(path.parent) for path in swept.folder.glob("*/status.json")]
        return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "nothing begun"

    def look(self, swept: Swept) -> None:
        """Notes which jobs are done; one that was done before must not have been started again."""
        for path in swept.folder.glob("*/status.json"):
            status = json.loads(path.read_text())
            if status["state"] == "done":
                before = swept.starts.setdefault(path.parent.name, status["starts"])
                if status["starts"] != before:
                    swept.problems.append(f"{path.parent.name} was done and was started again")

    def judge(self, swept: Swept) -> None:
        for job, alone in self.reference.items():
            names = differences(swept.folder / job, alone)
            if other := [name for name in names if not same(swept.folder / job / name, alone / name)]:
                swept.problems.append(f"{job}: {', '.join(other)} differ from the run alone")
        rows = read_summary(swept.folder / "summary.csv")
        if sorted(row["job"] for row in rows) != sorted(self.reference) or {row["status"] for row in rows} != {"done"}:
            swept.problems.append(f"summary.csv has {[(row['job'], row['status']) for row in rows]}")


def same(one: Path, other: Path) -> bool:
    """Whether two summary.json differ by the commit alone: a soak of hours may outlive one."""
    if one.name != "summary.json" or not one.exists() or not other.exists():
        return False
    found = [json.loads(path.read_bytes()) for path in (one, other)]
    for summary in found:
        del summary["machine"]["commit"], summary["machine"]["dirty"]
    return bool(found[0] == found[1])


def workers_of(pid: int) -> list[int]:
    """The processes that train jobs: children that lead a session of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if os.getsid(int(child)) == int(child)]


def main(kills: int, workers: int, seed: int, arguments: tuple[str, ...]) -> int:
    work = Path(tempfile.mkdtemp(prefix="s9-soak-"))
    soak = SweepSoak(work, arguments, kills, workers, seed)
    soak.make_reference()
    swept: list[Swept] = []
    while soak.victims:
        swept.append(soak.one_sweep(len(swept)))
        soak.judge(swept[-1])
        for problem in swept[-1].problems:
            say(f"FAILED {swept[-1].folder.name}: {problem}")
    left = soak.soak.processes_left()
    for line in left:
        say(f"FAILED left: {line}")
    whole = sum(one.kills for one in swept if not one.problems)
    say(f"sweeps: {kills} kills, {whole} of {kills} whole; {len(swept)} sweeps, {len(left)} processes left")
    if whole == kills and not left:
        shutil.rmtree(work, ignore_errors=True)
        return 0
    say(f"everything is kept in {work}")
    return 1


if __name__ == "__main__":
    own = {
        a.partition("=")[0]: a.partition("=")[2]
        for a in sys.argv[1:]
        if a.startswith(("kills=", "workers=", "chance="))
    }
    others = tuple(a for a in sys.argv[1:] if not a.startswith(("kills=", "workers=", "chance=")))

    sys.exit(main(int(own.get("kills", 20)), int(own.get("workers", 6)), int(own.get("chance", 0)), others or SWEEP))
