"""The best trial of a study as an option of `experiment`, which `python -m s9.train` takes as it is."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import QuotedString

from s9.cli.help import groups
from s9.cli.mistakes import parse
from s9.cli.study import BEST, COMMAND, AskedStudy
from s9.config.components import allow_words
from s9.sweeps.trials import Trial
from s9.system.files import write_whole


def write_best(asked: AskedStudy, trial: Trial, trials: int) -> str:
    """Writes experiment/best.yaml in the study's folder; returns the command that trains the trial's run again.

    trials: how many have ended, for the head of the file. Keys that are removed stay arguments of the command: no file
    can remove a key.
    """
    arguments = asked.arguments(trial.params, trial.kept.seed)
    removed = [a for a in arguments if parse(a).is_delete()]
    command = command_of(asked, removed)
    assert trial.end is not None
    head = (
        "# @package _global_\n"
        f"# The best of {trials} trials of study={asked.name}, by the val accuracy that it was chosen by.\n"
        f"#   {command}\n"
        f"# Expect: {100 * trial.end:.2f} % of val, from trial {trial.number}; test was not looked at.\n"
    )
    place = asked.folder / "experiment" / f"{BEST}.yaml"
    place.parent.mkdir(exist_ok=True)
    write_whole(place, (head + as_experiment(a for a in arguments if a not in removed)).encode())
    return command


def command_of(asked: AskedStudy, removed: Iterable[str]) -> str:
    """Hydra takes one --config-dir; the other folder of options is found by a search path.

    A configuration of the user's own has to be in the first one.
    """
    own, name = asked.asked.config_dir, asked.asked.config_name
    has_options = own is not None and any(f.is_dir() and f.name != "study" for f in Path(own).iterdir())
    folders = [asked.folder, Path(own)] if own is not None and (has_options or name != "config") else [asked.folder]
    if name != "config":
        folders.reverse()
    more = [f"hydra.searchpath=[file://{folder.absolute()}]" for folder in folders[1:]]
    flags = ["--config-dir", str(folders[0]), *(["--config-name", name] if name != "config" else [])]
    words = [*flags, f"experiment={BEST}", *removed, *more, *allow_words().split()]
    return f"{COMMAND} {shlex.join(words)}"


def as_experiment(arguments: Iterable[str]) -> str:
    """These arguments as the content of an experiment's file: options as `defaults`, values below their keys."""
    defaults: list[Any] = []
    values: dict[str, Any] = {}
    for parsed in map(parse, arguments):
        key, value = parsed.key_or_group, _plain(parsed.value())
        if key == "experiment":
            defaults.insert(0, value)
        elif key in groups():
            defaults.append({f"override /{key}": value})
        else:
            *parents, last = key.split(".")
            node = values
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
    content = ({"defaults": [*defaults, "_self_"]} if defaults else {}) | values
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
