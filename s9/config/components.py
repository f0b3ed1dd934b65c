"""`_target_` mappings: the classes and functions that conf/ may name, from an allow-list of packages.

A package of the user's own is allowed by the environment, S9_ALLOW=my_package, or by `allow=my_package` on the command
line, which sets S9_ALLOW; commas separate several packages. A stored configuration cannot allow anything.
"""

import difflib
import importlib
import inspect
import math
import os
from collections.abc import Callable
from typing import Any

from s9.system.errors import UserError, nearest

ALLOW = "S9_ALLOW"  # in the environment
ALLOWED_TARGETS = {
    "optimizer": ("torch.optim.", "s9.training."),
    "scheduler": ("s9.training.",),
    "aug": ("albumentations.", "s9.data."),
    "data": (),
}


def allowed_targets(group: str) -> tuple[str, ...]:
    """What a target of this group may begin with: s9's list, and the user's own packages."""
    own = [name.strip().rstrip(".") for name in os.environ.get(ALLOW, "").split(",")]
    return (*ALLOWED_TARGETS[group], *(f"{name}." for name in own if name))


def allow_words() -> str:
    """What a command needs so that it may name what this process may: ` allow=my_package`, or nothing."""
    return "".join(f" allow={name.strip()}" for name in os.environ.get(ALLOW, "").split(",") if name.strip())


def check_form(key: str, component: Any, group: str) -> None:
    """Raises UserError unless `component` is a mapping whose `_target_` is allowed; imports nothing."""
    if not isinstance(component, dict) or "_target_" not in component:
        raise UserError(f"{key}={component}: must be a mapping with _target_ and its arguments")
    check_allowed(key, component["_target_"], group)
    for argument, value in component.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}.{argument}={value}: must be a finite number")


def check_allowed(key: str, target: Any, group: str) -> None:
    """Raises UserError unless the target begins with an allowed package; imports nothing."""
    if isinstance(target, str) and "." in target and target.startswith(allowed_targets(group)):
        return
    package = str(target).partition(".")[0]
    known = " or ".join(ALLOWED_TARGETS[group])
    own = f"in a package of yours, allowed by allow={package} on the command line or {ALLOW}={package}"
    where = f"begin with {known}, or be {own}" if known else f"be {own}"
    raise UserError(f"{key}._target_={target}: must {where}")


def check_target(key: str, target: Any, group: str) -> Callable[..., Any]:
    """The class or function that `target` names, imported only when its package is on the allow-list of `group`."""
    check_allowed(key, target, group)
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):  # a failed import in the user's module
            raise UserError(f"{key}._target_={target}: {module_name} cannot be imported ({error})") from None
        raise UserError(f"{key}._target_={target}: there is no module {module_name}") from None
    found = getattr(module, name, None)
    if name.startswith("_") or not callable(found):
        close = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{key}._target_={target}: {module_name} has no {name}{meant}")
    # The module that defines the target counts too: an allowed module may import, say, subprocess.
    owner, allowed = getattr(found, "__module__", "") or "", allowed_targets(group)
    if not f"{owner}.".startswith(allowed):
        raise UserError(f"{key}._target_={target}: must be defined in {' or '.join(allowed)}, not in {owner}")
    return found


def check_component(key: str, component: Any, group: str) -> None:
    """Raises UserError unless `component` is a mapping whose target is allowed and takes every argument."""
    check_form(key, component, group)
    target = check_target(key, component["_target_"], group)
    given_later = ("self", "params", "progress", "args", "kwargs")
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if n not in given_later}
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in component:
            raise UserError(f"{key}.{name} is missing: {target.__name__} needs it")
    for argument, value in component.items():
        if argument != "_target_" and argument not in parameters:
            known = nearest(argument, sorted(parameters))
            raise UserError(f"{key}.{argument}={value}: {target.__name__} does not take this argument{known}")


def build_component(key: str, component: dict[str, Any], group: str, *args: Any, **replaced: Any) -> Any:
    """Calls the component's target with its arguments; `replaced` wins over the component's own.

    Raises:
        UserError: the target is not allowed, or refuses an argument.
    """
    target = check_target(key, component["_target_"], group)
    arguments = {k: v for k, v in component.items() if k != "_target_"} | replaced
    try:
        return target(*args, **arguments)
    except UserError:
        raise
    except Exception as error:  # a target may raise anything for wrong arguments
        raise UserError(f"{key}{_refusal(error)} ({target.__name__})") from None


def _refusal(error: Exception) -> str:
    """One line that says why a target refused; a long text of pydantic is cut to the argument and the reason."""
    lines = str(error).strip().splitlines()
    if len(lines) > 2 and "validation error" in lines[0]:
        return f".{lines[1].strip()}: {lines[2].split('[type=')[0].strip()}"
    return f": {' '.join(str(error).split())}"
