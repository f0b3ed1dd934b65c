"""Every README and option's file: their commands compose, their links lead somewhere, the tests they name exist."""

import functools
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from s9 import evaluate, export, predict
from s9.benchmarks.page import write_page
from s9.cli.compose import Asked, checked, compose
from s9.cli.door import key_values
from s9.models.shipped import shipped
from s9.system.errors import UserError
from tests.conftest import ROOT

SKIPPED = (".venv", "outputs", "data/", "node_modules")
READMES = [p for p in sorted(ROOT.rglob("README.md")) if not str(p.relative_to(ROOT)).startswith(SKIPPED)]
OPTIONS = sorted([*ROOT.glob("conf/**/*.yaml"), *ROOT.glob("tests/own/conf/**/*.yaml")])
COMMAND = re.compile(r"(?:PYTHONPATH=\S+ )?python -m s9\.(\w+)([^`\n#|;]*)")
MADE_UP = ("<", "$", "my_images", "=mine", "outputs/")  # what a reader has to put in, or has made before
DONORS = ("init_from=", "teacher=")
DOORS: dict[str, dict[str, str | None]] = {
    "demo": dict.fromkeys(("run", "port", "open"), ""),
    "evaluate": evaluate.KEYS | {"run": ""},  # which may be a made-up word
    "export": export.KEYS | {"run": ""},
    "predict": predict.OWN | {"run": ""},
    "dashboard": dict.fromkeys(("sweep", "project", "entity", "name"), ""),
    "report": dict.fromkeys(("run", "sweep", "runs", "watch"), ""),
}
OWN = {
    "bench": ("bench=", "repeats=", "images=", "target=", "seeds=", "out=", "page="),
    "confirm": ("sweep=", "seeds=", "baseline=", "best="),
    "tune": ("study=", "study.", "trials=", "jobs=", "folder=", "storage="),
}


def told(file: Path) -> Iterator[tuple[str, str]]:
    """(door, its arguments) of each command; of a table the cells below `python -m s9.train data=folder` ... too."""
    text = re.sub(r"\s*\\\n\s*", " ", file.read_text())  # a command that the shell reads on to the next line
    for match in COMMAND.finditer(text):
        yield match.group(1), match.group(2).split("  ")[0]
    for match in re.finditer(r'make train ARGS="([^"]+)"', text):
        yield "train", match.group(1)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        head = re.search(r"command: `python -m s9\.train ([^`]*)` \.\.\. \|\n", table)
        for row in table.splitlines()[2:] if head else []:
            for cell in re.findall(r"`([^`]*)` \|$", row):
                yield "train", f"{head.group(1) if head else ''} {cell}"


COMMANDS = sorted({(str(f.relative_to(ROOT)), *command) for f in [*READMES, *OPTIONS] for command in told(f)})


@functools.cache
def composes(overrides: tuple[str, ...], folder: str | None) -> None:
    """Raises where the configuration is refused."""
    checked(compose(Asked(overrides, folder))[0])


def check(door: str, arguments: list[str]) -> None:
    """Raises where the door would refuse them."""
    arguments = [a for a in arguments if not a.startswith(("allow=", "resume=", "rules="))]
    if door == "compare":  # takes folders
        return
    if door in DOORS:
        of_data = evaluate.OF_DATA if door in ("evaluate", "export") else ()
        own = [a for a in arguments if not a.startswith(of_data) and not (door == "predict" and predict.is_image(a))]
        key_values(own, DOORS[door], "")
        return
    folder = arguments.pop(arguments.index("--config-dir") + 1) if "--config-dir" in arguments else None
    own = [a for a in arguments if not a.startswith(("-", *OWN.get(door, ())))]
    paths = [a.partition("=")[2] for a in own if a.startswith(DONORS) and not any(sign in a for sign in MADE_UP)]
    assert [path for path in paths if path not in shipped() and not (ROOT / path).exists()] == []
    given = [re.sub(r"=(\[.*\]|[^,\[]*),.*", r"=\1", a.replace("$", "")) for a in own]  # of a sweep the first
    composes(tuple(given), str(ROOT / folder) if folder else None)


@pytest.mark.parametrize(("file", "door", "arguments"), COMMANDS, ids=lambda value: str(value)[:80])
def test_every_command_composes(file: str, door: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ROOT / "s9" / f"{door}.py").exists(), file
    if "my_package" in arguments:
        monkeypatch.syspath_prepend(str(ROOT / "tests" / "own"))
        monkeypatch.setenv("S9_ALLOW", "my_package")
    split = shlex.split(arguments.replace("...", " "))
    words = [w for w in split if w.startswith(DONORS) or not any(sign in w for sign in MADE_UP)]
    if door not in DOORS or words:
        check(door, words)


def test_there_are_commands_in_every_page_that_a_user_starts_from() -> None:
    files = {file for file, *_ in COMMANDS}
    pages = ("README.md", "conf/README.md", "s9/models/weights/README.md", "s9/benchmarks/README.md")
    assert {*pages} <= files
    assert len(COMMANDS) > 80


@pytest.mark.parametrize("file", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_leads_somewhere(file: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", file.read_text())
    local = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert [link for link in local if not (file.parent / link).exists()] == []


def test_every_test_that_a_page_names_is_there() -> None:
    named = re.findall(r"\]\((test_\w+\.py)\) `(\w+)`", (ROOT / "tests" / "README.md").read_text())
    tests = {file: (ROOT / "tests" / file).read_text() for file, _ in named}
    assert len(named) > 30
    assert [(file, name) for file, name in named if f"def test_{name}(" not in tests[file]] == []


def test_the_tables_of_measurements_are_those_of_the_stored_files(tmp_path: Path) -> None:
    for file in (ROOT / "s9" / "benchmarks").glob("*.[jm][sd]*"):
        shutil.copy(file, tmp_path)
    assert write_page(tmp_path / "README.md") == ["cpu.json"]
    assert (tmp_path / "README.md").read_text() == (ROOT / "s9" / "benchmarks" / "README.md").read_text()


def test_a_page_without_a_place_for_tables_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# nothing\n")
    with pytest.raises(UserError, match=r"page=.*: has no <!-- tables of"):
        write_page(tmp_path / "page.md")


def test_the_first_page_is_one_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert len(text.encode()) <= 8_400


@pytest.mark.parametrize("file", OPTIONS, ids=lambda file: str(file.relative_to(ROOT)))
def test_an_options_file_opens_with_what_it_is_for_a_command_and_what_to_expect(file: Path) -> None:
    if file.parent.name in ("conf",):
        return
    purpose, command, *rest = file.read_text().removeprefix("# @package _global_\n").splitlines()
    assert purpose.startswith("# ")
    assert command.startswith("#   ")
    assert any(line.startswith("# Expect: ") for line in rest[:2]) or file.parent.name == "launcher"
