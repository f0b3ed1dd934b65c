"""The parts of `python -m s9.bench`, run one after the other, printed as a table and written as JSON."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from s9.benchmarks import contention, convolutions, measures, startup
from s9.benchmarks.target import Target
from s9.benchmarks.timing import Row
from s9.cli.compose import compose_config
from s9.config.schema import Config
from s9.data.batches import USUAL
from s9.data.image_set import ImageSet
from s9.data.sources.load import load_images
from s9.system import runtime
from s9.system.compute import has_real_bfloat16, pick_device
from s9.system.errors import UserError
from s9.system.interrupt import Interrupted, Interrupts

PARTS = ("augment", "convolution", "step", "epoch", "startup", "growth", "contention")  # of bench=all
TARGET = "target"  # a part too, but one that takes minutes
MODELS = ("reference", "strided", "dilated")
SETS = ("basic", "full", "strong")
FIXED = {"step": ("model", "all three networks"), "augment": ("aug", "three sets")}  # (refused key, what is timed)
OF_TARGET, OF_OTHERS = ("target=", "seeds="), ("repeats=", "images=")  # keys that the other parts do not read


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command's arguments, as text. overrides: keys of s9.train; said: all of them, for the record."""

    bench: str
    repeats: str
    images: str
    target: str
    seeds: str
    out: str
    overrides: list[str]
    said: list[str]


def run(asked: Asked, interrupts: Interrupts) -> int:
    """Checks the arguments, measures, and prints each part when it is done; the file holds all parts that are done.

    Returns:
        The exit code: 0, or 128 + n if signal n has interrupted bench=target.

    Raises:
        UserError: a value is no part or number, a key has no effect on a part, or the file cannot be written.
    """
    refuse_wrong(asked)
    bench: Bench | Target
    if asked.bench == TARGET:
        bench = Target(target=asked.target, seeds=asked.seeds, overrides=asked.overrides, interrupts=interrupts)
    else:
        bench = Bench(asked)
    out = Path(asked.out or f"outputs/bench/{time.strftime('%Y-%m-%d_%H-%M-%S')}.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()  # fails now, not after a quarter of an hour
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror}") from None
    machine = bench.machine
    print(f"{machine['processor']}, {machine['device']}, torch {machine['versions']['torch']}", flush=True)
    command = " ".join(["python -m s9.bench", *asked.said])
    content = {"command": command, "data": bench.variant, "machine": machine}
    rows: list[Row] = []
    try:
        for new in bench.parts():
            print(lines(new), flush=True)
            rows += new
            out.write_text(json.dumps(content | {"rows": [asdict(r) for r in rows]}, indent=2) + "\n")
    except Interrupted as stop:
        if not out.stat().st_size:
            out.unlink()
        print(f"interrupted by {stop}; {f'what was measured is in {out}' if rows else 'nothing was measured'}")
        return 128 + stop.number
    print(f"everything is in {out}")
    return 0


def refuse_wrong(asked: Asked) -> None:
    """Raises UserError where a value is no part or number, or a key has no effect on the parts that were asked for."""
    if asked.bench not in ("all", *PARTS, TARGET):
        raise UserError(f"bench={asked.bench}: must be all, {', '.join(PARTS)}, {TARGET}")
    target = asked.bench == TARGET
    for given in asked.said:
        if given.startswith(OF_OTHERS if target else OF_TARGET):
            why = "which trains once per seed" if target else "only bench=target trains to an accuracy"
            raise UserError(f"{given}: has no effect on bench={asked.bench}, {why}; leave it out")
    for key in ("repeats", "images"):
        if not getattr(asked, key).isdecimal() or int(getattr(asked, key)) < 1:
            raise UserError(f"{key}={getattr(asked, key)}: must be a whole number of 1 or more")
    for part, (key, instead) in FIXED.items():
        fixed = [a for a in asked.overrides if a.startswith(f"{key}=")]
        if asked.bench in ("all", part) and fixed:
            raise UserError(f"{fixed[0]}: bench={part} times {instead}")


class Bench:
    """The images and settings that all parts share. Raises UserError if they do not fit together."""

    def __init__(self, asked: Asked):
        self.chosen = PARTS if asked.bench == "all" else (asked.bench,)
        self.repeats, self.images = int(asked.repeats), int(asked.images)
        data_given = any(a.startswith("data=") for a in asked.overrides)
        self.overrides = asked.overrides if data_given else ["data=digits", *asked.overrides]
        self.reference = self.config("model=reference", "aug=full")
        batch = measures.batch_of(self.reference)
        if self.images < 2 * batch:
            raise UserError(f"images={self.images}: must be two batches or more (trainer.batch_size={batch})")
        self.device = pick_device(self.reference.trainer.device)
        self.data: ImageSet = load_images(self.reference.data, self.reference.seed)
        self.variant = self.data.facts.variant
        self.machine = runtime.describe_machine(self.device)

    def config(self, *more: str) -> Config:
        return compose_config([f"trainer.batch_size={USUAL}", *more, *self.overrides])

    def parts(self) -> Iterator[list[Row]]:
        """The rows of each part as soon as it is measured."""
        for name in self.chosen:
            yield list(self.part(name))

    def part(self, name: str) -> Iterable[Row]:
        """The rows of one of PARTS."""
        data, device, repeats = self.data, self.device, self.repeats
        match name:
            case "augment":
                sets = {name: self.config(f"aug={name}").aug for name in SETS}
                return measures.augmentation(sets, data, device, repeats)
            case "convolution":
                low = (torch.bfloat16,) if has_real_bfloat16(torch.device("cpu")) else ()
                return convolutions.convolutions(4 * repeats, (torch.float32, *low))
            case "step":
                configs = {name: self.config(f"model={name}", "aug=full") for name in MODELS}
                return measures.step(configs, data, device, 4 * repeats)
            case "epoch":
                return measures.epoch(self.reference, data, device, repeats=repeats, images=self.images)
            case "growth":
                return measures.growth(self.reference, data, device)
            case "contention":
                return contention.contention(self.config("model=strided", "trainer.device=cpu"), data, repeats)
            case _:
                return startup.startup(self.overrides, data, repeats)


def lines(rows: list[Row]) -> str:
    """A line each: `step  reference, batch 128, s9   2,600 images/s  (2,480 to 2,660)  2.55 x`."""
    width = max([50, *(len(row.what) for row in rows)]) + 2
    return "\n".join(line(row, width) for row in rows)


def line(row: Row, width: int) -> str:
    digits = 0 if row.median >= 100 else 2
    spread = f"({row.low:,.{digits}f} to {row.high:,.{digits}f})" if row.repeats > 1 else "(once)"
    text = f"{row.part:<12}{row.what:<{width}}{row.median:>10,.{digits}f} {row.unit:<16} {spread:<22}"
    return text + (f"{row.ratio:.2f} x" if row.ratio else "")
