"""Saves the project's W&B workspace, which is built from code.   python -m s9.dashboard sweep=outputs/sweeps/..."""

from pathlib import Path

from s9.cli.door import key_values, open_door
from s9.system.errors import UserError

USAGE = """python -m s9.dashboard [sweep=outputs/sweeps/<name>] [project=<...>] [entity=<...>] [name=<...>]

Builds a view of the W&B project: accuracy and loss, by sweep and by run; the swept values as parallel coordinates with
their importance for val accuracy; then, of test, confusion matrices and mistakes. With sweep= the view has that sweep's
runs alone, with the keys that it sweeps. Given again, the command changes the same view: .dashboard.json, in the
sweep's folder or in outputs/, holds its address. Without a key of W&B it writes what it would save to dashboard.json
there. project= and entity= are W&B's own settings where they are left out, else s9 and the entity of the key."""


def main(arguments: list[str]) -> None:
    given = key_values(arguments, dict.fromkeys(("sweep", "project", "entity", "name"), ""), USAGE)
    try:
        from s9.tracking import dashboard
    except ModuleNotFoundError as error:
        if error.name != "wandb_workspaces":
            raise
        raise UserError(
            "s9.dashboard needs wandb-workspaces, which is not installed: pip install 's9[wandb]'"
        ) from None

    from s9.sweeps.jobs import SWEEPS, SweepFolder

    folder, swept, sweep = SWEEPS.parent, dashboard.USUAL, ""
    if given["sweep"]:
        of = SweepFolder(Path(given["sweep"]))
        folder, sweep, stored = of.path, of.path.resolve().name, of.read()
        if not stored:
            raise UserError(f"sweep={folder}: holds no sweep; give a folder such as {SWEEPS / '<name>'}")
        jobs = stored["jobs"].values()
        swept = {key: [job[key] for job in jobs if key in job] for key in stored["keys"]}
    name = given["name"] or (f"s9: {sweep}" if sweep else "s9")
    of_project = {"project": given["project"], "entity": given["entity"]}
    print(dashboard.save(dashboard.Dashboard(name=name, sweep=sweep, swept=swept, **of_project), folder))


if __name__ == "__main__":
    open_door(main, USAGE)
