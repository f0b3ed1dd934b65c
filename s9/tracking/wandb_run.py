"""All calls of W&B itself: how a run begins there, and what W&B shows of the run. Imported late, by wandb_log."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from wandb.sdk.lib.config_util import dict_from_config_file

from s9.config.schema import Config
from s9.config.stored import as_dict
from s9.models.analysis import TABLE_COLUMNS, ModelFacts, table_cells
from s9.tracking.wandb_mode import own_settings as own_settings
from s9.tracking.wandb_mode import pick_mode as pick_mode
from s9.tracking.wandb_names import labels_of, name_of, tags_of

MATRIX_CLASSES = 50  # W&B's confusion matrix has a row for each pair of classes: a million at 1,000 classes
PAIRS_SHOWN = 100


def begin_anew(*arguments: Any, **names: Any) -> Any:
    """Calls `begin`, with a new process of W&B if the one that earlier runs used is gone.

    What a call says when that process is gone depends on the moment: the connection was lost, refused, or closed. W&B's
    refusals (no key, no server, a name that is not allowed) are errors of its own and would be the same again.
    """
    try:
        return begin(*arguments, **names)
    except wandb.Error:
        raise
    except Exception:
        with suppress(Exception):
            wandb.teardown()
        return begin(*arguments, **names)


def begin(config: Config, own: Any, folder: Path, *, mode: str, run_id: str, **of_sweep: Any) -> Any:
    """Starts the run; values that the configuration leaves open come from W&B's own settings, else from s9.

    Args:
        of_sweep: group and swept, as for `WandbLog`.
    """
    wanted, group, swept = config.wandb, of_sweep["group"], of_sweep["swept"]
    values = (swept or {}) | values_of_agent(own)
    named = config.name or own.run_name
    if values:
        named = name_of(values, named, folder.name)
    tags = wanted.tags if swept is None else tags_of(wanted.tags or own.run_tags or (), group)
    limits = {"init_timeout": wanted.timeout, "finish_timeout": wanted.timeout, "finish_timeout_raises": True}
    return wandb.init(
        mode="online" if mode == "online" else "offline",
        project=wanted.project or own.project or "s9",
        entity=wanted.entity,  # None, as for tags: the value of W&B's own settings
        id=run_id,
        resume="allow",
        name=named or config.run_name,
        # The view of a sweep (s9.dashboard) shows the runs of its group.
        group=wanted.group or (group if swept else None) or own.run_group or group or config.model.name,
        tags=tags or None,
        job_type=wanted.job_type or own.run_job_type or "train",
        dir=str(folder),
        config=as_dict(config) | labels_of(values),
        reinit="finish_previous",  # one process runs all the jobs of a sweep
        settings=wandb.Settings(silent=True, console="off", **limits),
    )


def values_of_agent(own: Any) -> dict[str, str]:
    """The values that the agent of a W&B sweep has chosen for this run; empty where no agent has started the run."""
    path = own.sweep_param_path if own.sweep_id else None
    return {key: str(value) for key, value in (dict_from_config_file(path) or {}).items()} if path else {}


def layers(facts: ModelFacts) -> Any:
    """The layer table."""
    return wandb.Table(columns=TABLE_COLUMNS, data=table_cells(facts.table))


def mistakes(predictions: dict[str, np.ndarray]) -> list[Any]:
    """The images of the most confident mistakes on test, with their classes and file names."""
    names, preds, labels = _read(predictions)
    found = []
    for i, image in zip(predictions["worst"], predictions["worst_images"], strict=True):
        caption = f"{names[labels[i]]}, called {names[preds[i]]}: {predictions['names'][i]}"
        caption = caption.encode(errors="backslashreplace").decode()  # names of files may be no UTF-8
        found.append(wandb.Image(image, caption=caption))
    return found


def confusion(predictions: dict[str, np.ndarray]) -> dict[str, Any]:
    """The confusion matrix, or, for too many classes for W&B to show, the most confused pairs of classes."""
    names, preds, labels = _read(predictions)
    if len(names) <= MATRIX_CLASSES:
        matrix = wandb.plot.confusion_matrix(y_true=labels.tolist(), preds=preds.tolist(), class_names=names)
        return {"test/confusion_matrix": matrix}
    columns = ["true", "predicted", "images", "of the true class"]
    return {"test/confused_pairs": wandb.Table(columns=columns, data=confused_pairs(labels, preds, names))}


def _read(predictions: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(class names, preds, labels)."""
    return [str(n) for n in predictions["class_names"]], predictions["probs"].argmax(1), predictions["labels"]


def confused_pairs(labels: np.ndarray, preds: np.ndarray, names: list[str]) -> list[list[Any]]:
    """The most frequent mistakes: true class, predicted class, number of images, fraction of the true class."""
    wrong = labels != preds
    pairs, counts = np.unique(np.stack([labels[wrong], preds[wrong]]), axis=1, return_counts=True)
    totals = np.bincount(labels, minlength=len(names))
    most = np.argsort(-counts, kind="stable")[:PAIRS_SHOWN]
    return [
        [names[true], names[pred], int(count), float(count / totals[true])]
        for true, pred, count in zip(*pairs[:, most], counts[most], strict=True)
    ]


def pictures(paths: list[Path]) -> dict[str, Any]:
    return {f"figures/{path.stem}": wandb.Image(str(path)) for path in paths}


def in_one_line(error: Exception) -> str:
    """The first error in one line. The first line of a pydantic error, as of W&B's settings, only counts the errors."""
    if callable(errors := getattr(error, "errors", None)):
        first = errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
