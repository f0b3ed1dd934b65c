"""`python -m s9.report`: pages and figures of runs and sweeps, and the paths of what was written."""

from pathlib import Path

from s9.pages.page import PAGE
from s9.pages.sweep_page import write_sweep_page
from s9.sweeps.answer import answer_of
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.watch import watch
from s9.system.errors import UserError
from s9.system.interrupt import Interrupts
from s9.tracking.figures import draw_all
from s9.tracking.folder import RunFolder


def report_run(path: Path) -> None:
    """Draws the run's figures, writes its page and prints their paths.

    Raises:
        UserError: the folder holds no files of a run or cannot be written; or, after all else, what cannot be drawn.
    """
    from s9.pages.run_page import write_run_page  # here: imports torch, which a sweep's page does without

    folder, failed = RunFolder(path), list[str]()
    wanted = (folder.config, folder.metrics, folder.samples, folder.predictions, folder.summary)
    if not any(file.exists() for file in wanted):
        names = ", ".join(file.name for file in wanted)
        raise UserError(f"run={path}: holds no files of a run; wanted one of {names}")
    try:
        drawn = draw_all(folder, failed.append)
        drawn.append(write_run_page(folder))
    except OSError as error:
        raise UserError(f"{error.filename or path}: {error.strerror or error}") from None
    for file in drawn:
        print(file)
    if failed:
        raise UserError("; ".join(line.partition("; later")[0] for line in failed))


def report_sweep(path: Path, *, runs: bool) -> None:
    """Writes the sweep's page, prints its answer and the paths.

    runs: also writes the pages of all its runs.

    Raises:
        UserError: the folder holds no sweep or cannot be written; or, after all else, which runs have no page.
    """
    folder, failed = SweepFolder(path), list[str]()
    try:
        if runs:
            for row in folder.rows()[1]:
                if Path(row.folder).is_dir():
                    failed += _page_of(RunFolder(Path(row.folder)))
        answer = answer_of(folder)
        written = write_sweep_page(folder, answer, failed=failed.append)
    except OSError as error:
        raise UserError(f"{error.filename or path}: {error.strerror or error}") from None
    if runs:
        print(f"pages of runs: {path}/*/{PAGE}")
    print("\n".join([*answer.sentences, *(f"warning: {line}" for line in answer.warnings), *map(str, written)]))
    if failed:
        raise UserError("; ".join(failed))


def _page_of(folder: RunFolder) -> list[str]:
    """Writes the run's page; returns why it could not be written."""
    from s9.pages.run_page import write_run_page  # here: as above

    try:
        write_run_page(folder)
    except UserError as error:  # one damaged run does not keep the others from their pages
        return [str(error)]
    return []


def watch_sweep(path: Path, interrupts: Interrupts) -> None:
    watch(SweepFolder(path), interrupts.stop_if_received)
