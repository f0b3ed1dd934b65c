"""`make gpu`: checks and measures s9 on a GPU that is lent for minutes, each step in its own process with a limit.

Imports nothing but Python's own library and small parts of s9, since a bare machine has no other packages before the
first step. Results are files, so that a later call goes on where this one ended.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from s9.benchmarks.gpu_plan import NO_TIME, SECONDS, WHEELS, Place, Result, Step, came_out, plan, read_results, table
from s9.cli.door import key_values, open_door
from s9.system.errors import UserError

OWN = {"out": None, "minutes": "9", "device": "cuda", "steps": "all", "resume": ""}

USAGE = """python -m s9.benchmarks.gpu out=<folder> [minutes=9] [device=cuda|cpu] [steps=all] [resume=<folder>]
                                [data=folder]

Does the steps one after the other until the minutes are over: installs what .gpu holds, runs the tests marked gpu,
compares a resumed run with one that was not cut, measures speeds, trains. Writes table.md, steps.jsonl and a log for
each step to out=. A step that fails or takes too long is said in the table, and the next one begins.
resume=<out= of an earlier call>: copies that folder first; what is done is not done again, trainings go on. The same
out= again goes on too. steps=exact,step-strided does these alone, after installing and reading the images. Keys that
begin with data are those of s9.train.
device=cpu tries all steps on a few batches; its numbers say nothing."""

LEAST_S, END_S = 5, 20  # a step is not begun with less time; an asked process gets so long to end
NOT_ASKED = "not measured (not among steps=)"
NEEDED = "hydra"  # a package without which the machine counts as bare


def main(arguments: list[str]) -> int:
    data = tuple(a for a in arguments if a.startswith("data"))
    given = key_values([a for a in arguments if a not in data], OWN, USAGE)
    minutes = given["minutes"].replace(".", "", 1)
    if not minutes.isdecimal() or float(given["minutes"]) == 0:
        raise UserError(f"minutes={given['minutes']}: must be a number more than 0")
    if given["device"] not in ("cuda", "cpu"):
        raise UserError(f"device={given['device']}: must be cuda or cpu")
    data = data if any(a.startswith("data=") for a in data) else ("data=folder", *data)
    scratch = Path(tempfile.gettempdir()) / "s9-gpu"
    place = Place(out=Path(given["out"]), scratch=scratch, device=given["device"], data=data)
    bare = importlib.util.find_spec(NEEDED) is None
    if bare and not any(WHEELS.glob("*.whl")):
        raise UserError(
            f"{WHEELS}: holds no wheels, and {NEEDED} is not installed; run make gpu-pack where a network is"
        )
    steps = plan(place, bare=bare)
    chosen = {step.name for step in steps} if given["steps"] == "all" else set(given["steps"].split(","))
    if unknown := sorted(chosen - {step.name for step in steps}):
        raise UserError(f"steps={unknown[0]}: must be all, or some of {', '.join(step.name for step in steps)}")
    chosen |= {step.name for step in steps if step.every_call}
    carry_over(given["resume"], place.out)
    link_runs(place)
    return Call(place, steps, time.monotonic() + 60 * float(given["minutes"])).do(chosen)


def carry_over(earlier: str, out: Path) -> None:
    """Copies the files of an earlier call's folder, which may be read-only, to `out`.

    Raises:
        UserError: the folder holds no results, or `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror}") from None
    if not earlier:
        return
    if not (Path(earlier) / "steps.jsonl").is_file():
        raise UserError(f"resume={earlier}: there is no steps.jsonl in it; give out= of an earlier call")
    if out.samefile(earlier):
        return
    for file in Path(earlier).rglob("*"):
        if file.is_file():
            copy = out / file.relative_to(earlier)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def link_runs(place: Place) -> None:
    """Makes `place.runs` the name of the runs in `out`."""
    (place.out / "runs").mkdir(exist_ok=True)
    place.scratch.mkdir(parents=True, exist_ok=True)
    place.runs.unlink(missing_ok=True)
    place.runs.symlink_to((place.out / "runs").resolve())


class Call:
    """One call of the command. deadline: of time.monotonic(), when the last step must have ended."""

    def __init__(self, place: Place, steps: list[Step], deadline: float):
        self.place, self.steps, self.deadline = place, steps, deadline
        self.file = place.out / "steps.jsonl"
        self.results = read_results(self.file)
        self.machine = ""

    def do(self, chosen: set[str]) -> int:
        """Does the chosen steps, and writes the table after each; returns the exit code: 1 if a step failed."""
        left_out = {step.name: NOT_ASKED for step in self.steps if step.name not in chosen}
        left_out |= {s.name: f"not measured (no experiment={s.needs})" for s in self.steps if not s.is_possible}
        failed = False
        for step in self.steps:
            left = int(min(step.limit, self.deadline - time.monotonic()))
            done = self.results.get(step.name, {}).get("state") == "done" and not step.every_call
            if step.name in left_out or done:
                continue
            if left < LEAST_S:
                print(f"{step.name}: {NO_TIME}", flush=True)
                continue
            result = self.result_of(step, left)
            failed |= result["state"] == "failed"
            if result.get("machine"):
                self.machine = result["machine"]
            self.results[step.name] = result
            with self.file.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{step.name}: {result['came'].replace('<br>', '; ')} ({result['seconds']:.0f} s)", flush=True)
            (self.place.out / "table.md").write_text(table(self.steps, self.results, left_out))
        (self.place.out / "table.md").write_text(table(self.steps, self.results, left_out))
        print(f"everything is in {self.place.out}/table.md", flush=True)
        return int(failed)

    def result_of(self, step: Step, seconds: int) -> Result:
        """Runs the step's command, its output in a log, for so many seconds at most."""
        log, stored = (self.place.out / f"{step.name}.{kind}" for kind in ("log", "json"))
        stored.unlink(missing_ok=True)
        # A training ends by itself and says how far it came, so its process ends before the limit.
        words = [word.replace(SECONDS, str(max(1, seconds - END_S))) for word in step.words]
        started = time.monotonic()
        with log.open("w") as file:
            code = run_for(seconds, [sys.executable, *words], stdout=file, environment=self.environment())
        state = "done" if code == 0 else "failed"
        came = came_out(stored, log)
        machine = self.machine
        if code == 0 and stored.exists():
            content = json.loads(stored.read_text())
            state = content.get("state", state)
            machine = content.get("where", machine)
        if code is None:
            came = f"not measured (took more than {seconds} s; {log.name})"
        elif code:
            came = f"not measured (failed: {came}; {log.name})"
        about = {"step": step.name, "state": state, "came": came, "command": step.command, "machine": machine}
        return about | {"seconds": round(time.monotonic() - started, 1)}

    def environment(self) -> dict[str, str]:
        """Of the steps: they find the installed wheels and this checkout; a CPU, which only tries, compiles nothing."""
        before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        found = os.pathsep.join([str(self.place.site), str(Path.cwd()), *before])
        return os.environ | {"PYTHONPATH": found} | ({"TORCHDYNAMO_DISABLE": "1"} if self.place.small else {})


def run_for(seconds: float, command: list[str], *, stdout: IO[str] | int, environment: Mapping[str, str]) -> int | None:
    """The exit code; None if the process took longer and was ended, with all that it had started."""
    # In a session of its own, so that all that it starts can be ended with it.
    started = subprocess.Popen(
        command, env=environment, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return started.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


if __name__ == "__main__":
    open_door(main, USAGE)
