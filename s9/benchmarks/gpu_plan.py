"""What `make gpu` does, as a list of steps with their time limits, and the table of what came out."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WHEELS, ARCHIVE = Path(".gpu/wheels"), Path(".gpu/cifar10-images.tar.xz")  # where `make gpu-pack` puts them
IMAGES, EXPERIMENTS = Path("data/cifar10-images"), Path("conf/experiment")  # of the checkout, which all runs in
WORK = "s9.benchmarks.gpu_work"
BENCH = "-m s9.bench"  # the door, which is started, not imported
NETWORKS = ("reference", "strided", "dilated", "frontier")
SECONDS = "SECONDS"  # in a command: stands for the time that the step has
NO_TIME = "not measured (time)"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of the table. words: the command after `python`.

    limit: seconds at most. needs: the experiment without which the step is left out. every_call: a fresh machine needs
    the step again, although an earlier call has done it.
    """

    name: str
    asked: str
    limit: int
    words: tuple[str, ...]
    needs: str | None = None
    every_call: bool = False

    @property
    def command(self) -> str:
        """As a person types it."""
        return " ".join(("python", *self.words)).replace(f" seconds={SECONDS}", "")

    @property
    def is_possible(self) -> bool:
        return self.needs is None or (EXPERIMENTS / f"{self.needs}.yaml").exists()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the steps work. data: the keys of the images. scratch: for what need not be kept."""

    out: Path
    scratch: Path
    device: str
    data: tuple[str, ...]

    @property
    def site(self) -> Path:
        """The folder that wheels are installed into."""
        return self.scratch / "site"

    @property
    def runs(self) -> Path:
        """A link to `out`/runs: a student that resumes finds its teacher by the same name, wherever `out` is now."""
        return self.scratch / "runs"

    @property
    def small(self) -> bool:
        """A CPU tries the steps only: a few batches each."""
        return self.device == "cpu"

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.data, f"trainer.device={self.device}")


def plan(place: Place, *, bare: bool) -> list[Step]:
    """All steps in their order. bare: the machine lacks the packages that s9 needs."""
    return [*_preparation(place, bare=bare), *_checks(place), *_speeds(place), *_trainings(place)]


def _preparation(place: Place, *, bare: bool) -> Iterator[Step]:
    if bare:
        pip = ("-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", str(place.site))
        wheels = tuple(str(wheel) for wheel in sorted(WHEELS.glob("*.whl")))
        yield Step(name="install", asked="packages", limit=120, words=(*pip, *wheels), every_call=True)
    if (root := _unpacked(place)) and not root.is_dir():
        code = "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='data')"
        unpack = ("-c", code, str(ARCHIVE), str(root.parent))
        yield Step(name="unpack", asked="images", limit=120, words=unpack, every_call=True)
    words = ("-m", WORK, "part=machine", f"result={place.out}/machine.json", *_keys(place))
    yield Step(name="machine", asked="machine, and the images decoded", limit=180, words=words, every_call=True)


def _checks(place: Place) -> Iterator[Step]:
    marked = [str(file) for file in sorted(Path("tests").glob("test_*.py")) if "@pytest.mark.gpu" in file.read_text()]
    words = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *marked)
    yield Step(name="tests", asked="the tests marked gpu pass", limit=150, words=words)
    size = ("trainer.epochs=12", "trainer.steps_per_epoch=1") if place.small else ("trainer.epochs=60",)
    run = ("data=digits", "aug=full", "trainer.batch_size=64", *size, f"trainer.device={place.device}")
    words = ("-m", WORK, "part=exact", f"result={place.out}/exact.json", f"folder={place.scratch}/exact", *run)
    yield Step(name="exact", asked="a resumed run has the bytes of one that was not cut", limit=150, words=words)


def _speeds(place: Place) -> Iterator[Step]:
    batch = f"trainer.batch_size={64 if place.small else 1024}"
    repeats = f"repeats={1 if place.small else 20}"
    for name in NETWORKS:
        result = f"result={place.out}/step-{name}.json"
        words = ("-m", WORK, "part=step", result, repeats, f"model={name}", "aug=full", batch, *_keys(place))
        yield Step(name=f"step-{name}", asked=f"images/s of a step of {name}", limit=120, words=words)
    words = (
        *BENCH.split(),
        "bench=augment",
        "repeats=1" if place.small else "repeats=5",
        f"out={place.out}/augment.json",
    )
    yield Step(name="augment", asked="images/s of augmentation", limit=90, words=(*words, batch, *_keys(place)))
    words = (*BENCH.split(), "bench=epoch", "repeats=1" if place.small else "repeats=3", f"out={place.out}/epoch.json")
    words = (*words, f"images={128 if place.small else 50_000}", batch, *_keys(place))
    asked = "100,000 images/s through reference with aug=full, whole epochs"
    yield Step(name="epoch", asked=asked, limit=150, words=words)
    few = ("trainer.epochs=2", "trainer.steps_per_epoch=2") if place.small else ()
    for name, target, asked, more in (
        ("target-85", "0.85", "85 % in 5 s after compilation", ("trainer.compile=true",)),
        ("target-85-plain", "0.85", "seconds to 85 % without compilation", ()),
        ("target-90", "0.90", "seconds to 90 %", ("trainer.epochs=60", "trainer.compile=true")),
    ):
        result = f"out={place.out}/{name}.json"
        words = (*BENCH.split(), "bench=target", f"target={target}", result, "experiment=fast", *more)
        words = tuple(w for w in words if not (few and w.startswith("trainer.epochs="))) + few
        yield Step(name=name, asked=asked, limit=180, words=(*words, *_keys(place)))


def _trainings(place: Place) -> Iterator[Step]:
    few = ("trainer.epochs=2", "trainer.steps_per_epoch=2") if place.small else ("trainer.compile=true",)
    taught = f"teacher={place.runs}/teacher"
    for name, asked, more in (
        ("reference", "the reference's 300 epochs in 3 minutes", ()),
        ("teacher", "accuracy of the teacher", ()),
        ("frontier", "95 % by frontier, 300 epochs", (taught,) if place.small else (taught, "trainer.epochs=300")),
    ):
        words = ("-m", WORK, "part=train", f"result={place.out}/{name}.json", f"folder={place.runs}/{name}")
        run = (f"seconds={SECONDS}", f"experiment={name}", *more, *few, *_keys(place))
        yield Step(name=name, asked=asked, limit=600, words=(*words, *run), needs=name)


def _keys(place: Place) -> tuple[str, ...]:
    root = _unpacked(place)
    return (*place.keys, f"data.root={root}") if root else place.keys


def _unpacked(place: Place) -> Path | None:
    """Where the packed images go, if the steps need them: the command names no folder, and the checkout has none."""
    elsewhere = "data=folder" not in place.data or any(key.startswith("data.root=") for key in place.data)
    return None if elsewhere or IMAGES.is_dir() or not ARCHIVE.exists() else place.scratch / IMAGES


# What came out


Result = dict[
    str, Any
]  # a line of steps.jsonl: step, state (done, unfinished, failed), came, command, machine, seconds


def read_results(file: Path) -> dict[str, Result]:
    """The newest line of each step; a line that was cut off is left out."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return {result["step"]: result for result in found}


