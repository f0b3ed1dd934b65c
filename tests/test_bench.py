"""`python -m s9.bench` as a person runs it, on the digits and small: the table, the file, and wrong values."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from s9.benchmarks import contention, convolutions, measures, startup
from s9.benchmarks.timing import Row
from s9.cli.compose import compose_config
from s9.data.sources.load import load_images
from s9.system import runtime
from s9.training import loop
from s9.training.step import train_step
from tests import doors
from tests.conftest import ROOT

PARTS = {
    "augment": ("bench=augment", "repeats=1", "out=a/b.json"),
    "step": ("bench=step", "repeats=1", "trainer.batch_size=8"),
    "epoch": ("bench=epoch", "repeats=1", "images=64", "trainer.batch_size=16", "trainer.steps_per_epoch=1"),
}
QUICK = ["data=digits", "model=strided", "aug=none", "wandb=disabled"]
CPU = torch.device("cpu")

Done = subprocess.CompletedProcess[str]


def bench(folder: Path, *arguments: str) -> Done:
    """Runs it in an empty folder, where nothing is compiled: compiling three networks takes minutes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-m", "s9.bench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


Measured = tuple[str, Path, Done]


def start_bench(folder: Path, *arguments: str) -> Done:
    """What compiles nothing, from a process that has imported everything; the user's folders are those of a test."""
    return doors.run(folder, "bench", *arguments, HOME=str(folder.parent), S9_CACHE=str(folder.parent / "cache"))


MEASURED = [pytest.param(part, marks=pytest.mark.slow) for part in PARTS]


@pytest.fixture(scope="module", params=MEASURED)
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Part, folder and process of one small measurement each."""
    folder = tmp_path_factory.mktemp(request.param)
    start = start_bench if request.param == "augment" else bench
    done = start(folder, *PARTS[request.param], "trainer.device=cpu")
    assert done.returncode == 0, done.stderr
    return request.param, folder, done


def content(measured: Measured) -> dict[str, Any]:
    """Of the file that the last line on the screen names."""
    _, folder, done = measured
    said = done.stdout.splitlines()[-1]
    assert said.startswith("everything is in ")
    stored: dict[str, Any] = json.loads((folder / said.removeprefix("everything is in ")).read_text())
    return stored


def test_every_row_is_a_line_on_the_screen(measured: Measured) -> None:
    part, _, done = measured
    lines = [line for line in done.stdout.splitlines() if line.startswith(f"{part} ")]
    rows = content(measured)["rows"]
    assert len(lines) == len(rows) and all(row["what"] in line for row, line in zip(rows, lines, strict=True))


def test_the_screen_says_first_on_what_machine_it_was_measured(measured: Measured) -> None:
    machine = content(measured)["machine"]
    said = f"{machine['processor']}, {machine['device']}, torch {machine['versions']['torch']}"
    assert measured[2].stdout.splitlines()[0] == said


def test_the_one_file_goes_where_out_says_or_into_outputs(measured: Measured) -> None:
    part, folder, _ = measured
    (file,) = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert file == Path("a/b.json") if part == "augment" else file.match("outputs/bench/????-??-??_??-??-??.json")


def test_the_file_says_what_a_number_needs_to_be_believed(measured: Measured) -> None:
    stored, machine = content(measured), runtime.describe_machine(CPU)
    assert stored["command"] == " ".join(["python -m s9.bench", *PARTS[measured[0]], "trainer.device=cpu"])
    assert stored["data"] == "digits (scikit-learn)"
    assert stored["machine"].keys() == machine.keys() >= {"commit", "dirty"}
    assert all(stored["machine"][key] == machine[key] for key in ("processor", "device", "python", "versions"))


def test_every_number_is_finite_and_positive(measured: Measured) -> None:
    for row in content(measured)["rows"]:
        values = [row["low"], row["median"], row["high"]]
        assert all(math.isfinite(value) and value > 0 for value in values), row
        assert values == sorted(values) and row["repeats"] >= 1


def test_a_ratio_is_the_quotient_of_the_medians(measured: Measured) -> None:
    rows = content(measured)["rows"]
    compared = [row for row in rows if row["against"]]
    assert compared
    for row in compared:
        (other,) = [r for r in rows if r["what"] == row["against"]]
        assert row["ratio"] == row["median"] / other["median"] and row["unit"] == other["unit"]


WHATS = {
    "augment": [f"aug={name}, {by}" for name in ("basic", "full", "strong") for by in ("albumentations", "device")],
    "step": [
        f"{name}{kind}"
        for name in ("reference", "strided", "dilated")
        for kind in (", batch 8, naive", ", batch 8, s9", ", batch 8, s9, compiled", ", to compile")
    ],
    "epoch": [
        "reference, aug=full, 64 images, naive",
        "reference, aug=full, 64 images, s9",
        "reference, aug=full, 64 images, s9, compiled",
        "s9, outside forward, backward and optimizer",
    ],
}


def test_the_rows_are_those_of_the_part(measured: Measured) -> None:
    assert [row["what"] for row in content(measured)["rows"]] == WHATS[measured[0]]


def test_an_epoch_is_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its speed is that of all images, so trainer.steps_per_epoch must leave out none."""
    config = compose_config([*QUICK, "trainer.batch_size=16", "trainer.steps_per_epoch=1", "trainer.device=cpu"])
    data = measures.of_size(load_images(config.data, 0), 64)
    step, taken = train_step, 0

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal taken
        taken += 1
        return step(*given, **named)

    monkeypatch.setattr(loop, "train_step", counted)
    assert next(measures.epochs_of(config, data, CPU, 1))["time/epoch_s"] > 0
    assert taken == 4


