"""The page's look inside: the pictures that are drawn from `insight`, as they lie in the run's figures."""

import base64
import shlex
from typing import NamedTuple

from s9.pages.run_files import RunFiles
from s9.tracking.lr_range import is_range_test

HEADS = {  # in the order of the page
    "gradcam": "Grad-CAM of mistakes",
    "receptive_field": "Receptive field",
    "filters": "First filters",
    "feature_maps": "Feature maps",
}


class Look(NamedTuple):
    """A picture of the section. source: the value of a `src` attribute."""

    name: str
    head: str
    source: str


def looks(run: RunFiles) -> list[Look]:
    """The run's pictures, those that are drawn."""
    files = ((name, head, run.folder.figures / f"{name}.png") for name, head in HEADS.items())
    return [
        Look(name, head, f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}")
        for name, head, file in files
        if file.is_file()
    ]


def without(run: RunFiles, shown: list[Look]) -> str:
    """Why the section lacks pictures; empty if it has all or the run has not ended yet."""
    if run.config is not None and is_range_test(run.config):
        return "A range test is not looked into: its learning rates wreck the network."
    if not run.folder.insight.is_file():
        return (
            f"There is no {run.folder.insight.name}, as in runs from before December 2026."
            if run.state == "done"
            else ""
        )
    missing = [head for name, head in HEADS.items() if name not in {look.name for look in shown}]
    command = f"python -m s9.report {shlex.quote(f'run={run.folder}')}"
    return f"Not drawn yet: {', '.join(missing)}; {command} draws them." if missing else ""
