"""`python -m s9.dashboard`: the workspace's definition is the stored one, and saving it again changes the same view.

To store it again after a change that is meant: python tests/test_dashboard.py
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

pytest.importorskip("wandb_workspaces", reason="needs the extra s9[wandb]")

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # wandb-workspaces uses what pydantic will remove
    from s9.tracking.dashboard import USUAL, Dashboard, definition, workspace_of
from tests.doors import error_line, run, shell, started  # noqa: E402
from tests.test_wandb_online import of, serving  # noqa: E402
from tests.wandb_server import ENTITY, WandbServer  # noqa: E402

STORED = Path(__file__).with_name("dashboard.json")
SWEPT = {"model": ["strided", "dilated"], "optimizer.lr": ["0.003", "0.02"], "seed": ["0", "1"]}
OF_PROJECT = Dashboard(name="s9", entity="me", project="s9", swept=USUAL)
OF_SWEEP = Dashboard(name="s9: which", entity="me", project="s9", sweep="which", swept=SWEPT)


def definitions() -> dict[str, Any]:
    return {"project": definition(workspace_of(OF_PROJECT)), "sweep": definition(workspace_of(OF_SWEEP))}


def panels(of_view: dict[str, Any]) -> list[dict[str, Any]]:
    sections = of_view["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def a_sweep(folder: Path) -> str:
    """A sweep's folder, as an argument: it needs no run."""
    path = folder / "outputs" / "sweeps" / "which"
    path.mkdir(parents=True)
    jobs = {f"job{lr}": {"optimizer.lr": lr, "seed": "0"} for lr in ("0.003", "0.02")}
    (path / "sweep.json").write_text(json.dumps({"arguments": [], "keys": ["optimizer.lr", "seed"], "jobs": jobs}))
    return "sweep=outputs/sweeps/which"


# What the view holds


def test_the_definition_is_the_stored_one() -> None:
    assert definitions() == json.loads(STORED.read_text())


def test_val_accuracy_and_loss_come_first() -> None:
    for view in definitions().values():
        assert [panel["config"]["metrics"] for panel in panels(view)[:2]] == [["val/accuracy"], ["val/loss"]]


def test_the_first_curves_of_the_project_are_grouped_by_sweep() -> None:
    assert [panel["config"]["groupBy"] for panel in panels(definitions()["project"])[:4]] == ["group"] * 4


def test_the_axes_are_the_swept_keys_and_labels_where_values_are_no_numbers() -> None:
    view = definitions()["sweep"]
    (parallel,) = (panel for panel in panels(view) if panel["viewType"] == "Parallel Coordinates Plot")
    wanted = [
        "config:swept.value.model",
        "config:optimizer.value.lr",
        "config:seed.value",
        "summary:val/final_accuracy",
    ]
    assert [column["accessor"] for column in parallel["config"]["columns"]] == wanted


def test_importance_is_for_val_accuracy() -> None:
    found = [panel["config"]["targetKey"] for panel in panels(definitions()["sweep"]) if "targetKey" in panel["config"]]
    assert found == ["val/final_accuracy"]


def test_curves_are_joined_by_the_labels_of_the_swept_values() -> None:
    groups = [panel["config"].get("groupBy") for panel in panels(definitions()["sweep"])]
    assert [group for group in groups if group] == ["swept.value.model", "swept.value.optimizer_lr"]


def test_the_runs_are_those_of_the_sweep_best_val_first() -> None:
    (runs,) = definitions()["sweep"]["spec"]["section"]["runSets"]
    (condition,) = runs["filters"]["filters"]
    assert (condition["key"]["name"], condition["value"]) == ("group", "which")
    assert runs["sort"]["keys"] == [{"key": {"section": "summary", "name": "val/final_accuracy"}, "ascending": False}]


