"""How long a command takes to answer and to its first step, and the memory that a run holds at most."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from s9.benchmarks.timing import Row, row
from s9.data.image_set import ImageSet
from s9.tracking.folder import RunFolder


def startup(overrides: list[str], data: ImageSet, repeats: int) -> list[Row]:
    """Seconds of --help and to the first step of `python -m s9.train`, and the peak memory of a whole run."""
    help_s, first_s = [], []
    train = [sys.executable, "-m", "s9.train"]
    overrides = ["wandb=disabled", *overrides]  # no run in the user's project, and no network in what is measured
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(repeats + 1):
            started = time.perf_counter()
            subprocess.run([*train, "--help"], check=True, stdout=subprocess.DEVNULL)
            help_s.append(time.perf_counter() - started)
            short = ["trainer.epochs=1", "trainer.steps_per_epoch=1", f"data.val_size={data.facts.num_classes}"]
            first_s.append(_to_first_line([*train, *overrides, *short], Path(scratch) / str(repeat)))
        run = [*train, *overrides, "trainer.epochs=1", f"hydra.run.dir={scratch}/whole"]
        process, peak = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 0.0
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.02)
        if process.returncode:
            raise RuntimeError(f"{' '.join(run)} ended with {process.returncode}")
    return [
        row("startup", "--help", "s", help_s[1:]),
        row("startup", f"to the first step, {len(data.train) + len(data.val):,} cached images", "s", first_s[1:]),
        row("startup", f"peak memory of a run, {len(data.train):,} images", "MB", [peak]),
    ]


def _to_first_line(command: list[str], folder: Path) -> float:
    """Seconds until the run has written the record of an epoch that is one step long."""
    started = time.perf_counter()
    process = subprocess.Popen([*command, f"hydra.run.dir={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    metrics = RunFolder(folder).metrics
    while not (metrics.exists() and metrics.read_text().endswith("\n")):
        if process.poll() is not None:
            said = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"{' '.join(command)}: {said}")
        time.sleep(0.005)
    seconds = time.perf_counter() - started
    json.loads(metrics.read_text().splitlines()[0])
    process.communicate()
    return seconds


def peak_memory(pid: int | str) -> float:
    """Peak memory of the process in MB, from /proc: for a new process, getrusage gives the peak of its parent."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():  # not Linux, or the process has ended
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if pid == "self" else 0.0
    found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0
