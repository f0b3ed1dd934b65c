"""What `python -m s9.train --help` prints: the groups and their options, read from conf/ without Hydra."""

from pathlib import Path

import yaml

# In a checkout conf/ is next to s9/; in an installed wheel conf/ is inside s9/.
_HERE = Path(__file__).parent.parent
CONF = next(p for p in (_HERE / "conf", _HERE.parent / "conf") if p.is_dir())


NO_GROUPS = ("hydra", "study")  # folders of conf/ that hold no part of a run: Hydra's launchers, spaces of s9.tune


def groups() -> dict[str, list[str]]:
    """Option names of each config group, read from the folder."""
    folders = [d for d in sorted(CONF.iterdir()) if d.is_dir() and d.name not in NO_GROUPS]
    return {d.name: sorted(f.stem for f in d.glob("*.yaml")) for d in folders}


def help_text(head: str) -> str:
    """The groups and their options, each with its file's first line and example, then how to set values and sweep."""
    root = yaml.safe_load((CONF / "config.yaml").read_text())
    default = {k: v for entry in root["defaults"] if isinstance(entry, dict) for k, v in entry.items()}
    lines = [head, "", "Groups (group=option; * is the default):"]
    for group, options in groups().items():
        for option in options:
            text = (CONF / group / f"{option}.yaml").read_text().removeprefix("# @package _global_\n")
            comment = text.splitlines()
            mark = "*" if default.get(group) == option else " "
            lines.append(f"  {group + '=' + option:<22}{mark} {comment[0].lstrip('# ')}")
            if len(comment) > 1 and comment[1].startswith("#   "):
                lines.append(f"{'':<25}{comment[1].lstrip('# ')}")
        lines.append("")
    lines += [
        "Values (key=value), as in the files of conf/:",
        "  python -m s9.train model.dropout=0.05 optimizer.lr=0.2 trainer.epochs=40 seed=1",
        "Sweeps (-m, several values); the same command again skips what is done and resumes what was cut:",
        "  python -m s9.train -m model.dropout=0,0.05,0.1 optimizer.lr=0.1,0.3 seed=0,1,2",
        "  sweep.dry_run=true shows the jobs and how long they would take; sweep.name=, sweep.cells=, sweep.exclude=,",
        "  sweep.sample=, sweep.retry=failed, hydra/launcher=joblib|submitit_slurm|ray: see conf/README.md.",
        "Classes of a package of your own: allow=my_package, or S9_ALLOW=my_package in the environment.",
        "Show the configuration and stop: --cfg job. Hydra's own flags: --hydra-help.",
    ]
    return "\n".join(lines)
