"""The demo as a real process: what it answers, what it refuses, how it ends, and its page in a browser."""

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra s9[demo]")
pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

from playwright.sync_api import Browser, Page, expect

from s9.inference.classifier import load
from s9.inference.demo_page import MEGAPIXELS, UPLOAD_MB, page
from tests.awkward_folder import picture
from tests.browser import Opened, chromium
from tests.doors import ROOT, Started, environment, run, shell, started

AWAY = (  # paths of gradio, of proxies, of a server of files
    *("/etc/passwd", "/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"),
    *("/file=/etc/passwd", "/gradio_api/file=/etc/passwd", "/proxy=http://127.0.0.1/", "/..%5c..%5cetc%5cpasswd"),
    *("/README.md", "/s9/demo.py", "/demo.html", "/demo.js/../demo.html", "/weights/final.safetensors", "/picture"),
    *("/docs", "/openapi.json", f"{ROOT}/README.md"),
)
FORWARD = ("GRADIO_SERVER_NAME", "UVICORN_HOST", "HOST")  # what other servers take their address from
TURNED = 0x0112, 6  # EXIF: the camera was held upright


class Demo:
    """A demo that is ready. temporary: the folder in which it may keep files for a moment."""

    def __init__(self, door: Started, temporary: Path):
        self.door, self.temporary = door, temporary
        self.address = door.said.split()[1]
        self.port = int(self.address.rpartition(":")[2])

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer. The path is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def look(self, content: Any) -> tuple[int, dict[str, Any]]:
        status, body = self.ask("POST", "/look", content)
        return status, json.loads(body)

    def kept(self) -> list[str]:
        """What it holds on the disk: its own folder, and the files in it."""
        return [path.name.partition("-demo-")[0] for path in self.temporary.rglob("*")]


@contextmanager
def ready(folder: Path, **more: str) -> Iterator[Demo]:
    temporary = folder / "temporary"
    temporary.mkdir()
    # A new python: one that has imported everything has chosen its temporary folder already.
    with started(folder, shell("demo", "run=frontier", "port=0"), TMPDIR=str(temporary), **more) as door:
        door.has_said("Ctrl-C")
        yield Demo(door, temporary)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with ready(tmp_path_factory.mktemp("demo"), **dict.fromkeys(FORWARD, "0.0.0.0"), GRADIO_SHARE="true") as found:
        yield found


