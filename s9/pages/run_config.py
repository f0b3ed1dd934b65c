"""What a run was asked for, as its page shows it: the configuration, donors, layers, machine."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from s9.data.image_set import ImageFacts
from s9.models.analysis import TABLE_COLUMNS, ModelFacts, model_facts, table_cells
from s9.pages.run_files import RunFiles
from s9.system.errors import UserError

KEY = re.compile(r"\+{0,2}([\w.]+)=")  # of an argument on the command line
DONORS = {"init_from": "The run started from the weights of", "teacher": "The run learned from the teacher"}
IN_STATUS = ("host", "started", "updated", "starts", "minutes", "commit", "dirty", "wheel")
COLUMNS = [(name, number > 1) for number, name in enumerate(TABLE_COLUMNS)]


def keys_of(command: str) -> set[str]:
    """The keys and groups that a command sets, as model and optimizer.lr."""
    try:
        words = shlex.split(command)
    except ValueError:  # an old command, whose quotes were not kept
        words = command.split()
    return {found[1] for found in map(KEY.match, words) if found}


def config_lines(text: str, command: str) -> list[tuple[str, bool]]:
    """Each line of the configuration, and whether the command sets what the line names."""
    given = keys_of(command)
    try:
        marked = {line for path, line in _places(yaml.compose(text, yaml.SafeLoader), "") if path in given}
    except yaml.YAMLError:
        marked = set()
    return [(line, number in marked) for number, line in enumerate(text.splitlines())]


def _places(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    """(path of a key, its line) for all keys below `node`."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{path}{key.value}"
            yield name, key.start_mark.line
            yield from _places(value, f"{name}.")


def donors(run: RunFiles) -> list[str]:
    """A sentence for each of init_from and teacher that the run has."""
    if run.config is None:
        return []
    digests = (run.folder.read_identity() or {}).get("weights of", {})
    said = []
    for key, verb in DONORS.items():
        given = getattr(run.config, key)
        if given is not None:
            sums = ", ".join(f"{digest[:12]}…" for digest in digests.get(key, ()))
            more = f" (sha256 of the weights: {sums})" if sums else ""
            if key == "teacher":
                share, temperature = run.config.distillation.share, run.config.distillation.temperature
                more += f"; {100 * share:g} % of the loss is the teacher's, at temperature {temperature:g}"
            said.append(f"{verb} {given}{more}.")
    return said


def layers(run: RunFiles) -> ModelFacts | None:
    """The layer table; None, with a sentence in `lacks`, where it cannot be made from the files."""
    if run.config is None:
        return None
    try:
        return model_facts(run.config.model, run.images or _facts_of_predictions(run))
    except UserError as error:
        run.lacks.append(f"The layer table cannot be made: {error}.")
        return None


def _facts_of_predictions(run: RunFiles) -> ImageFacts:
    """What the layer table needs of the images. Raises UserError where no file tells."""
    size = run.predictions["worst_images"].shape[1] if run.predictions else 0
    if not size:
        raise UserError("no file tells the number of classes and the size of the images")
    return ImageFacts("", run.class_names, size, (0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def layer_rows(facts: ModelFacts) -> list[list[str]]:
    return table_cells(facts.table)


def environment(run: RunFiles) -> list[tuple[str, str]]:
    """What may change a number or says where it comes from: the machine of the summary, then the status."""
    machine = dict(run.summary.get("machine", {}))
    versions = machine.pop("versions", {})
    identity = run.folder.read_identity() or {}
    planned = {key: identity[key] for key in ("device", "precision") if key in identity}
    status = {key: run.status[key] for key in IN_STATUS if key in run.status}
    found = planned | machine | status
    return [(_said(key), _shown(value)) for key, value in (*found.items(), *versions.items()) if value is not None]


def _said(key: str) -> str:
    words = {"dirty": "sources differ from the commit", "started": "started (UTC)", "updated": "last change (UTC)"}
    return words.get(key, key)


def _shown(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
