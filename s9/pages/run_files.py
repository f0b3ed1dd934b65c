"""A run's files as its page needs them: what can be read, and a sentence for each file that cannot."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from s9.config.schema import Config
from s9.data.image_set import ImageFacts
from s9.sweeps.jobs import SweepFolder
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from s9.tracking.status import standing

Read = TypeVar("Read")

WITHOUT = {  # attribute of RunFolder -> what the page lacks without the file
    "config": "the configuration and the layer table",
    "metrics": "the curves",
    "summary": "the scores and the machine",
    "predictions": "all that is known of single test images: confusion matrix, mistakes, classes, calibration",
}


@dataclass
class RunFiles:
    """What the folder of a run holds. lacks: sentences about files that are missing or cannot be read."""

    folder: RunFolder
    lacks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder = self.folder
        named = {name: getattr(folder, name) for name in WITHOUT}
        if not any(path.is_file() for path in (*named.values(), folder.status)):
            wanted = ", ".join(path.name for path in named.values())
            raise UserError(f"run={folder}: holds no files of a run; wanted one of {wanted}")
        self.status: dict[str, Any] = folder.read_status()
        self.state = "done" if folder.is_done() else standing(folder)
        if self.state == "missing":  # no configuration: whether more is to come is not known
            self.state = "unknown"
        self.config_text = _text(folder.config)
        self.config: Config | None = self._read("config", folder.read_config)
        self.records: list[dict[str, float]] = self._read("metrics", folder.read_metrics) or []
        self.summary: dict[str, Any] = self._read("summary", folder.read_summary) or {}
        self.predictions: dict[str, np.ndarray] | None = self._read("predictions", folder.read_predictions)
        self.images: ImageFacts | None = self._read("images", folder.read_images)
        self.log = _text(folder.log).splitlines()
        self.traceback = _text(folder.traceback)

    def _read(self, name: str, read: Callable[[], Read]) -> Read | None:
        """What `read` returns; where the file is missing or damaged, None and a sentence that says so."""
        path: Path = getattr(self.folder, name)
        without = f"; the page lacks {WITHOUT[name]}" if name in WITHOUT else ""
        if not path.is_file():
            if without:
                yet = "" if self.state == "done" else " yet"
                self.lacks.append(f"There is no {path.name}{yet}{without}.")
            return None
        try:
            return read()
        except UserError as error:
            self.lacks.append(f"{path.name} cannot be used ({str(error).removeprefix(f'{path}: ')}){without}.")
            return None

    @property
    def name(self) -> str:
        """As in W&B, or the folder's name where no file tells."""
        return str(self.summary.get("name") or (self.config.run_name if self.config else self.place.name))

    @property
    def place(self) -> Path:
        return self.folder.path.resolve()

    @property
    def command(self) -> str:
        return str(self.status.get("command") or self.summary.get("command") or "")

    @property
    def epochs(self) -> int | None:
        """That the run was asked for."""
        return self.config.trainer.epochs if self.config else self.summary.get("epochs")

    @cached_property
    def seconds(self) -> dict[float, float]:
        """From epochs to the seconds that each took; empty where the file is missing or damaged."""
        try:
            lines = [json.loads(line) for line in _text(self.folder.times).splitlines()]
        except ValueError:
            return {}
        return {line["epoch"]: line["time/epoch_s"] for line in lines if "time/epoch_s" in line}

    @cached_property
    def sweep(self) -> SweepFolder | None:
        """The sweep whose folder holds this run's."""
        sweep = SweepFolder(self.place.parent)
        return sweep if sweep.asked.is_file() else None

    @property
    def is_compared(self) -> bool:
        """Whether the run is one of a sweep or study, whose runs are compared by val alone."""
        return self.sweep is not None or self.status.get("group") is not None

    @property
    def swept(self) -> dict[str, str]:
        """From swept keys to this job's values."""
        return self.sweep.read().get("jobs", {}).get(self.place.name, {}) if self.sweep else {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the images, or of the predictions of a run from before November 2026."""
        if self.images:
            return self.images.class_names
        return tuple(map(str, self.predictions["class_names"])) if self.predictions else ()


def _text(path: Path) -> str:
    """The file's text; empty where there is none. Names of files in it may be no UTF-8."""
    try:
        return path.read_text("utf-8", "backslashreplace")
    except OSError:
        return ""
