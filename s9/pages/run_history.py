"""A run's epochs, and where it was cut and resumed, which train.log alone tells."""

import re
from dataclasses import dataclass
from typing import Any

from s9.pages.page import percent
from s9.pages.run_files import RunFiles

AT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ ")  # not at a line's start: a crash may cut the line before
RESUMES = re.compile(AT.pattern + r"INFO resumes from (.*)$")
BEGINS = re.compile(r" train, [\d,]+ val, [\d,]+ test images$")  # the first line of a start, or the one after W&B's
STEP = re.compile(r"step-(\d+)")
WARNED = re.compile(r" (WARNING|ERROR|CRITICAL) ")
MOST_WARNINGS = 50

COLUMNS = [
    *(("epoch", True), ("lr", True), ("train loss", True), ("train accuracy %", True)),
    *(("val loss", True), ("val accuracy %", True), ("seconds", True)),
]


@dataclass(frozen=True)
class Resume:
    """A later start of a run. Times are the machine's, as in train.log.

    after: when the last line before was logged; None where there is none. step: of the checkpoint; 0: from the start.
    epoch: the step in epochs, not rounded; None where no epoch is recorded.
    """

    at: str
    after: str | None
    step: int
    epoch: float | None

    def __str__(self) -> str:
        cut = f"Stopped after {self.after}" if self.after else "Stopped before its first line"
        where = "from the start" if self.step == 0 else f"from step {self.step:,}"
        known = f" (epoch {self.epoch:.2f})" if self.step and self.epoch is not None else ""
        return f"{cut}, resumed at {self.at} {where}{known}."


def resumes(run: RunFiles) -> list[Resume]:
    found = []
    for number, line in enumerate(run.log):
        if match := RESUMES.search(line):
            step = STEP.search(match[2])
            steps = int(step[1]) if step else 0
            found.append(Resume(match[1], _last_before(run.log[:number]), steps, _in_epochs(run, steps)))
    return found


def _last_before(lines: list[str], *, begun: bool = True) -> str | None:
    """When a start logged its last line. begun: whether `lines` end with the first lines of the next start."""
    begin = len(lines)
    if begun:
        begin = next((number for number in reversed(range(len(lines))) if BEGINS.search(lines[number])), begin)
        while begin > 0 and "W&B" in lines[begin - 1]:
            begin -= 1
    times = [match[1] for line in lines[:begin] for match in AT.finditer(line)]
    return times[-1] if times else None


def _in_epochs(run: RunFiles, step: int) -> float | None:
    last = run.records[-1] if run.records else {}
    return step * last["epoch"] / last["step"] if last.get("step") else None


def starts_in_words(run: RunFiles, found: list[Resume]) -> list[str]:
    """How often the run was started, then each cut."""
    starts = run.status.get("starts")
    if starts is None:
        said = ["No file tells how often the run was started."]
    elif starts == 1:
        said = ["The run was started once."]
    else:
        said = [f"The run was started {starts} times."]
    said += map(str, found)
    untold = (starts or 1) - 1 - len(found)
    if untold > 0:
        said.append(f"Where {untold} of the starts began is not in {run.folder.log.name}.")
    if run.state in ("cut", "failed") and (last := _last_before(run.log, begun=False)):
        said.append(f"The last line of {run.folder.log.name} is of {last}.")
    return said


def warnings(run: RunFiles) -> list[str]:
    """The last warnings and errors of train.log."""
    return [line for line in run.log if WARNED.search(line)][-MOST_WARNINGS:]


def epoch_rows(run: RunFiles) -> list[list[str]]:
    """The cells of the table of epochs."""
    return [
        [
            *(f"{record['epoch']:g}", _number(record.get("lr"))),
            *(_number(record.get("train/loss")), percent(record.get("train/accuracy"))),
            *(_number(record.get("val/loss")), percent(record.get("val/accuracy"))),
            _number(run.seconds.get(record["epoch"])),
        ]
        for record in run.records
    ]


def curves(run: RunFiles, found: list[Resume]) -> dict[str, Any]:
    """What the page's script draws. The test of a run that is compared with others is left out."""
    keys = ("epoch", "lr", "train/loss", "train/accuracy", "val/loss", "val/accuracy")
    test = run.summary.get("test") if not run.is_compared else None
    return {
        **{key: [record.get(key) for record in run.records] for key in keys},
        "test": {key: test[key] for key in ("loss", "accuracy")} if test and run.records else None,
        "best": run.summary.get("best", {}).get("epoch"),
        "resumed": sorted({one.epoch for one in found if one.step and one.epoch is not None}),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
