"""The notebook s9/S9.ipynb: as it is shipped, and executed on the digits."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from s9.cli.compose import compose_config
from s9.config.schema import Config
from s9.models.analysis import model_facts
from s9.tracking.folder import RunFolder
from tests.conftest import ROOT

NOTEBOOK = ROOT / "s9" / "S9.ipynb"
LARGEST = 700_000  # bytes
PICTURES = ["augmentation", "curves", "misclassified", "confusion", "Grad-CAM"]
OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|mnt|opt|usr|var)\b|[A-Z]:\\")
ON_DIGITS = """
DATA = ["data=digits"]
MODEL = "strided"
AUG = "basic"
EPOCHS = 1
FOLDER = "runs"
"""


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def texts(book: Any) -> str:
    """All that the notebook says and shows, without pictures."""
    said = [cell.source for cell in book.cells]
    for output in (output for cell in code(book) for output in cell.outputs):
        said += [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if not k.startswith("image/"))]
    return "\n".join(said)


def pictures(book: Any) -> int:
    return sum("image/png" in output.get("data", {}) for cell in code(book) for output in cell.outputs)


def configuration(book: Any) -> Config:
    """What the notebook's own line makes of its first cell."""
    (line,) = re.findall(r"^config = .*$", texts(book), re.M)
    names: dict[str, Any] = {"compose_config": compose_config}
    exec(f"{code(book)[0].source}\n{line}", names)
    config: Config = names["config"]
    return config


# As it is shipped


@pytest.fixture(scope="module")
def shipped() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_a_valid_notebook(shipped: Any) -> None:
    nbformat.validate(shipped)


def test_it_is_small() -> None:
    assert NOTEBOOK.stat().st_size < LARGEST


def test_its_cells_were_executed_once_and_in_order(shipped: Any) -> None:
    cells = code(shipped)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_every_cell_but_that_of_the_choices_shows_something(shipped: Any) -> None:
    assert [number for number, cell in enumerate(code(shipped)) if not cell.outputs] == [0]


def test_it_shows_no_error_and_no_warning(shipped: Any) -> None:
    outputs = [output for cell in code(shipped) for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    assert "cannot be" not in texts(shipped)


def test_it_shows_each_picture_of_the_run(shipped: Any) -> None:
    assert pictures(shipped) == len(PICTURES)


def test_it_names_no_folder_of_the_machine_that_ran_it(shipped: Any) -> None:
    assert OF_A_MACHINE.findall(texts(shipped)) == []


def test_it_says_what_to_choose_where_s9_is_an_installed_package(shipped: Any) -> None:
    """Its own choices are paths of a checkout."""
    assert all(choice in shipped.cells[0].source for choice in ('FOLDER = "outputs"', "data=cifar10", "data=digits"))


def test_the_smoothing_that_it_explains_is_that_of_its_run(shipped: Any) -> None:
    assert configuration(shipped).trainer.label_smoothing == 0.1
    assert "a tenth of each label is spread evenly" in texts(shipped)


def test_its_choices_compose(shipped: Any) -> None:
    config = configuration(shipped)
    assert (config.data.kind, config.wandb.mode) == ("folder", "disabled")


def test_the_network_that_it_shows_is_todays(shipped: Any) -> None:
    (classes,) = re.findall(r"^(\d+) classes of (\d+) x", texts(shipped), re.M)
    assert classes == ("10", "32")
    parameters = re.findall(r"^total: ([\d,]+) parameters", texts(shipped), re.M)
    assert parameters == [f"{_parameters(configuration(shipped)):,}"]


def _parameters(config: Config) -> int:
    from s9.data.sources.cifar10 import FACTS

    return model_facts(config.model, FACTS).parameters


# Executed


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """(the notebook after an epoch on the digits, the folder where it ran)."""
    book, folder = nbformat.read(NOTEBOOK, as_version=4), tmp_path_factory.mktemp("notebook")
    code(book)[0].source = ON_DIGITS
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=240, kernel_name="python3", resources=where).execute()
    return book, folder


@pytest.mark.slow
def test_it_runs_on_the_digits(executed: tuple[Any, Path]) -> None:
    book, _ = executed
    assert "digits (scikit-learn): 1,287 train, 150 val, 360 test images" in texts(book)


@pytest.mark.slow
def test_it_trains_a_whole_run(executed: tuple[Any, Path]) -> None:
    _, folder = executed
    (run,) = folder.glob("runs/*/*")
    assert RunFolder(run).is_done() and len(RunFolder(run).read_metrics()) == 1


@pytest.mark.slow
def test_it_draws_what_the_shipped_one_shows(executed: tuple[Any, Path]) -> None:
    book, _ = executed
    assert pictures(book) == len(PICTURES)


@pytest.mark.slow
def test_the_network_that_it_uses_has_the_scores_of_the_run(executed: tuple[Any, Path]) -> None:
    book, folder = executed
    (run,) = folder.glob("runs/*/*")
    accuracy = json.loads(RunFolder(run).summary.read_text())["test"]["accuracy"]
    assert f"test {100 * accuracy:.2f} %>" in texts(book)
