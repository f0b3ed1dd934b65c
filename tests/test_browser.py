"""The pages in a real Chromium, from their files, with network and WebGL off."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s9.pages.sweep_page import write_sweep_page
from tests.made_up_sweep import write_made_up_sweep

pytest.importorskip("playwright", reason="needs playwright for Python")

from playwright.sync_api import Browser, Dialog, Page, expect

from tests.browser import chromium, opened

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ONE = {"model.dropout": ["0", "0.02", "0.1"]}
TWO = ONE | {"optimizer.lr": ["0.01", "0.1"]}
THREE = TWO | {"trainer.batch_size": ["32", "64"]}
HOSTILE = {f"<b>key{n}</b>": ["<img src=x onerror=alert(1)>", '"</script><script>alert(2)</script>'] for n in range(2)}
GRIDS: dict[str, dict[str, list[str]]] = {"one": ONE, "two": TWO, "three": THREE, "hostile": HOSTILE}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sweep's page over one, two and three keys, and over keys and values with markup; the first job has a page."""
    place, made = tmp_path_factory.mktemp("sweeps"), {}
    for name, keys in GRIDS.items():
        folder = write_made_up_sweep(place / name, keys, epochs=8, failed=1, missing=1, spread=0.008)
        (folder.path / next(iter(folder.read()["jobs"])) / "report.html").write_text("<title>a run</title>")
        made[name] = write_sweep_page(folder)[0]
    return made


def drawn(page: Page) -> Page:
    page.wait_for_selector("body.drawn")
    return page


def column(page: Page, table: str, field: str) -> list[str]:
    """The texts of a column, in the order of the rows."""
    return page.locator(f"#{table} .tabulator-row .tabulator-cell[tabulator-field={field}]").all_inner_texts()


def head(page: Page, table: str, field: str) -> Any:
    return page.locator(f"#{table} .tabulator-col[tabulator-field={field}]")


def title(page: Page, table: str, field: str) -> Any:
    """Without the field for a filter."""
    return head(page, table, field).locator(".tabulator-col-title")


def hovered(page: Page, chart: str, find: str) -> str:
    """The tooltip at the point that the expression `find` returns from `chart`, ECharts' object."""
    page.locator(f"#{chart}").scroll_into_view_if_needed()
    x, y = page.evaluate(
        f"(() => {{ const chart = echarts.getInstanceByDom(document.getElementById('{chart}')); {find} }})()"
    )
    box = page.locator(f"#{chart}").bounding_box()
    assert box
    page.mouse.move(box["x"] + x - 3, box["y"] + y)
    page.mouse.move(box["x"] + x, box["y"] + y)
    tooltip = page.locator(f"#{chart} > div:not(:has(canvas))")
    tooltip.wait_for(state="visible")
    return tooltip.inner_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", GRIDS)
def test_a_sweeps_page_complains_of_nothing(
    name: str, width: int, dark: bool, browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages[name], width=width, dark=dark) as shown:
        drawn(shown.page)
        assert (shown.complaints, shown.outside, shown.overflows()) == ([], [], False)


def test_a_page_needs_no_webgl(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["two"]) as shown:
        assert shown.page.evaluate("document.createElement('canvas').getContext('webgl')") is None


