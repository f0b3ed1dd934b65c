"""The cache of decoded data sets: made once whoever asks, whole or not at all, mapped instead of read."""

import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from s9.cli.compose import compose_config
from s9.data.sources.cache import cache_folder, cached_arrays, save_arrays
from s9.system.errors import UserError
from tests.conftest import ROOT

IMAGES = np.arange(12, dtype=np.uint8).reshape(3, 4)
LABELS = np.array([7, 8, 9], np.int64)


class Maker:
    """Writes two arrays and counts how often it was asked to."""

    def __init__(self, wait_s: float = 0.0) -> None:
        self.wait_s, self.calls = wait_s, 0

    def __call__(self, part: Path) -> None:
        self.calls += 1
        time.sleep(self.wait_s)
        save_arrays(part, {"images": IMAGES, "labels": LABELS})


def fail(part: Path) -> None:
    np.save(part / "images.npy", IMAGES)
    raise RuntimeError("the machine is on fire")


def die(part: Path) -> None:
    np.save(part / "images.npy", IMAGES)
    os._exit(3)


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_the_arrays_come_back_as_they_were_made(tmp_path: Path) -> None:
    for _ in range(2):  # made, then found
        found = cached_arrays(tmp_path, "key", Maker())
        assert found.keys() == {"images", "labels"}
        for name, made in (("images", IMAGES), ("labels", LABELS)):
            assert found[name].dtype == made.dtype and np.array_equal(found[name], made)


def test_the_second_call_makes_nothing(tmp_path: Path) -> None:
    make = Maker()
    cached_arrays(tmp_path, "key", make)
    cached_arrays(tmp_path, "key", make)
    assert make.calls == 1


def test_another_key_is_made_anew(tmp_path: Path) -> None:
    make = Maker()
    cached_arrays(tmp_path, "key", make)
    cached_arrays(tmp_path, "other", make)
    assert make.calls == 2


def test_the_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    cached_arrays(tmp_path / "a" / "b", "key", Maker())
    assert folders(tmp_path / "a" / "b") == ["key"]


def test_a_data_set_is_a_folder_with_a_file_an_array(tmp_path: Path) -> None:
    cached_arrays(tmp_path, "key", Maker())
    assert sorted(path.name for path in (tmp_path / "key").iterdir()) == ["images.npy", "labels.npy"]


def test_what_came_back_can_be_written_to(tmp_path: Path) -> None:
    """torch warns about arrays that it may not write to."""
    for _ in range(2):
        assert all(array.flags.writeable for array in cached_arrays(tmp_path, "key", Maker()).values())


def test_writing_to_what_came_back_changes_nothing_on_disk(tmp_path: Path) -> None:
    for _ in range(2):  # what was just made is no more the maker's own than what was found
        cached_arrays(tmp_path, "key", Maker())["images"][:] = 255
    assert np.array_equal(np.load(tmp_path / "key" / "images.npy"), IMAGES)


def test_callers_do_not_see_what_another_writes(tmp_path: Path) -> None:
    first, second = (cached_arrays(tmp_path, "key", Maker())["images"] for _ in range(2))
    first[:] = 255
    assert np.array_equal(second, IMAGES)


# What was not made whole


def test_a_failed_making_leaves_nothing_to_be_taken(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="on fire"):
        cached_arrays(tmp_path, "key", fail)
    assert "key" not in folders(tmp_path)


def test_a_failed_making_leaves_nothing_to_fill_the_disk(tmp_path: Path) -> None:
    """The key changes with the data, so what a failed making left would never be found again."""
    with pytest.raises(RuntimeError):
        cached_arrays(tmp_path, "key", fail)
    assert folders(tmp_path) == []


def test_after_a_failed_making_the_next_call_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        cached_arrays(tmp_path, "key", fail)
    assert cached_arrays(tmp_path, "key", Maker())["labels"].tolist() == [7, 8, 9]


