"""`python -m s9.train -m ...`: says how the jobs of a sweep stand, runs those that are not done, shows the table."""

import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from rich.console import Console

from s9.cli.compose import Asked
from s9.cli.launchers import pool_of
from s9.cli.plan import COMMAND, Plan, plan_of
from s9.config.components import allow_words
from s9.sweeps.belonging import strangers
from s9.sweeps.confirmation import ConfirmationFolder, command_of, confirms
from s9.sweeps.drive import Drive, Ended
from s9.sweeps.jobs import SWEEPS, Job
from s9.sweeps.screen import Screen, minutes
from s9.sweeps.table import SEED, Row, show, warn_mixed
from s9.sweeps.task import Pool
from s9.system.interrupt import Interrupted, Interrupts

ORDER = ("cut", "paused", "missing", "failed", "running")  # in which jobs are started
OUTPUTS = SWEEPS.parent
SAVES_S = 0.5  # of the time until the process must have ended, what is kept for the table and the last line


def run_sweep(asked: Asked, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Runs what is not done of the sweep that the arguments ask for; returns the exit code.

    Args:
        arguments: as they were given, for the sweep's folder, from which resume= reads them.

    Raises:
        UserError: in one line, what is wrong; no job has started.
        Interrupted: a signal came; all jobs are saved.
    """
    return run_plan(plan_of(asked), arguments, interrupts)


def run_plan(plan: Plan, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """`run_sweep` of what is planned."""
    for line in [*plan.said, *against_before(plan)]:
        say(line)
    rows = {job.digest: plan.folder.row(job.digest, job.values) for job in plan.jobs}
    to_run = [job for job in plan.jobs if rows[job.digest].state != "done"]
    to_run = [job for job in to_run if rows[job.digest].state != "failed" or plan.sweep.retry == "failed"]
    to_run.sort(key=lambda job: ORDER.index(rows[job.digest].state))
    if plan.sweep.dry_run:
        return dry_run(plan, list(rows.values()), to_run)
    seeded = [replace(job, values=job.values | {SEED: str(job.config.seed)}) for job in plan.jobs]  # swept or not
    plan.folder.note(lasting(arguments), plan.keys, seeded, paired=plan.sweep.paired, fixed=plan.fixed)
    if to_run:
        pool = pool_for(plan, to_run)
        slots = min(pool.room(), len(to_run))
        estimate = known_seconds(rows.values()) or like_runs(to_run[0])
        say(f"{plan.folder.path}: {counted(rows.values(), plan)}{about(estimate, len(to_run), slots)}")
        screen = Screen(list(rows.values()), slots, estimate)
        stopped = drive(plan, to_run, screen, pool=pool, interrupts=interrupts)
        if stopped:
            print(f"error: the sweep has stopped: {stopped}", file=sys.stderr)
    else:
        say(f"{plan.folder.path}: {counted(rows.values(), plan)}")
    return table(plan)


def lasting(arguments: Sequence[str]) -> list[str]:
    """Without what is meant for one command alone, and with the folder once: resume= adds both each time."""
    kept = [a for a in arguments if not a.startswith("sweep.retry=")]
    places = [at for at, a in enumerate(kept) if a.startswith("hydra.sweep.dir=")]  # the last counts
    return [a for at, a in enumerate(kept) if at not in places[:-1]]


def against_before(plan: Plan) -> list[str]:
    """Lines about what the folder holds of former commands."""
    stored, said = plan.folder.read(), list[str]()
    before = stored.get("keys", [])
    if stored and plan.sweep.paired != bool(stored.get("paired")):
        began = "with" if stored.get("paired") else "without"
        said.append(f"sweep.paired has no effect now: the sweep began {began} it")
    if before and set(before) != set(plan.keys):
        held, now = ", ".join(before), ", ".join(plan.keys)
        said.append(
            f"{plan.folder.path} holds jobs over {held}; this command sweeps {now}, and resume= goes on with it"
        )
    out, why = strangers(stored, plan.keys, plan.jobs, plan.fixed)
    if out:
        jobs = f"{len(out)} earlier job{'s' if len(out) > 1 else ''}"
        said.append(f"{plan.folder.path}: {jobs} left out, since {why}; jobs that are asked for again count again")
    return said


def pool_for(plan: Plan, jobs: Sequence[Job]) -> Pool:
    return pool_of(plan.launcher, plan.settings, plan.sweep, first=jobs[0].config, folder=plan.folder)


def drive(plan: Plan, jobs: list[Job], screen: Screen, *, pool: Pool, interrupts: Interrupts) -> str:
    """Runs the jobs; returns why it stopped early, or "". Raises Interrupted when all jobs are saved."""

    def told(drive: Drive, ended: Ended) -> None:
        screen.ended(drive, ended)
        plan.folder.write_summary()

    driven = Drive(
        pool=pool,
        folder=plan.folder,
        max_failures=plan.sweep.max_failures,
        begun=screen.done > 0,
        heard=interrupts.stop_if_received,
        told=told,
        shown=screen.show,
    )
    with interrupts:
        try:
            with screen, interrupts.noted():
                driven.run(jobs)
        except Interrupted as stop:
            pool.stop(stop.number, interrupts.seconds_left() - SAVES_S)
            table(plan)
            say(f"interrupted by {stop}; go on with: {go_on(plan)}")
            raise
        finally:
            pool.close()
    return driven.stopped


def go_on(plan: Plan) -> str:
    asked = ConfirmationFolder(sweep).read() if (sweep := confirms(plan.folder.path)) else []
    command = f"{COMMAND} {shlex.quote(f'resume={plan.folder.path}')}"
    if sweep and asked:  # which also says what the jobs show
        command = command_of(sweep, asked[-1])
    return f"{command}{' sweep.retry=failed' if plan.sweep.retry else ''}{allow_words()}"


def counted(rows: Collection[Row], plan: Plan) -> str:
    """`27 jobs: 12 done, 1 to resume, 14 to run`."""
    states = Counter(row.state for row in rows)
    words = {"done": "done", "cut": "to resume", "paused": "to resume", "missing": "to run", "failed": "failed"}
    words["running"] = "being run by another process"
    if plan.sweep.retry == "failed":
        words["failed"] = "to run again"
    said = ", ".join(f"{states[state]} {words[state]}" for state in words if states[state])
    again = "" if plan.sweep.retry or not states["failed"] else " (sweep.retry=failed runs them again)"
    return f"{len(rows)} job{'s' if len(rows) != 1 else ''}: {said}{again}"


def known_seconds(rows: Iterable[Row]) -> float | None:
    """The mean time of the jobs that are done."""
    known = [60 * row.minutes for row in rows if row.minutes is not None and row.state == "done"]
    return sum(known) / len(known) if known else None


def like_runs(job: Job) -> float | None:
    """The mean time of runs like this job, of other sweeps and alone."""
    from s9.runs.estimate import like_seconds  # here: imports torch

    like = like_seconds(job.config, OUTPUTS)
    return sum(like) / len(like) if like else None


def about(each: float | None, jobs: int, slots: int) -> str:
    return "" if each is None else f", about {minutes(each * jobs / max(1, slots))}"


def table(plan: Plan) -> int:
    """Writes summary.csv, prints the table of this command's jobs; returns 1 if one of them is not done, else 0."""
    _, rows = plan.folder.write_summary()
    known = {row.job: row for row in rows}  # without those that a later command in the same folder leaves out
    own = [known.get(job.digest) or plan.folder.row(job.digest, job.values) for job in plan.jobs]
    show(plan.keys, own, Console(soft_wrap=False, highlight=False))
    for line in warn_mixed(own):
        say(f"warning: {line}")
    more = len(known.keys() - {job.digest for job in plan.jobs})
    others = f" (with {more} more jobs of this sweep)" if more else ""
    print(f"summary: {plan.folder.summary}{others}")
    lacking = [row for row in own if row.state != "done"]
    if lacking:
        states = ", ".join(f"{n} {state}" for state, n in Counter(row.state for row in lacking).items())
        print(f"error: {len(lacking)} of {len(own)} jobs are not done: {states}", file=sys.stderr)
    return 1 if lacking else 0


def dry_run(plan: Plan, rows: list[Row], to_run: list[Job]) -> int:
    """Shows every job, what is done, and how long the rest would take; starts nothing and writes nothing."""
    show(plan.keys, rows, Console(highlight=False))
    each, how = known_seconds(rows), "from the jobs that are done"
    if each is None and to_run:
        from s9.runs.estimate import estimate  # here: imports torch

        each, how = estimate(to_run[0].config, OUTPUTS)
    pool = pool_for(plan, plan.jobs)
    more = about(each, len(to_run), min(pool.room(), max(1, len(to_run))))
    pool.close()
    say(f"{plan.folder.path}: {counted(rows, plan)}{more}{f' ({how})' if more else ''}; nothing was started")
    return 0


def say(line: str) -> None:
    print(line, flush=True)
