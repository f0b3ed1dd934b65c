"""The frame of every command: its help, one plain line for a mistake, and its exit code."""

import os
import signal
import sys
from collections.abc import Callable, Mapping

from s9.config.components import ALLOW
from s9.system.errors import UserError, nearest
from s9.system.process import keep_freed_memory

ASKS_HELP = {"-h", "--help"}
ALLOW_KEY = "allow="
READER_GONE = 128 + 13  # as a shell says of a command that SIGPIPE ends


def open_door(main: Callable[[list[str]], int | None], usage: str | Callable[[], str]) -> None:
    """Runs a command with the shell's arguments and ends the process with the exit code that `main` returns.

    A mistake of the user's becomes one line on stderr and exit code 2. `allow=my_package` is read here, not passed on.
    """
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a run listens, Ctrl-C ends the process, without a traceback
    arguments = [a for a in sys.argv[1:] if not a.startswith(ALLOW_KEY)]
    allowed = [a.removeprefix(ALLOW_KEY) for a in sys.argv[1:] if a.startswith(ALLOW_KEY)]
    if allowed:  # in the environment, where processes that this one starts find it too
        os.environ[ALLOW] = ",".join([*filter(None, [os.environ.get(ALLOW)]), *allowed])
    try:
        if ASKS_HELP & set(arguments):
            print(usage if isinstance(usage, str) else usage())
            code = 0
        else:
            code = main(arguments) or 0
        print(end="", flush=True)  # also where the process was started without a stdout
    except UserError as error:
        say_error(error)
        code = 2
    except BrokenPipeError:  # the reader has closed the pipe, as | head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = READER_GONE
    if code:
        sys.exit(code)


def say_error(error: object) -> None:
    """Prints the error as one line on stderr."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


def key_values(arguments: list[str], defaults: Mapping[str, str | None], usage: str) -> dict[str, str]:
    """Reads `key=value` arguments of the small commands. A default of None means that the key must be given.

    Raises:
        UserError: an unknown or a missing key, or one that is given twice.
    """
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in defaults:
            raise UserError(f"{argument}: {_wrong(key, equals, defaults)}")
        if key in given:
            raise UserError(f"{argument}: {key}= is given twice; give it once")
        given[key] = value
    values = {k: given.get(k, default) for k, default in defaults.items()}
    missing = [k for k, v in values.items() if v is None]
    if missing:
        raise UserError(f"{missing[0]}= is missing; {' '.join(usage.splitlines()[0].split())}")
    return {k: str(v) for k, v in values.items()}


def _wrong(key: str, equals: str, known: Mapping[str, str | None]) -> str:
    """What is wrong with an argument that is not key=value with a known key."""
    if (plain := key.lstrip("-")) in known:
        return f"must be {plain}=<value>"
    return f"{'there is no such key' if equals else 'must be key=value'}{nearest(key, known)}"


def refuse_unknown(given: Mapping[str, str], allowed: Mapping[str, tuple[str, ...]]) -> None:
    """Raises UserError where a value is not among those that its key may have."""
    for key, values in allowed.items():
        if given[key] not in values:
            raise UserError(f"{key}={given[key]}: must be {' or '.join(values)}")