def test_what_a_killed_run_left_half_made_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "key.part").mkdir()
    (tmp_path / "key.part" / "images.npy").write_bytes(b"\x93NUMPY half of it")
    (tmp_path / "key.part" / "of an older version.npy").write_bytes(b"")
    assert cached_arrays(tmp_path, "key", Maker()).keys() == {"images", "labels"}
    assert folders(tmp_path) == ["key"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # python 3.12 on; this child forks nothing
def test_a_process_that_dies_while_making_locks_nobody_out(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=cached_arrays, args=(tmp_path, "key", die))
    child.start()
    child.join(30)
    assert child.exitcode == 3
    assert cached_arrays(tmp_path, "key", Maker())["labels"].tolist() == [7, 8, 9]


def test_callers_at_the_same_time_make_it_once(tmp_path: Path) -> None:
    make, together = Maker(wait_s=0.1), threading.Barrier(4)

    def call(_: int) -> list[int]:
        together.wait(10)
        labels: list[int] = cached_arrays(tmp_path, "key", make)["labels"].tolist()
        return labels

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [[7, 8, 9]] * 4
    assert make.calls == 1


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("No space left on device")], ids=repr
)
def test_what_the_disk_refuses_is_one_line_with_the_reason(tmp_path: Path, error: OSError) -> None:
    def refuse(part: Path) -> None:
        raise error  # numpy's own, of an array that does not fit, has no errno

    with pytest.raises(UserError, match=re.escape(f"data.cache={tmp_path}: cannot be written (") + ".*No space left"):
        cached_arrays(tmp_path, "key", refuse)


# Files of strangers, and files larger than memory


class Payload:
    """What an attacker would put into an array file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_cache_file_cannot_run_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "key").mkdir()
    np.save(tmp_path / "key" / "labels.npy", np.array([Payload(marker)], dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        cached_arrays(tmp_path, "key", Maker())
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # the payload does run where pickles are allowed


READS_A_FEW_ROWS = """
import sys
from pathlib import Path
from s9.data.sources.cache import cached_arrays

