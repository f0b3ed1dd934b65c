"""`_target_` mappings: the optimizer, schedule and transforms that users swap, from an allow-list of packages."""

import difflib
import importlib
import inspect
import math
import os
from collections.abc import Callable
from typing import Any

from s9.errors import UserError, nearest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the package index for the newest version

# What a `_target_` may name: users swap optimizers, schedules and transforms, nothing else.
ALLOWED_TARGETS = {
    "optimizer": ("torch.optim.", "s9.training."),
    "scheduler": ("s9.training.",),
    "aug": ("albumentations.", "s9.data."),
}


def check_target(key: str, target: Any, group: str) -> Callable[..., Any]:
    """The class or function that `target` names, imported only when its package is on the allow-list of `group`."""
    allowed = ALLOWED_TARGETS[group]
    if not isinstance(target, str) or not target.startswith(allowed):
        raise UserError(f"{key}._target_={target}: must begin with {' or '.join(allowed)}")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise UserError(f"{key}._target_={target}: there is no module {module_name}") from None
    found = getattr(module, name, None)
    if name.startswith("_") or not callable(found):
        close = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{key}._target_={target}: {module_name} has no {name}{meant}")
    # Where it is defined counts too: a module of theirs may import, say, subprocess.
    owner = getattr(found, "__module__", "") or ""
    if not f"{owner}.".startswith(allowed):
        raise UserError(f"{key}._target_={target}: must be defined in {' or '.join(allowed)}, not in {owner}")
    return found


def check_has_target(key: str, component: Any) -> None:
    """Raises UserError unless `component` is a mapping with a `_target_`."""
    if not isinstance(component, dict) or "_target_" not in component:
        raise UserError(f"{key}={component}: must be a mapping with _target_ and its arguments")


def check_component(key: str, component: Any, group: str) -> None:
    """Raises UserError unless `component` is a mapping whose target is allowed and knows every argument."""
    check_has_target(key, component)
    target = check_target(key, component["_target_"], group)
    given_later = ("self", "params", "progress", "args", "kwargs")
    parameters = {n: p for n, p in inspect.signature(target).parameters.items() if n not in given_later}
    known = set(parameters)
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in component:
            raise UserError(f"{key}.{name} is missing: {target.__name__} needs it")
    for argument, value in component.items():
        if argument != "_target_" and argument not in known:
            raise UserError(
                f"{key}.{argument}={value}: {target.__name__} does not know it{nearest(argument, sorted(known))}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}.{argument}={value}: must be a finite number")


def build_component(key: str, component: dict[str, Any], group: str, *args: Any, **replaced: Any) -> Any:
    """Calls the component's target with its arguments; `replaced` wins over the component's own.

    Raises:
        UserError: the target is not allowed, or refuses an argument.
    """
    target = check_target(key, component["_target_"], group)
    arguments = {k: v for k, v in component.items() if k != "_target_"} | replaced
    try:
        return target(*args, **arguments)
    except Exception as error:  # what a target raises of wrong arguments is its own affair
        raise UserError(f"{key}{_refusal(error)} ({target.__name__})") from None


def _refusal(error: Exception) -> str:
    """Why a target refused, in one line; of albumentations' long form (pydantic's text) the argument and the reason."""
    lines = str(error).strip().splitlines()
    if len(lines) > 2 and "validation error" in lines[0]:
        return f".{lines[1].strip()}: {lines[2].split('[type=')[0].strip()}"
    return f": {' '.join(str(error).split())}"


def build_transform(name: str, transform: dict[str, Any], fill: Any) -> Any:
    """One albumentations transform; `fill` takes the place of `fill: mean`.

    Where it holds others, as OneOf and Sequential do, they are a list of such mappings under `transforms`.

    Raises:
        UserError: albumentations refuses an argument.
    """
    key = f"aug.transforms.{name}"
    replaced = {"fill": fill} if transform.get("fill") == "mean" else {}
    if "transforms" in transform:
        inner = transform["transforms"]
        if not isinstance(inner, list) or not inner:
            raise UserError(f"{key}.transforms={inner}: must be a list of mappings, each with _target_")
        replaced["transforms"] = [build_inner(f"{name}.transforms.{n}", each, fill) for n, each in enumerate(inner)]
    built = build_component(key, transform, "aug", **replaced)
    if not hasattr(built, "set_random_state"):
        raise UserError(f"{key}._target_={transform['_target_']}: is not a transform of albumentations")
    return built


def build_inner(name: str, transform: Any, fill: Any) -> Any:
    """A transform that is held by another; checked here, since only its holder is known to the configuration."""
    check_component(f"aug.transforms.{name}", transform, "aug")
    return build_transform(name, transform, fill)


BATCH = "s9.data.batch_transforms."  # where albumentations' names are found as batched tensor code


def build_batch_transform(name: str, transform: dict[str, Any], fill: Any) -> Any:
    """The batched form of one albumentations transform; `fill` takes the place of `fill: mean`.

    Raises:
        UserError: there is none, or it lacks or refuses an argument.
    """
    key, target = f"aug.transforms.{name}", transform["_target_"]
    on_device = {**transform, "_target_": str(target).replace("albumentations.", BATCH, 1)}
    instead = "aug.backend=device cannot do this; aug.backend=albumentations with data.loader=workers may"
    known = vars(importlib.import_module(BATCH.rstrip(".")))
    if on_device["_target_"].removeprefix(BATCH) not in known:
        check_target(key, target, "aug")  # a name that nobody has is told so
        raise UserError(f"{key}._target_={target}: {instead}")
    try:
        check_component(key, on_device, "aug")
    except UserError as error:
        raise UserError(f"{error} ({instead})") from None
    replaced = {"fill": fill} if transform.get("fill") == "mean" else {}
    return build_component(key, on_device, "aug", **replaced)
