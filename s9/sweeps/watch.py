"""A live view of a sweep in the terminal, read from its folder, on any machine that shares the folder."""

import time
from collections import Counter
from collections.abc import Callable, Sized

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from s9.sweeps.jobs import SweepFolder
from s9.sweeps.screen import minutes, shown
from s9.sweeps.table import Row, cells_of
from s9.sweeps.values import one_spelling
from s9.system.errors import UserError
from s9.system.letters import as_text, one_line
from s9.tracking.folder import RunFolder

EVERY_S = 2.0
QUIET_S = 30.0
MOST = 10  # lines of a table; what does not fit is counted


class Watch:
    """Looks at the sweep again and again; the files of a job that is done are read once."""

    def __init__(self, folder: SweepFolder, encoding: str = "utf-8"):
        self.folder, self.encoding = folder, encoding
        self.done: dict[str, Row] = {}
        self.epochs: dict[str, int | None] = {}  # of running jobs, from their configurations
        self.rows: list[Row] = []
        self.keys: list[str] = []

    @property
    def states(self) -> Counter[str]:
        return Counter(row.state for row in self.rows)

    def text(self, line: str) -> Text:
        return as_text(one_line(line), self.encoding)

    def look(self) -> RenderableType:
        """Reads the folder; returns what to show."""
        stored = self.folder.read()
        self.keys = stored.get("keys", [])
        self.rows = [
            self.done.get(job) or self.folder.row(job, values)
            for job, values in one_spelling(stored.get("jobs", {})).items()
        ]
        self.done = {row.job: row for row in self.rows if row.state == "done"}
        return Group(self.text(self.standing()), *self.running_now(), *self.best_cells(), *self.lost())

    def standing(self) -> str:
        """`outputs/sweeps/x: 27 jobs: 12 done, 1 running, 14 missing; about 20 min left`."""
        states = self.states
        said = ", ".join(f"{count} {state}" for state, count in states.items())
        known = [60 * row.minutes for row in self.done.values() if row.minutes is not None]
        left = len(self.rows) - states["done"] - states["failed"]
        about = ""
        if known and left and states["running"]:
            about = f"; about {minutes(sum(known) / len(known) * left / states['running'])} left"
        return f"{self.folder.path}: {len(self.rows)} jobs: {said}{about}"

    def running_now(self) -> list[RenderableType]:
        running = [row for row in self.rows if row.state == "running"]
        if not running:
            return []
        table = _table("running", "epoch", "val %")
        for row in running[:MOST]:
            table.add_row(self.text(shown(row.values) or row.job), *self._progress(row))
        return [table, *_rest(running)]

    def _progress(self, row: Row) -> tuple[str, str]:
        """(`3 of 40`, the last val accuracy)."""
        folder = RunFolder(self.folder.path / row.job)
        try:
            if row.job not in self.epochs:
                self.epochs[row.job] = folder.read_config().trainer.epochs
            last = (folder.read_metrics() or [{}])[-1]
        except UserError:  # the job has just begun
            return "", ""
        accuracy = last.get("val/accuracy")
        return (
            f"{last.get('epoch', 0):.0f} of {self.epochs[row.job]}",
            "" if accuracy is None else f"{100 * accuracy:.2f}",
        )

    def best_cells(self) -> list[RenderableType]:
        cells = [cell for cell in cells_of(self.keys, self.rows) if cell.n]
        if not cells:
            return []
        table = _table("best cells so far", "val mean %", "sd", "n")
        for cell in cells[:MOST]:
            sd = "" if cell.sd is None else f"{100 * cell.sd:.2f}"
            table.add_row(
                self.text(shown(cell.values)), f"{100 * (cell.mean or 0):.2f}", sd, f"{cell.n}/{len(cell.rows)}"
            )
        return [table, *_rest(cells)]

    def lost(self) -> list[RenderableType]:
        lost = [row for row in self.rows if row.state in ("failed", "cut")]
        return [self.text(f"{row.state}: {shown(row.values) or row.job}: {row.reason}") for row in lost[-MOST:]]


def watch(folder: SweepFolder, heard: Callable[[], None], console: Console | None = None) -> None:
    """Shows the sweep until all its jobs have ended, or none has been running for a while.

    Where the output is no terminal, shows it once.

    heard: called between looks; raises where a signal came.

    Raises:
        UserError: the folder holds no sweep.
    """
    if not folder.read():
        raise UserError(f"sweep={folder.path}: there is no {folder.asked.name} in it")
    console = console or Console(highlight=False)
    view = Watch(folder, console.encoding)
    first = view.look()
    if not console.is_terminal:
        console.print(first)
        return
    seen = time.monotonic()  # when a job was last running: between two jobs of a sweep none is
    with Live(first, console=console, auto_refresh=False) as live:
        while view.states.total() > view.states["done"] + view.states["failed"] and time.monotonic() - seen < QUIET_S:
            until = time.monotonic() + EVERY_S
            while time.monotonic() < until:
                heard()
                time.sleep(0.05)
            live.update(view.look(), refresh=True)
            seen = time.monotonic() if view.states["running"] else seen
    ended = (
        "all jobs have ended" if time.monotonic() - seen < QUIET_S else f"no job has been running for {QUIET_S:.0f} s"
    )
    console.print(ended)


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rest(rows: Sized) -> list[RenderableType]:
    return [Text(f"and {len(rows) - MOST} more")] if len(rows) > MOST else []