images = cached_arrays(Path(sys.argv[1]), "large", make=None)["images"]
assert images.nbytes == 400_000_000
assert [int(images[row].sum()) for row in (0, 199_999, 399_999)] == [1000, 1000, 1000]
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_large_array_is_mapped_and_not_read(tmp_path: Path) -> None:
    """By the peak of memory that the kernel noted of another process; getrusage's includes that of its parent."""

    def make(part: Path) -> None:
        images = np.lib.format.open_memmap(part / "images.npy", mode="w+", dtype=np.uint8, shape=(400_000, 1000))
        images[[0, 199_999, 399_999]] = 1  # the rest are holes, so that the file takes a few blocks of the disk

    cached_arrays(tmp_path, "large", make)
    command = [sys.executable, "-c", READS_A_FEW_ROWS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120_000  # kB; 50,000 were seen, of python and numpy


# Other users' caches, and users without a home. Root may read and write everything, so a child becomes somebody else.

STRANGER = 54_321  # a user of whom the machine knows no name and no home
AS_A_STRANGER = """
import mmap, os, sys  # mmap: what numpy imports when it is needed, when it may lie out of reach
from pathlib import Path
import filelock, numpy
from s9.data.sources.cache import cache_folder, cached_arrays, save_arrays
from s9.system.errors import UserError
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
try:
    make = lambda part: save_arrays(part, {"labels": numpy.array([1])})
    print(cached_arrays(cache_folder(sys.argv[2]), "key", make)["labels"].tolist())
except UserError as error:
    print(error)
"""
ADVICE = "; choose another folder with data.cache=<folder>, or with S9_CACHE=<folder> in the environment"


def asked_by_a_stranger(cache: Path | str, **environment: str) -> str:
    """What another user's process gets, or is told, who would make [1]."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HOME", "S9_CACHE")}
    command = [sys.executable, "-c", AS_A_STRANGER, str(STRANGER), str(cache)]
    done = subprocess.run(
        command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.strip()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for path in (Path(folder), *Path(folder).glob("*")):
            path.chmod(0o755)


def test_a_whole_cache_that_another_user_made_may_be_read_only(open_to_all: Path) -> None:
    cached_arrays(open_to_all, "key", Maker())
    open_to_all.chmod(0o555)
    assert asked_by_a_stranger(open_to_all) == "[7, 8, 9]"


def test_a_whole_cache_that_another_user_made_needs_no_lock(open_to_all: Path) -> None:
    cached_arrays(open_to_all, "key", Maker())
    for lock in open_to_all.glob("*.lock"):
        lock.unlink()
    assert asked_by_a_stranger(open_to_all) == "[7, 8, 9]"
    assert [path.name for path in open_to_all.iterdir()] == ["key"]


def test_a_whole_cache_is_used_while_another_holds_its_lock(tmp_path: Path) -> None:
    cached_arrays(tmp_path, "key", Maker())
    with FileLock(tmp_path / "key.lock"):
        assert cached_arrays(tmp_path, "key", fail)["labels"].tolist() == [7, 8, 9]


def test_a_cache_that_may_not_be_written_is_one_line_that_says_what_to_do(open_to_all: Path) -> None:
    open_to_all.chmod(0o555)
    said = asked_by_a_stranger(open_to_all)
    assert said.startswith(f"data.cache={open_to_all}: cannot be written (") and said.endswith(ADVICE)


def test_a_cache_whose_folder_may_not_be_made_is_one_line_that_says_what_to_do(open_to_all: Path) -> None:
    open_to_all.chmod(0o555)
    said = asked_by_a_stranger(open_to_all / "deep" / "down")
    assert said == f"data.cache={open_to_all}/deep/down: cannot be made a folder (Permission denied){ADVICE}"


@pytest.mark.parametrize("closed", ["", "key"])
def test_a_cache_that_may_not_be_read_is_one_line_that_says_what_to_do(open_to_all: Path, closed: str) -> None:
    cached_arrays(open_to_all, "key", Maker())
    (open_to_all / closed).chmod(0)
    said = asked_by_a_stranger(open_to_all)
    assert said == f"data.cache={open_to_all}: cannot be read (Permission denied){ADVICE}"


@pytest.mark.parametrize("given", ["~/.cache/s9", ""])
def test_a_user_without_a_home_is_told_what_to_do(given: str) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be a user whom the machine does not know")
    assert asked_by_a_stranger(given) == f"data.cache=~/.cache/s9: this user has no home folder{ADVICE}"


def test_a_user_without_a_home_may_name_a_cache(open_to_all: Path) -> None:
    open_to_all.chmod(0o777)
    assert asked_by_a_stranger(open_to_all / "cache") == "[1]"


def test_a_user_whom_the_machine_does_not_know_may_have_a_home(open_to_all: Path) -> None:
    open_to_all.chmod(0o777)
    assert asked_by_a_stranger("", HOME=str(open_to_all)) == "[1]"
    assert (open_to_all / ".cache" / "s9" / "key").is_dir()


@pytest.mark.parametrize("data", ["folder", "cifar10"])
@pytest.mark.parametrize("given", ["", " ", None])
def test_an_empty_name_in_the_environment_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: str, given: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("S9_CACHE")
    if given is not None:
        monkeypatch.setenv("S9_CACHE", given)
    config: Any = compose_config([f"data={data}"]).data
    assert cache_folder(config.cache) == tmp_path / ".cache" / "s9"


def test_a_named_cache_wins_over_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S9_CACHE", str(tmp_path / "of the environment"))
    assert cache_folder(None) == tmp_path / "of the environment"
    assert cache_folder(str(tmp_path / "named")) == tmp_path / "named"
