"""Turns an error of Hydra or OmegaConf into one line that names the key, the value and what is allowed."""

import difflib
import functools
from collections.abc import Callable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s9.cli.help import groups
from s9.config.model import LayerConfig
from s9.system.errors import UserError

NOT_ALL_LISTED = ("optimizer.", "scheduler.", "aug.transforms.", "data.arguments.")  # a class may take more


@functools.cache  # a sweep asks again and again
def parse(override: str) -> Any:
    """One argument as Hydra parses it. Raises UserError if Hydra cannot parse it."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        key, _, value = override.partition("=")
        hint = "write key=value, and quote values with signs such as = or spaces: 'key=\"a=b\"'"
        if key == "sweep.exclude":
            hint = f"the condition needs quotes inside those of the shell: '{key}=\"{value}\"'"
        elif key == "sweep.cells":
            hint = f"the shell must not see its brackets and spaces: '{key}=[{{optimizer.lr: 0.1}}]'"
        raise UserError(f"{override}: cannot be read; {hint}") from None


def explain(error: Exception, overrides: list[str], compose: Callable[[list[str]], Any]) -> UserError:
    """Finds the override that broke the composition and says in one line what it should have been."""
    in_groups = [
        o for o in overrides if parse(o).key_or_group.startswith("hydra/") or parse(o).key_or_group in groups()
    ]
    others = [o for o in overrides if o not in in_groups]
    for override in others:
        try:
            compose([*in_groups, override])
        except (HydraException, OmegaConfBaseException) as found:
            parsed = parse(override)
            key = parsed.key_or_group
            cause = found.__cause__ or found.__context__ or found
            reason = str(cause if isinstance(cause, OmegaConfBaseException) else found).splitlines()[0]
            known = all_keys(OmegaConf.to_container(compose(in_groups), resolve=False))
            if key not in known and not parsed.is_add():
                return UserError(f"{override}: there is no such key{_nearest_key(key, known, parsed.is_delete())}")
            return UserError(f"{override}: {_in_plain_words(reason)}")
    return UserError(str(error).splitlines()[0])


def _in_plain_words(reason: str) -> str:
    """OmegaConf's message about a wrong type, in plain words."""
    wanted = {
        "Integer": "a whole number",
        "Float": "a number",
        "bool": "true or false",
        "not Optional": "a value, not null",
        "not a ListConfig": "a list, as [a,b]",
        "Cannot merge DictConfig with ListConfig": "a list, as [a,b]",
    }
    for sign, words in wanted.items():
        if sign in reason and any(word in reason for word in ("converted", "valid", "Optional", "merge")):
            return f"must be {words}"
    return reason


def _nearest_key(key: str, known: list[str], deleted: bool) -> str:
    """Suggests a key: a sibling spelled alike, else any key with a similar last part, else lists the siblings."""
    parent, _, leaf = key.rpartition(".")
    may_be_added = not deleted and parent in known and key.startswith(NOT_ALL_LISTED) and parent != "aug.transforms"
    if parent.startswith("model.blocks.") and parent in known and leaf in LayerConfig.__dataclass_fields__:
        return f" in this row yet; write +{key}=..."
    beside = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    if parent.startswith("model.blocks.") and parent.count(".") == 3:
        beside = {name: f"{parent}.{name}" for name in LayerConfig.__dataclass_fields__}
    deep_first = sorted(known, key=lambda k: -k.count("."))
    anywhere = {k.rpartition(".")[2]: k for k in deep_first if key.startswith("hydra") or not k.startswith("hydra")}
    for candidates in (beside,) if may_be_added else (beside, anywhere):
        close = difflib.get_close_matches(leaf, candidates, n=1, cutoff=0.75)
        if close:
            return f"; did you mean {candidates[close[0]]}?"
    if may_be_added:
        return f" in the configuration yet; write +{key}=..."
    return f"; allowed: {', '.join(beside.values() or groups())}"


def all_keys(node: Any, path: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for name, value in node.items():
        keys += [f"{path}{name}", *all_keys(value, f"{path}{name}.")]
    return keys