def test_no_number_of_test_is_a_column_an_axis_or_a_curve() -> None:
    for view in definitions().values():
        runs = view["spec"]["section"]["runSets"]
        chosen_by = [panel for panel in panels(view) if panel["viewType"] not in ("Vega2", "Media Browser")]
        assert "test/" not in json.dumps([runs, chosen_by])


def test_confusion_matrices_and_mistakes_lie_in_a_closed_section_at_the_end() -> None:
    for view in definitions().values():
        *others, last = view["spec"]["section"]["panelBankConfig"]["sections"]
        assert not last["isOpen"] and all(section["isOpen"] for section in others)
        assert "test/confusion_matrix_table" in json.dumps(last) and "test/misclassified" in json.dumps(last)


def test_panels_have_ids_of_their_own() -> None:
    ids = [panel["__id__"] for panel in panels(definitions()["project"])]
    assert len(set(ids)) == len(ids)


# The door


@pytest.mark.slow
def test_saving_twice_changes_one_view(tmp_path: Path) -> None:
    with serving() as server:
        sweep = a_sweep(tmp_path)
        said = [saved(tmp_path, server, sweep, f"name={name}") for name in ("first", "second")]
        assert said[0] == said[1]
        assert [view["displayName"] for view in server.views.values()] == ["second"]
        assert server.unknown == set()


@pytest.mark.slow
def test_a_view_that_somebody_has_deleted_is_made_again(tmp_path: Path) -> None:
    with serving() as server:
        sweep = a_sweep(tmp_path)
        first = saved(tmp_path, server, sweep)
        server.views.clear()
        again = run(tmp_path, "dashboard", sweep, **of(server))
        assert again.returncode == 0 and first not in again.stdout and len(server.views) == 1


@pytest.mark.slow
def test_what_is_saved_is_the_definition(tmp_path: Path) -> None:
    with serving() as server:
        saved(tmp_path, server, "project=p", "name=n")
        (view,) = server.views.values()
    wanted = definition(workspace_of(Dashboard(name="n", entity=ENTITY, project="p", swept=USUAL)))
    assert json.loads(view["spec"]) == wanted["spec"]
    assert (view["entityName"], view["projectName"], view["displayName"]) == (ENTITY, "p", "n")


def saved(folder: Path, server: WandbServer, *arguments: str) -> str:
    """Saves, and returns the address."""
    done = run(folder, "dashboard", *arguments, **of(server))
    assert done.returncode == 0 and done.stdout.startswith(f"saved: {server.url}/{ENTITY}/"), done.stderr
    return done.stdout


@pytest.mark.slow
def test_without_a_key_the_definition_is_written_and_one_line_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, "dashboard", a_sweep(tmp_path))
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and "wandb login" in done.stdout
    written = json.loads((tmp_path / "outputs/sweeps/which/dashboard.json").read_text())
    swept = {"optimizer.lr": ["0.003", "0.02"], "seed": ["0", "0"]}
    wanted = Dashboard(name="s9: which", project="s9", sweep="which", swept=swept)
    assert written == definition(workspace_of(wanted))


@pytest.mark.slow
def test_a_wandb_that_is_not_reached_is_one_line(tmp_path: Path) -> None:
    unreached: dict[str, Any] = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    done = run(tmp_path, "dashboard", **unreached)
    assert error_line(done, 2).startswith("error: W&B does not take the dashboard: ")


def test_a_folder_without_a_sweep_is_one_line(tmp_path: Path) -> None:
    assert "sweep=nothing: holds no sweep" in error_line(run(tmp_path, "dashboard", "sweep=nothing"), 2)


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "wandb_workspaces").mkdir()
    fails = "raise ModuleNotFoundError(name='wandb_workspaces')\n"
    (tmp_path / "wandb_workspaces" / "__init__.py").write_text(fails)
    with started(tmp_path, shell("dashboard"), PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}") as door:
        assert "pip install 's9[wandb]'" in error_line(door.end(), 2)


if __name__ == "__main__":
    STORED.write_text(json.dumps(definitions(), indent=1) + "\n")
