"""The page of a sweep, as text: what stands on it, in which order, and what never does."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s9.pages import sweep_figures
from s9.pages.sweep_data import POINTS, curves_of, levels_of, thinned
from s9.pages.sweep_page import write_sweep_page
from s9.sweeps.answer import answer_of
from s9.sweeps.jobs import SweepFolder
from s9.sweeps.table import Cell, Row
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from tests.made_up_sweep import MADE_UP, write_made_up_sweep

TWO = {"model.dropout": ["0", "0.1"], "optimizer.lr": ["0.1", "0.02", "0.005"]}
HOSTILE = ["<img src=x onerror=alert(1)>", '"</script><script>alert(2)</script>', "'\"`${1}{b}", "a\nb"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepFolder]:
    """2 x 3 cells of 3 seeds, of which one job has failed and one is missing; its page is written."""
    place = tmp_path_factory.mktemp("made") / "made-up"
    made = write_made_up_sweep(place, TWO, failed=1, missing=1, epochs=60, spread=0.008)
    write_sweep_page(made)
    yield made


@pytest.fixture(scope="module")
def text(folder: SweepFolder) -> str:
    return (folder.path / "report.html").read_text()


def main_of(text: str) -> str:
    """The part that can be read without JavaScript."""
    return text[text.index("<main") : text.index("</main>")]


def data_in(text: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def rows_of(text: str, id: str) -> list[list[str]]:
    """The cells of a plain table, without markup."""
    table = text[text.index(f'<table id="{id}"') :]
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", table[: table.index("</table>")], re.DOTALL)
    return [[re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line)] for line in lines]


def test_it_writes_a_page_a_table_and_pictures(folder: SweepFolder) -> None:
    written = write_sweep_page(folder)
    names = ["report.html", "cells.csv", "figures/cells.png", "figures/effects.png", "figures/curves.png"]
    assert written == [folder.path / name for name in names]
    assert all(path.stat().st_size > 0 for path in written)


def test_the_answer_stands_first_then_warnings_then_tables(folder: SweepFolder, text: str) -> None:
    answer = answer_of(folder)
    plain = re.sub(r"&#\d+;|&\w+;", "'", main_of(text))
    places = [plain.index(re.sub("['\"<>&]", "'", line)) for line in [*answer.sentences, *answer.warnings]]
    assert places == sorted(places)
    assert places[-1] < plain.index('id="cells-table"') < plain.index('id="jobs-table"') < plain.index('id="where"')


def test_warnings_are_marked_as_such(folder: SweepFolder, text: str) -> None:
    assert main_of(text).count("Warning:</strong>") == len(answer_of(folder).warnings) > 0


def test_every_cell_says_in_words_how_it_stands_against_the_best(folder: SweepFolder, text: str) -> None:
    head, *rows = rows_of(text, "cells-table")
    verdicts = [row[head.index("against the best")] for row in rows]
    like = answer_of(folder).analysis.like_best
    expected = ["cannot be told from the best" if same else "below the best" for same in like]
    assert verdicts == ["best mean", *expected[1:]]
    assert len(set(verdicts)) == 3


def test_marked_cells_are_those_that_cannot_be_told_from_the_best(folder: SweepFolder, text: str) -> None:
    assert main_of(text).count('<tr class="marked">') == sum(answer_of(folder).analysis.like_best)


def test_every_job_is_in_the_plain_table(folder: SweepFolder, text: str) -> None:
    _, *rows = rows_of(text, "jobs-table")
    assert [row[0] for row in rows] == list(folder.read()["jobs"])
    assert {row[-4] for row in rows} == {"done", "failed", "missing"}


def test_no_score_of_test_is_in_it(folder: SweepFolder) -> None:
    for file in ("report.html", "cells.csv"):
        written = (folder.path / file).read_text()
        assert "0.1234" not in written and "12.35" not in written and "9.8765" not in written and "test/" not in written


def test_a_failed_job_has_its_reason_and_a_link_to_its_traceback(folder: SweepFolder, text: str) -> None:
    (failed,) = (row for row in folder.rows()[1] if row.state == "failed")
    part = main_of(text)[main_of(text).index('id="failed"') :]
    assert failed.reason in part
    assert f'href="{failed.job}/error.txt"' in part
    assert "model.dropout=0 optimizer.lr=0.1 seed=0" in part


def test_cells_csv_has_every_cell_with_numbers_as_they_are(folder: SweepFolder) -> None:
    with (folder.path / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = answer_of(folder).cells
    assert [float(row["mean"]) for row in rows] == [cell.mean for cell in cells]
    assert [{key: row[key] for key in TWO} for row in rows] == [dict(cell.values) for cell in cells]


def test_the_minutes_of_all_jobs_are_added(folder: SweepFolder, text: str) -> None:
    minutes = sum(row.minutes or 0 for row in folder.rows()[1])
    assert f"{minutes:.1f} minutes in all, of 17 of 18 jobs whose time is known" in main_of(text)


def test_what_the_jobs_have_in_common_is_named(text: str) -> None:
    part = main_of(text)[main_of(text).index('id="common"') :]
    assert "python -m s9.train -m data=digits model.dropout=0,0.1" in part
    assert MADE_UP in part and "torch 0.0.0" in part


def test_a_job_is_linked_once_it_has_a_page(folder: SweepFolder, tmp_path: Path) -> None:
    made = write_made_up_sweep(tmp_path / "made-up", {"model.dropout": ["0"]}, epochs=2)
    first, second, _ = made.read()["jobs"]
    (made.path / first / "report.html").write_text("")
    write_sweep_page(made)
    written = (made.path / "report.html").read_text()
    assert f'href="{first}/report.html"' in main_of(written)
    assert second in main_of(written) and f"{second}/report.html" not in written
    assert [job[-1] for job in data_in(written)["jobs"]] == [f"{first}/report.html", "", ""]


def test_a_job_of_another_sweep_is_linked_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweeps = Path("outputs/sweeps")
    one, other = (write_made_up_sweep(sweeps / name, {"model.dropout": ["0"]}, seeds=1, epochs=2) for name in "ab")
    (job,) = one.read()["jobs"]
    for file in (one.path / job).iterdir():
        file.unlink()
    (other.path / job / "report.html").write_text("")
    write_sweep_page(one)
    assert f'href="../b/{job}/report.html"' in (one.path / "report.html").read_text()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hostile_values_stay_text(count: int, tmp_path: Path) -> None:
    keys = {f"<b>key{n}</b>": HOSTILE[:3] for n in range(count)}
    made = write_made_up_sweep(tmp_path / "<i>name", keys, seeds=2, epochs=2)
    write_sweep_page(made)
    written = (made.path / "report.html").read_text()
    own = re.sub(r"<script>.*?</script>", "", written, flags=re.DOTALL)  # the libraries
    assert "<img" not in own and "<b>" not in own and "<i>" not in own and "<script>alert(2)" not in written
    assert data_in(written)["levels"][0] == sorted(HOSTILE[:3])


def test_a_sweep_without_any_score_has_a_page(tmp_path: Path) -> None:
    made = write_made_up_sweep(tmp_path / "made-up", TWO, failed=18, epochs=2)
    written = write_sweep_page(made)
    assert "No job has a score yet." in written[0].read_text()


def test_a_sweep_of_seeds_alone_has_a_page(tmp_path: Path) -> None:
    made = write_made_up_sweep(tmp_path / "made-up", {}, seeds=3, epochs=2)
    written = write_sweep_page(made)[0].read_text()
    assert 'id="where"' not in written and len(rows_of(written, "jobs-table")) == 4


def test_one_seed_has_no_intervals(tmp_path: Path) -> None:
    made = write_made_up_sweep(tmp_path / "made-up", {"model.dropout": ["0", "0.1"]}, seeds=1, epochs=2)
    written = write_sweep_page(made)[0].read_text()
    assert all(cell["low"] is None for cell in data_in(written)["cells"])
    assert "95 % interval of this mean" not in written
    assert "cannot be told from the best" not in main_of(written)


def test_a_damaged_metrics_file_costs_its_curve_alone(tmp_path: Path) -> None:
    made = write_made_up_sweep(tmp_path / "made-up", {"model.dropout": ["0"]}, seeds=3, epochs=2)
    jobs = list(made.read()["jobs"])
    RunFolder(made.path / jobs[0]).metrics.write_text("{\n")
    RunFolder(made.path / jobs[1]).metrics.write_text('[1]\n"text"\n')
    runs = curves_of(made.rows()[1])["runs"]
    assert runs[:2] == [None, None] and runs[2] is not None


def test_a_picture_that_cannot_be_drawn_costs_that_picture_alone(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> None:
        raise ValueError("no room")

    monkeypatch.setattr(sweep_figures, "_cells", fails)
    names = [path.name for path in write_sweep_page(folder)]
    assert names == ["report.html", "cells.csv", "effects.png", "curves.png"]
    assert "cells.png cannot be drawn (no room)" in caplog.text


def test_a_folder_that_is_no_sweep_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no readable sweep\.json with jobs in it"):
        write_sweep_page(SweepFolder(tmp_path))


def test_a_long_curve_keeps_its_ends_and_few_points(text: str) -> None:
    curves = data_in(text)["curves"]
    epochs = max(curves["epochs"], key=len)
    assert len(epochs) == POINTS and (epochs[0], epochs[-1]) == (1, 60)
    assert sorted(epochs) == epochs


def test_a_short_curve_is_whole() -> None:
    records: list[dict[str, float]] = [{"epoch": n} for n in range(POINTS)]
    assert thinned(records) == records


def test_curves_have_four_digits(text: str) -> None:
    values = [v for run in data_in(text)["curves"]["runs"] if run for metric in run[1] for v in metric]
    assert values == [float(f"{value:.4g}") for value in values]


def test_values_are_in_the_order_of_numbers() -> None:
    cells = [Cell({"a": value}, ()) for value in ("0.1", "1e-3", "10", "2")]
    assert levels_of("a", cells) == ["1e-3", "0.1", "2", "10"]


def test_values_that_are_no_numbers_are_in_the_order_of_letters() -> None:
    cells = [Cell({"a": value}, ()) for value in ("sgd", "10", "muon")]
    assert levels_of("a", cells) == ["10", "muon", "sgd"]


def test_a_run_without_a_folder_has_no_curve(tmp_path: Path) -> None:
    row = Row(job="a", values={}, state="missing", folder=str(tmp_path / "a"))
    assert curves_of([row]) == {"metrics": [], "epochs": [], "runs": [None]}


@pytest.mark.slow
def test_a_page_of_a_thousand_runs_is_under_five_megabytes(tmp_path: Path) -> None:
    keys = {"model.dropout": [f"{n / 100}" for n in range(20)], "optimizer.lr": [f"{n / 1000}" for n in range(1, 11)]}
    made = write_made_up_sweep(tmp_path / "made-up", keys, seeds=5, epochs=100)
    page, *_ = write_sweep_page(made)
    assert len(data_in(page.read_text())["jobs"]) == 1000
    assert page.stat().st_size < 5_000_000
