"""The rules of the house, read from the sources: who imports whom, what stands where, how long things are."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s9.tracking.folder import RunFolder

ROOT = Path(__file__).parent.parent
S9 = ROOT / "s9"
FILES = sorted(S9.rglob("*.py"))

# Each room imports those before it, and itself. assignment and benchmarks stand aside: doors alone import them.
ORDER = ("system", "config", "data", "models", "training", "tracking", "sweeps", "pages", "runs", "inference", "cli")
ASIDE = {"assignment": ("system", "config", "data", "models"), "benchmarks": ORDER}
DOORS = {file.stem for file in S9.glob("*.py")} - {"__init__"}
TOP_LEVEL = {"pyproject.toml", "Makefile", "README.md", "LICENSE", "conf", "s9", "tests", "outputs"}
OPEN_WITH = ("cli/door", "cli/help", "cli/compose", "cli/launch", "config/schema")  # what answers a mistake
HEAVY = {"torch", "torchvision", "albumentations", "wandb", "matplotlib", "sklearn", "cv2"}

FILE_LINES, DOOR_LINES, FUNCTION_LINES, PARAMETERS, BY_POSITION = 250, 80, 50, 8, 4

# Imports inside functions of rooms, by file and what is imported; doors import their rooms inside `main`.
LATE = {
    ("data/augmentation/augment.py", "ImageAugment"): "albumentations takes two seconds, for one backend alone",
    ("data/augmentation/augment.py", "build_transform"): "as above",
    ("data/split.py", "train_test_split"): "scikit-learn takes a second, and a data set may bring its own val",
    ("data/sources/digits.py", "cv2"): "as above, for one data set alone",
    ("data/sources/digits.py", "datasets"): "as above",
    ("data/sources/digits.py", "train_test_split"): "as above",
    ("data/sources/square.py", "imagehash"): "imports scipy, which a folder in the cache does not need",
    ("data/sources/decode.py", "cv2"): "for images with more than 8 bits per channel alone",
    ("models/insight.py", "LayerGradCam"): "captum takes a second, and brings matplotlib, for Grad-CAM alone",
    ("config/schema.py", "ConfigStore"): "--help and the small doors do without Hydra",
    ("tracking/wandb_log.py", "wandb_run"): "W&B takes most of a second, in the thread that talks to it",
    ("runs/drawing.py", "draw_all"): "matplotlib takes half a second, in the thread that draws",
    ("models/__init__.py", "described"): "reads files, and every import of a network imports this package",
    ("models/__init__.py", "shipped"): "as above",
    ("inference/export.py", "as_onnx"): "onnx and onnxruntime are an extra of s9",
    ("inference/export.py", "onnx_logits"): "as above",
    ("inference/export.py", "CALIBRATION"): "as above",
    ("inference/export.py", "as_int8"): "as above",
    ("cli/compose.py", "check_values"): "a mistake in a key is answered without torch",
    ("cli/compose.py", "model_of_donor"): "reads a run, which takes numpy, where init_from names one",
    ("cli/launch.py", "check"): "as above",
    ("cli/launch.py", "job"): "as above",
    ("cli/launch.py", "resume"): "as above",
    ("cli/launch.py", "RunFolder"): "as above",
    ("cli/launch.py", "logged_to"): "as above",
    ("cli/launch.py", "run_sweep"): "as above",
    ("cli/launch.py", "SweepFolder"): "as above",
    ("cli/jobs.py", "check_values"): "as above, for a sweep",
    ("cli/plan.py", "identity_as_asked"): "as above",
    ("cli/plan.py", "fingerprint_of"): "as above",
    ("cli/sweep.py", "estimate"): "as above, for sweep.dry_run alone",
    ("cli/sweep.py", "like_seconds"): "as above, for a sweep that has jobs to run",
    ("cli/report.py", "write_run_page"): "the layer table imports torch, which a sweep's page does without",
    ("inference/predict.py", "save_bars"): "matplotlib takes half a second, for save= alone",
    ("cli/launchers.py", "torch"): "CUDA_VISIBLE_DEVICES may answer how many GPUs there are",
    ("cli/launchers.py", "run_task"): "imports torch and all packages, for a sweep that has jobs to run",
    ("cli/launchers.py", "work"): "as above",
    ("cli/launchers.py", "LocalPool"): "one of three pools is used",
    ("cli/launchers.py", "SlurmPool"): "as above",
    ("cli/launchers.py", "RayPool"): "as above",
    ("sweeps/on_node.py", "DelayedSubmission"): "submitit is an extra of s9",
    ("sweeps/submission.py", "submitit"): "as above",
    ("sweeps/on_ray.py", "ray"): "so is ray",
}
# What ends a process: doors and their frame; the first function of the process of a rank, of a sweep's worker or of a
# decoder, since nobody else can.
ENDS = {
    "cli/door.py": {"sys.exit"},
    "system/interrupt.py": {"os._exit"},
    "data/sources/pool.py": {"os._exit"},
    "training/ranks.py": {"leave"},
    "runs/worker.py": {"leave"},
}

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def place(file: Path) -> str:
    """`training/loop.py`."""
    return file.relative_to(S9).as_posix()


def room_of(file: Path) -> str | None:
    """None for a door."""
    parts = file.relative_to(S9).parts
    return parts[0] if len(parts) > 1 else None


def modules_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Full names of what one statement imports: `from s9 import runtime` is s9.runtime."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "relative imports hide where a name comes from"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def imports(tree: ast.AST) -> set[str]:
    """Everything that is imported, wherever, and what strings name as a module of s9 for importlib."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    named = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {name for node in nodes for name in modules_of(node)} | {
        text for text in named if re.fullmatch(r"s9(\.\w+)+", text) and text not in ("s9.suffix", "s9.train")
    }


