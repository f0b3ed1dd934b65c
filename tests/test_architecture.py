"""The rules of the house, read from the sources: who imports whom, what stands where, how long a file is."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
S9 = ROOT / "s9"
FILES = sorted(S9.rglob("*.py"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]

ROOMS = ("data", "models", "training", "tracking", "sweeps", "benchmarks")
SHARED = (
    "errors",
    "files",
    "interrupt",
    "components",
    "data_config",
    "config",
    "process",
    "runtime",
)  # what rooms and doors alike may use
DOORS = {file.stem for file in S9.glob("*.py")} - {"__init__", *SHARED}
MAY_IMPORT = {  # of s9, beside itself
    "data": {*SHARED},
    "models": {*SHARED, "data"},
    "tracking": {*SHARED, "data", "models"},
    "training": {*SHARED, "data", "models"},
}  # the others: all rooms
LONGEST = 320  # lines of a file
TOP_LEVEL = {"pyproject.toml", "Makefile", "README.md", "conf", "s9", "tests", "outputs"}
HEAVY = {"torch", "torchvision", "albumentations", "wandb", "matplotlib"}

every_file = pytest.mark.parametrize("file", FILES, ids=NAMES)
in_rooms = [file for file in FILES if file.relative_to(S9).parts[0] in ROOMS]


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def modules_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Full names of what one statement imports: `from s9 import runtime` is s9.runtime."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "relative imports hide where a name comes from"
    if node.module == "s9":
        return [f"s9.{alias.name}" for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def imports(file: Path) -> set[str]:
    """Everything that the file imports, wherever it does so."""
    nodes = (node for node in ast.walk(parsed(file)) if isinstance(node, ast.Import | ast.ImportFrom))
    return {name for node in nodes for name in modules_of(node)}


def parts_of_s9(file: Path) -> set[str]:
    """The doors, rooms and shared modules of s9 that the file imports."""
    return {name.split(".")[1] for name in imports(file) if name.startswith("s9.")}


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


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_files(room: str) -> None:
    assert len(list((S9 / room).glob("*.py"))) > 1


@pytest.mark.parametrize("door", ["train", "check", "evaluate", "report", "bench", "command_line"])
def test_every_door_is_known_as_one(door: str) -> None:
    assert door in DOORS


@pytest.mark.parametrize("file", in_rooms, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_room_imports_a_door(file: Path) -> None:
    assert parts_of_s9(file) & DOORS == set()


@pytest.mark.parametrize("file", in_rooms, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_room_imports_only_what_lies_before_it(file: Path) -> None:
    room = file.relative_to(S9).parts[0]
    allowed = MAY_IMPORT.get(room, {*SHARED, *ROOMS}) | {room}
    assert parts_of_s9(file) - allowed == set()


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent.name != "benchmarks"], ids=lambda file: str(file.relative_to(ROOT))
)
def test_only_the_door_bench_imports_the_benchmarks(file: Path) -> None:
    assert ("benchmarks" in parts_of_s9(file)) == (file == S9 / "bench.py")


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_imports_no_room_and_no_door(name: str) -> None:
    before = SHARED[: SHARED.index(name)]
    assert parts_of_s9(S9 / f"{name}.py") <= {*before}


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
    assert len(file.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("name", ["train", "command_line", "config", "check", "evaluate", "report", "bench"])
def test_a_door_imports_nothing_heavy_of_its_own_before_it_is_asked_to_work(name: str) -> None:
    found = {module.split(".")[0] for module in when_imported(parsed(S9 / f"{name}.py").body)}
    assert found & HEAVY == set()


def test_the_main_door_opens_without_anything_heavy() -> None:
    code = f"import sys, s9.train; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_test_that_the_readme_names_is_there() -> None:
    named = re.findall(r"\(tests/(test_\w+\.py)\) `(\w+)`", (ROOT / "README.md").read_text())
    tests = {file: (ROOT / "tests" / file).read_text() for file, _ in named}
    assert len(named) > 30
    assert [(file, name) for file, name in named if f"def test_{name}(" not in tests[file]] == []


def test_the_top_level_of_the_repository_holds_nothing_else() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    found = {line.split("/")[0] for line in done.stdout.splitlines()}
    assert {name for name in found if not name.startswith(".")} - TOP_LEVEL == set()
