"""The widget: its traits go to the page and come back, also through a live kernel."""

from __future__ import annotations

import sys
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from dpc_interp.views.view import CaseView
from dpc_interp.views.widget import make_widget, widget_class

CELLS = [
    """
import dpc_interp as dpc
from IPython.display import display
model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
(run,) = dpc.generate(model, dpc.load_problems("story", n=1), prompt, progress=False)
view = dpc.view(model, run, prompt, corrupted=False)
view
""",
    "print(view.selected_token, view.widget.comm.comm_id)",
    "print(view.selected_token, view.selected_instance == run.problem.id)",
]


def test_a_selection_in_the_page_is_read_in_python() -> None:
    """The message that a page sends when a token is selected, through the kernel of an executed notebook."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    client = NotebookClient(notebook, kernel_name="python3", timeout=120)
    with client.setup_kernel():
        outputs = [client.execute_cell(notebook.cells[k], k)["outputs"] for k in (0, 1)]
        (shown,) = (output for output in outputs[0] if output["output_type"] == "execute_result")
        assert "application/vnd.jupyter.widget-view+json" in shown["data"]
        token, comm = outputs[1][0]["text"].split()
        assert token == "None"
        content = {"comm_id": comm, "data": {"method": "update", "state": {"selected_token": 31}, "buffer_paths": []}}
        message = client.kc.session.msg("comm_msg", content)
        client.kc.shell_channel.send(message)
        assert client.execute_cell(notebook.cells[2], 2)["outputs"][0]["text"] == "31 True\n"


def test_a_view_needs_no_widget_until_it_is_shown(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    widget_class.cache_clear()
    view = CaseView(shown)
    assert repr(view).startswith("View('")
    with pytest.raises(ModuleNotFoundError, match=r"need anywidget; pip install 'dpc_interp\[notebook\]'"):
        view.widget  # noqa: B018
    widget_class.cache_clear()


def test_opening_a_row_calls_back() -> None:
    opened: list[int] = []
    widget = make_widget({"rows": [[1]]}, {}, b"", opened.append)
    widget.opened = 0
    assert opened == [0]
