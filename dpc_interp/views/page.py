"""Views in an HTML file: the same module as in a notebook, with the instances in the file itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from dpc_interp.views.widget import SCRIPT, STYLE

FOLDER = Path(__file__).parent


def view_block(study: Mapping[str, Any], cases: Mapping[int, tuple[dict[str, Any], bytes]]) -> Markup:
    """The element of one view; `view_script` makes it live.

    Args:
        study: the object `study` of `view.js`; empty: the view shows one case.
        cases: row of the study (0 for one case) -> the object `case` of `view.js` and its data.
    """
    encoded = {k: {"case": info, "data": base64.b64encode(data).decode()} for k, (info, data) in cases.items()}
    text = json.dumps({"study": dict(study), "cases": encoded}, allow_nan=False)
    # a browser ends a script at `</script`, wherever it is, and reads `<!--` as a comment
    escaped = text.replace("<", "\\u003c")
    return Markup(f'<div><script type="application/json" class="dpc-data">{escaped}</script></div>')


def view_script() -> Markup:
    """The style and the module, once a page."""
    style, module, page = (file.read_text(encoding="utf-8") for file in (STYLE, SCRIPT, FOLDER / "page.js"))
    return Markup(f'<style>\n{style}</style>\n<script type="module">\n{module}\n{page}</script>')


def write_page(title: str, block: Markup, file: Path) -> Path:
    """Write a page with one view.

    Args:
        title: of the page.
        block: of `view_block`.
        file: path of the page, which needs no other file and makes no request.

    Returns:
        The path.
    """
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True)
    html = environment.get_template("page.html.jinja").render(title=title, block=block, script=view_script())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(html, encoding="utf-8")
    return file
