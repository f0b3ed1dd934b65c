"""One HTML file from a template and its data: libraries, style and pictures inside, nothing fetched from elsewhere."""

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from s9.system.files import write_whole

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
PAGE = "report.html"  # in the folder of a run and of a sweep


def write_page(path: Path, template: str, *, title: str, data: Mapping[str, Any], **values: Any) -> None:
    """Writes the page in one step.

    Args:
        template: a file of templates/, which extends base.html; all its values are escaped.
        data: what the page's script reads: text, numbers, None, lists and dictionaries; numbers that are not finite
            become null.
        values: what the template reads.
    """
    text = _environment().get_template(template).render(title=title, data=as_json(data), **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode("utf-8", "backslashreplace"))  # names of files may be no UTF-8


def as_json(data: Any) -> Markup:
    """JSON that may stand inside a <script> element."""
    settings: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    try:
        text = json.dumps(data, **settings)
    except (TypeError, ValueError):  # arrays' numbers, or some that are not finite; a walk through all takes seconds
        text = json.dumps(_finite(data), **settings)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def picture(image: np.ndarray) -> str:
    """A uint8 image (H, W, 3) as the value of a `src` attribute."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as people read it; empty for None."""
    return "" if value is None else f"{100 * value:.{digits}f}"


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float | np.floating):
        return float(data) if np.isfinite(data) else None
    return data.item() if isinstance(data, np.generic) else data


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.filters["percent"] = percent
    return environment


def _asset(name: str) -> Markup:
    """A file of assets/ as it is, without the line that names a source map, which a browser's tools would fetch."""
    return Markup(re.sub(r"\n?/[/*]# sourceMappingURL=\S+( \*/)?", "", (ASSETS / name).read_text("utf-8")))
