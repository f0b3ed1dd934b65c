"""CIFAR-10 from an archive in its exact form, given or fetched from real hosts on this machine, good ones and bad."""

import hashlib
import io
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from s9.config.data import Cifar10Config
from s9.data.image_set import ImageSet
from s9.data.sources import cifar10, download
from s9.data.sources.load import load_images
from s9.system.errors import UserError

ROOT = Path(__file__).parent.parent
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
PER_FILE = 20


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 did, with which the original archive was made."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, obj: str | bytes) -> None:
        content = obj.encode() if isinstance(obj, str) else obj
        short = len(content) < 256
        size = struct.pack("<B" if short else "<i", len(content))
        self.write((pickle.SHORT_BINSTRING if short else pickle.BINSTRING) + size + content)  # type: ignore[attr-defined]

    dispatch[str] = dispatch[bytes] = save_string


def batch_file(name: str, pixels: np.ndarray, labels: list[int]) -> bytes:
    """One pickled file of the archive: pixels uint8 (n, 3072)."""
    out = io.BytesIO()
    names = [f"image_{i}.png" for i in range(len(labels))]
    Python2Pickler(out, protocol=2).dump({"batch_label": name, "labels": labels, "data": pixels, "filenames": names})
    return out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def pixels_of(name: str) -> np.ndarray:
    return np.random.default_rng(sum(map(ord, name))).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)


def labels_of(name: str) -> list[int]:
    """Two images of each class, in another order in every file."""
    order: list[int] = np.random.default_rng(sum(map(ord, name)) + 1).permutation(np.arange(PER_FILE) % 10).tolist()
    return order


@pytest.fixture(scope="session")
def whole() -> bytes:
    """The content of a small archive: 100 train and 20 test images, stored as the original's members are."""
    files = {name: batch_file(name, pixels_of(name), labels_of(name)) for name in (*TRAIN_FILES, "test_batch")}
    return archive_of({"batches.meta": b"not read", "readme.html": b"not read"} | files)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, whole: bytes) -> None:
    """The small archive stands in for the original; no proxy of the user's comes between test and host."""
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(whole).hexdigest())
    monkeypatch.setattr(cifar10, "SIZE", len(whole))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def load(cache: Path) -> Callable[..., ImageSet]:
    def load_with(*urls: str, archive: Path | None = None, val_size: int = 0, seed: int = 0) -> ImageSet:
        given = None if archive is None else str(archive)
        return load_images(Cifar10Config("cifar10", val_size, "resident", 0, given, list(urls), str(cache)), seed)

    return load_with


@pytest.fixture
def archive(tmp_path: Path, whole: bytes) -> Path:
    """The archive as a user's own download."""
    file = tmp_path / "my downloads" / "cifar.tar.gz"
    file.parent.mkdir()
    file.write_bytes(whole)
    return file


def refused(load: Callable[..., ImageSet], *urls: str, **options: Any) -> str:
    """What the user is told: one line."""
    with pytest.raises(UserError) as error:
        load(*urls, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Reading the archive


def test_train_is_the_five_files_in_order(load: Callable[..., ImageSet], archive: Path) -> None:
    train = load(archive=archive).train
    assert train.labels.tolist() == [label for name in TRAIN_FILES for label in labels_of(name)]
    assert train.images.shape == (100, 32, 32, 3) and train.images.dtype == np.uint8


def test_test_is_the_test_file(load: Callable[..., ImageSet], archive: Path) -> None:
    test = load(archive=archive).test
    assert test.labels.tolist() == labels_of("test_batch") and test.labels.dtype == np.int64
    assert test.images.shape == (20, 32, 32, 3)


def test_test_images_are_named_by_class_and_file(load: Callable[..., ImageSet], archive: Path) -> None:
    labels = labels_of("test_batch")
    expected = tuple(f"{cifar10.CLASS_NAMES[label]}/image_{i}.png" for i, label in enumerate(labels))
    assert [load(archive=archive).test_names for _ in range(2)] == [expected] * 2  # from the archive, from the cache


def test_a_cache_without_names_is_read(load: Callable[..., ImageSet], archive: Path, cache: Path) -> None:
    load(archive=archive)
    (names,) = cache.glob("*/test_names.npy")
    names.unlink()
    data = load(archive=archive)
    assert (data.test_names, len(data.test)) == ((), 20)


@pytest.mark.parametrize("row, column, channel", [(0, 0, 0), (0, 31, 0), (31, 0, 1), (5, 17, 2), (31, 31, 2)])
def test_the_planes_of_red_green_and_blue_become_channels(
    load: Callable[..., ImageSet], archive: Path, row: int, column: int, channel: int
) -> None:
    found = load(archive=archive).train.images[3 * PER_FILE :, row, column, channel][:PER_FILE]
    assert np.array_equal(found, pixels_of("data_batch_4")[:, 1024 * channel + 32 * row + column])


def test_the_images_lie_in_memory_as_they_are_read(load: Callable[..., ImageSet], archive: Path) -> None:
    for _ in range(2):  # from the archive, from the cache
        assert np.asarray(load(archive=archive).train.images).flags.c_contiguous


def test_val_is_held_out_by_class(load: Callable[..., ImageSet], archive: Path) -> None:
    data = load(archive=archive, val_size=30)
    assert np.bincount(data.val.labels).tolist() == [3] * 10 and len(data.train) == 70


def test_the_accuracies_are_those_of_cifar10(load: Callable[..., ImageSet], archive: Path) -> None:
    data = load(archive=archive)
    assert (data.facts.variant, data.facts.class_names[3], len(data.facts.class_names)) == ("CIFAR-10", "cat", 10)


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, call: Callable[..., Any], *args: str) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


