"""A sweep's folder with made-up numbers: real files of runs that were never trained.

    python -m tests.made_up_sweep FOLDER cells=10x10x2 seeds=5 epochs=40

Every number is drawn from a normal distribution by a fixed seed; the runs say "made up" where others name a processor.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from s9.cli.compose import compose_config
from s9.config.stored import as_yaml
from s9.sweeps.jobs import SweepFolder
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder

MADE_UP = "made up: nothing was trained"
KEYS = {
    "model.dropout": [f"{0.02 * n:.3g}" for n in range(50)],
    "optimizer.lr": [f"{0.01 * (n + 1):.3g}" for n in range(50)],
    "trainer.batch_size": [str(32 * (n + 1)) for n in range(50)],
    "optimizer.weight_decay": [f"{0.0001 * n:.3g}" for n in range(50)],
}
SD = 0.004  # between seeds, a fraction


def write_made_up_sweep(
    path: Path,
    keys: Mapping[str, Sequence[str]],
    *,
    seeds: int = 3,
    epochs: int = 40,
    failed: int = 0,
    missing: int = 0,
    spread: float = 0.02,
) -> SweepFolder:
    """A grid over `keys`; the first jobs have failed, the last are missing.

    Args:
        spread: by how much, as a fraction, accuracy falls from the first value of a key to its last.
    """
    random, folder = np.random.default_rng(0), SweepFolder(path)
    base = yaml.load(as_yaml(compose_config(["data=digits"])), yaml.CSafeLoader)
    grid = list(itertools.product(*(range(len(values)) for values in keys.values()), range(seeds)))
    jobs: dict[str, dict[str, str]] = {}
    for index, places in enumerate(grid):
        *steps, seed = places
        values = {key: keys[key][step] for key, step in zip(keys, steps, strict=True)} | {"seed": str(seed)}
        job = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:10]
        jobs[job] = values
        if index < len(grid) - missing:
            lost = sum(spread * step / max(1, len(keys[key]) - 1) for key, step in zip(keys, steps, strict=True))
            score = float(np.clip(0.9 - lost + random.normal(0, SD), 0, 1))
            run = RunFolder(path / job)
            _write_run(run, values, base, score=score, epochs=epochs, failed=index < failed)
    asked = [f"{key}={','.join(values)}" for key, values in keys.items()]
    content = {
        "arguments": ["-m", "data=digits", *asked, f"seed=range(0,{seeds})"],
        "keys": [*keys, "seed"],
        "jobs": jobs,
    }
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.asked.write_text(json.dumps(content))
    return folder


def _write_run(
    folder: RunFolder, values: Mapping[str, str], base: dict[str, Any], *, score: float, epochs: int, failed: bool
) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.config.write_text(_config(base, values))
    minutes = round(epochs * 0.01 + score, 3)
    status = {
        "command": "python -m s9.train data=digits " + " ".join(f"{key}={value}" for key, value in values.items()),
        "group": folder.path.parent.name,
        "wandb_id": folder.path.name[:8],
        "commit": "0" * 40,
        "dirty": False,
        "started": "2026-12-01T00:00:00Z",
        "starts": 1,
        "state": "failed" if failed else "done",
        "minutes": minutes,
    }
    if failed:
        status["reason"] = "loss is nan in epoch 3 (made up)"
        folder.traceback.write_text("Traceback (made up)\n")
    folder.status.write_text(json.dumps(status, indent=2) + "\n")
    ran = 3 if failed else epochs
    records = [_epoch(epoch, epochs, score) for epoch in range(1, ran + 1)]
    folder.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    seconds = {"time/step_s": 0.5, "time/train_s": 0.55, "time/epoch_s": 60 * minutes / epochs}
    folder.times.write_text("".join(json.dumps({"epoch": n + 1, **seconds}) + "\n" for n in range(ran)))
    if not failed:
        folder.summary.write_text(json.dumps(_summary(values, score, epochs)) + "\n")


def _epoch(epoch: int, epochs: int, score: float) -> dict[str, float]:
    val = 0.1 + (score - 0.1) * float(1 - np.exp(-5 * epoch / epochs)) / float(1 - np.exp(-5))
    losses = {"train/loss": 3 * (1 - val) + 0.1, "val/loss": 2.3 * (1 - val) + 0.1}
    accuracies = {"train/accuracy": val * 0.97, "val/accuracy": val}
    return {"epoch": epoch, "step": 10 * epoch, "lr": 0.1 * (1 - epoch / (epochs + 1))} | losses | accuracies


def _summary(values: Mapping[str, str], score: float, epochs: int) -> dict[str, Any]:
    versions = {"torch": "0.0.0", "torchvision": "0.0.0", "numpy": "0.0.0"}
    return {
        "name": MADE_UP,
        "data": MADE_UP,
        "seed": int(values["seed"]),
        "epochs": epochs,
        "machine": {"processor": MADE_UP, "device": "cpu", "precision": "float32", "versions": versions},
        "val": {"accuracy": score, "loss": 2.3 * (1 - score) + 0.1},
        "test": {"accuracy": 0.123456789, "loss": 9.87654321},  # no page of a sweep may show it
    }


def _config(base: dict[str, Any], values: Mapping[str, str]) -> str:
    """The stored configuration with these values, which need not be allowed ones."""
    config = json.loads(json.dumps(base))
    for key, value in values.items():
        *groups, last = key.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = yaml.safe_load(value) if value.replace(".", "").isdigit() else value
    return yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False)


def main(arguments: Sequence[str]) -> None:
    path, settings = Path(arguments[0]), dict(argument.split("=", 1) for argument in arguments[1:])
    unknown = set(settings) - {"cells", "seeds", "epochs", "failed", "missing"}
    sizes = [int(size) for size in settings.pop("cells", "3x3x3").split("x")]
    if unknown or len(sizes) > len(KEYS):
        raise UserError(f"FOLDER cells=3x3x3 (at most {len(KEYS)} keys) seeds=3 epochs=40 failed=0 missing=0")
    keys = {key: values[:size] for (key, values), size in zip(KEYS.items(), sizes, strict=False)}
    write_made_up_sweep(path, keys, **{name: int(value) for name, value in settings.items()})
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
