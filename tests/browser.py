"""Pages in a real Chromium with network and WebGL off, and all that it complains about.

python -m tests.browser outputs/sweeps/<name>/report.html    # how long a sort and the longest frame of a scroll take
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-webgl",
    "--disable-3d-apis",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """A page in the browser. complaints: errors and warnings of its console; requests: addresses it has asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def outside(self) -> list[str]:
        """Addresses that are neither files nor inside the page."""
        return [address for address in self.requests if not address.startswith(("file:", "data:"))]

    def overflows(self) -> bool:
        """Whether the page as a whole is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


@contextmanager
def chromium() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUMS)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, path: Path, *, width: int = 1400, dark: bool = False, **more: Any) -> Iterator[Opened]:
    """The page from its file, offline, with all that it complains about until the block ends.

    Args:
        width: of the window, pixels.
        more: of a browser's context, as `java_script_enabled=False`.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", **more
    )
    context.set_offline(True)
    page = context.new_page()
    shown = Opened(page)
    page.on("console", lambda line: shown.complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    page.on("request", lambda request: shown.requests.append(request.url))
    page.goto(path.resolve().as_uri())
    try:
        yield shown
    finally:
        context.close()


# Milliseconds: from a click on the head of a column until the next frame is drawn, and between two frames.
SORT = """async (column) => {
  const head = document.querySelector(`#jobs-table .tabulator-col[tabulator-field="${column}"]`);
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  await frame();
  const start = performance.now();
  head.click();
  await frame();
  return performance.now() - start;
}"""
SCROLL = """async (selector) => {
  const place = selector ? document.querySelector(selector) : document.scrollingElement;
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const taken = [];
  let before = await frame();
  for (let at = 0; at < place.scrollHeight && taken.length < 200; at += 150) {
    place.scrollTop = at;
    const now = await frame();
    taken.push(now - before);
    before = now;
  }
  return taken;
}"""


def measured(shown: Opened) -> dict[str, float]:
    """Milliseconds that a sweep's page takes to load, to sort its jobs, and between frames while it is scrolled.

    frame: the median while the table of jobs is scrolled, longest: its maximum.
    """
    page = shown.page
    page.wait_for_selector("body.drawn")
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    sorts = [page.evaluate(SORT, column) for column in ("accuracy", "accuracy", "k0", "job")]
    table = page.evaluate(SCROLL, "#jobs-table .tabulator-tableholder")
    whole = page.evaluate(SCROLL, "")
    typical = sorted(table)[len(table) // 2]
    return {"load": loaded, "sort": max(sorts), "frame": typical, "longest": max(table), "longest of page": max(whole)}


def main(paths: list[str]) -> None:
    with chromium() as browser:
        for path in paths:
            with opened(browser, Path(path)) as shown:
                told = ", ".join(f"{name} {value:.0f} ms" for name, value in measured(shown).items())
                print(f"{path}: {told}", *shown.complaints, sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1:])