@pytest.mark.parametrize("call", [os.system, exec], ids=["os.system", "exec"])
def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path: Path, call: Callable[..., Any]) -> None:
    marker = tmp_path / "ran"
    code = f"touch '{marker}'" if call is os.system else f"open({str(marker)!r}, 'w').close()"
    bad = pickle.dumps({b"data": Payload(call, code), b"labels": [0]}, protocol=2)
    file = tmp_path / "bad.tar.gz"
    file.write_bytes(archive_of({"data_batch_1": bad, "test_batch": bad}))
    with pytest.raises(pickle.UnpicklingError, match="is not allowed in a CIFAR-10 file"):
        cifar10.read_archive(file)
    assert not marker.exists()
    pickle.loads(bad)
    assert marker.exists()  # the payload does run where anything is allowed


@pytest.mark.parametrize("missing", ["data_batch_", "test_batch"])
def test_an_archive_without_one_of_the_splits_is_named(tmp_path: Path, missing: str) -> None:
    names = [name for name in (*TRAIN_FILES, "test_batch") if not name.startswith(missing)]
    file = tmp_path / "half.tar.gz"
    file.write_bytes(archive_of({name: batch_file(name, pixels_of(name), labels_of(name)) for name in names}))
    with pytest.raises(UserError, match=re.escape(str(file))):
        cifar10.read_archive(file)


# An archive that is given


def test_a_given_archive_with_another_md5_is_refused(load: Callable[..., ImageSet], archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-1])
    said = refused(load, archive=archive)
    assert said.startswith(f"data.archive={archive}: ")
    assert hashlib.md5(archive.read_bytes()).hexdigest() in said and cifar10.MD5 in said


