"""Between the shell and a door: help, and every wrong input answered with one plain line before anything is made.

Hydra composes; this file asks it to do so once before a run starts, so that a mistake in any part of a sweep stops the
sweep, and turns what Hydra says of a mistake into one line that names the key, the value and what is allowed.
"""

import argparse
import difflib
import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from s9.config import Config, LayerConfig, register_schemas, to_config
from s9.errors import UserError, nearest
from s9.process import keep_freed_memory

# In a checkout conf/ stands beside s9/; an installed wheel carries it inside.
CONF = next(p for p in (Path(__file__).parent / "conf", Path(__file__).parent.parent / "conf") if p.is_dir())
OPEN_MAPS = ("aug.transforms.", "optimizer.", "scheduler.", "model.blocks.", "model.known_weak_points.", "hydra.")


def prepare_hydra() -> None:
    """Registers the types, and the suffix that gives launches in the same second folders of their own."""
    from omegaconf import OmegaConf

    register_schemas()
    OmegaConf.register_new_resolver("s9.suffix", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def groups() -> dict[str, list[str]]:
    """Option names of each config group, read from the folder."""
    return {d.name: sorted(f.stem for f in d.glob("*.yaml")) for d in sorted(CONF.iterdir()) if d.is_dir()}


def exit_with_line(error: object, code: int) -> NoReturn:
    """Prints the error as one line on stderr and ends the process."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)


def open_door(main: Callable[[list[str]], None]) -> None:
    """Runs a door with the shell's arguments; a mistake of the user becomes one line and exit code 2."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a run listens, Ctrl-C ends the process, without a traceback
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        exit_with_line(error, 2)
    except BrokenPipeError:  # whoever reads has seen enough, as in | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def key_values(arguments: list[str], defaults: dict[str, str | None], usage: str) -> dict[str, str]:
    """Reads `key=value` arguments of the small doors. A default of None means that the key must be given.

    Raises:
        UserError: an unknown or a missing key.
    """
    if any(a in ("-h", "--help") for a in arguments):
        print(usage)
        sys.exit(0)
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in defaults:
            raise UserError(f"{argument}: must be key=value{nearest(key, defaults)}")
        given[key] = value
    values = {k: given.get(k, default) for k, default in defaults.items()}
    missing = [k for k, v in values.items() if v is None]
    if missing:
        raise UserError(f"{missing[0]}= is missing; {' '.join(usage.splitlines()[0].split())}")
    return {k: str(v) for k, v in values.items()}


def compose_config(overrides: list[str]) -> Config:
    """The checked configuration that these overrides make.

    Raises:
        UserError: in one line, what is wrong with which of them.
    """
    return to_config(_compose(overrides))


def _compose(overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    prepare_hydra()
    for override in overrides:
        _check_form(override)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            try:
                return compose("config", overrides)
            except (HydraException, OmegaConfBaseException) as error:
                raise _explain(error, overrides, lambda some: compose("config", some)) from None
    finally:
        GlobalHydra.instance().clear()


def _parse(override: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        raise UserError(
            f"{override}: cannot be read; write key=value, and quote values with signs such as = or spaces: "
            "'key=\"a=b\"'"
        ) from None


def _check_form(override: str) -> None:
    """Groups, added and removed keys: what can be judged without composing."""
    parsed = _parse(override)
    key, known = parsed.key_or_group, groups()
    if key in known:
        if parsed.is_add():
            raise UserError(f"{override}: {key} is already part of the configuration; write {override.lstrip('+')}")
        if parsed.is_delete():
            raise UserError(f"{override}: every run needs a {key}; allowed: {', '.join(known[key])}")
        for value in ("null" if v is None else v for v in _values(parsed)):
            if value not in known[key]:
                raise UserError(f"{key}={value}: there is no such option{nearest(str(value), known[key])}")
    elif not key.startswith(OPEN_MAPS) and not key.startswith("hydra/"):
        if parsed.is_add():
            raise UserError(f"{override}: nothing reads an added key; keys are changed with key=value")
        if parsed.is_delete():
            maps = ", ".join(name.rstrip(".") for name in OPEN_MAPS)
            raise UserError(f"{override}: cannot be removed; only what is inside {maps} can")


def _values(parsed: Any) -> list[Any]:
    """The values of a sweep, or the one value. A choice is quoted or not, a group's option is a word either way."""
    from hydra.core.override_parser.types import QuotedString

    values = list(parsed.sweep_iterator()) if parsed.is_sweep_override() else [parsed.value()]
    return [v.text if isinstance(v, QuotedString) else v for v in values]


def _explain(error: Exception, overrides: list[str], compose: Callable[[list[str]], Any]) -> UserError:
    """Finds the override that broke the composition and says in one line what it should have been."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    in_groups = [o for o in overrides if _parse(o).key_or_group in groups()]
    others = [o for o in overrides if o not in in_groups]
    for override in others:
        try:
            compose([*in_groups, override])
        except (HydraException, OmegaConfBaseException) as found:
            parsed = _parse(override)
            key = parsed.key_or_group
            cause = found.__cause__ or found.__context__ or found
            reason = str(cause if isinstance(cause, OmegaConfBaseException) else found).splitlines()[0]
            known = _all_keys(OmegaConf.to_container(compose(in_groups), resolve=False))
            if key not in known and not parsed.is_add():
                return UserError(f"{override}: there is no such key{_nearest_key(key, known)}")
            return UserError(f"{override}: {_in_plain_words(reason)}")
    return UserError(str(error).splitlines()[0])


def _in_plain_words(reason: str) -> str:
    """What OmegaConf says of a wrong type, in the words of a person."""
    wanted = {
        "Integer": "a whole number",
        "Float": "a number",
        "bool": "true or false",
        "not Optional": "a value, not null",
        "not a ListConfig": "a list, as [a,b]",
    }
    for sign, words in wanted.items():
        if sign in reason and ("converted" in reason or "valid" in reason or "Optional" in reason):
            return f"must be {words}"
    return reason


def _nearest_key(key: str, known: list[str]) -> str:
    """The key that was meant: a neighbour spelled alike, one elsewhere with that last part, or the neighbours."""
    parent, _, leaf = key.rpartition(".")
    if parent.startswith("model.blocks.") and parent in known and leaf in LayerConfig.__dataclass_fields__:
        return f" in this row yet; write +{key}=..."
    beside = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    if parent.startswith("model.blocks.") and parent.count(".") == 3:
        beside = {name: f"{parent}.{name}" for name in LayerConfig.__dataclass_fields__}
    deep_first = sorted(known, key=lambda k: -k.count("."))
    anywhere = {k.rpartition(".")[2]: k for k in deep_first}
    for candidates in (beside, anywhere):
        close = difflib.get_close_matches(leaf, candidates, n=1, cutoff=0.75)
        if close:
            return f"; did you mean {candidates[close[0]]}?"
    return f"; allowed: {', '.join(beside.values() or groups())}"


def _all_keys(node: Any, path: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for name, value in node.items():
        keys += [f"{path}{name}", *_all_keys(value, f"{path}{name}.")]
    return keys


def check_sweep(overrides: list[str]) -> None:
    """Checks each value of each swept key beside the first values of the others, before any job starts.

    Raises:
        UserError: what is wrong with one of them.
    """
    choices = []
    for override in overrides:
        parsed = _parse(override)
        if parsed.is_sweep_override():
            choices.append([f"{parsed.get_key_element()}={v}" for v in parsed.sweep_string_iterator()])
        else:
            choices.append([override])
    first = [c[0] for c in choices]
    check_run(first)
    for position, values in enumerate(choices):
        for value in values[1:]:
            check_run([*first[:position], value, *first[position + 1 :]])


def check_run(overrides: list[str]) -> None:
    """Checks the values, and the runs that they name, before anything is started or written.

    Raises:
        UserError: what is wrong with one of them.
    """
    from s9.prepared import sources_of

    sources_of(compose_config(overrides))


def launch(job: Callable[[Any], None], arguments: list[str], help_head: str) -> None:
    """Answers --help, checks everything that the arguments ask for, then hands over to Hydra.

    Raises:
        UserError: in one line, what is wrong.
    """
    if any(a in ("-h", "--help") for a in arguments):
        print(help_text(help_head))
        return
    import hydra
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _refuse_flag
    parsed: argparse.Namespace = parser.parse_intermixed_args(arguments)
    flags = list(arguments)
    for override in parsed.overrides:
        flags.remove(override)
    sys.argv[1:] = [*flags, *parsed.overrides]  # where Hydra reads them, and wants the flags first
    asks_hydra = parsed.hydra_help or parsed.shell_completion or parsed.info or parsed.cfg
    if not asks_hydra and not parsed.config_path and not parsed.config_name and not parsed.config_dir:
        swept = [o for o in parsed.overrides if _parse(o).is_sweep_override()]
        if parsed.multirun:
            check_sweep(parsed.overrides)
        elif swept:
            raise UserError(f"{swept[0]}: names several values; add -m to run them all")
        else:
            check_run(parsed.overrides)
    from hydra.errors import HydraException

    prepare_hydra()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing: what it finds is told in one line here
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(job)()
    except (OSError, ValueError) as found:  # logging.config wraps what it finds in a ValueError
        error = found if isinstance(found, OSError) else found.__cause__
        if not isinstance(error, OSError):
            raise
        place = "hydra.sweep.dir" if parsed.multirun else "hydra.run.dir"
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise UserError(f"{what}; runs are written there, choose with {place}=") from None
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from None


def _refuse_flag(message: str) -> NoReturn:
    raise UserError(f"{message}; python -m s9.train --help")


def help_text(head: str) -> str:
    """The groups, their options with the first line of each file, an example a group."""
    import yaml

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
        "Sweeps (-m, several values):",
        "  python -m s9.train -m model.dropout=0,0.05,0.1 optimizer.lr=0.1,0.3",
        "Show the configuration and stop: --cfg job. Hydra's own flags: --hydra-help.",
    ]
    return "\n".join(lines)
