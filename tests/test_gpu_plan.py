"""`make gpu`: its steps, their limits, the table, what a later call does again; and all of it once on the CPU."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from s9.benchmarks import gpu, gpu_work
from s9.benchmarks.gpu_plan import NETWORKS, NO_TIME, WHEELS, Place, Step, came_out, plan, read_results, table
from s9.system.errors import UserError
from s9.tracking.folder import RunFolder
from tests.conftest import ROOT

THERE = {  # on the GPU machine, with what they need
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "opencv-python-headless")
}


def place(folder: Path, device: str = "cuda", *data: str) -> Place:
    return Place(out=folder / "out", scratch=folder / "scratch", device=device, data=data or ("data=digits",))


def step(name: str, code: str, **more: object) -> Step:
    """A step that runs this Python code."""
    return Step(**{"name": name, "asked": f"asked of {name}", "limit": 60, "words": ("-c", code), **more})  # type: ignore[arg-type]


def do(folder: Path, steps: list[Step], chosen: Sequence[str] = (), *, seconds: float = 60) -> int:
    """One call with these steps, in the folder of the calls before."""
    (folder / "out").mkdir(exist_ok=True)
    call = gpu.Call(place(folder), steps, time.monotonic() + seconds)
    return call.do(set(chosen or [s.name for s in steps]))


def cells(folder: Path) -> dict[str, str]:
    """What came out, by step, as the table says it."""
    lines = (folder / "out" / "table.md").read_text().splitlines()
    return {line.split(" | ")[0].strip("| "): line.split(" | ")[2] for line in lines[2:] if line.startswith("|")}


# The plan


def test_a_bare_machine_installs_first(tmp_path: Path) -> None:
    assert plan(place(tmp_path), bare=True)[0].name == "install"
    assert "install" not in [s.name for s in plan(place(tmp_path), bare=False)]


def test_the_step_of_each_network_is_timed_alone(tmp_path: Path) -> None:
    steps = {s.name: s.words for s in plan(place(tmp_path), bare=False)}
    assert all({f"model={name}", "trainer.batch_size=1024"} <= {*steps[f"step-{name}"]} for name in NETWORKS)


def test_the_tests_that_run_are_in_the_files_that_have_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tests,) = (s for s in plan(place(tmp_path), bare=False) if s.name == "tests")
    assert "tests/test_batches.py" in tests.words and "tests/test_figures.py" not in tests.words


def test_packed_images_are_unpacked_where_the_checkout_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gpu").mkdir()
    (tmp_path / ".gpu/cifar10-images.tar.xz").touch()
    for data, expected in (("data=folder", True), ("data=digits", False)):
        assert ("unpack" in {s.name for s in plan(place(tmp_path, "cuda", data), bare=False)}) == expected


def test_a_cpu_trains_a_few_batches(tmp_path: Path) -> None:
    (reference,) = (s for s in plan(place(tmp_path, "cpu"), bare=False) if s.name == "reference")
    assert {"trainer.epochs=2", "trainer.steps_per_epoch=2"} <= {*reference.words}


def closure(names: Sequence[str]) -> set[str]:
    """These packages and all that they need, without what the GPU machine has."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found | THERE:
            continue
        found.add(name)
        needed = map(Requirement, requires(name) or [])
        waiting += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def test_the_wheels_of_make_gpu_pack_are_all_that_s9_and_its_tests_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = closure([*(Requirement(text).name for text in project["dependencies"]), "pytest", "pytest-timeout"])
    listed = re.search(r"GPU_WHEELS := (.*?)\nPLATFORMS", (ROOT / "Makefile").read_text(), re.DOTALL)
    assert listed and {*listed[1].replace("\\\n", " ").split(), "antlr4-python3-runtime"} == needed


# One call


def test_the_next_step_begins_after_one_that_failed(tmp_path: Path) -> None:
    assert do(tmp_path, [step("first", "raise SystemExit('no driver')"), step("second", "print('12 passed')")]) == 1
    assert cells(tmp_path) == {"first": "not measured (failed: no driver; first.log)", "second": "12 passed"}


