"""A run's page in a real browser: what is drawn, and what a pointer and a keyboard do there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

from playwright.sync_api import Browser, Page, expect

from s9.pages.run_page import write_run_page
from tests.browser import chromium, opened
from tests.doors import until
from tests.made_up_run import MadeUp, finished, write_log
from tests.test_run_page import MARKUP

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CLASSES = (MARKUP, "bee", "cattle", "cat")
SHOW = "document.querySelectorAll('.chart').forEach((one) => one.scrollIntoView())"
MATRIX = "echarts.getInstanceByDom(document.getElementById('chart-confusion'))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the page of a run that was resumed once, with a class whose name is markup."""
    folder = finished(tmp_path_factory.mktemp("runs") / "a", MadeUp(CLASSES, images=20, wrong=5, side=32))
    write_log(folder, 15)
    return write_run_page(folder)


def point_at(page: Page, chart: str, place: str, *, series: int = 0) -> tuple[float, float]:
    """Moves the pointer to `place`, JavaScript of a value on the chart's axes; returns where that is in the window."""
    element = page.locator(f"#{chart}")
    element.scroll_into_view_if_needed()
    found = f"echarts.getInstanceByDom(document.getElementById('{chart}'))"
    x, y = page.evaluate(f"{found}.convertToPixel({{seriesIndex: {series}}}, {place})")
    box = element.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.move(box["x"] + x + 1, box["y"] + y)
    return box["x"] + x, box["y"] + y


def column(page: Page, table: str, field: str) -> list[str]:
    return page.locator(f"#{table} .tabulator-row .tabulator-cell[tabulator-field='{field}']").all_inner_texts()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_browser_complains_about_nothing_and_fetches_nothing(
    browser: Browser, path: Path, width: int, dark: bool
) -> None:
    with opened(browser, path, width=width, dark=dark) as shown:
        shown.page.evaluate(SHOW)
        shown.page.wait_for_timeout(300)
        assert (shown.complaints, shown.outside, shown.overflows()) == ([], [], False)


def test_all_charts_are_drawn(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        drawn = shown.page.locator(".chart:has(canvas)")
        expect(drawn).to_have_count(5)  # loss, accuracy, learning rate, confusion, calibration


def test_the_pointer_on_a_curve_shows_its_values(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        point_at(shown.page, "chart-accuracy", "[2, 0.7]")
        tooltip = shown.page.locator("#chart-accuracy div", has_text="epoch 2").last
        expect(tooltip).to_contain_text("val 70.00 %")


def test_the_pointer_on_a_cell_shows_its_classes_as_text(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        point_at(shown.page, "chart-confusion", "[1, 0]", series=1)
        tooltip = shown.page.locator("#chart-confusion div", has_text="5 of 20 images (25.00 %)").last
        expect(tooltip).to_contain_text(f"{MARKUP}, predicted as bee")
        assert (shown.page.locator("img[src=x]").count(), shown.complaints) == (0, [])


def test_a_click_on_a_cell_lists_its_images_alone_until_all_are_wanted(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        page = shown.page
        page.mouse.click(*point_at(page, "chart-confusion", "[3, 2]", series=1))
        expect(page.locator("#chosen")).to_contain_text("cattle, predicted as cat")
        assert set(column(page, "mistake-table", "true")) == {"cattle"}
        page.get_by_role("button", name="show all").press("Enter")
        assert len(column(page, "mistake-table", "true")) == 20


def test_markup_in_a_table_is_text(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        assert column(shown.page, "class-table", "name")[0] == MARKUP


def test_classes_sort_by_keyboard(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        before = column(shown.page, "class-table", "name")
        shown.page.locator("#class-table .tabulator-col[tabulator-field='name']").press("Enter")
        assert column(shown.page, "class-table", "name") == sorted(before) != before


def test_mistakes_are_filtered_by_what_is_typed(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        shown.page.locator("#mistake-table .tabulator-col[tabulator-field='file'] input").press_sequentially("bee/")
        expect(shown.page.locator("#mistake-table .tabulator-row")).to_have_count(5)


def test_mistakes_are_filtered_by_a_least_probability(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        shown.page.locator("#mistake-table .tabulator-col[tabulator-field='sure'] input").press_sequentially("89")
        rows = shown.page.locator("#mistake-table .tabulator-row")
        expect(rows).to_have_count(5)
        assert all(float(value) >= 89 for value in column(shown.page, "mistake-table", "sure"))


def test_a_matrix_of_100_classes_can_be_zoomed(browser: Browser, tmp_path: Path) -> None:
    said = MadeUp(tuple(f"class {n}" for n in range(100)), images=3, wrong=1)
    with opened(browser, write_run_page(finished(tmp_path, said))) as shown:
        assert shown.page.evaluate(f"{MATRIX}.getOption().dataZoom.length") == 2
        shown.page.evaluate(
            f"{MATRIX}.dispatchAction({{type: 'dataZoom', dataZoomIndex: 0, startValue: 0, endValue: 9}})"
        )
        point_at(shown.page, "chart-confusion", "[8, 7]", series=1)
        tooltip = shown.page.locator("#chart-confusion div", has_text="class 7, predicted as class 8").last
        expect(tooltip).to_contain_text("1 of 3 images (33.33 %)")


def test_a_page_that_turns_dark_is_drawn_anew(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        colour = f"{MATRIX}.getOption().series[0].label.color"
        light = shown.page.evaluate(colour)
        shown.page.emulate_media(color_scheme="dark")
        until(lambda: shown.page.evaluate(colour) != light, 10)  # not wait_for_function: the page's policy forbids eval


def test_without_javascript_the_gallery_and_the_tables_are_there(browser: Browser, path: Path) -> None:
    with opened(browser, path, java_script_enabled=False) as shown:
        expect(shown.page.locator(".gallery img")).to_have_count(20)
        for table, rows in (
            ("mistake-table", 20),
            ("class-table", 4),
            ("layer-table", 14),
            ("epochs", 3),
            ("pairs", 4),
        ):
            expect(shown.page.locator(f"table#{table} tbody tr")).to_have_count(rows)


def test_the_links_to_sections_lead_there(browser: Browser, path: Path) -> None:
    with opened(browser, path) as shown:
        shown.page.get_by_role("link", name="calibration").press("Enter")
        expect(shown.page.get_by_role("heading", name="Calibration (test)")).to_be_in_viewport()