# Wrong values


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["bench=fast"], "error: bench=fast: must be all, augment, convolution, step, epoch, startup, growth"),
        (["repeats=0"], "error: repeats=0: must be a whole number of 1 or more"),
        (["images=ten"], "error: images=ten: must be a whole number of 1 or more"),
        (["images=²"], "error: images=²: must be a whole number of 1 or more"),
        (["images=255"], "error: images=255: must be two batches or more (trainer.batch_size=128)"),
        (["trainer.epoch=3"], "error: trainer.epoch=3: there is no such key; did you mean trainer.epochs?"),
        (["repeat=3"], "error: repeat=3: there is no such key; "),
        (["data=folder", "data.root=nowhere"], "error: data.root=nowhere: there is no such folder; wanted: "),
        (["trainer.device=cuda:7"], "error: trainer.device=cuda:7: not on this machine; here: auto"),
        (["bench=step", "model=strided"], "error: model=strided: "),
        (["bench=augment", "aug=basic"], "error: aug=basic: "),
        (["bench=augment", "out=file/below.json"], "error: out=file/below.json: "),
        (["bench=augment", "out=folder"], "error: out=folder: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_one_line_and_exit_code_2_and_leaves_nothing(
    tmp_path: Path, typed: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    done = start_bench(tmp_path, *typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


# Help


def test_help_says_the_usage(tmp_path: Path) -> None:
    done = doors.run(tmp_path, "bench", "--help")
    assert done.returncode == 0 and done.stdout.startswith(
        "python -m s9.bench [bench=all|augment|convolution|step|epoch|"
    )


def test_help_needs_no_torch() -> None:
    code = "import sys\nfrom s9 import bench\nbench.open_door(bench.main, bench.USAGE)\nprint('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


# The parts that start processes


HELD_MB = 2048  # more than the small measurements below need themselves


@pytest.fixture(scope="module")
def grown() -> list[Row]:
    """Small sizes, measured by a process that holds much memory, as the benchmark does after its other parts."""
    config = compose_config([*QUICK, "trainer.batch_size=16", "trainer.device=cpu"])
    held = bytearray(b"1") * (HELD_MB * 2**20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "SIZES", (64,))
        patch.setattr(measures, "BATCHES", (8,))
        rows = measures.growth(config, load_images(config.data, 0), CPU)
    assert len(held) == HELD_MB * 2**20
    return rows


@pytest.mark.slow
def test_growth_has_time_and_memory_of_every_size(grown: list[Row]) -> None:
    assert [(row.what, row.unit) for row in grown] == [
        ("strided, epoch of 64", "s"),
        ("strided, epoch of 64, peak memory", "MB"),
        ("strided, batch 8", "images/s"),
        ("strided, batch 8, peak memory", "MB"),
    ]
    assert all(math.isfinite(row.median) and row.median > 0 for row in grown)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_memory_of_a_process_is_not_that_of_the_one_that_started_it(grown: list[Row]) -> None:
    """The kernel's ru_maxrss of a new process starts at its parent's."""
    assert [row.what for row in grown if row.unit == "MB" and row.median > HELD_MB] == []


@pytest.mark.slow
def test_startup_has_help_the_first_step_and_the_memory_of_a_run() -> None:
    quick = [*QUICK, "trainer.steps_per_epoch=1"]
    rows = startup.startup(quick, load_images(compose_config(quick).data, 0), repeats=1)
    assert [row.unit for row in rows] == ["s", "s", "MB"]
    help_s, first_s, peak = (row.median for row in rows)
    assert 0 < help_s < first_s and peak > 100


@pytest.mark.slow
def test_contention_has_each_way_of_waiting_beside_busy_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "NEIGHBOURS", (1,))
    monkeypatch.setattr(contention, "SECONDS", 0.1)
    before = os.environ.get("GOMP_SPINCOUNT")
    config = compose_config([*QUICK, "trainer.batch_size=16", "trainer.device=cpu"])
    rows = list(contention.contention(config, load_images(config.data, 0), repeats=1))
    assert [row.what for row in rows] == [f"strided, 1 busy programs, {way}" for way in contention.WAYS]
    assert all(math.isfinite(row.median) and row.median > 0 for row in rows)
    assert os.environ.get("GOMP_SPINCOUNT") == before


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_convolution_has_torchs_own_form_and_ours_of_each_case(precision: torch.dtype) -> None:
    rows = list(convolutions.convolutions(1, (precision,)))
    assert [row.what.rpartition(", ")[2] for row in rows] == ["torch", "s9"] * len(convolutions.CASES)
    assert all(math.isfinite(row.median) and row.median > 0 for row in rows)