def test_a_given_archive_that_is_missing_is_refused(load: Callable[..., ImageSet], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.tar.gz"
    assert refused(load, archive=missing) == f"data.archive={missing}: there is no such file"


def test_a_given_archive_is_not_touched(load: Callable[..., ImageSet], archive: Path, whole: bytes) -> None:
    load(archive=archive)
    assert archive.read_bytes() == whole and list(archive.parent.iterdir()) == [archive]


def test_the_second_time_the_archive_is_not_needed(load: Callable[..., ImageSet], archive: Path) -> None:
    first = load(archive=archive).train.images
    archive.unlink()
    assert np.array_equal(load().train.images, first)


def test_an_archive_in_the_cache_is_found(load: Callable[..., ImageSet], cache: Path, whole: bytes) -> None:
    cache.mkdir()
    (cache / cifar10.ARCHIVE).write_bytes(whole)
    assert len(load().train) == 100


# Fetching: a real host on this machine


class Host:
    """Serves one file over HTTP and keeps a record of what it was asked and what it sent.

    Args:
        manner: "ranges" and "no ranges" are good hosts, the others fail in the way that their name says.
    """

    def __init__(self, content: bytes, manner: str = "ranges") -> None:
        self.content, self.manner = content, manner
        self.asked: list[str | None] = []  # the Range header of each request
        self.sent: list[int] = []  # bytes of each answer's body
        self.closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805  # the name that http.server calls; self is the host
                self.answer(handler)

            def log_message(handler, *_: Any) -> None:  # noqa: N805
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/{cifar10.ARCHIVE}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.asked.append(asked)
        if self.manner == "speaks no HTTP":
            handler.wfile.write(b"220 mail is ready\r\n")
            return
        if self.manner == "not found":
            handler.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.manner != "no ranges" else 0
        if start >= len(self.content):
            handler.send_error(416)
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if self.manner == "breaks off within a chunk":
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(f"{len(body):x}\r\n".encode() + body[: len(body) // 2])
            return
        handler.send_header("Content-Length", str(len(body)))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.end_headers()
        if self.manner in ("breaks off", "falls silent"):
            body = body[: len(body) // 2]
        if self.manner == "slow":
            time.sleep(0.3)
        self.sent.append(len(body))
        handler.wfile.write(body)
        if self.manner == "falls silent":
            self.closing.wait(30)

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def host(whole: bytes) -> Iterator[Callable[..., Host]]:
    hosts = []

    def start(content: bytes = whole, manner: str = "ranges") -> Host:
        hosts.append(Host(content, manner))
        return hosts[-1]

    yield start
    for started in hosts:
        started.close()


@pytest.fixture
def part(cache: Path) -> Path:
    cache.mkdir()
    return cache / f"{cifar10.ARCHIVE}.part"


def closed_url() -> str:
    """An address of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/{cifar10.ARCHIVE}"


@pytest.mark.parametrize("manner", ["ranges", "no ranges"])
def test_the_archive_is_fetched_whole(
    load: Callable[..., ImageSet], host: Callable[..., Host], cache: Path, whole: bytes, manner: str
) -> None:
    there = host(manner=manner)
    assert len(load(there.url).train) == 100
    assert (cache / cifar10.ARCHIVE).read_bytes() == whole
    assert (there.asked, there.sent) == ([None], [len(whole)])


def test_nothing_half_is_left_after_a_fetch(
    load: Callable[..., ImageSet], host: Callable[..., Host], cache: Path
) -> None:
    load(host().url)
    assert not list(cache.glob("*.part*"))


def test_the_second_time_no_host_is_asked(load: Callable[..., ImageSet], host: Callable[..., Host]) -> None:
    there = host()
    load(there.url)
    load(there.url, seed=1, val_size=10)
    assert len(there.asked) == 1


def test_the_progress_is_shown(
    load: Callable[..., ImageSet], host: Callable[..., Host], capsys: pytest.CaptureFixture[str]
) -> None:
    load(host().url)
    assert re.search(rf"{re.escape(cifar10.ARCHIVE)}: 100%", capsys.readouterr().err)


def test_a_half_fetched_archive_is_resumed(
    load: Callable[..., ImageSet], host: Callable[..., Host], part: Path, whole: bytes
) -> None:
    half = len(whole) // 2
    part.write_bytes(whole[:half])
    there = host()
    assert len(load(there.url).train) == 100
    assert (there.asked, there.sent) == ([f"bytes={half}-"], [len(whole) - half])


def test_a_host_without_ranges_sends_all_of_it_again(
    load: Callable[..., ImageSet], host: Callable[..., Host], part: Path, whole: bytes
) -> None:
    part.write_bytes(whole[:1000])
    there = host(manner="no ranges")
    assert len(load(there.url).train) == 100
    assert there.sent == [len(whole)]


def test_a_part_that_is_already_whole_is_taken(
    load: Callable[..., ImageSet], host: Callable[..., Host], part: Path, whole: bytes
) -> None:
    part.write_bytes(whole)
    there = host()
    assert len(load(there.url).train) == 100
    assert there.sent == []


def test_an_archive_with_another_md5_is_removed_and_the_next_host_tried(
    load: Callable[..., ImageSet], host: Callable[..., Host], whole: bytes
) -> None:
    wrong, good = host(content=bytes(len(whole))), host()
    assert len(load(wrong.url, good.url).train) == 100
    assert (wrong.asked, good.asked, good.sent) == ([None], [None], [len(whole)])


def test_an_archive_with_another_md5_is_not_kept(
    load: Callable[..., ImageSet], host: Callable[..., Host], cache: Path, whole: bytes
) -> None:
    wrong = host(content=bytes(len(whole)))
    assert hashlib.md5(wrong.content).hexdigest() in refused(load, wrong.url)
    assert not [f for f in cache.iterdir() if not f.name.endswith(".lock")]


def test_a_damaged_archive_in_the_cache_is_fetched_anew(
    load: Callable[..., ImageSet], host: Callable[..., Host], cache: Path
) -> None:
    cache.mkdir()
    (cache / cifar10.ARCHIVE).write_bytes(b"damaged")
    assert len(load(host().url).train) == 100


@pytest.mark.parametrize("manner", ["breaks off", "falls silent", "breaks off within a chunk"])
def test_a_host_that_fails_midway_leaves_what_it_sent(
    load: Callable[..., ImageSet],
    host: Callable[..., Host],
    cache: Path,
    whole: bytes,
    monkeypatch: pytest.MonkeyPatch,
    manner: str,
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    there = host(manner=manner)
    assert there.url in refused(load, there.url)
    kept = (cache / f"{cifar10.ARCHIVE}.part").read_bytes()
    assert len(kept) > 0 and whole.startswith(kept)


def test_the_next_attempt_goes_on_where_the_host_broke_off(
    load: Callable[..., ImageSet], host: Callable[..., Host], whole: bytes
) -> None:
    there = host(manner="breaks off")
    assert f"{len(whole) // 2:,} of {len(whole):,} bytes" in refused(load, there.url)
    there.manner = "ranges"
    assert len(load(there.url).train) == 100
    assert there.asked == [None, f"bytes={len(whole) // 2}-"]
    assert sum(there.sent) == len(whole)


def test_the_next_host_goes_on_where_the_first_broke_off(
    load: Callable[..., ImageSet], host: Callable[..., Host], whole: bytes
) -> None:
    first, second = host(manner="breaks off"), host()
    assert len(load(first.url, second.url).train) == 100
    assert first.sent[0] + second.sent[0] == len(whole)


@pytest.mark.parametrize("manner", ["not found", "speaks no HTTP"])
def test_a_host_that_gives_nothing_is_followed_by_the_next(
    load: Callable[..., ImageSet], host: Callable[..., Host], manner: str
) -> None:
    assert len(load(host(manner=manner).url, host().url).train) == 100


@pytest.mark.parametrize("url", ["no address at all", "gopher://127.0.0.1/a", "http://127.0.0.1/a b", "http://[::1/a"])
def test_a_url_that_is_none_is_followed_by_the_next(
    load: Callable[..., ImageSet], host: Callable[..., Host], url: str
) -> None:
    assert len(load(url, host().url).train) == 100


def test_without_any_host_every_place_and_every_way_on_is_named(load: Callable[..., ImageSet], cache: Path) -> None:
    urls = [closed_url(), closed_url()]
    said = refused(load, *urls)
    wanted = [str(cache / cifar10.ARCHIVE), *urls, "data.archive=", "data=folder data.root=", "data=digits"]
    assert [part for part in wanted if part not in said] == []


def test_without_any_url_the_ways_on_are_named(load: Callable[..., ImageSet]) -> None:
    assert "data=digits" in refused(load)


def test_a_cache_that_cannot_be_a_folder_is_refused(load: Callable[..., ImageSet], archive: Path, cache: Path) -> None:
    cache.write_text("not a folder")
    assert str(cache) in refused(load, archive=archive)


# Several at once


def test_threads_that_load_at_once_download_once(load: Callable[..., ImageSet], host: Callable[..., Host]) -> None:
    there, together = host(manner="slow"), threading.Barrier(3)

    def load_together(_: int) -> int:
        together.wait(10)
        return len(load(there.url).train)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(load_together, range(3))) == [100] * 3
    assert len(there.asked) == 1


LOAD_WHEN_TOLD = """
import hashlib, sys
import numpy as np
from s9.config.data import Cifar10Config
from s9.data.sources import cifar10
md5, size, url, cache = sys.argv[1:]
cifar10.MD5, cifar10.SIZE = md5, int(size)
print("ready", flush=True)
sys.stdin.readline()
data = cifar10.load_cifar10(Cifar10Config("cifar10", 0, "resident", 0, None, [url], cache), seed=0)
print(hashlib.md5(np.asarray(data.train.images).tobytes()).hexdigest())
"""


def test_processes_that_load_at_once_download_once(
    load: Callable[..., ImageSet], host: Callable[..., Host], cache: Path
) -> None:
    there = host(manner="slow")
    command = [sys.executable, "-c", LOAD_WHEN_TOLD, cifar10.MD5, str(cifar10.SIZE), there.url, str(cache)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    jobs = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(2)]
    for job in jobs:
        assert job.stdout is not None and job.stdout.readline() == "ready\n"
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    said = [job.communicate(timeout=60)[0].strip() for job in jobs]
    assert said == [hashlib.md5(np.asarray(load().train.images).tobytes()).hexdigest()] * 2
    assert len(there.asked) == 1
