"""The project's W&B workspace as code, and how saving it again changes the same view; needs the extra s9[wandb].

wandb-workspaces 0.4.13 is a preview, so its version is pinned; `_to_model` and `_id` below are not public.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from s9.system.errors import UserError
from s9.system.files import write_whole
from s9.tracking.wandb_mode import has_credentials, own_settings
from s9.tracking.wandb_names import LABELS, label_of
from s9.tracking.wandb_run import in_one_line

log = logging.getLogger("s9")

CURVES = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
SCORE = "val/final_accuracy"  # of the final weights, by which a sweep chooses; val/accuracy itself has the best epoch
SEED = "seed"
MOST_RUNS = 100  # in one chart
USUAL: Mapping[str, Sequence[str]] = {"model.dropout": ("0",), "optimizer.lr": ("0.1",)}  # axes where no sweep is named
MATRIX = {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"}  # columns of W&B's own chart


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """Which view of which project. sweep: shows the runs of this sweep alone. swept: from its keys to their values.

    project, entity "": those of W&B's own settings, else s9 and the entity of the key.
    """

    name: str
    project: str = ""
    entity: str = ""
    sweep: str = ""
    swept: Mapping[str, Sequence[str]]


def workspace_of(of: Dashboard) -> Any:
    """The workspace; the same one gives the same definition, to the letter."""
    sections = [
        ws.Section(name="Accuracy and loss of each run", panels=[_curve(key) for key in CURVES], is_open=True),
        ws.Section(name="Swept values", panels=_swept_panels(of.swept), is_open=True),
        ws.Section(name="Final weights on test: for a look at one run, never to choose by", panels=_test_panels()),
    ]
    if not of.sweep:
        by_sweep = [_curve(key, wr.Metric("Group")) for key in CURVES]
        sections.insert(0, ws.Section(name="Accuracy and loss by sweep", panels=by_sweep, is_open=True))
    for section in sections:
        section.layout_settings = ws.SectionLayoutSettings(columns=2, rows=2)
        for panel in section.panels:
            # Random by default: W&B would lose what people change by hand in a panel each time it is saved.
            shown = {**panel._to_model().model_dump(by_alias=True, exclude={"id"}), "section": section.name}
            digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
            object.__setattr__(panel, "_id", digest[:12])
    columns = [f"summary:{SCORE}", "summary:val/final_loss"]
    columns += [f"config:{LABELS}.value.{label_of(key)}" for key in of.swept if of.sweep]
    return ws.Workspace(
        entity=of.entity,
        project=of.project,
        name=of.name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == of.sweep) if of.sweep else "",
            order=[expr.Ordering(expr.Summary(SCORE), ascending=False)],
            pinned_columns=columns,
        ),
    )


def _curve(metric: str, group: Any = None) -> Any:
    """group: by what runs are joined to one curve with its range; None: a curve for each run."""
    joined = {"groupby": group, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"} if group is not None else {}
    return wr.LinePlot(title=metric, x="epoch", y=[metric], max_runs_to_show=MOST_RUNS, **joined)


def _swept_panels(swept: Mapping[str, Sequence[str]]) -> list[Any]:
    axes = [wr.ParallelCoordinatesPlotColumn(_axis(key, values), display_name=key) for key, values in swept.items()]
    score = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(SCORE), display_name="val accuracy")
    panels = [
        wr.ParallelCoordinatesPlot(title="val accuracy by swept values", columns=[*axes, score]),
        wr.ParameterImportancePlot(with_respect_to=SCORE),
    ]
    for key in swept:
        if key != SEED:
            panel = _curve("val/accuracy", wr.Config(f"{LABELS}.{label_of(key)}"))
            panel.title = f"val/accuracy by {key}"
            panels.append(panel)
    return panels


def _axis(key: str, values: Sequence[str]) -> Any:
    """The number itself where all values are numbers; else the label: an option's name is no value of its key."""
    try:
        [float(value) for value in values]
    except ValueError:
        return wr.Config(f"{LABELS}.{label_of(key)}")
    return wr.Config(key)


def _test_panels() -> list[Any]:
    confusion = wr.CustomChart(
        query={"summaryTable": {"tableKey": "test/confusion_matrix_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields=MATRIX,
        chart_strings={"title": "confusion matrix"},
    )
    pictures = {"confusion matrices": "figures/confusion", "mistakes": "test/misclassified"}
    pictures |= {"mistakes in one picture": "figures/misclassified", "curves": "figures/curves"}
    return [confusion, *(wr.MediaBrowser(title=title, media_keys=[key]) for title, key in pictures.items())]


def definition(workspace: Any) -> dict[str, Any]:
    """What `save` sends."""
    view = workspace._to_model()
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"entity": view.entity, "project": view.project, "displayName": view.display_name, "spec": spec}


class Views:
    """The addresses of the views that were saved from one folder, by entity and project.

    Saving a new object makes a new view each time; only one that was loaded from its address is changed.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".dashboard.json"
        self.unsaved = folder / "dashboard.json"

    def urls(self) -> dict[str, str]:
        try:
            stored = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def save(self, of: Dashboard) -> str:
        """Saves the workspace as the view that was saved before, or as a new one; returns its address.

        Raises:
            Exception: of many kinds, W&B's.
        """
        new, place = workspace_of(of), f"{of.entity}/{of.project}"
        workspace = self._saved(place) or new
        for part in ("name", "sections", "settings", "runset_settings"):
            setattr(workspace, part, getattr(new, part))
        workspace.save()
        _write(self.path, self.urls() | {place: workspace.url})
        return str(workspace.url)

    def _saved(self, place: str) -> Any:
        """The view as W&B has it; None where there is none yet, or somebody has deleted it."""
        url = self.urls().get(place)
        if url is None:
            return None
        try:
            return ws.Workspace.from_url(url)
        except ValueError:
            log.warning("W&B no longer has %s; a new view is made", url)
            return None


def save(of: Dashboard, folder: Path) -> str:
    """Saves the workspace, or, where there is no key, writes its definition to `folder`; returns what to say.

    Raises:
        UserError: the folder cannot be written, or W&B is not reached or refuses.
    """
    views = Views(folder)
    try:
        own = own_settings()
        of = replace(of, project=of.project or own.project or "s9", entity=of.entity or own.entity or "")
        if not has_credentials(own.base_url):
            _write(views.unsaved, definition(workspace_of(of)))
            return f"no key: {views.unsaved} is what would be saved; run wandb login, then this command again"
        return f"saved: {views.save(replace(of, entity=of.entity or wandb.Api().default_entity))}"
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"W&B does not take the dashboard: {in_one_line(error)}") from None


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