def test_a_page_is_as_dark_as_the_reader_asks(browser: Browser, pages: dict[str, Path]) -> None:
    colours = []
    for dark in (False, True):
        with opened(browser, pages["one"], dark=dark) as shown:
            colours.append(shown.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


@pytest.mark.parametrize("name", GRIDS)
def test_without_javascript_all_tables_can_be_read(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages[name], java_script_enabled=False, width=400) as shown:
        rows = shown.page.locator("#cells-table tbody tr")
        assert rows.count() == shown.page.locator("#cost-table tbody tr").count() > 1
        assert rows.first.locator("td", has_text="best mean").is_visible()
        assert shown.page.locator("#jobs-table tbody tr").count() == 3 * rows.count()
        assert not shown.page.locator(".chart").first.is_visible()
        assert shown.complaints == []


def test_a_click_on_a_head_sorts(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["one"]) as shown:
        page = drawn(shown.page)
        title(page, "jobs-table", "accuracy").click()
        up = [float(text) for text in column(page, "jobs-table", "accuracy") if text.strip()]
        title(page, "jobs-table", "accuracy").click()
        down = [float(text) for text in column(page, "jobs-table", "accuracy") if text.strip()]
        assert len(up) == 7 and up == sorted(up) and down == up[::-1]


def test_jobs_without_a_score_are_last_in_both_orders(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["one"]) as shown:
        page = drawn(shown.page)
        for _ in range(2):
            title(page, "jobs-table", "accuracy").click()
            texts = [text.strip() for text in column(page, "jobs-table", "accuracy")]
            assert texts[-2:] == ["", ""] and all(texts[:-2])


def test_enter_on_a_head_sorts(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["one"]) as shown:
        page = drawn(shown.page)
        head(page, "cells-table", "mean").focus()
        page.keyboard.press("Enter")
        means = [float(text) for text in column(page, "cells-table", "mean")]
        assert means == sorted(means) and len(means) == 3
        assert head(page, "cells-table", "mean").get_attribute("aria-sort") == "ascending"


def test_values_are_sorted_as_numbers(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["one"]) as shown:
        page = drawn(shown.page)
        title(page, "cells-table", "k0").click()
        assert [text.strip() for text in column(page, "cells-table", "k0")] == ONE["model.dropout"]


def test_a_field_under_a_head_filters(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["two"]) as shown:
        page = drawn(shown.page)
        head(page, "jobs-table", "state").locator("input").press_sequentially("fail")
        expect(page.locator("#jobs-table .tabulator-row")).to_have_count(1)
        assert column(page, "jobs-table", "state") == ["failed"]


def test_a_number_is_filtered_as_it_is_shown(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["two"]) as shown:
        page = drawn(shown.page)
        wanted = column(page, "cells-table", "mean")[1]
        head(page, "cells-table", "mean").locator("input").press_sequentially(wanted)
        expect(page.locator("#cells-table .tabulator-row")).to_have_count(1)
        assert set(column(page, "cells-table", "mean")) == {wanted}


def test_cells_that_cannot_be_told_from_the_best_are_marked(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["three"]) as shown:
        page = drawn(shown.page)
        marked = page.locator("#cells-table .tabulator-row.marked [tabulator-field=verdict]").all_inner_texts()
        rest = page.locator("#cells-table .tabulator-row:not(.marked) [tabulator-field=verdict]").all_inner_texts()
        assert set(marked) == {"best mean", "cannot be told from the best"}
        assert set(rest) == {"below the best"}


def test_a_link_opens_the_runs_page(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["two"]) as shown:
        page = drawn(shown.page)
        page.locator("#jobs-table a").first.click()
        page.wait_for_load_state()
        assert page.title() == "a run"


CURVES = "echarts.getInstanceByDom(document.getElementById('curves-chart')).getOption()"
LINES = "return chart.convertToPixel({ seriesIndex: 1 }, [0, cells.find((cell) => cell.values[0] === 0).mean]);"
HEAT = "return chart.convertToPixel({ seriesIndex: 0 }, [0, 0]);"
PARALLEL = """const axis = chart.getModel().getComponent("parallel").coordinateSystem;
const [a, b] = axis.dimensions.slice(-2), best = scored[0], key = charted[charted.length - 1];
const [p, q] = [axis.dataToPoint(best.values[key], a), axis.dataToPoint(best.mean, b)];
return [(p[0] + 4 * q[0]) / 5, (p[1] + 4 * q[1]) / 5];"""
CURVE = """const series = chart.getModel().getSeriesByIndex(0), last = series.getData().getRawDataItem(0).coords.at(-1);
return chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, last).map((at, place) => at - (place ? 0 : 1));"""
EFFECT = "return chart.convertToPixel({ seriesIndex: 1 }, [0, effects[0].levels.findIndex((level) => !level.behind)]);"
BAR = "return chart.convertToPixel({ seriesIndex: 0 }, [0.05, 0]);"


@pytest.mark.parametrize(
    ("name", "chart", "find", "said"),
    [
        ("one", "lines-chart", LINES, "model.dropout = 0\nval mean "),
        ("two", "heat-chart", HEAT, "model.dropout = 0\noptimizer.lr = 0.01\nval mean "),
        (
            "three",
            "parallel-chart",
            PARALLEL,
            "model.dropout = 0\noptimizer.lr = 0.01\ntrainer.batch_size = 32\nval mean ",
        ),
        ("three", "curves-chart", CURVE, "run "),
        ("two", "effect-0", EFFECT, "model.dropout = 0\nadjusted mean "),
        ("one", "cost-chart", BAR, "model.dropout = "),
        ("hostile", "heat-chart", HEAT, "<b>key0</b> = "),
        ("hostile", "curves-chart", CURVE, "run "),
        ("hostile", "effect-0", EFFECT, "<b>key0</b> = "),
        ("hostile", "cost-chart", BAR, "<b>key0</b> = "),
    ],
)
def test_a_hover_says_which_it_is(
    name: str, chart: str, find: str, said: str, *, browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages[name]) as shown:
        text = hovered(drawn(shown.page), chart, find)
        assert text.startswith(said)
        assert name != "hostile" or "<img src=x onerror=alert(1)>" in text or "</script>" in text
        assert shown.complaints == []


def test_a_metric_can_be_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["two"]) as shown:
        page = drawn(shown.page)
        page.locator("#metric").select_option("val/loss")
        assert page.evaluate(f"{CURVES}.yAxis[0].name") == "val/loss"