def came_out(result: Path, log: Path) -> str:
    """The rows that a step stored, or the first error in its log, or the last line."""
    if content := _stored(result):
        return "<br>".join([*content.get("said", []), *map(_row, content.get("rows", []))])
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors[:1] or lines[-1:] or ["done"])[0]  # a later error is that of who started the first


def _stored(result: Path) -> dict[str, Any]:
    """Empty where the step stored nothing, or was killed before its first measurement or while it wrote."""
    try:
        return dict(json.loads(result.read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _row(row: Mapping[str, Any]) -> str:
    shown = [f"{value:,.{0 if value >= 100 else 2}f}" for value in (row["median"], row["low"], row["high"])]
    spread = f" ({shown[1]} to {shown[2]})" if row["repeats"] > 1 else ""
    return f"{row['what']}: {shown[0]} {row['unit']}{spread}"


def table(steps: Sequence[Step], results: Mapping[str, Result], left_out: Mapping[str, str]) -> str:
    """In Markdown: what was asked, what came out, and by which command; then the machines, by number.

    left_out: why a step has no result, where the reason is not that the time is over.
    """
    lines = ["| step | asked | came out | command | machine |", "|---|---|---|---|---|"]
    machines: list[str] = []
    for step in steps:
        result = results.get(step.name, {})
        machine = result.get("machine", "")
        if machine and machine not in machines:
            machines.append(machine)
        number = machines.index(machine) + 1 if machine else ""
        came = result.get("came") or left_out.get(step.name, NO_TIME)
        command = _short(result.get("command", step.command))
        lines.append(f"| {step.name} | {step.asked} | {came.replace('|', '/')} | `{command}` | {number} |")
    lines += ["", *(f"{number}. {machine}" for number, machine in enumerate(machines, start=1))]
    return "\n".join(lines) + "\n"


def _short(command: str) -> str:
    """Without the names of wheels, of which there are many."""
    words = command.split(" ")
    kept = [word for word in words if not word.endswith(".whl")]
    return " ".join(kept if len(kept) == len(words) else [*kept, f"{WHEELS}/*.whl"]).replace(sys.executable, "python")
