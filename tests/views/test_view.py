"""`view` dispatches on what it is given; a study opens the cases of its instances."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import dpc_interp as dpc
from dpc_interp import DPCInterpError, SoftPrompt, Study
from dpc_interp.models.hooked import HookedModel
from dpc_interp.views.case import Case
from dpc_interp.views.view import CaseView, StudyView, view


@pytest.fixture
def study(model: HookedModel, prompt: SoftPrompt) -> Study:
    return dpc.study(model, "story", prompt, n=6, n_validation=6, progress=False, max_new_tokens=24)


def test_what_is_shown(shown: Case) -> None:
    one = view(shown)
    assert isinstance(one, CaseView)
    assert one.selected_instance == shown.run.problem.id
    assert one.selected_token is None
    one.widget.selected_token = 7
    assert one.selected_token == 7
    with pytest.raises(DPCInterpError, match="viewed as it is"):
        view(shown, shown.run)
    with pytest.raises(DPCInterpError, match=r"give the transcript to view: dpc.view\(model, run, prompt\)"):
        view(dpc.load_model("reasoner"))


def test_a_study_opens_cases(study: Study, tmp_path: Path) -> None:
    table = view(study)
    assert isinstance(table, StudyView)
    assert table.selected_instance is None
    table.widget.opened = 1  # as the page does
    instance = table.table["instance"][1]
    assert table.selected_instance == instance == table.widget.case["instance"]
    assert len(table.widget.data) > 100
    table.widget.selected_token = 5
    table.open(2)
    assert (table.widget.opened, table.selected_token) == (2, None)
    table.widget.opened = 1
    assert table.widget.case["instance"] == instance, "a row that was open before opens again"
    case = table.open(1)
    assert case.run.problem.id == instance
    assert case.rule == study.results[0].rule
    assert case.statistics["late_share"] == pytest.approx(table.table["late_share"][1])
    with pytest.raises(DPCInterpError, match=r"there is no row -1; the table has rows 0 to \d"):
        table.save(tmp_path / "study.html", rows=[0, -1])
    text = table.save(tmp_path / "study.html", rows=[1]).read_text()
    page = json.loads(re.search(r'class="dpc-data">(.*?)</script>', text).group(1))
    assert list(page["cases"]) == ["1"]
    assert page["study"]["available"] == [1]
    assert [row[2] for row in page["study"]["rows"]] == table.table["instance"].tolist()


def test_an_error_is_shown_in_the_page(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*names: object) -> None:
        raise DPCInterpError("too long; shorten it")

    table = StudyView(study)
    monkeypatch.setattr(study, "case", fails)
    table.widget.opened = 3
    assert table.widget.case == {"error": "too long; shorten it"}
    assert table.widget.opened == -1, "so that the row can be chosen again"


def test_a_case_of_a_study_by_its_name(study: Study) -> None:
    instance = study.instances()["instance"].iloc[-1]
    assert study.case(instance).run.problem.id == instance
    with pytest.raises(DPCInterpError, match="unknown instance 'nobody'"):
        study.case("nobody")
    with pytest.raises(DPCInterpError, match="unknown task 'algebra'; known: story"):
        study.case(instance, task="algebra")