def test_a_step_that_takes_too_long_is_ended_and_the_next_begins(tmp_path: Path) -> None:
    steps = [step("first", "import time; time.sleep(60)", limit=gpu.LEAST_S), step("second", "print('12 passed')")]
    do(tmp_path, steps)
    assert cells(tmp_path) == {"first": "not measured (took more than 5 s; first.log)", "second": "12 passed"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_what_a_step_has_started_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    started = "import subprocess; p = subprocess.Popen(['sleep', '60'])"
    command = [sys.executable, "-c", f"{started}; open({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"]
    assert gpu.run_for(3, command, stdout=subprocess.DEVNULL, environment=os.environ) is None
    stat, waited = Path("/proc") / pid.read_text() / "stat", time.monotonic() + 10
    while stat.exists() and stat.read_text().split()[2] != "Z":  # the kernel ends a process in its own time
        assert time.monotonic() < waited
        time.sleep(0.05)


def test_a_step_without_time_is_not_measured(tmp_path: Path) -> None:
    do(tmp_path, [step("first", "print('12 passed')")], seconds=gpu.LEAST_S - 1)
    assert cells(tmp_path) == {"first": NO_TIME}


def test_the_table_says_what_was_not_chosen_and_what_the_checkout_lacks(tmp_path: Path) -> None:
    do(tmp_path, [step("first", ""), step("second", ""), step("third", "", needs="nowhere")], ["second", "third"])
    said = {"first": gpu.NOT_ASKED, "second": "done", "third": "not measured (no experiment=nowhere)"}
    assert cells(tmp_path) == said


def test_the_table_has_the_machine_of_each_number_once(tmp_path: Path) -> None:
    stored = json.dumps({"where": "one GPU", "said": ["read"]})
    code = f"open({str(tmp_path / 'out/machine.json')!r}, 'w').write({stored!r})"
    do(tmp_path, [step("machine", code), step("second", ""), step("third", "")])
    assert (tmp_path / "out/table.md").read_text().splitlines()[-2:] == ["", "1. one GPU"]


def test_a_training_gets_less_time_than_its_process(tmp_path: Path) -> None:
    words = ("-c", "import sys; print(sys.argv[1])", "seconds=SECONDS")
    do(tmp_path, [step("first", "", words=words, limit=50)])
    assert cells(tmp_path) == {"first": f"seconds={50 - gpu.END_S}"}


# Later calls


def test_a_later_call_does_not_do_again_what_is_done(tmp_path: Path) -> None:
    file = tmp_path / "done"
    note = f"open({str(file)!r}, 'a').write('x')"
    for _ in range(2):
        do(tmp_path, [step("first", note)])
    assert file.read_text() == "x"


@pytest.mark.parametrize("more", [{"every_call": True}, {"code": "raise SystemExit(1)"}])
def test_a_later_call_repeats_what_failed_and_what_a_fresh_machine_needs(
    tmp_path: Path, more: dict[str, object]
) -> None:
    file = tmp_path / "done"
    note = f"open({str(file)!r}, 'a').write('x'); {more.pop('code', '')}"
    for _ in range(2):
        do(tmp_path, [step("first", note, **more)])
    assert file.read_text() == "xx"


def test_a_later_call_goes_on_from_a_copy_of_the_files_of_an_earlier_one(tmp_path: Path) -> None:
    steps = [step("first", "print('12 passed')"), step("second", "print('13 passed')")]
    do(tmp_path, steps, ["first"])
    earlier = tmp_path / "carried"
    shutil.move(tmp_path / "out", earlier)
    (earlier / "runs").mkdir()
    (earlier / "runs/file").touch(mode=0o444)
    earlier.chmod(0o555)
    gpu.carry_over(str(earlier), tmp_path / "out")
    do(tmp_path, steps, ["second"])
    assert cells(tmp_path) == {"first": "12 passed", "second": "13 passed"}
    assert os.access(tmp_path / "out/runs/file", os.W_OK)


def test_the_newest_line_of_a_step_counts_and_a_line_that_was_cut_off_does_not(tmp_path: Path) -> None:
    lines = [json.dumps({"step": "first", "came": came}) for came in ("old", "new", "cut")]
    (tmp_path / "steps.jsonl").write_text("\n".join(lines))
    assert read_results(tmp_path / "steps.jsonl")["first"]["came"] == "new"


# What came out


def test_the_rows_of_a_measurement_are_shown_with_their_spread(tmp_path: Path) -> None:
    row = {"what": "a step", "unit": "images/s", "median": 101234.5, "low": 99.5, "high": 110000.0, "repeats": 3}
    (tmp_path / "step.json").write_text(json.dumps({"rows": [row, row | {"repeats": 1}]}))
    said = "a step: 101,234 images/s (99.50 to 110,000)<br>a step: 101,234 images/s"
    assert came_out(tmp_path / "step.json", tmp_path / "step.log") == said


def test_without_a_result_the_first_error_of_the_log_is_shown(tmp_path: Path) -> None:
    (tmp_path / "step.log").write_text("epoch 1\nerror: no memory\nerror: python -m s9.train: exit code 1\n\n")
    assert came_out(tmp_path / "step.json", tmp_path / "step.log") == "no memory"


@pytest.mark.parametrize("written", ["", '{"rows": [{"wh'])
def test_a_step_that_was_killed_before_it_stored_a_result_is_said_and_the_next_begins(
    tmp_path: Path, written: str
) -> None:
    file = tmp_path / "out" / "first.json"
    slow = step("first", f"import time; open({str(file)!r}, 'w').write({written!r}); time.sleep(60)", limit=gpu.LEAST_S)
    do(tmp_path, [slow, step("second", "print('13 passed')")])
    assert cells(tmp_path)["first"].startswith(f"not measured (took more than {gpu.LEAST_S} s")
    assert cells(tmp_path)["second"] == "13 passed"


def test_a_call_may_go_on_in_the_folder_of_the_earlier_one(tmp_path: Path) -> None:
    do(tmp_path, [step("first", "print('12 passed')")])
    gpu.carry_over(str(tmp_path / "out"), tmp_path / "out")
    assert read_results(tmp_path / "out/steps.jsonl")["first"]["came"] == "12 passed"


def test_the_table_leaves_out_the_names_of_the_wheels(tmp_path: Path) -> None:
    install = step("install", "", words=("-m", "pip", "install", f"{WHEELS}/a.whl", f"{WHEELS}/b.whl"))
    assert f"`python -m pip install {WHEELS}/*.whl`" in table([install], {}, {})


# Wrong values


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["minutes=0", "out=x"], "minutes=0: must be a number more than 0"),
        (["minutes=ten", "out=x"], "minutes=ten: must be a number more than 0"),
        (["device=tpu", "out=x"], "device=tpu: must be cuda or cpu"),
        (["steps=machine,fast", "out=x"], "steps=fast: must be all, or some of machine, "),
        (["resume=nowhere", "out=x"], "resume=nowhere: there is no steps.jsonl in it"),
        (["out=file/x"], "out=file/x: "),
        ([], "out= is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        gpu.main(typed)
    assert str(caught.value).startswith(said)


def test_nothing_that_a_bare_machine_lacks_is_needed_to_begin() -> None:
    """-S leaves out installed packages, which is what a bare machine lacks."""
    command = [sys.executable, "-S", "-m", "s9.benchmarks.gpu", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# All of it on the CPU


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a call that does three steps."""
    folder = tmp_path_factory.mktemp("gpu")
    chosen = "steps=machine,step-strided,reference"
    command = [sys.executable, "-m", "s9.benchmarks.gpu", f"out={folder}/out", "device=cpu", "data=digits", chosen]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)}, check=False)
    assert done.returncode == 0
    return folder


@pytest.mark.slow
def test_the_cpu_form_measures_what_was_chosen(tried: Path) -> None:
    came = cells(tried)
    assert came["machine"].startswith("digits (scikit-learn): 1,287 train, 150 val, 360 test")
    assert came["step-strided"].startswith("strided, batch 64, naive: ")
    assert came["reference"].startswith("2 of 2 epochs in ")
    assert {of for name, of in came.items() if name not in ("machine", "step-strided", "reference")} <= {
        *(gpu.NOT_ASKED, "not measured (no experiment=teacher)", "not measured (no experiment=frontier)")
    }


@pytest.mark.slow
def test_the_cpu_form_leaves_a_run_that_is_done(tried: Path) -> None:
    assert RunFolder(tried / "out/runs/reference").is_done()


SMALL = ["data=digits", "aug=full", "trainer.batch_size=16", "trainer.steps_per_epoch=1", "trainer.device=cpu"]


def test_a_run_has_the_same_name_wherever_the_results_are(tmp_path: Path) -> None:
    for out in ("first", "second"):
        of = Place(out=tmp_path / out, scratch=tmp_path / "scratch", device="cpu", data=())
        gpu.carry_over("", of.out)
        gpu.link_runs(of)
        (of.runs / out).touch()
        assert (tmp_path / out / "runs" / out).exists()


@pytest.mark.slow
def test_a_training_that_was_cut_is_unfinished_and_the_next_call_ends_it(tmp_path: Path) -> None:
    folder, keys = RunFolder(tmp_path / "run"), [*SMALL, "trainer.epochs=30"]
    done = gpu_work.cut_short(folder, keys)
    assert 0 < done < 30 and gpu_work.progress(folder)["state"] == "unfinished"
    assert gpu_work.train(folder, keys, 200)["state"] == "done"
    assert len(folder.read_metrics()) == 30


@pytest.mark.slow
def test_exact_resume_says_whether_the_weights_have_the_same_bytes(tmp_path: Path) -> None:
    again, resumed = gpu_work.exact(tmp_path, [*SMALL, "trainer.epochs=12"])["said"]
    assert again == "run again: the same bytes"
    assert re.fullmatch(r"cut after \d+ of 12 epochs and resumed: the same bytes", resumed)
