"""A sweep's table: what stands in summary.csv and on the screen, at any width and with any values."""

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from s9.sweeps.table import Row, cells_of, read_summary, show, warn_mixed, write_summary

KEYS = ["model.dropout", "optimizer.lr", "seed"]
HARD = [
    "[red]x[/red]",
    "[/]",
    ":smile:",
    "a,b",
    "\"quoted\" and 'quoted'",
    "two\nlines",
    "\r",
    "\x1b[31m",
    "ä 日本",
    "=1+1",
]


def job(values: str, accuracy: float | None = None, state: str = "", **more: Any) -> Row:
    """`0.1 0.05 2`: dropout, lr, seed. A job with an accuracy is done, one without is missing."""
    named = dict(zip(KEYS, values.split(), strict=False))
    state = state or ("missing" if accuracy is None else "done")
    minutes = None if accuracy is None else 3.0
    return Row(job=values.replace(" ", "-"), values=named, state=state, accuracy=accuracy, minutes=minutes, **more)


ROWS = [
    job("0 0.05 0", 0.80),
    job(
        "0 0.05 1",
        state="failed",
        reason="OutOfMemoryError: 20\nGiB [red]",
        traceback="outputs/sweeps/a/0/traceback.txt",
    ),
    job("0 0.05 2"),
    job("0.1 0.05 0", 0.90),
    job("0.1 0.05 1", 0.92),
    job("0.1 0.05 2", 0.94),
    job("0.2 0.05 0", state="cut", reason="killed by SIGKILL"),
    job("0.2 0.05 1"),
    job("0.2 0.05 2"),
]


