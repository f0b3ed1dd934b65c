"""W&B that is away, refuses, hangs or dies: the run ends well all the same, in time, and without a traceback."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.doors import (
    HERE,
    RUN,
    SHORT,
    SMALL,
    Done,
    checkpoints,
    command,
    left,
    nobody_left,
    run,
    started,
    status,
    until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc"),
]

# W&B. What a run takes without it here is a few seconds, and tens of them where others use the processor too.

ONLINE = [*(word for word in SHORT if word != "wandb=disabled"), HERE, "wandb=online", "wandb.timeout=3"]
KEY = "0" * 40
PATIENCE_S = 60


def ends_well(folder: Path, url: str, *arguments: str) -> Done:
    """A run that W&B fails: done all the same, in time, and nothing of a traceback."""
    begun = time.monotonic()
    done = run(folder, "train", *ONLINE, *arguments, WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert status(folder / RUN)["state"] == "done"
    assert "Traceback" not in done.stderr
    assert time.monotonic() - begun < PATIENCE_S
    assert nobody_left(folder), left(folder)
    return done


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class Server:
    """Answers each request as `answer(path, body)` says: a status and what becomes JSON; None: never."""

    def __init__(self, answer: Callable[[str, bytes], tuple[int, Any] | None]):
        closing = self.closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                if said is None:
                    closing.wait(200)
                    return
                content = json.dumps(said[1]).encode()
                self.send_response(said[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that knows no key."""
    server = Server(lambda path, body: (401, {"errors": [{"message": "invalid API key"}]}))
    yield server.url
    server.close()


PROJECT = {"id": "p", "name": "s9", "entity": {"id": "e", "name": "me"}}
BUCKET = {"id": "aWQ=", "name": "abc", "displayName": "n", "config": "{}", "historyLineCount": 0, "project": PROJECT}
STARTS = {"upsertBucket": {"bucket": BUCKET, "inserted": True}, "model": {"bucket": None}, "entity": {}}


def only_starts(path: str, body: bytes) -> tuple[int, Any] | None:
    """Takes a new run as W&B's own server does, and then nothing of it."""
    return None if "file_stream" in path or b"CreateRunFiles" in body else (200, {"data": STARTS})


@pytest.fixture
def hanging_at_the_end() -> Iterator[str]:
    server = Server(only_starts)
    yield server.url
    server.close()


def closed() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_an_unreachable_wandb_does_not_end_the_run(tmp_path: Path) -> None:
    assert "W&B online did not start" in ends_well(tmp_path, closed()).stdout


def test_a_wandb_that_refuses_the_key_does_not_end_the_run(tmp_path: Path, refusing: str) -> None:
    assert "W&B online did not start" in ends_well(tmp_path, refusing).stdout


def test_a_wandb_that_never_answers_leaves_an_offline_run(tmp_path: Path, silent: str) -> None:
    said = ends_well(tmp_path, silent).stdout
    assert "W&B online did not start" in said and "W&B offline did not start" not in said
    assert list((tmp_path / RUN / "wandb").glob("offline-run-*/*.wandb"))


def test_a_wandb_folder_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "wandb").write_text("not a folder")
    ends_well(tmp_path, closed(), "wandb=offline")


def test_a_wandb_that_hangs_at_the_end_costs_the_run_its_timeout_at_most(
    tmp_path: Path, hanging_at_the_end: str
) -> None:
    assert "W&B online did not start" not in ends_well(tmp_path, hanging_at_the_end).stdout


def test_a_wandb_that_dies_does_not_end_the_run(tmp_path: Path) -> None:
    def service() -> list[int]:
        return [pid for pid in left(tmp_path) if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    small = [word for word in SMALL if word != "wandb=disabled"]
    with started(tmp_path, command("train", *small, HERE, "wandb=offline", "trainer.epochs=40")) as door:
        until(lambda: service() and checkpoints(tmp_path / RUN))
        for pid in service():
            os.kill(pid, signal.SIGKILL)
        done = door.end()
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert nobody_left(tmp_path), left(tmp_path)
    assert status(tmp_path / RUN)["state"] == "done"
