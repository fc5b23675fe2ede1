"""The widget of a view; anywidget brings it to Jupyter, VS Code and Colab."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

SCRIPT, STYLE = (Path(__file__).with_name(f"view.{kind}") for kind in ("js", "css"))


@cache
def widget_class() -> type[Any]:
    """The class of the widget, with the traits that `view.js` reads and writes.

    Raises:
        ModuleNotFoundError: anywidget is not installed.
    """
    try:
        import anywidget
        import traitlets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "views in a notebook need anywidget; pip install 'dpc_interp[notebook]', or write a page with .save(file)"
        ) from error

    class ViewWidget(anywidget.AnyWidget):
        _esm, _css = SCRIPT.read_text(encoding="utf-8"), STYLE.read_text(encoding="utf-8")
        study = traitlets.Dict().tag(sync=True)
        case = traitlets.Dict().tag(sync=True)
        data = traitlets.Bytes().tag(sync=True)
        opened = traitlets.Int(-1).tag(sync=True)
        selected_token = traitlets.Int(-1).tag(sync=True)

    return ViewWidget


def make_widget(study: dict[str, Any], case: dict[str, Any], data: bytes, on_open: Callable[[int], object]) -> Any:
    """A widget that shows a study, a case or both.

    Args:
        study: the object `study` of `view.js`; empty: none.
        case: the object `case` of `view.js`; empty: none.
        data: of the case.
        on_open: called with the row of an instance that is opened.
    """
    widget = widget_class()(study=study, case=case, data=data)
    widget.observe(lambda change: on_open(change["new"]), names="opened")
    return widget