def parts_of_s9(file: Path) -> set[str]:
    """The doors and rooms of s9 that the file imports."""
    return {name.split(".")[1] for name in imports(parsed(file)) if name.startswith("s9.")}


def functions(file: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef)]


@functools.cache
def taken_by_name() -> set[str]:
    """Functions without *args, and classes, of s9."""
    classes = {node.name for file in FILES for node in ast.walk(parsed(file)) if isinstance(node, ast.ClassDef)}
    return classes | {f.name for file in FILES for f in functions(file) if f.args.vararg is None}


def when_imported(statements: list[ast.stmt]) -> Iterator[str]:
    """What is imported as soon as the module is: not in functions, not for type checkers alone."""
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield from modules_of(statement)
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from when_imported(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
            for inner in [*blocks, *(handler.body for handler in getattr(statement, "handlers", []))]:
                yield from when_imported(inner)


@pytest.mark.parametrize("room", [*ORDER, *ASIDE])
def test_every_room_has_files(room: str) -> None:
    assert len(list((S9 / room).glob("*.py"))) > 1


def test_every_folder_is_a_room_whose_place_is_known() -> None:
    found = {room_of(file) for file in FILES} - {None}
    assert found == {*ORDER, *ASIDE}


def test_the_doors_are_known() -> None:
    before, after = ["bench", "check", "compare", "confirm", "dashboard", "demo"], ["report", "train", "tune"]
    assert sorted(DOORS) == [*before, "evaluate", "export", "predict", *after]


@every_file
def test_a_room_imports_only_what_lies_before_it(file: Path) -> None:
    room = room_of(file)
    if room is not None:
        before = ASIDE[room] if room in ASIDE else ORDER[: ORDER.index(room)]
        assert parts_of_s9(file) - {room, *before} == set()


@every_file
def test_only_doors_import_what_stands_aside(file: Path) -> None:
    assert room_of(file) in (None, *ASIDE) or parts_of_s9(file) & {*ASIDE} == set()


@every_file
def test_what_is_imported_inside_a_function_has_a_reason(file: Path) -> None:
    late = {
        name.rpartition(".")[2]
        for function in functions(file)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in modules_of(node)
    }
    assert room_of(file) is None or late == {name for where, name in LATE if where == place(file)}


@every_file
def test_nothing_below_a_door_ends_the_process(file: Path) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)}
    found = calls & {"os._exit", "sys.exit", "exit", "quit", "leave"}
    assert room_of(file) is None or found <= ENDS.get(place(file), set())


