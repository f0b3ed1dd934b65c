"""Rows of an array on disk: indexed as an ordinary array is, read only where they are, and never copied to a worker."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s9.data.batches import KeyedBatches
from s9.data.image_set import Rows, Split
from s9.data.loaders import WorkerBatches
from s9.data.split import hold_out

COUNT = 200
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
INDEX = np.random.default_rng(1).permutation(COUNT)[:150]
PLAIN = PIXELS[INDEX]  # what the rows must be equal to
LABELS = np.arange(COUNT, dtype=np.int64) % 10


@pytest.fixture
def mapped(tmp_path: Path) -> np.memmap:
    np.save(tmp_path / "images.npy", PIXELS)
    array = np.load(tmp_path / "images.npy", mmap_mode="c")
    assert isinstance(array, np.memmap)
    return array


@pytest.fixture
def rows(mapped: np.memmap) -> Rows:
    return Rows(mapped, INDEX)


KEYS = [
    *(0, 149, -1, -150, np.int64(7)),
    *(slice(None), slice(2, 9), slice(-5, None), slice(140, 1000), slice(3, 3)),
    *(slice(None, None, -1), slice(20, 5, -3), slice(None, None, 7)),
    *(np.array([5, 0, 149]), np.array([3, 3, -1]), np.arange(0), [4, 2], np.arange(150) % 3 == 0),
    *((3, 0), (slice(4), 0, 0), (slice(4), ..., 1), (np.array([5, 0]), slice(2, 9), -1), (..., 2), ...),
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: " ".join(str(key).split())[:30])
def test_a_key_gives_what_it_gives_of_an_array(rows: Rows, key: Any) -> None:
    found, wanted = rows[key], PLAIN[key]
    assert found.shape == wanted.shape and found.dtype == wanted.dtype and np.array_equal(found, wanted)


@pytest.mark.parametrize("key", [3, slice(2, 9), np.array([5, 0])], ids=["int", "slice", "array"])
def test_what_is_read_is_an_ordinary_array(rows: Rows, key: Any) -> None:
    assert type(rows[key]) is np.ndarray


@pytest.mark.parametrize("key", [150, -151, np.array([0, 150])], ids=str)
def test_a_key_out_of_range_is_an_index_error(rows: Rows, key: Any) -> None:
    with pytest.raises(IndexError):
        rows[key]


def test_rows_have_the_length_shape_and_dtype_of_an_array(rows: Rows) -> None:
    assert (len(rows), rows.shape) == (150, (150, 32, 32, 3))
    assert rows.dtype == np.uint8


def test_rows_can_be_gone_through(rows: Rows) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(rows, PLAIN, strict=True))


def test_rows_become_an_array(rows: Rows) -> None:
    assert type(np.asarray(rows)) is np.ndarray and np.array_equal(np.asarray(rows), PLAIN)


def test_rows_become_an_array_of_another_dtype(rows: Rows) -> None:
    found = np.asarray(rows, dtype=np.float32)
    assert found.dtype == np.float32 and np.array_equal(found, PLAIN.astype(np.float32))


@pytest.mark.parametrize("key", [slice(2, 9), np.array([5, 0])], ids=["slice", "array"])
def test_writing_to_what_was_read_changes_no_row(rows: Rows, key: Any) -> None:
    rows[key][:] = 0
    assert np.array_equal(rows[key], PLAIN[key])


# Splits of rows


def test_what_is_taken_of_a_split_on_disk_stays_on_disk(mapped: np.memmap) -> None:
    part = Split(mapped, LABELS).take(INDEX)
    assert isinstance(part.images, Rows) and part.images.array is mapped


def test_what_is_taken_of_a_split_in_memory_is_in_memory() -> None:
    assert type(Split(PIXELS, LABELS).take(INDEX).images) is np.ndarray


@pytest.mark.parametrize("second", [np.array([9, 1, 1]), slice(10, 50, 3), slice(None, None, -1), slice(0)], ids=str)
@pytest.mark.parametrize("first", [INDEX, slice(10, 120), slice(None, None, -2)], ids=["array", "slice", "backwards"])
def test_a_part_of_a_part_is_that_of_the_arrays(
    mapped: np.memmap, first: np.ndarray | slice, second: np.ndarray | slice
) -> None:
    found = Split(mapped, LABELS).take(first).take(second)
    wanted = Split(PIXELS, LABELS).take(first).take(second)
    assert np.array_equal(np.asarray(found.images), wanted.images) and np.array_equal(found.labels, wanted.labels)
    assert len(found) == len(found.images)


# Other processes


def test_a_pickle_of_rows_holds_no_image(rows: Rows) -> None:
    assert len(pickle.dumps(rows)) < INDEX.nbytes + 1000 < PLAIN.nbytes / 100


def test_what_comes_out_of_the_pickle_is_mapped_again(rows: Rows) -> None:
    back = pickle.loads(pickle.dumps(rows))
    assert isinstance(back.array, np.memmap) and str(back.array.filename) == str(rows.array.filename)


def test_what_comes_out_of_the_pickle_is_equal(rows: Rows) -> None:
    back = pickle.loads(pickle.dumps(rows))
    assert (back.shape, back.dtype) == (rows.shape, rows.dtype) and np.array_equal(np.asarray(back), PLAIN)


def test_the_file_is_found_from_another_folder(mapped: np.memmap, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(str(mapped.filename)).parent
    monkeypatch.chdir(folder)
    stored = pickle.dumps(Rows(np.load("images.npy", mmap_mode="c"), INDEX))
    monkeypatch.chdir(folder.parent)
    assert np.array_equal(np.asarray(pickle.loads(stored)), PLAIN)


@pytest.mark.parametrize("val_size", [0, 20])
def test_a_train_split_on_disk_goes_to_a_worker_without_its_images(mapped: np.memmap, val_size: int) -> None:
    train, _ = hold_out(Split(mapped, LABELS), val_size, seed=0)
    source = WorkerBatches(train, KeyedBatches(len(train), 50, seed=0), None, torch.device("cpu"), workers=1)
    assert len(pickle.dumps(source.loader.dataset)) < PIXELS.nbytes / 100


def batches_of(workers: int, split: Split) -> Iterator[tuple[torch.Tensor, ...]]:
    batches, cpu = KeyedBatches(150, 50, seed=0), torch.device("cpu")
    yield from WorkerBatches(split, batches, None, cpu, workers=workers, start_method="spawn")


def test_a_spawned_worker_reads_the_same_batches(rows: Rows) -> None:
    """Spawned, a worker inherits nothing: on Linux with Python 3.14 and elsewhere this is how all are started."""
    plain, there = Split(PLAIN, LABELS[INDEX]), Split(rows, LABELS[INDEX])
    found, wanted = list(batches_of(1, there)), list(batches_of(0, plain))
    assert len(found) == len(wanted) == 3
    assert all(torch.equal(a, b) for x, y in zip(found, wanted, strict=True) for a, b in zip(x, y, strict=True))
