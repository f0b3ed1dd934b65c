"""Files that are whole or not there: replaced in one step, and as they were where that fails."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s9.system.files import write_whole

LIMITED = """
import resource, sys
from pathlib import Path
from s9.system.files import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    write_whole(Path(sys.argv[1]), b"n" * 5000)
except OSError as error:
    print(error.errno, error.filename)
"""
FOREVER = """
import sys
from pathlib import Path
from s9.system.files import write_whole
while True:
    for letter in (b"a", b"b"):
        write_whole(Path(sys.argv[1]), letter * 3_000_000)
"""


def python(program: str, path: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen([sys.executable, "-c", program, path], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.txt"


@pytest.fixture
def refused(path: Path) -> str:
    """What a process says that may not write as much as it wants to, over a file that was there."""
    pytest.importorskip("resource")  # not on Windows
    path.write_bytes(b"old")
    return python(LIMITED, path).communicate(timeout=60)[0]


def test_the_content_is_what_was_given(path: Path) -> None:
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_view_of_memory_is_written_as_it_is(path: Path) -> None:
    write_whole(path, memoryview(b"view"))
    assert path.read_bytes() == b"view"


def test_an_old_file_is_replaced(path: Path) -> None:
    path.write_bytes(b"a much longer old content")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_nothing_else_is_left_beside_the_file(path: Path) -> None:
    write_whole(path, b"new")
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_that_has_the_old_file_open_reads_on_in_it(path: Path) -> None:
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_whole(path, b"new")
        assert reader.read() == b"old"


def test_a_failed_write_leaves_the_old_content(refused: str, path: Path) -> None:
    assert path.read_bytes() == b"old"


def test_a_failed_write_leaves_no_part(refused: str, path: Path) -> None:
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_names_the_file(refused: str, path: Path) -> None:
    assert refused.split() == [str(errno.EFBIG), str(path)]


def test_a_missing_folder_is_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(path.parent / "no" / "file.txt"))):
        write_whole(path.parent / "no" / "file.txt", b"new")


def test_a_folder_in_the_place_of_the_file_stays(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OSError, match=re.escape(str(path))):
        write_whole(path, b"new")
    assert list(path.parent.iterdir()) == [path] and path.is_dir()


def test_a_part_that_a_killed_process_left_does_no_harm(path: Path) -> None:
    path.with_name(".file.txt.part").write_bytes(b"half")
    write_whole(path, b"new")
    assert [p.read_bytes() for p in path.parent.iterdir()] == [b"new"]


def test_whoever_reads_while_it_is_written_finds_it_whole(path: Path) -> None:
    whole = {b"a" * 3_000_000, b"b" * 3_000_000}
    write_whole(path, b"a" * 3_000_000)
    with python(FOREVER, path) as writer:
        seen: list[bytes] = []
        end = time.monotonic() + 60
        while len({*seen}) < 2 and time.monotonic() < end:
            seen.append(path.read_bytes())
        writer.kill()
    assert {*seen} == whole


def test_a_killed_writer_leaves_a_whole_file(path: Path) -> None:
    with python(FOREVER, path) as writer:
        end = time.monotonic() + 60
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
    assert path.read_bytes() in {b"a" * 3_000_000, b"b" * 3_000_000}
