"""The demo's server: a socket of this machine alone, its address on the screen, and its end by a signal."""

import os
import socket
import tempfile
import threading
import webbrowser
from pathlib import Path

from starlette.applications import Starlette
from uvicorn import Config, Server

from s9.inference.classifier import load
from s9.inference.demo_page import application
from s9.system.errors import UserError

LOOPBACK = "127.0.0.1"
END_WITHIN_S = 2  # that a picture under way gets after Ctrl-C


def serve(run: str, port: int, *, open_browser: bool) -> None:
    """Serves the page until a signal's handler raises something.

    Args:
        run: as `load` takes it. port: 0 for any free one.

    Raises:
        UserError: the network cannot be loaded, or the port is taken.
    """
    with _listening(port) as listening, tempfile.TemporaryDirectory(prefix="s9-demo-") as folder:
        classifier = load(run)
        app = application(classifier, Path(folder))
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        print(f"{classifier.name}: {address} (Ctrl-C ends it)", flush=True)
        if open_browser:
            threading.Thread(target=_open, args=(address,), daemon=True).start()
        _run(_server(app), listening)


def _run(server: Server, listening: socket.socket) -> None:
    """In a thread, since the main thread gets the signals, and uvicorn would take them there and send them again."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(1)  # on Windows, Ctrl-C waits for its end
    finally:
        server.should_exit = True
        thread.join(END_WITHIN_S + 1)


def _server(app: Starlette) -> Server:
    """Each choice is made here, so that no variable of the environment makes it."""
    return Server(
        Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=END_WITHIN_S,
        )
    )


def _listening(port: int) -> socket.socket:
    """Bound before the network is loaded, so that a taken port is said at once."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # a port whose last owner has just ended is free; on Windows this would share a taken one
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen()
    except OSError as error:
        listening.close()
        reason = error.strerror or "it cannot be opened"
        raise UserError(f"port={port}: {reason}; give another one, or port=0 for any free one") from None
    return listening


def _open(address: str) -> None:
    if not webbrowser.open(address):
        print("open=true: no browser was found; open the address by hand", flush=True)
