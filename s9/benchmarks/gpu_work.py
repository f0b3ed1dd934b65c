"""The steps of `make gpu` that no other command does, each a process: machine, step, exact and train.

Each writes one JSON file for the table: `said`, lines of text; `rows`, measured numbers; `state`, done or unfinished.
"""

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from s9.benchmarks.measures import step
from s9.benchmarks.timing import row
from s9.cli.compose import compose_config
from s9.cli.door import key_values, open_door
from s9.data.sources.load import load_images
from s9.system import runtime
from s9.system.compute import pick_compute
from s9.system.errors import UserError
from s9.system.files import write_whole
from s9.tracking.folder import RunFolder

OWN = {"part": None, "result": None, "folder": "", "seconds": "", "repeats": "20"}
USAGE = """python -m s9.benchmarks.gpu_work part=machine|step|exact|train result=<file> [folder=<folder>]
                                  [seconds=<limit>] [repeats=20] [key=value ...]

A step of python -m s9.benchmarks.gpu, which starts it."""
TRAIN = (sys.executable, "-m", "s9.train")
QUIET = ("wandb=disabled",)
CUT_AFTER, LOOK_S, SAVE_S = 3, 0.02, 15  # epochs; between looks at a run's folder; that an asked run gets to end

Content = dict[str, Any]


def main(arguments: list[str]) -> None:
    own = [a for a in arguments if a.partition("=")[0] in OWN]
    given, keys = key_values(own, OWN, USAGE), [a for a in arguments if a not in own]
    match given["part"]:
        case "machine":
            content = machine(keys)
        case "step":
            content = network_step(keys, int(given["repeats"]))
        case "exact":
            content = exact(Path(given["folder"]), keys)
        case "train":
            content = train(RunFolder(Path(given["folder"])), keys, float(given["seconds"]))
        case other:
            raise UserError(f"part={other}: must be machine, step, exact or train")
    write_whole(Path(given["result"]), (json.dumps(content, indent=1) + "\n").encode())


def machine(keys: Sequence[str]) -> Content:
    """Reads the images, so that no later step waits for them, and describes what the numbers of this call hold for."""
    started = time.perf_counter()
    config = compose_config(list(keys))
    data = load_images(config.data, config.seed)
    seconds = time.perf_counter() - started
    compute = pick_compute(config.trainer.device, config.trainer.precision)
    about = runtime.describe_machine(compute.device)
    versions = ", ".join(f"{name} {of}" for name, of in about["versions"].items())
    commit = f"commit {about['commit'][:7]}" if about["commit"] else "commit unknown"
    where = f"{about['device']}, {about['processor']}, {compute.precision_name}, python {about['python']}, {versions}"
    sizes = f"{len(data.train):,} train, {len(data.val):,} val, {len(data.test):,} test"
    return {"where": f"{where}, {commit}", "said": [f"{data.facts.variant}: {sizes}, read in {seconds:.0f} s"]}


def network_step(keys: Sequence[str], repeats: int) -> Content:
    """Images/s of a training step of one network: naive, s9, and s9 compiled."""
    config = compose_config(list(keys))
    compute = pick_compute(config.trainer.device, config.trainer.precision)
    rows = step({config.model.name: config}, load_images(config.data, config.seed), compute.device, repeats)
    return {"rows": [asdict(r) for r in rows]}


def exact(folder: Path, keys: Sequence[str]) -> Content:
    """Compares the final weights of a run, of the same run again, and of one that is cut and resumed, byte by byte."""
    runs = {name: RunFolder(folder / f"{time.time_ns()}" / name) for name in ("whole", "again", "cut")}
    for name in ("whole", "again"):
        _trained([*keys, *QUIET, f"hydra.run.dir={runs[name]}"])
    cut, epochs = runs["cut"], cut_short(runs["cut"], keys)
    _trained([f"resume={cut}"])
    weights = {name: run.final.read_bytes() for name, run in runs.items()}
    after = f"cut after {epochs} of {len(cut.read_metrics())} epochs and resumed"
    pairs = (("run again", "again"), (after, "cut"))
    same = {words: "the same bytes" if weights[of] == weights["whole"] else "OTHER bytes" for words, of in pairs}
    return {"said": [f"{words}: {which}" for words, which in same.items()]}


def cut_short(folder: RunFolder, keys: Sequence[str]) -> int:
    """Begins a run, asks it to end after CUT_AFTER epochs or a little later, and returns how many it has done."""
    started = subprocess.Popen([*TRAIN, *keys, *QUIET, f"hydra.run.dir={folder}"])
    while started.poll() is None and len(folder.read_metrics()) < CUT_AFTER:
        time.sleep(LOOK_S)
    _asked_to_end(started)
    if folder.is_done() or not folder.config.is_file():
        raise UserError(f"{folder}: could not be cut after {CUT_AFTER} epochs; give it more trainer.epochs")
    return len(folder.read_metrics())


def train(folder: RunFolder, keys: Sequence[str], seconds: float) -> Content:
    """Begins or resumes the run in `folder`, ends it after so many seconds, and says how far it is."""
    begun = folder.config.is_file()
    command = [*TRAIN, f"resume={folder}"] if begun else [*TRAIN, *keys, *QUIET, f"hydra.run.dir={folder}"]
    started = subprocess.Popen(command)
    try:
        if code := started.wait(timeout=seconds):
            raise UserError(f"{' '.join(command[1:])}: exit code {code}")
    except subprocess.TimeoutExpired:
        _asked_to_end(started)
    kept = 0 if folder.is_done() else 1
    for other in sorted(folder.checkpoints.glob("*.pt"), reverse=True)[kept:]:  # a lent machine gives little back
        other.unlink()
    if not folder.read_metrics():
        raise UserError(f"no epoch in {seconds:.0f} s")
    return progress(folder)


def _trained(words: Sequence[str]) -> None:
    if code := subprocess.run([*TRAIN, *words], check=False).returncode:
        raise UserError(f"python -m s9.train {' '.join(words)}: exit code {code}")


def _asked_to_end(started: subprocess.Popen[bytes]) -> int:
    """Ends a run as Ctrl-C does, which saves it; returns its exit code."""
    started.send_signal(signal.SIGTERM)
    try:
        return started.wait(timeout=SAVE_S)
    except subprocess.TimeoutExpired:
        started.kill()
        return started.wait()


def progress(folder: RunFolder) -> Content:
    """How many epochs are done and what one takes; the scores of a run that is done."""
    records = folder.read_metrics()
    trainer, done = folder.read_config().trainer, folder.is_done()
    asked = trainer.epochs
    times = [json.loads(line)["time/epoch_s"] for line in folder.times.read_text().splitlines()]
    minutes, expected = sum(times) / 60, statistics.median(times) * asked / 60
    said = [f"{len(records)} of {asked} epochs in {minutes:.2f} minutes"]
    if not done:
        even = trainer.resolution.start == 1  # else the epochs to come take longer than those so far
        said.append("unfinished" + (f"; all {asked} would take {expected:.2f} minutes" if even else ""))
    last = records[-1]
    said += [f"val accuracy {100 * last['val/accuracy']:.2f} %"] if "val/accuracy" in last else []
    if done:
        said.append(f"test accuracy {100 * folder.read_summary()['test']['accuracy']:.2f} %")
    rows = [asdict(row("train", "an epoch", "s", times))]
    return {"said": said, "rows": rows, "state": "done" if done else "unfinished"}


if __name__ == "__main__":
    open_door(main, USAGE)
