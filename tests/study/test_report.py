"""The report: one file without references to others, whose text is escaped."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pandas as pd
import pytest

from dpc_interp import verdicts
from dpc_interp.errors import DPCInterpError
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study.evaluated import EvaluatedPrompt, StudyTask
from dpc_interp.study.output import Drawing
from dpc_interp.study.paper_figures import FIGURES, typical_instance
from dpc_interp.study.report import list_figures, list_warnings, write_report
from dpc_interp.views.case import case

NAME = "<script>alert('a')</script>"


@pytest.fixture(scope="module")
def task(study: EvaluatedPrompt) -> StudyTask:
    problems = [run.problem for run in study.results.runs]
    return StudyTask("algebra", problems, problems[:6], [replace(study.prompt, name=NAME)])


@pytest.fixture(scope="module")
def judged(study: EvaluatedPrompt) -> pd.DataFrame:
    return verdicts([study.results], model="mine")


@pytest.fixture(scope="module")
def html(
    study: EvaluatedPrompt,
    reasoner: HookedModel,
    task: StudyTask,
    judged: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    def impossible() -> Drawing:
        raise DPCInterpError("no answer is right & all are wrong")

    file = tmp_path_factory.mktemp("report") / "sub" / "report.html"
    part = replace(study, results=replace(study.results, instances=study.results.instances.assign(finished=True)))
    figures = {"algebra": list_figures(part, reasoner, {"fig9_triggers": impossible})}
    instance = typical_instance(part)
    run = next(run for run in part.results.runs if run.problem.id == instance)
    shown = replace(case(reasoner, run, part.prompt, options=part.results.options), model=NAME)
    write_report(NAME, f"dpc.study({NAME!r})", [task], [part], figures, {"algebra": lambda: shown}, judged, file)
    return file.read_text(encoding="utf-8")


def test_names_are_shown_as_text(html: str) -> None:
    scripts = re.findall("<script[^>]*>", html)
    assert scripts == ['<script type="application/json" class="dpc-data">', '<script type="module">']
    assert NAME not in html
    assert "&lt;script&gt;" in html
    assert html.count("&lt;script&gt;alert") >= 3, "title, heading, prompts"


def test_nothing_is_fetched(html: str) -> None:
    sources = re.findall(r"""(?:src|href)="([^"]*)""", html)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "url(" not in html
    assert "http" not in re.sub(r'src="[^"]*"', "", html)


def test_every_figure_is_a_picture_or_says_why_not(html: str) -> None:
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)" alt="(\w+)', html)
    names = [draw.__name__ for draw in FIGURES.values()]
    assert [name for _, name in pictures] == names
    for data, _ in pictures:
        assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert "<strong>fig9_triggers</strong>: not drawn: no answer is right &amp; all are wrong" in html


def test_the_view_is_of_an_instance_of_the_first_figure(
    study: EvaluatedPrompt, reasoner: HookedModel, html: str
) -> None:
    page = json.loads(re.search(r'class="dpc-data">(.*?)</script>', html)[1])
    (view,) = page["cases"].values()
    drawn = FIGURES["case"](study, reasoner).frames["fig1_case"]["instance"].unique()
    assert view["case"]["instance"] == (drawn[0] if len(drawn) else typical_instance(study))
    assert view["case"]["title"].startswith(NAME)


def test_every_claim_and_the_regime_are_stated(html: str, judged: pd.DataFrame) -> None:
    for claim in judged["claim"]:
        assert f"<li>{claim}. " in html
        assert f"<td>{claim}</td>" in html
    assert "texts that the cut-off changes %" in html
    assert "torch " in html


def test_warnings_state_cut_off_texts_few_prompts_and_what_is_not_testable(
    study: EvaluatedPrompt, task: StudyTask, judged: pd.DataFrame
) -> None:
    instances = study.results.instances
    half = instances.assign(finished=[k % 2 == 0 for k in range(len(instances))])
    part = replace(study, results=replace(study.results, instances=half))
    text = "\n".join(list_warnings([task], [part], judged))
    assert "algebra: 50.0% of the texts with the prompt reached the length limit." in text
    assert "algebra: 1 tuned prompt; " in text
    for row in judged[judged["verdict"] == "not testable"].itertuples():
        assert row.reason in text
    finished = replace(study, results=replace(study.results, instances=instances.assign(finished=True)))
    many = replace(task, prompts=[study.prompt] * 3)
    assert list_warnings([many], [finished], judged[judged["verdict"] != "not testable"]) == []