def shown(rows: list[Row], keys: list[str] = KEYS, width: int = 100) -> list[str]:
    """The lines of a file."""
    file = io.StringIO()
    show(keys, rows, Console(file=file, width=width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def without_folds(lines: list[str]) -> str:
    return "".join("".join(lines).split())


def test_mean_and_sd_are_those_of_the_jobs_that_are_done() -> None:
    best = cells_of(KEYS, ROWS)[0]
    assert [best.n, best.mean, best.sd] == pytest.approx([3, 0.92, 0.02])


def test_a_cell_has_no_sd_below_two_scores() -> None:
    second = cells_of(KEYS, ROWS)[1]
    assert (second.n, second.mean, second.sd) == (1, 0.80, None)


def test_a_cell_is_its_values_without_the_seed() -> None:
    assert cells_of(KEYS, ROWS)[0].values == {"model.dropout": "0.1", "optimizer.lr": "0.05"}


def test_the_best_cell_comes_first_and_those_without_a_score_last_in_their_order() -> None:
    rows = [job("3 1 0"), job("1 1 0", 0.1), job("2 1 0"), job("0 1 0", 0.2)]
    assert [cell.values["model.dropout"] for cell in cells_of(KEYS, rows)] == ["0", "1", "3", "2"]


def test_a_score_of_zero_comes_before_none() -> None:
    assert [cell.mean for cell in cells_of(KEYS, [job("0 1 0"), job("1 1 0", 0.0)])] == [0.0, None]


def test_a_paused_jobs_accuracy_is_no_score() -> None:
    assert cells_of(KEYS, [job("0 1 0", 0.5, "paused")])[0].mean is None


def test_a_key_that_a_job_does_not_set_is_a_cell_of_its_own() -> None:
    rows = [job("0.1", 0.5), job("0.1 0.05", 0.6)]
    assert [dict(cell.values) for cell in cells_of(KEYS, rows)] == [
        {"model.dropout": "0.1", "optimizer.lr": "0.05"},
        {"model.dropout": "0.1"},
    ]


def test_the_summary_has_a_line_for_each_job_with_mean_sd_and_n_of_its_cell(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.csv", KEYS, ROWS)
    lines = read_summary(tmp_path / "summary.csv")
    assert [(line["job"], line["status"], line["n"]) for line in lines[1:4]] == [
        ("0-0.05-1", "failed", "1"),
        ("0-0.05-2", "missing", "1"),
        ("0.1-0.05-0", "done", "3"),
    ]
    assert [float(lines[3][column]) for column in ("val/accuracy", "mean", "sd")] == pytest.approx([0.9, 0.92, 0.02])


def test_the_summary_has_the_swept_keys_and_no_test(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.csv", KEYS, ROWS)
    assert (tmp_path / "summary.csv").read_text().splitlines()[0].split(",") == [
        *("job", "model.dropout", "optimizer.lr", "seed", "status", "val/accuracy", "val/loss", "mean", "sd", "n"),
        *("minutes", "commit", "versions", "processor", "precision", "folder", "reason", "traceback"),
    ]


@pytest.mark.parametrize("value", [*HARD, "\udcff"], ids=ascii)
def test_any_value_comes_back_from_the_summary_as_it_was(value: str, tmp_path: Path) -> None:
    write_summary(
        tmp_path / "summary.csv", ["name"], [Row(job="0", values={"name": value}, state="done", reason=value)]
    )
    (line,) = read_summary(tmp_path / "summary.csv")
    assert (line["name"], line["reason"]) == (value, value)


def test_an_accuracy_comes_back_from_the_summary_to_the_last_bit(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.csv", KEYS, [job("0 1 0", 1 / 3)])
    assert float(read_summary(tmp_path / "summary.csv")[0]["val/accuracy"]) == 1 / 3


def test_a_summary_is_replaced_whole(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.csv", KEYS, ROWS)
    write_summary(tmp_path / "summary.csv", KEYS, ROWS[:1])
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]


def test_no_summary_has_no_lines(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.csv") == []


def test_the_screen_has_a_line_for_each_cell() -> None:
    head, _, *lines = shown(ROWS)
    assert " ".join(head.split()) == "model.dropout optimizer.lr val mean % sd n min/job not done"
    assert [line.split() for line in lines[:3]] == [
        ["0.1", "0.05", "92.00", "2.00", "3", "3.0"],
        ["0", "0.05", "80.00", "1/3", "3.0", "1", "failed,", "1", "missing"],
        ["0.2", "0.05", "0/3", "1", "cut,", "2", "missing"],
    ]


def test_under_the_table_stands_a_line_for_each_failed_or_cut_job() -> None:
    assert shown(ROWS)[5:] == [
        "failed: model.dropout=0 optimizer.lr=0.05 seed=1: OutOfMemoryError: 20 GiB [red] "
        "(traceback: outputs/sweeps/a/0/traceback.txt)",
        "cut: model.dropout=0.2 optimizer.lr=0.05 seed=0: killed by SIGKILL",
    ]


def test_without_several_seeds_the_screen_has_no_sd_and_no_n() -> None:
    head, _, *lines = shown([job("0 0.05", 0.8), job("0.1 0.05", state="running")], KEYS[:2])
    assert head.split() == ["model.dropout", "optimizer.lr", "val", "%", "min", "not", "done"]
    assert [line.split() for line in lines] == [["0", "0.05", "80.00", "3.0"], ["0.1", "0.05", "running"]]


def test_where_all_is_done_no_column_says_what_is_not() -> None:
    assert "not done" not in shown(ROWS[3:6])[0]


def test_a_run_that_is_done_without_a_score_is_said() -> None:
    assert "without a score" in shown([job("0 1", state="done")], KEYS[:2])[2]


def test_seeds_alone_make_one_line() -> None:
    rows = [Row(job=str(n), values={"seed": str(n)}, state="done", accuracy=0.5 + n / 10) for n in range(3)]
    assert shown(rows, ["seed"])[2].split() == ["60.00", "10.00", "3"]


def test_no_jobs_make_no_table() -> None:
    assert shown([]) == []


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_is_no_wider_than_the_screen(width: int) -> None:
    keys = [*KEYS, "aug.transforms.coarse_dropout.p", "trainer.label_smoothing", "name"]
    more = dict(zip(keys[3:], ["0.123456789", "0.1", "x" * 100], strict=True))
    rows = [Row(job=row.job, values={**row.values, **more}, state="done", accuracy=0.5) for row in ROWS]
    assert max(map(len, shown(rows, keys, width))) <= width


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 140, 300])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_no_key_value_or_number_is_lost_at_any_width(width: int, count: int) -> None:
    values = {f"group{n}.some_long_key_{n}": f"value-{n}-" + "y" * 5 * n for n in range(count)}
    lines = shown([Row(job="0", values=values, state="done", accuracy=0.123456, minutes=12345.6)], list(values), width)
    assert all(number in " ".join(lines) for number in ("12.35", "12345.6"))
    left = "".join(line.removesuffix("12345.6").rstrip().removesuffix("12.35") for line in lines)
    if count == 1 or width < 100:  # else the lines of several columns are mixed
        assert all(part.strip() in without_folds([left]) for pair in values.items() for part in pair)


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("value", HARD, ids=ascii)
def test_any_value_is_shown_as_text_in_its_line(value: str, width: int) -> None:
    rows = [Row(job="0", values={"name": value}, state="failed", reason=value)]
    spelled = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in value)
    lines = shown(rows, ["name"], width)
    assert len(lines) == 4
    assert lines[2].startswith(spelled)
    assert lines[3].startswith(f"failed: name={spelled}")


def test_a_file_gets_no_colour_codes(tmp_path: Path) -> None:
    with (tmp_path / "table.txt").open("w") as file:
        show(KEYS, ROWS, Console(file=file))
    assert "\x1b" not in (tmp_path / "table.txt").read_text()


def test_a_screen_that_knows_ascii_alone_gets_a_table_too(tmp_path: Path) -> None:
    rows = [Row(job="0", values={"name": "ä"}, state="failed", reason="日本")]
    with (tmp_path / "table.txt").open("w", encoding="ascii") as file:
        show(["name"], rows, Console(file=file, width=80))
    assert "failed: name=\\xe4: \\u65e5\\u672c" in (tmp_path / "table.txt").read_text()


def test_done_jobs_of_different_processors_are_said() -> None:
    rows = [job(f"0 1 {n}", 0.5, processor="EPYC, 2 cores" if n < 5 else "Xeon, 8 cores") for n in range(8)]
    assert warn_mixed(rows) == ["2 processors in one table: EPYC, 2 cores (5 jobs), Xeon, 8 cores (3)"]


def test_each_origin_that_differs_is_said_in_its_line() -> None:
    rows = [job("0 1 0", 0.5, commit="abc", versions="torch 2.11", precision="float32"), job("0 1 1", 0.5)]
    assert warn_mixed(rows) == [
        "2 commits in one table: abc (1 job), unknown (1)",
        "2 sets of versions in one table: torch 2.11 (1 job), unknown (1)",
        "2 precisions in one table: float32 (1 job), unknown (1)",
    ]


def test_jobs_that_are_not_done_are_not_compared() -> None:
    rows = [job("0 1 0", 0.5, processor="A"), job("0 1 1", state="cut", processor="B"), job("0 1 2")]
    assert warn_mixed(rows) == []


def test_the_table_imports_nothing_heavy_and_little_of_rich() -> None:
    heavy = ("torch", "numpy", "rich.progress", "rich.live", "rich.markdown")
    code = f"import sys, s9.sweeps.table; print(sorted({{*{heavy}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
