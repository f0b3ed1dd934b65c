"""The parts of `python -m s9.bench`, run one after the other, printed as a table and written as JSON."""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from s9.benchmarks import contention, convolutions, measures, startup
from s9.benchmarks.timing import Row
from s9.cli.compose import compose_config
from s9.config.schema import Config
from s9.data.batches import USUAL
from s9.data.image_set import ImageSet
from s9.data.sources.load import load_images
from s9.system import runtime
from s9.system.compute import has_real_bfloat16, pick_device
from s9.system.errors import UserError

PARTS = ("augment", "convolution", "step", "epoch", "startup", "growth", "contention")
MODELS = ("reference", "strided", "dilated")
SETS = ("basic", "full", "strong")
FIXED = {"step": ("model", "all three networks"), "augment": ("aug", "three sets")}  # (refused key, what is timed)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command's arguments, as text. overrides: keys of s9.train; said: all of them, for the record."""

    bench: str
    repeats: str
    images: str
    out: str
    overrides: list[str]
    said: list[str]


def run(asked: Asked) -> None:
    """Checks the arguments, measures, prints each part when it is done, and writes all parts to a file.

    Raises:
        UserError: a value is no part or number, a key has no effect on a part, or the file cannot be written.
    """
    chosen = PARTS if asked.bench == "all" else (asked.bench,)
    if not set(chosen) <= set(PARTS):
        raise UserError(f"bench={asked.bench}: must be all, {', '.join(PARTS)}")
    for key in ("repeats", "images"):
        if not getattr(asked, key).isdecimal() or int(getattr(asked, key)) < 1:
            raise UserError(f"{key}={getattr(asked, key)}: must be a whole number of 1 or more")
    for part, (key, instead) in FIXED.items():
        fixed = [a for a in asked.overrides if a.startswith(f"{key}=")]
        if part in chosen and fixed:
            raise UserError(f"{fixed[0]}: bench={part} times {instead}")
    bench = Bench(asked)
    out = Path(asked.out or f"outputs/bench/{time.strftime('%Y-%m-%d_%H-%M-%S')}.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()  # fails now, not after a quarter of an hour
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror}") from None
    machine = runtime.describe_machine(bench.device)
    print(f"{machine['processor']}, {machine['device']}, torch {machine['versions']['torch']}", flush=True)
    rows: list[Row] = []
    for part in chosen:
        new = list(bench.part(part))
        print("\n".join(line(r) for r in new), flush=True)
        rows += new
    command = " ".join(["python -m s9.bench", *asked.said])
    content = {"command": command, "data": bench.data.facts.variant, "machine": machine}
    out.write_text(json.dumps(content | {"rows": [asdict(r) for r in rows]}, indent=2) + "\n")
    print(f"everything is in {out}")


class Bench:
    """The images and settings that all parts share. Raises UserError if they do not fit together."""

    def __init__(self, asked: Asked):
        self.repeats, self.images = int(asked.repeats), int(asked.images)
        data_given = any(a.startswith("data=") for a in asked.overrides)
        self.overrides = asked.overrides if data_given else ["data=digits", *asked.overrides]
        self.reference = self.config("model=reference", "aug=full")
        batch = measures.batch_of(self.reference)
        if self.images < 2 * batch:
            raise UserError(f"images={self.images}: must be two batches or more (trainer.batch_size={batch})")
        self.device = pick_device(self.reference.trainer.device)
        self.data: ImageSet = load_images(self.reference.data, self.reference.seed)

    def config(self, *more: str) -> Config:
        return compose_config([f"trainer.batch_size={USUAL}", *more, *self.overrides])

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


def line(row: Row) -> str:
    """`step  reference, batch 128, s9   2,600 images/s  (2,480 to 2,660)  2.55 x naive`."""
    digits = 0 if row.median >= 100 else 2
    spread = f"({row.low:,.{digits}f} to {row.high:,.{digits}f})" if row.repeats > 1 else "(once)"
    text = f"{row.part:<12}{row.what:<52}{row.median:>10,.{digits}f} {row.unit:<14} {spread:<22}"
    return text + (f"{row.ratio:.2f} x" if row.ratio else "")
