"""`view`: look at one instance, or at all instances of a study."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from dpc_interp.errors import DPCInterpError
from dpc_interp.generation.transcript import Transcript
from dpc_interp.models.loading import AnyModel
from dpc_interp.prompts.soft_prompt import AnyPrompt
from dpc_interp.views.case import Case, case
from dpc_interp.views.case_page import describe_case
from dpc_interp.views.instances import FILTERS
from dpc_interp.views.page import view_block, write_page
from dpc_interp.views.widget import make_widget

N_CASES = 10
"""Instances of a study that a saved page holds."""


@runtime_checkable
class HasCases(Protocol):
    """A study: a table of instances, and the case of each of them."""

    name: str

    def instances(self) -> pd.DataFrame:
        """The frame of `instances_table`."""

    def case(self, instance: str, task: str, prompt: str) -> Case:
        """Compute the case of an instance."""


def view(
    shown: Case | HasCases | AnyModel,
    run: Transcript | None = None,
    prompt: AnyPrompt | None = None,
    **keywords: Any,
) -> View:
    """Look at where the tokens of an instance draw from, interactively.

    Args:
        shown: a case, a study, or the model that wrote `run`, or its name.
        run: a transcript of `generate` with `prompt`; only with a model.
        prompt: the soft prompt, or its name; None: plain text.
        keywords: others of `case`, with a model: `rule`, `corrupted`, `options`.

    Returns:
        The view. As the last line of a notebook cell it is shown (Jupyter, VS Code and Colab, through anywidget);
        `.save("case.html")` writes a page.

    Raises:
        DPCInterpError: what `case` refuses, or arguments that do not belong together.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> (run,) = dpc.generate(model, dpc.load_problems("story", n=1), prompt, progress=False)
        >>> dpc.view(model, run, prompt)
        View('reasoner · story/seed0 · story · story-d9f165bc3cf8ac2e')
    """
    if isinstance(shown, Case | HasCases):
        if run is not None or prompt is not None or keywords:
            raise DPCInterpError("a case or a study is viewed as it is; give a transcript and a prompt with a model")
        return CaseView(shown) if isinstance(shown, Case) else StudyView(shown)
    if not isinstance(run, Transcript):
        raise DPCInterpError("give the transcript to view: dpc.view(model, run, prompt)")
    return CaseView(case(shown, run, prompt, **keywords))


class View:
    """A view, see `view`. It is shown as the last line of a notebook cell."""

    title: str

    def __repr__(self) -> str:
        return f"View({self.title!r})"

    def _repr_mimebundle_(self, **keywords: Any) -> Any:
        return self.widget._repr_mimebundle_(**keywords)

    @property
    def widget(self) -> Any:
        """The widget, an `anywidget.AnyWidget`, for layouts of ipywidgets and callbacks (`observe`)."""
        raise NotImplementedError

    @property
    def selected_token(self) -> int | None:
        """Position of the token that was selected last, counted from the first virtual token; None: none yet."""
        return self.widget.selected_token if self.widget.selected_token >= 0 else None


class CaseView(View):
    """The view of one instance.

    Args:
        shown: the instance.
    """

    def __init__(self, shown: Case):
        self.case = shown
        self._info, self._data = describe_case(shown)
        self.title = self._info["title"]

    @property
    def selected_instance(self) -> str:
        """The id of the instance."""
        return self.case.run.problem.id

    @cached_property
    def widget(self) -> Any:
        """The widget, an `anywidget.AnyWidget`."""
        return make_widget({}, self._info, self._data, lambda _: None)

    def save(self, file: str | Path) -> Path:
        """Write the view as an HTML page that needs no other file and makes no request.

        Args:
            file: path of the page.

        Returns:
            The path.
        """
        return write_page(self.title, view_block({}, {0: (self._info, self._data)}), Path(file))


class StudyView(View):
    """The view of a study: a table of instances, each of which opens as a case.

    Args:
        study: the study; its problems are answered now, unless they were before.
    """

    def __init__(self, study: HasCases):
        self._study = study
        self.title = f"Study of {study.name}"
        self.table = study.instances()
        self._cases: dict[int, Case] = {}
        self._opened = -1

    @property
    def selected_instance(self) -> str | None:
        """The id of the instance that is open; None: none is."""
        opened = self.widget.opened
        return None if opened < 0 else str(self.table["instance"].iloc[opened])

    def open(self, row: int) -> Case:
        """The case of a row of `.table`, which the widget shows too.

        Args:
            row: index of the row.
        """
        self._check_rows([row])
        shown = self._case(row)
        info, data = describe_case(shown)
        self._opened = row
        with self.widget.hold_sync():  # the data arrive with the case that they belong to
            self.widget.data, self.widget.case = data, info
            self.widget.opened, self.widget.selected_token = row, -1
        return shown

    def _open_in_page(self, row: int) -> None:
        """Open a row that was chosen in the page; an error is shown there."""
        if row in (-1, self._opened):
            return
        try:
            self.open(row)
        except DPCInterpError as error:
            self._opened = -1
            with self.widget.hold_sync():
                self.widget.case, self.widget.opened = {"error": str(error)}, -1

    def _check_rows(self, rows: Sequence[int]) -> None:
        wrong = [row for row in rows if not 0 <= row < len(self.table)]
        if wrong:
            raise DPCInterpError(f"there is no row {wrong[0]}; the table has rows 0 to {len(self.table) - 1}")

    def _case(self, row: int) -> Case:
        if row not in self._cases:
            names = self.table.iloc[row]
            self._cases[row] = self._study.case(names["instance"], names["task"], names["prompt"])
        return self._cases[row]

    @cached_property
    def widget(self) -> Any:
        """The widget, an `anywidget.AnyWidget`."""
        return make_widget(self._describe(None), {}, b"", self._open_in_page)

    def save(self, file: str | Path, *, rows: Sequence[int] | None = None) -> Path:
        """Write the view as an HTML page that needs no other file and makes no request.

        Args:
            file: path of the page.
            rows: rows of `.table` whose cases are in the page, each about 0.1 to 2 MB; None: the first 10.

        Returns:
            The path.
        """
        chosen = list(range(min(N_CASES, len(self.table)))) if rows is None else [int(row) for row in rows]
        self._check_rows(chosen)
        cases = {row: describe_case(self._case(row)) for row in chosen}
        return write_page(self.title, view_block(self._describe(chosen), cases), Path(file))

    def _describe(self, available: list[int] | None) -> dict[str, Any]:
        """The object `study` of `view.js`."""
        table = self.table.astype(object).where(self.table.notna(), None)
        return {
            "title": self.title,
            "columns": list(table.columns),
            "rows": table.to_numpy().tolist(),
            "filters": [name for name in FILTERS if self.table[name].nunique() > 1],
            "available": available,
            "note": "" if available is None else f"{len(available)} of {len(table)} instances are in this file.",
        }