def content(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def pixels(source: str) -> np.ndarray:
    """Of the value of a `src`."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


WHOLE = content(picture(1, (190, 110, 60)))


def test_the_names_and_probabilities_are_the_classifiers(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(WHOLE)
    found = demo.look(WHOLE)[1]["top"]
    wanted = load("frontier")(tmp_path / "a.png").top()
    assert [one["name"] for one in found] == [name for name, _ in wanted]
    assert [one["probability"] for one in found] == pytest.approx([probability for _, probability in wanted], abs=1e-5)


def test_the_network_sees_a_photograph_upright(demo: Demo, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[TURNED[0]] = TURNED[1]
    turned = content(picture(2, (60, 160, 60)).transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert np.array_equal(
        pixels(demo.look(turned)[1]["seen"]), pixels(demo.look(content(picture(2, (60, 160, 60))))[1]["seen"])
    )


def test_transparent_parts_are_white(demo: Demo) -> None:
    clear = content(Image.new("RGBA", (64, 64), (255, 0, 0, 0)))
    assert pixels(demo.look(clear)[1]["seen"]).min() == 255


def test_a_class_has_heat_that_covers_a_part_of_the_picture(demo: Demo) -> None:
    heat = pixels(next(one["heat"] for one in demo.look(WHOLE)[1]["top"] if one["heat"]))
    assert heat.shape == (32, 32, 4)
    assert heat[..., 3].min() < heat[..., 3].max()


@pytest.mark.parametrize("path", AWAY)
def test_no_path_leads_to_a_file(demo: Demo, path: str) -> None:
    assert demo.ask("GET", path) == (404, b"Not Found")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "", "[::1]"]
)
def test_another_host_is_refused(demo: Demo, host: str) -> None:
    assert demo.ask("GET", "/", Host=host)[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", ""])
def test_another_origin_is_refused(demo: Demo, origin: str) -> None:
    assert demo.ask("POST", "/look", WHOLE, Origin=origin)[0] == 403


def test_the_page_may_be_reached_through_another_port(demo: Demo) -> None:
    assert demo.ask("POST", "/look", WHOLE, Host="localhost:8000", Origin="http://localhost:8000")[0] == 200


def test_only_the_loopback_listens_whatever_the_environment_says(demo: Demo) -> None:
    code = "import socket, sys; print(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))))"
    results = [  # a process of its own, since a test may only reach 127.0.0.1; on Linux, 127.0.0.2 is this machine too
        subprocess.run([sys.executable, "-c", code, host, str(demo.port)], capture_output=True, text=True, check=True)
        for host in ("127.0.0.1", "127.0.0.2")
    ]
    assert [int(result.stdout) != 0 for result in results] == [False, True]


def test_a_file_over_the_limit_is_refused(demo: Demo) -> None:
    assert demo.look(bytes(UPLOAD_MB * 10**6 + 1)) == (413, {"error": f"the file is too large: at most {UPLOAD_MB} MB"})


def test_a_file_whose_size_is_not_told_is_refused_at_the_limit(demo: Demo) -> None:
    parts = (bytes(10**6) for _ in range(UPLOAD_MB + 1))
    assert demo.look(parts)[0] == 413


def test_a_small_file_with_too_many_pixels_is_refused(demo: Demo) -> None:
    bomb = content(Image.new("1", (10**4, MEGAPIXELS * 100 + 1)))
    wanted = {"error": f"the picture has too many pixels: at most {MEGAPIXELS} million"}
    assert demo.look(bomb) == (415, wanted)


@pytest.mark.parametrize("broken", [b"", b"no image", WHOLE[:300], b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_image_gets_a_plain_line(demo: Demo, broken: bytes) -> None:
    status, answer = demo.look(broken)
    assert status == 415
    assert answer["error"].startswith("this cannot be read as an image (")
    assert str(demo.temporary) not in answer["error"]


def test_an_upload_that_breaks_off_is_passed_over(demo: Demo) -> None:
    with socket.create_connection(("127.0.0.1", demo.port)) as half:
        half.sendall(b"POST /look HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf")
    assert demo.look(WHOLE)[0] == 200
    assert demo.door.err.read_text() == ""


def test_no_picture_is_kept(demo: Demo) -> None:
    demo.look(WHOLE)
    demo.look(b"no image")
    assert demo.kept() == ["s9"]  # the folder alone


def test_names_are_text_in_the_page() -> None:
    known = load("frontier")
    markup = "<script>alert(1)</script>"
    facts = replace(known.facts, class_names=(markup, *known.classes[1:]))
    assert markup not in page(replace(known, name=markup, facts=facts))


def test_a_network_without_scores_has_a_page() -> None:
    assert "accuracy" not in page(replace(load("frontier"), metrics={}))


def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    with ready(tmp_path) as demo:
        demo.look(WHOLE)
        os.kill(demo.door.pid, signal.SIGINT)
        done = demo.door.end()
        assert (done.returncode, done.stderr, demo.kept()) == (128 + signal.SIGINT, "", [])


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "demo", "run=frontier", f"port={port}")
    wanted = f"error: port={port}: Address already in use; give another one, or port=0 for any free one\n"
    assert (done.returncode, done.stderr) == (2, wanted)


@pytest.mark.parametrize("port", ["-1", "65536", "1.5", "http", ""])
def test_a_port_that_cannot_be_is_refused(tmp_path: Path, port: str) -> None:
    done = run(tmp_path, "demo", "run=frontier", f"port={port}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: port={port}: must be")


def test_a_network_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "run=nowhere", "port=0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("part", ["starlette", "uvicorn"])
def test_what_is_not_installed_is_said(tmp_path: Path, part: str) -> None:
    code = (
        f"import runpy, sys; sys.modules[{part!r}] = None; sys.argv = ['demo.py', 'run=frontier'];"
        "runpy.run_module('s9.demo', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.stderr == f"error: s9.demo needs {part}, which is not installed: pip install 's9[demo]'\n"


# What a person's hand does to the page, as events of the browser.
GIVE = """([how, files]) => {
  const moved = new DataTransfer();
  for (const [name, bytes] of files) {
    moved.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name));
  }
  const all = { bubbles: true, cancelable: true };
  const event = how === "drop" ? new DragEvent("drop", { dataTransfer: moved, ...all })
    : new ClipboardEvent("paste", { clipboardData: moved, ...all });
  document.body.dispatchEvent(event);
}"""


def give(page: Page, how: str, **files: bytes) -> None:
    """how: drop or paste. files: by name."""
    page.evaluate(GIVE, [how, [(name, base64.b64encode(held).decode()) for name, held in files.items()]])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def shown(browser: Browser, demo: Demo) -> Iterator[Opened]:
    """The page, as wide as a phone, with all that it asks for and complains of."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    found = Opened(page)
    page.on("console", lambda line: found.complaints.append(line.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(demo.address)
    yield found
    context.close()


def browsed(test: Any) -> Any:
    return pytest.mark.browser(pytest.mark.slow(test))


@browsed
@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_that_is_given_gets_its_names(shown: Opened, demo: Demo, how: str) -> None:
    give(shown.page, how, a=WHOLE)
    rows = shown.page.locator("#top button")
    expect(rows).to_have_count(5)
    wanted = [f"{one['name']}\n{100 * one['probability']:.1f} %" for one in demo.look(WHOLE)[1]["top"]]
    assert [text.strip() for text in rows.all_inner_texts()] == wanted


@browsed
def test_a_file_that_is_chosen_gets_its_names(shown: Opened, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(WHOLE)
    shown.page.set_input_files("#file", tmp_path / "a.png")
    expect(shown.page.locator("#top button")).to_have_count(5)


@browsed
def test_the_heat_lies_over_the_picture_until_it_is_switched_off(shown: Opened) -> None:
    give(shown.page, "drop", a=WHOLE)
    heat = shown.page.locator("#heat")
    expect(heat).to_be_visible()
    assert heat.bounding_box() == shown.page.locator("#shown").bounding_box()
    shown.page.get_by_label("show the heat").uncheck()
    expect(heat).to_be_hidden()


@browsed
def test_each_name_has_its_own_heat(shown: Opened) -> None:
    give(shown.page, "drop", a=WHOLE)
    row = shown.page.locator("#top button").nth(1)
    name = row.locator("span").first.inner_text()
    row.click()
    expect(shown.page.locator("#cam")).to_contain_text(name)
    expect(row).to_have_attribute("aria-pressed", "true")


@browsed
def test_after_a_broken_file_the_next_works(shown: Opened) -> None:
    give(shown.page, "drop", notes=b"no image")
    expect(shown.page.get_by_role("alert")).to_contain_text("notes: this cannot be read as an image")
    expect(shown.page.locator("#result")).to_be_hidden()
    give(shown.page, "drop", a=WHOLE)
    expect(shown.page.locator("#result")).to_be_visible()
    expect(shown.page.get_by_role("alert")).to_be_hidden()


@browsed
def test_a_file_that_is_too_large_is_not_sent(shown: Opened, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(UPLOAD_MB * 10**6 + 1))
    shown.page.set_input_files("#file", large)
    expect(shown.page.get_by_role("alert")).to_have_text(f"large.png: the file is too large: at most {UPLOAD_MB} MB")
    assert not [address for address in shown.requests if address.endswith("/look")]


@browsed
def test_of_several_pictures_the_first_is_taken_and_named(shown: Opened) -> None:
    give(shown.page, "drop", a=WHOLE, b=WHOLE)
    expect(shown.page.get_by_role("alert")).to_have_text("One picture at a time: this is a, the first of 2.")


@browsed
def test_what_is_dropped_and_no_file_gets_a_plain_line(shown: Opened) -> None:
    give(shown.page, "drop")
    expect(shown.page.get_by_role("alert")).to_contain_text("That was no file.")


@browsed
def test_the_page_asks_nothing_of_another_machine_and_complains_of_nothing(shown: Opened) -> None:
    give(shown.page, "drop", a=WHOLE)
    expect(shown.page.locator("#result")).to_be_visible()
    assert {urlsplit(address).hostname for address in shown.requests if not address.startswith("data:")} == {
        "127.0.0.1"
    }
    assert shown.complaints == []


@browsed
def test_a_phone_shows_the_page_without_scrolling_sideways(shown: Opened) -> None:
    give(shown.page, "drop", a=WHOLE)
    expect(shown.page.locator("#result")).to_be_visible()
    assert not shown.overflows()


@browsed
def test_the_page_says_when_the_demo_has_ended(browser: Browser, tmp_path: Path) -> None:
    with ready(tmp_path) as demo:
        page = browser.new_page()
        page.goto(demo.address)
        os.kill(demo.door.pid, signal.SIGINT)
        assert demo.door.end().returncode == 128 + signal.SIGINT  # also with a page that is open
        give(page, "drop", a=WHOLE)
        expect(page.get_by_role("alert")).to_have_text("a: no answer: has s9.demo ended?")
        page.close()
