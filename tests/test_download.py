"""One file from several sources, real servers on this machine: slow, silent, broken, of something else, and good."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s9.data.sources import download
from s9.data.sources.download import Wanted
from s9.system.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
Answer = Callable[["Source", BaseHTTPRequestHandler, int], None]


class Source:
    """A server of one file, and the Range header of each request. `answer` gets where the answer is asked to begin."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str | None] = []
        self.closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:  # noqa: N805  # the name that http.server calls; self is the source
                asked = handler.headers["Range"]
                self.asked.append(asked)
                handler.close_connection = True
                with suppress(OSError):  # the other side has left
                    answer(self, handler, int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0)

            def log_message(handler, *_: Any) -> None:  # noqa: N805
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/file"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def head(handler: BaseHTTPRequestHandler, status: int, **headers: object) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def head_of_range(handler: BaseHTTPRequestHandler, start: int) -> None:
    size = len(CONTENT)
    ranged = {"Content_Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
    head(handler, 206 if start else 200, Content_Length=size - start, **ranged)


def good(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head_of_range(handler, start)
    handler.wfile.write(CONTENT[start:])


def without_ranges(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head(handler, 200, Content_Length=len(CONTENT))
    handler.wfile.write(CONTENT)


def without_a_length(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head(handler, 200, Connection="close")
    handler.wfile.write(CONTENT)


def slow(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    """2 kB/s after the first 1,000 bytes, whole only for one who waits for minutes."""
    head_of_range(handler, start)
    handler.wfile.write(CONTENT[start : start + 1000])
    for at in range(start + 1000, len(CONTENT), 100):
        if source.closing.wait(0.05):
            return
        handler.wfile.write(CONTENT[at : at + 100])


def slow_at_first(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    """Slow when asked for the first time, then fast."""
    (slow if len(source.asked) == 1 else good)(source, handler, start)


def slow_at_the_beginning(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    """Slow for longer than the speed is averaged over, then all the rest at once."""
    head_of_range(handler, start)
    for at in range(start, start + 2000, 100):
        handler.wfile.write(CONTENT[at : at + 100])
        time.sleep(0.05)
    handler.wfile.write(CONTENT[start + 2000 :])


def silent(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    source.closing.wait(30)


def silent_after_a_part(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head_of_range(handler, start)
    handler.wfile.write(CONTENT[start : start + 50_000])
    source.closing.wait(30)


def refusing(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    handler.send_error(403)


def breaking_off(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head_of_range(handler, start)
    handler.wfile.write(CONTENT[start : start + 50_000])


def page(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    """As of a hotel's network: whatever is asked, of no length."""
    head(handler, 200, Content_Type="text/html; charset=utf-8", Connection="close")
    handler.wfile.write(b"<html>pay here</html>" * 20_000)


def of_another_length(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head(handler, 200, Content_Length=1000)
    handler.wfile.write(OTHER[:1000])


def another_range(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head(handler, 206, Content_Length=1000, Content_Range="bytes 0-999/1000")
    handler.wfile.write(OTHER[:1000])


def range_of_a_longer_file(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head(handler, 206, Content_Length=400_000 - start, Content_Range=f"bytes {start}-399999/400000")
    handler.wfile.write(OTHER)


def short_without_a_length(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head(handler, 200, Content_Type="application/gzip", Connection="close")
    handler.wfile.write(CONTENT[:20_000])


def long_without_a_length(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head(handler, 200, Content_Type="application/gzip", Connection="close")
    handler.wfile.write(CONTENT + b"more")


def of_other_content(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    """Without ranges."""
    head(handler, 200, Content_Length=len(OTHER))
    handler.wfile.write(OTHER)


def of_other_content_in_ranges(source: Source, handler: BaseHTTPRequestHandler, start: int) -> None:
    head_of_range(handler, start)
    handler.wfile.write(OTHER[start:])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Source]]]:
    """Starts sources; they are judged within fractions of a second, and no proxy of the user's is asked."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(download, "WINDOW_S", 0.2)
    monkeypatch.setattr(download, "MIN_SPEED", 20_000)
    sources: list[Source] = []

    def start(*answers: Answer) -> list[Source]:
        sources.extend(Source(answer) for answer in answers)
        return sources

    yield start
    for source in sources:
        source.close()


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(tmp_path / "file", len(CONTENT), hashlib.md5(CONTENT).hexdigest())


def fetched(sources: list[Source], wanted: Wanted) -> list[str]:
    return download.download([source.url for source in sources], wanted)


NOT_USED = [
    *(slow, silent, refusing, breaking_off, page, of_another_length, another_range, range_of_a_longer_file),
    *(short_without_a_length, long_without_a_length, of_other_content, silent_after_a_part),
]
KEEP_THE_PART = [answer for answer in NOT_USED if answer not in (slow, breaking_off, silent_after_a_part)]


@pytest.mark.parametrize("answer", NOT_USED, ids=lambda answer: answer.__name__)
@pytest.mark.parametrize("have", [0, 70_000])
def test_a_source_that_does_not_give_the_file_is_left_for_the_next(
    started: Callable[..., list[Source]], wanted: Wanted, answer: Answer, have: int, caplog: pytest.LogCaptureFixture
) -> None:
    if have:
        wanted.part.write_bytes(CONTENT[:have])
    bad, fine = started(answer, good)
    assert fetched([bad, fine], wanted) == []
    assert wanted.target.read_bytes() == CONTENT and not wanted.part.exists()
    assert (len(bad.asked), len(fine.asked)) == (1, 1)
    (said,) = caplog.messages
    assert said.startswith(f"left: {bad.url} (") and "\n" not in said


@pytest.mark.parametrize("answer", KEEP_THE_PART, ids=lambda answer: answer.__name__)
def test_a_source_of_something_else_does_not_spoil_the_part(
    started: Callable[..., list[Source]], wanted: Wanted, answer: Answer
) -> None:
    wanted.part.write_bytes(CONTENT[:70_000])
    bad, fine = started(answer, good)
    assert fetched([bad, fine], wanted) == []
    assert fine.asked == ["bytes=70000-"]


@pytest.mark.parametrize("answer", [slow, breaking_off, silent_after_a_part], ids=lambda answer: answer.__name__)
def test_what_a_source_sent_before_it_was_left_is_not_asked_for_again(
    started: Callable[..., list[Source]], wanted: Wanted, answer: Answer
) -> None:
    bad, fine = started(answer, good)
    assert fetched([bad, fine], wanted) == []
    assert fine.asked[0] is not None and int(fine.asked[0][len("bytes=") : -1]) >= 1000


@pytest.mark.parametrize("answer", [good, without_ranges, without_a_length], ids=lambda answer: answer.__name__)
@pytest.mark.parametrize("have", [0, 70_000, len(CONTENT)])
def test_every_kind_of_good_source_gives_the_file(
    started: Callable[..., list[Source]], wanted: Wanted, answer: Answer, have: int
) -> None:
    wanted.part.write_bytes(CONTENT[:have])
    assert fetched(started(answer), wanted) == []
    assert wanted.target.read_bytes() == CONTENT


def test_all_kinds_of_bad_sources_one_after_the_other_do_no_harm(
    started: Callable[..., list[Source]], wanted: Wanted
) -> None:
    assert fetched(started(*NOT_USED, good), wanted) == []
    assert wanted.target.read_bytes() == CONTENT


def test_the_last_source_may_be_slow(started: Callable[..., list[Source]], wanted: Wanted) -> None:
    bad, last = started(refusing, slow_at_the_beginning)
    assert fetched([bad, last], wanted) == []
    assert len(last.asked) == 1


def test_the_last_source_may_not_be_silent(started: Callable[..., list[Source]], wanted: Wanted) -> None:
    (reason,) = fetched(started(silent), wanted)
    assert "timed out" in reason


def test_a_slow_source_is_asked_again_where_no_other_gives_the_file(
    started: Callable[..., list[Source]], wanted: Wanted
) -> None:
    first, second = started(slow_at_first, refusing)
    assert fetched([first, second], wanted) == []
    assert (len(first.asked), len(second.asked)) == (2, 1)


def test_a_file_with_another_md5_is_removed_and_the_next_source_starts_afresh(
    started: Callable[..., list[Source]], wanted: Wanted
) -> None:
    wanted.part.write_bytes(CONTENT[:70_000])
    bad, fine = started(of_other_content_in_ranges, good)
    assert fetched([bad, fine], wanted) == []
    assert (fine.asked, wanted.target.read_bytes()) == ([None], CONTENT)


def test_a_part_that_was_wrong_from_the_start_does_not_stand_in_the_way(
    started: Callable[..., list[Source]], wanted: Wanted
) -> None:
    wanted.part.write_bytes(OTHER[:70_000])
    assert fetched(started(without_ranges), wanted) == []
    assert wanted.target.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 1])
def test_a_part_that_is_as_long_as_the_file_and_wrong_is_removed(
    started: Callable[..., list[Source]], wanted: Wanted, length: int
) -> None:
    wanted.part.write_bytes(bytes(length))
    assert fetched(started(good, good), wanted) == []
    assert wanted.target.read_bytes() == CONTENT


def test_without_a_good_source_each_reason_is_told(started: Callable[..., list[Source]], wanted: Wanted) -> None:
    sources = started(refusing, page, of_another_length)
    said = fetched(sources, wanted)
    reasons = ["403", "gives a page, not the file", "gives another file, of 1,000 bytes instead of 300,000"]
    for source, line, reason in zip(sources, said, reasons, strict=True):
        assert source.url in line and reason in line
    assert not wanted.target.exists()


def test_a_part_that_cannot_be_written_is_not_blamed_on_the_source(
    started: Callable[..., list[Source]], wanted: Wanted
) -> None:
    wanted.part.symlink_to(wanted.part.parent / "nowhere" / "part")
    first, second = started(good, good)
    with pytest.raises(UserError, match=r"file\.part: cannot be written \("):
        fetched([first, second], wanted)
    assert second.asked == []


def test_the_original_host_is_the_last_of_several() -> None:
    from s9.cli.compose import compose_config

    config: Any = compose_config(["data=cifar10"]).data
    assert len(config.urls) > 3 and "www.cs.toronto.edu/~kriz/" in config.urls[-1]
    assert len(set(config.urls)) == len(config.urls) and all(url.startswith("https://") for url in config.urls)


def test_a_mirror_that_is_left_is_told_on_the_screen_of_every_door(
    started: Callable[..., list[Source]], wanted: Wanted, caplog: pytest.LogCaptureFixture
) -> None:
    fetched(started(refusing, good), wanted)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