@every_file
def test_only_the_run_folder_spells_the_names_of_a_runs_files(file: Path) -> None:
    of_a_run = vars(RunFolder(Path())).values()
    names = {str(path) for path in of_a_run} | {path.name for path in of_a_run if path.suffix} - {""}
    tree = parsed(file)
    in_f_strings = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in in_f_strings}
    dotted = {name for name in names - {"."} if "." in name or "/" in name}
    allowed = {"config.yaml"} if place(file) == "cli/help.py" else set()  # the one of conf/
    assert place(file) == "tracking/folder.py" or texts & dotted <= allowed


@every_file
def test_no_other_file_speaks_to_other_ranks(file: Path) -> None:
    assert place(file) == "training/ranks.py" or not {m for m in imports(parsed(file)) if "torch.distributed" in m}


@every_file
def test_no_other_file_draws_random_numbers_by_a_key(file: Path) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)}
    assert place(file) == "data/keys.py" or not {c for c in calls if c.endswith(("default_rng", "SeedSequence"))}


@every_file
def test_no_file_is_named_after_being_of_use(file: Path) -> None:
    assert file.stem not in ("utils", "util", "helpers", "helper", "common", "misc")


@every_file
def test_the_first_line_of_a_file_says_what_it_is_for(file: Path) -> None:
    first = parsed(file).body[0]
    assert ast.get_docstring(parsed(file))
    assert first.lineno == 1


@every_file
def test_no_file_is_too_long(file: Path) -> None:
    limit = DOOR_LINES if room_of(file) is None else FILE_LINES
    assert len(file.read_text().splitlines()) <= limit


@every_file
def test_no_function_is_too_long(file: Path) -> None:
    lengths = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions(file)}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


@every_file
def test_no_function_takes_too_much(file: Path) -> None:
    of = {f.name: f.args for f in functions(file)}
    by_position = {n: [x.arg for x in a.posonlyargs + a.args if x.arg not in ("self", "cls")] for n, a in of.items()}
    assert {n for n, names in by_position.items() if len(names) > BY_POSITION} == set()
    assert {n for n, names in by_position.items() if len(names) + len(of[n].kwonlyargs) > PARAMETERS} == set()


@every_file
def test_more_than_a_few_arguments_are_given_by_keyword(file: Path) -> None:
    calls = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func).rpartition(".")[2], len(call.args)) for call in calls]
    assert [(name, count) for name, count in named if name in taken_by_name() and count > BY_POSITION] == []


@pytest.mark.parametrize("name", [*sorted(DOORS), *OPEN_WITH])
def test_a_mistake_is_answered_before_anything_heavy_is_imported(name: str) -> None:
    seen, waiting = set(), [f"s9.{name.replace('/', '.')}"]
    while waiting:
        module = waiting.pop()
        file = S9.parent / f"{module.replace('.', '/')}.py"
        if file.exists() and module not in seen:
            seen.add(module)
            found = list(when_imported(parsed(file).body))
            assert {m.split(".")[0] for m in found} & HEAVY == set(), module
            waiting += [part for m in found if m.startswith("s9.") for part in (m, m.rpartition(".")[0])]


def test_the_main_door_opens_without_anything_heavy() -> None:
    code = f"import sys, s9.train, s9.cli.launch; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_top_level_of_the_repository_holds_nothing_else() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    found = {line.split("/")[0] for line in done.stdout.splitlines()}
    assert {name for name in found if not name.startswith(".")} - TOP_LEVEL == set()
