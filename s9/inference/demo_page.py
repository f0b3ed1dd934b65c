"""The demo's page and its one question: what does the network say of this picture?

Our own page on Starlette, not gradio. Gradio 6.31 answers requests for any Host and uploads from any Origin, so that
every website that is open in the browser could use it; it writes every upload, of any kind and before our code sees it,
into a folder that is still there when the process has ended. Here no route leads to a file: the page, its script
and its style are in memory, and a picture is the body of one request.
"""

import json
import threading
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from s9.data.sources.decode import BrokenImageError
from s9.data.sources.formats import READABLE
from s9.inference.classifier import Classifier
from s9.inference.demo_look import TOP, look_at
from s9.pages.page import ASSETS

HERE = Path(__file__).parent / "assets"
UPLOAD_MB, MEGAPIXELS = 20, 50  # a photograph of today's cameras; more would be held in memory whole
HOSTS = ("127.0.0.1", "localhost")
FEW = 20  # classes that are listed in the page's head; more are folded
SQUARE = {  # by `resize`
    "crop": "the square in the middle",
    "pad": "the whole, its edges filled to a square",
    "stretch": "the whole, stretched to a square",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class OwnPageOnly:
    """Refuses what another website sends through the browser: its Origin is another, or, with DNS rebinding, the Host.

    The port is not compared, so that the page also works through `ssh -L`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host.split(":")[0] in HOSTS and headers.get("origin", f"http://{host}") == f"http://{host}":
            await self.app(scope, receive, send)
        else:
            await _error(403, "only the page itself may ask this")(scope, receive, send)


def application(classifier: Classifier, folder: Path) -> Starlette:
    """The page of one network. Sets Pillow's limit of pixels, for the whole process.

    Args:
        folder: an empty one, in which each picture lies while it is decoded.
    """
    Image.MAX_IMAGE_PIXELS = MEGAPIXELS * 10**6 // 2  # Pillow warns of more, and refuses twice as many
    style = "".join((place / name).read_text("utf-8") for place, name in ((ASSETS, "page.css"), (HERE, "demo.css")))
    held = {
        "/": (page(classifier), "text/html"),
        "/demo.css": (style, "text/css"),
        "/demo.js": ((HERE / "demo.js").read_text("utf-8"), "text/javascript"),
    }
    one_at_a_time = threading.Lock()  # pictures are decoded into memory, and Grad-CAM hangs hooks on the network

    def seen(content: bytes) -> Response:
        with one_at_a_time:
            return _answer(content, folder, classifier)

    async def look(request: Request) -> Response:
        try:
            content = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        if content is None:
            return _error(413, f"the file is too large: at most {UPLOAD_MB} MB")
        return await run_in_threadpool(seen, content)

    def get(request: Request) -> Response:
        text, kind = held[request.url.path]
        return Response(text, headers=HEADERS, media_type=kind)

    routes = [*(Route(path, get, methods=["GET"]) for path in held), Route("/look", look, methods=["POST"])]
    return Starlette(routes=routes, middleware=[Middleware(OwnPageOnly)])


async def _body(request: Request) -> bytes | None:
    """None where it is larger than allowed; then its rest is not read."""
    most = UPLOAD_MB * 10**6
    if int(request.headers.get("content-length", 0)) > most:
        return None
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            return None
    return bytes(content)


def _answer(content: bytes, folder: Path, classifier: Classifier) -> Response:
    file = folder / "picture"
    try:
        file.write_bytes(content)
        found = look_at(file, classifier)
    except BrokenImageError as error:
        return _error(415, _plain(error.reason))
    finally:
        file.unlink(missing_ok=True)
    return _json(200, found)


def _plain(reason: str) -> str:
    if "decompression bomb" in reason:  # Pillow's own words are about an attack
        return f"the picture has too many pixels: at most {MEGAPIXELS} million"
    return f"this cannot be read as an image ({reason})"


def _error(status: int, text: str) -> Response:
    return _json(status, {"error": text})


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(json.dumps(content), status, headers=HEADERS, media_type="application/json")


def page(classifier: Classifier) -> str:
    """The HTML, in which every name is escaped."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("demo.html").render(
        name=classifier.name,
        facts=classifier.facts,
        accuracy=classifier.metrics.get("test", {}).get("accuracy"),
        accept=",".join(["image/*", *sorted(READABLE)]),
        top=min(TOP, classifier.facts.num_classes),
        square=SQUARE[classifier.resize],
        few=FEW,
        megabytes=UPLOAD_MB,
    )
