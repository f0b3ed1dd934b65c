"""The cache of decoded data sets: made once whoever asks, whole or not at all."""

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s9.data.cache import cached_arrays


class Maker:
    """Makes two arrays and counts how often it was asked to."""

    def __init__(self, wait_s: float = 0.0) -> None:
        self.wait_s, self.calls = wait_s, 0

    def __call__(self) -> Mapping[str, np.ndarray]:
        self.calls += 1
        time.sleep(self.wait_s)
        return {"images": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": np.array([7, 8, 9], np.int64)}


def fail() -> Mapping[str, np.ndarray]:
    raise RuntimeError("the disk is full")


def die() -> Mapping[str, np.ndarray]:
    os._exit(3)


def test_the_arrays_come_back_as_they_were_made(tmp_path: Path) -> None:
    made = Maker()()
    for _ in range(2):  # made, then read
        found = cached_arrays(tmp_path, "key", Maker())
        assert found.keys() == made.keys()
        for name in made:
            assert found[name].dtype == made[name].dtype and np.array_equal(found[name], made[name])


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
    assert (tmp_path / "a" / "b" / "key.npz").is_file()


def test_what_was_read_can_be_written_to(tmp_path: Path) -> None:
    """torch warns about arrays that it may not write to."""
    cached_arrays(tmp_path, "key", Maker())
    assert all(array.flags.writeable for array in cached_arrays(tmp_path, "key", Maker()).values())


def test_a_failed_making_leaves_no_array_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk is full"):
        cached_arrays(tmp_path, "key", fail)
    assert not list(tmp_path.glob("*.npz"))


def test_after_a_failed_making_the_next_call_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        cached_arrays(tmp_path, "key", fail)
    assert cached_arrays(tmp_path, "key", Maker())["labels"].tolist() == [7, 8, 9]


def test_a_half_written_file_of_a_killed_run_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "key.part.npz").write_bytes(b"PK\x03\x04 half of it")
    assert cached_arrays(tmp_path, "key", Maker())["labels"].tolist() == [7, 8, 9]
    assert [f.name for f in tmp_path.glob("*.npz")] == ["key.npz"]


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


class Payload:
    """What an attacker would put into an array file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_cache_file_cannot_run_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    loaded = np.array([Payload(marker)], dtype=object)
    np.savez(tmp_path / "key.npz", labels=loaded)
    with pytest.raises(ValueError, match="allow_pickle"):
        cached_arrays(tmp_path, "key", Maker())
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # the payload does run where pickles are allowed
