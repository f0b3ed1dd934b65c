"""One HTML file from a template: what is inside it, what it may hold, and the libraries it carries."""

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from s9.pages import page
from s9.pages.page import ASSETS, as_json, percent, picture, write_page

HOSTILE = ["<img src=x onerror=alert(1)>", '"</script><script>alert(2)</script>', "a & b", "{{ 7 * 7 }}", "'\u2028"]


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Templates of this test beside those of the package."""
    place = tmp_path / "pages" / "templates"
    place.mkdir(parents=True)
    for file in (page.HERE / "templates").iterdir():
        (place / file.name).write_text(file.read_text())
    monkeypatch.setattr(page, "HERE", place.parent)
    (place / "some.html").write_text('{% extends "base.html" %}{% block main %}<p>{{ name }}</p>{% endblock %}')
    return place


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_json_cannot_end_its_script(text: str) -> None:
    written = str(as_json({text: [text]}))
    assert json.loads(written) == {text: [text]}
    assert not set("<>&") & set(written)


def test_numbers_that_are_not_finite_become_null() -> None:
    assert as_json({"a": [math.nan, 1.5, (math.inf, None)]}) == '{"a":[null,1.5,[null,null]]}'


def test_numbers_of_arrays_become_plain_ones() -> None:
    assert as_json({"a": [np.float32(0.5), np.int64(3), np.bool_(True)], 4: np.nan}) == '{"a":[0.5,3,true],"4":null}'


def test_a_fraction_is_read_in_percent() -> None:
    assert [percent(0.91234), percent(1, 0), percent(None)] == ["91.23", "100", ""]


def test_a_picture_is_inside_the_page() -> None:
    assert picture(np.zeros((2, 2, 3), np.uint8)).startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_template_escapes_its_values(text: str, templates: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "some.html", title=text, data={}, name=text)
    written = (tmp_path / "page.html").read_text()
    own = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", written, flags=re.DOTALL)
    assert "<img" not in own and "alert(2)</script>" not in own and "49" not in own


def test_a_value_that_a_template_lacks_is_an_error(templates: Path, tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="name"):
        write_page(tmp_path / "page.html", "some.html", title="a", data={})


def test_a_name_that_is_no_utf_8_can_be_written(templates: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "some.html", title="a", data={"b": "\udcff"}, name="\udcff")
    assert r"<p>\udcff</p>" in (tmp_path / "page.html").read_text()


def test_a_page_loads_nothing_from_elsewhere(templates: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "some.html", title="a", data={}, name="b")
    written = (tmp_path / "page.html").read_text()
    markup = re.sub(r"<script>.*?</script>", "", written, flags=re.DOTALL)
    assert re.findall(r"(?:src|href)=[\"'](?!#|data:)", markup) == []
    assert re.findall(r"url\((?![\"']?(?:#|data:))|@import", markup) == []
    assert "sourceMappingURL" not in written
    assert "default-src 'none'" in written


def test_the_libraries_are_those_that_were_published() -> None:
    listed = (line.split() for line in (ASSETS / "SHA256SUMS").read_text().splitlines())
    sums = {name: digest for digest, name in listed}
    assert {"echarts.min.js", "tabulator.min.js", "tabulator.min.css"} == set(sums)
    assert {name: hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() for name in sums} == sums


def test_each_library_has_its_licence() -> None:
    named = re.findall(r"\((licences/[^)]+)\)", (ASSETS / "README.md").read_text())
    assert {Path(name).name for name in named} == {file.name for file in (ASSETS / "licences").iterdir()}
    assert "Apache License" in (ASSETS / "licences" / "echarts-LICENSE.txt").read_text()
    assert "MIT" in (ASSETS / "licences" / "tabulator-LICENSE.txt").read_text()


def test_a_page_carries_the_licences_of_its_libraries(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "base.html", title="", data={})
    text = (tmp_path / "page.html").read_text()
    for file in ("echarts-NOTICE.txt", "tabulator-LICENSE.txt"):
        assert (ASSETS / "licences" / file).read_text() in text