def test_curves_are_coloured_by_the_chosen_key(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["two"]) as shown:
        page = drawn(shown.page)
        names = f"{CURVES}.series.map((one) => one.name)"
        before = page.evaluate(names)
        page.locator("#grouping").select_option("optimizer.lr")
        assert (before, page.evaluate(names)) == (TWO["model.dropout"], TWO["optimizer.lr"])


def test_a_part_of_an_axis_can_be_brushed(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["three"]) as shown:
        page = drawn(shown.page)
        place = page.locator("#parallel-chart")
        place.scroll_into_view_if_needed()
        x, top, bottom = page.evaluate(
            "(() => { const of = echarts.getInstanceByDom(document.getElementById('parallel-chart'))"
            ".getModel().getComponent('parallel').coordinateSystem, name = of.dimensions[0];"
            " return [of.dataToPoint(0, name)[0], of.dataToPoint(1, name)[1], of.dataToPoint(0, name)[1]]; })()"
        )
        box = place.bounding_box()
        assert box
        page.mouse.move(box["x"] + x, box["y"] + (top + 3 * bottom) / 4)
        page.mouse.down()
        page.mouse.move(box["x"] + x, box["y"] + bottom + 5, steps=5)
        page.mouse.up()
        expect(page.locator("#brushed")).to_contain_text("4 of 12 cells: val mean ")


def test_hostile_names_run_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["hostile"]) as shown:
        asked: list[str] = []

        def ask(dialog: Dialog) -> None:
            asked.append(dialog.message)
            dialog.dismiss()

        shown.page.on("dialog", ask)
        page = drawn(shown.page)
        for table in ("cells-table", "jobs-table"):
            head(page, table, "k0").hover()
            page.wait_for_timeout(500)  # the head's own tooltip
        assert asked == []
        assert page.locator("img, main b").count() == 0
        assert "<img src=x onerror=alert(1)>" in column(page, "cells-table", "k0")
