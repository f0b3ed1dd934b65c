"""The page of a comparison in a real Chromium, offline: curves, filters, links, and that no name becomes markup."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from s9.pages.compare_facts import compare
from s9.pages.compare_page import PLAIN, write_comparison
from tests.browser import chromium, opened
from tests.compared_runs import SMALL, facts, make_run
from tests.conftest import composed

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HARD = "<img src=x onerror=alert(1)>"
NAMES = [f"ant/{n}.png" for n in range(12)]
RIGHT = {"a": [1] * 6 + [0] * 6, "b": [1] * 3 + [0] * 3 + [1] * 2 + [0] * 4, "c": [1] * 12}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def page_of(folder: Path, *runs: str) -> Path:
    made = [make_run(folder / name, RIGHT[name], names=NAMES) for name in runs]
    path = folder / "page" / "compare.html"
    write_comparison(compare(made), path)
    return path


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "a").parent.mkdir(exist_ok=True)
    path = page_of(folder, "a", "b")
    (folder / "a" / "report.html").write_text("<title>the page of a</title>")
    write_comparison(compare([folder / "a", folder / "b"]), path)
    return path


@pytest.fixture(scope="module")
def of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(tmp_path_factory.mktemp("three"), "a", "b", "c")


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on which every name that a user can choose is markup."""
    folder, images = tmp_path_factory.mktemp("hard"), facts(classes=(HARD, "bee"))
    config = composed(*SMALL, f"name='{HARD}'", "optimizer.lr=0.3")
    status = {"group": HARD, "command": HARD, "state": "interrupted", "reason": HARD}
    a = make_run(folder / "img src=x onerror=alert(1)", [1, 0, 0], images=images, names=[HARD, "b", "c"])
    b = make_run(
        folder / HARD.replace("/", ""), [0, 1, 0], images=images, names=[HARD, "b", "c"], config=config, status=status
    )
    write_comparison(compare([a, b]), folder / "hard.html")
    return folder / "hard.html"


def shown_names(page: Page) -> list[str]:
    return page.locator("#images-table .tabulator-row [tabulator-field=name]").all_inner_texts()


def legend_names(page: Page, chart: str) -> list[str]:
    option = "echarts.getInstanceByDom(document.getElementById(id)).getOption()"
    found: list[str] = page.evaluate(f"(id) => {option}.series.map((one) => one.name)", chart)
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("which", ["of_two", "of_three", "hard"])
def test_nothing_is_complained_about_asked_for_or_too_wide(
    browser: Browser, request: pytest.FixtureRequest, which: str, width: int, dark: bool
) -> None:
    with opened(browser, request.getfixturevalue(which), width=width, dark=dark) as shown:
        assert (shown.complaints, shown.outside, shown.overflows()) == ([], [], False)


def test_the_answer_comes_first(browser: Browser, of_two: Path) -> None:
    with opened(browser, of_two) as shown:
        first = shown.page.locator("main p").first.inner_text()
    assert first == "A is right on 1 more of 12 test images than B: this cannot be told from chance."


def test_each_curve_has_a_line_for_each_run(browser: Browser, of_three: Path) -> None:
    with opened(browser, of_three) as shown:
        names = [legend_names(shown.page, f"curve-{n}") for n in range(5)]
    assert names == [["A: a, seed 0", "B: b, seed 0", "C: c, seed 0"]] * 5


def test_images_that_only_one_gets_right_can_be_chosen(browser: Browser, of_two: Path) -> None:
    with opened(browser, of_two) as shown:
        shown.page.select_option("#who", "B")
        assert sorted(shown_names(shown.page)) == ["ant/6.png", "ant/7.png"]
        assert shown.page.inner_text("#shown") == "2 of 9 shown"
        shown.page.select_option("#who", "none")
        assert sorted(shown_names(shown.page)) == sorted(NAMES[8:])


def test_images_can_be_filtered_by_name(browser: Browser, of_two: Path) -> None:
    with opened(browser, of_two) as shown:
        shown.page.locator("#images-table input").first.press_sequentially("10")
        shown.page.get_by_text("1 of 9 shown").wait_for()
        assert shown_names(shown.page) == ["ant/10.png"]


def test_images_can_be_sorted_with_the_keyboard(browser: Browser, of_two: Path) -> None:
    with opened(browser, of_two) as shown:
        shown.page.locator("#images-table .tabulator-col[tabulator-field=name]").press("Enter")
        names = shown_names(shown.page)
    assert names == sorted(names)


def test_a_stored_picture_is_shown_beside_its_name(browser: Browser, of_two: Path) -> None:
    with opened(browser, of_two) as shown:
        picture = shown.page.locator("#images-table img").first
        assert (picture.get_attribute("src") or "").startswith("data:image/png;base64,")
        assert picture.evaluate("(image) => image.naturalWidth") == 8


def test_pairs_that_differ_are_marked(browser: Browser, of_three: Path) -> None:
    with opened(browser, of_three) as shown:
        marked = shown.page.locator("#pairs-table .tabulator-row.marked").all_inner_texts()
    assert [text[:2] for text in marked] == ["BC"]


def test_a_run_with_a_page_of_its_own_is_linked(browser: Browser, of_two: Path) -> None:
    with opened(browser, of_two) as shown:
        links = shown.page.locator("#runs-table a")
        assert links.count() == 1
        links.click()
        assert shown.page.title() == "the page of a"


def test_names_with_markup_stay_text(browser: Browser, hard: Path) -> None:
    alerts: list[str] = []
    with opened(browser, hard) as shown:
        shown.page.on("dialog", lambda dialog: alerts.append(dialog.message))
        images = shown.page.evaluate("[...document.images].filter((one) => !one.src.startsWith('data:')).length")
        shown.page.locator("#curve-0").hover()
        shown.page.get_by_text("epoch 2").or_(shown.page.get_by_text("epoch 1")).first.wait_for()
        tooltip = shown.page.locator("#curve-0").inner_text()
        cells = shown.page.locator("#images-table .tabulator-row").all_inner_texts()
    assert (images, alerts, shown.complaints) == (0, [], [])
    assert HARD in tooltip and any(HARD in cell for cell in cells)


def test_without_javascript_the_tables_can_be_read(browser: Browser, of_three: Path) -> None:
    with opened(browser, of_three, java_script_enabled=False) as shown:
        assert "✗" not in shown.page.inner_text("#images-table") and "ant/8.png" in shown.page.inner_text(
            "#images-table"
        )
        assert "val accuracy" in shown.page.inner_text("#results-table")
        assert not shown.page.locator(".chart").first.is_visible()


def test_a_long_list_is_whole_with_javascript_and_cut_with_words_without(browser: Browser, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, [right] * 900) for name, right in (("a", 1), ("b", 0))]
    write_comparison(compare(runs), tmp_path / "long.html")
    with opened(browser, tmp_path / "long.html") as shown:
        assert shown.page.inner_text("#shown") == "900 of 900 shown"
    text = (tmp_path / "long.html").read_text()
    assert f"{900 - PLAIN} more images are shown with JavaScript." in re.sub(r"\s+", " ", text)
