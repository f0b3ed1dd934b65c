"""Speed, measured beside what people would otherwise run.   python -m s9.bench bench=all data=folder

Prints a table and writes it as JSON with the machine, the versions and the commit.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from s9 import command_line
from s9.config import Config
from s9.errors import UserError

if TYPE_CHECKING:
    from s9.benchmarks.timing import Row

PARTS = ("augment", "convolution", "step", "epoch", "startup", "growth", "contention")
MODELS = ("reference", "strided", "dilated")
SETS = ("basic", "full", "strong")
OWN = {"bench": "all", "repeats": "5", "images": "10000", "out": ""}

USAGE = """python -m s9.bench [bench=all|augment|convolution|step|epoch|startup|growth|contention] [repeats=5]
                   [images=10000] [key=value ...]

Times s9 against the naive way (float32, NCHW, DataLoader of two workers with albumentations per image), in turns.
The images are those of data= (digits unless given: no download), repeated to what a part needs; images= is the size of
bench=epoch. Other keys are those of s9.train, as trainer.device=cpu. Leave the machine alone while it runs:
contention, steps on the CPU beside busy programs, starts those itself.
On two cores: augment 1 minute, convolution 1, step 2, epoch 3, startup 2, growth 6, contention 5."""


def main(arguments: list[str]) -> None:
    own = [a for a in arguments if a.partition("=")[0] in OWN or a in ("-h", "--help")]
    given = command_line.key_values(own, {**OWN}, USAGE)
    chosen = PARTS if given["bench"] == "all" else (given["bench"],)
    if not set(chosen) <= set(PARTS):
        raise UserError(f"bench={given['bench']}: must be all, {', '.join(PARTS)}")
    for key in ("repeats", "images"):
        if not given[key].isdecimal() or int(given[key]) < 1:
            raise UserError(f"{key}={given[key]}: must be a whole number of 1 or more")
    repeats, images = int(given["repeats"]), int(given["images"])
    rest = [a for a in arguments if a not in own]
    for part, key in (("step", "model"), ("augment", "aug")):
        fixed = [a for a in rest if a.startswith(f"{key}=")]
        if part in chosen and fixed:
            raise UserError(
                f"{fixed[0]}: bench={part} times {'all three networks' if key == 'model' else 'three sets'}"
            )
    data_given = any(a.startswith("data=") for a in rest)
    overrides = rest if data_given else ["data=digits", *rest]

    def config_of(*more: str) -> Config:
        return command_line.compose_config([*more, *overrides])

    reference = config_of("model=reference", "aug=full")
    if images < 2 * reference.trainer.batch_size:
        raise UserError(
            f"images={images}: must be two batches or more (trainer.batch_size={reference.trainer.batch_size})"
        )

    import torch

    from s9 import runtime
    from s9.benchmarks import contention, convolutions, measures
    from s9.data import sources

    device = runtime.pick_device(reference.trainer.device)
    machine = runtime.describe_machine(device)
    data = sources.load(reference.data, reference.seed)
    rows = []
    out = Path(given["out"] or f"outputs/bench/{time.strftime('%Y-%m-%d_%H-%M-%S')}.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()  # now, and not after a quarter of an hour
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror}") from None
    print(f"{machine['processor']}, {machine['device']}, torch {machine['versions']['torch']}", flush=True)
    for part in chosen:
        match part:
            case "augment":
                sets = {name: config_of(f"aug={name}").aug for name in SETS}
                new = measures.augmentation(sets, data, device, repeats)
            case "convolution":
                low = (torch.bfloat16,) if runtime.has_real_bfloat16(torch.device("cpu")) else ()
                new = list(convolutions.convolutions(4 * repeats, (torch.float32, *low)))
            case "step":
                configs = {name: config_of(f"model={name}", "aug=full") for name in MODELS}
                new = measures.step(configs, data, device, 4 * repeats)
            case "epoch":
                new = measures.epoch(reference, data, device, repeats, images)
            case "growth":
                new = measures.growth(reference, data, device)
            case "contention":
                new = list(contention.contention(config_of("model=strided", "trainer.device=cpu"), data, repeats))
            case _:
                new = measures.startup(overrides, data, repeats)
        rows += new
        print("\n".join(line(r) for r in new), flush=True)
    command = " ".join(["python -m s9.bench", *arguments])
    content = {"command": command, "data": data.variant, "machine": machine, "rows": [asdict(r) for r in rows]}
    out.write_text(json.dumps(content, indent=2) + "\n")
    print(f"everything is in {out}")


def line(row: "Row") -> str:
    """`step  reference, batch 128, s9   2,600 images/s  (2,480 to 2,660)  2.55 x naive`."""
    digits = 0 if row.median >= 100 else 2
    spread = f"({row.low:,.{digits}f} to {row.high:,.{digits}f})" if row.repeats > 1 else "(once)"
    text = f"{row.part:<12}{row.what:<52}{row.median:>10,.{digits}f} {row.unit:<14} {spread:<22}"
    return text + (f"{row.ratio:.2f} x" if row.ratio else "")


if __name__ == "__main__":
    command_line.open_door(main)
