"""How results show themselves: escaped, short, with the true values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

import dpc_interp as dpc
from dpc_interp import Problem, SoftPrompt, Transcript
from dpc_interp.models.hooked import HookedModel
from dpc_interp.repr_html import MAX_ROWS, card, table_block

HOSTILE = '<script>alert("1")</script>\'&<b>'
LONG = "x" * 10_000


class Parser(HTMLParser):
    """Collects the text of a page; raises if a tag is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Parser:
    parser = Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem("story", f"{HOSTILE}\nquestion", f"one\n{HOSTILE}\n#### 7", HOSTILE, 2, HOSTILE)


@pytest.fixture(scope="module")
def shown(
    model: HookedModel, prompt: SoftPrompt, written: Callable[..., Transcript], problem: Problem
) -> dict[str, Any]:
    """One of each kind, with a name or a text that is no HTML."""
    run = replace(written("4 + 3 = 7\n7 + 1 = 8\n#### 8"), problem=problem, answer=HOSTILE)
    other = SoftPrompt(prompt.vectors, HOSTILE, {"text": HOSTILE}, HOSTILE)
    analysis = dpc.analyse(model, [run], prompt, progress=False)
    map_ = dpc.saliency_map(model, run, prompt)
    rule = dpc.TriggerRule("late_share", 0.25, HOSTILE, HOSTILE, 10, 4, 0.5, 0.1)
    problems = [replace(p, task=HOSTILE) for p in dpc.load_problems("story", n=2)]
    results = dpc.evaluate(model, problems, other, rule=rule, max_new_tokens=8, progress=False)
    study = dpc.study(model, problems, other, n_validation=1, progress=False)
    checks = pd.DataFrame(
        {"check": [HOSTILE], "verdict": ["fail"], "error": [0.5], "tolerance": [0.1], "reason": [LONG]}
    )
    return {
        "problem": problem,
        "transcript": run,
        "prompt": other,
        "map": replace(map_, tokens=[HOSTILE, LONG, *map_.tokens[2:]]),
        "analysis": replace(analysis, options={**analysis.options, "note": HOSTILE}),
        "rule": rule,
        "results": results,
        "study": study,
        "check": dpc.ModelCheck(HOSTILE, checks),
    }


KINDS = ("problem", "transcript", "prompt", "map", "analysis", "rule", "results", "study", "check")


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_others_is_shown_as_text(shown: dict[str, Any], kind: str) -> None:
    page = parse(shown[kind]._repr_html_())
    assert page.tags.isdisjoint({"script"})
    assert HOSTILE in page.text
    assert len(page.text) < 20_000


@pytest.mark.parametrize("kind", KINDS)
def test_plain_text_is_short(shown: dict[str, Any], kind: str) -> None:
    assert len(repr(shown[kind])) < 400
    assert "\n" not in repr(shown[kind])


def test_values_are_the_true_ones(shown: dict[str, Any], prompt: SoftPrompt) -> None:
    text = {kind: parse(shown[kind]._repr_html_()).text for kind in KINDS}
    assert "step 14 + 3 = 7step 27 + 1 = 8answer#### 8" in re.sub(r"\s*\n\s*", "", text["transcript"])
    assert "✗ wrong" in text["transcript"] or "✓ right" in text["transcript"]
    assert f"median {prompt.vectors.norm(dim=1).median():.3g}" in text["prompt"]
    assert "late_share > 0.25" in text["rule"]
    assert "4 of 10" in text["rule"]
    assert f"{len(shown['analysis'].flow):,} rows" in text["analysis"]
    assert "nothing yet" in text["study"], "showing a study computes nothing"
    for method in shown["results"].summary["method"]:
        assert method in text["results"]
    assert repr(shown["prompt"]).startswith(f"SoftPrompt({HOSTILE!r}, {prompt.n_virtual} virtual tokens")
    start, stop = shown["map"].segments.question
    assert f"question {stop - start}," in repr(shown["map"])


def test_plans(model: HookedModel) -> None:
    plan = dpc.CorruptionPlan((3,), mask=0.25, gamma=10, replace="noise", seed=1)
    text = parse(plan._repr_html_()).text
    assert "3: 0.25 of the vector is kept, the rest is replaced: noise" in text
    assert "the 10% of entries" in text
    memory = dpc.plan_memory(model, [40] * 4, available=10**6)
    assert f"{memory.needed / 1e9:.2f} GB" in parse(memory._repr_html_()).text
    assert ("does not fit" in memory._repr_html_()) is not memory.fits


def test_long_tables_and_texts_say_what_is_left_out() -> None:
    text = parse(table_block(pd.DataFrame({"n": range(MAX_ROWS + 5), "t": LONG}))).text
    assert "and 5 more rows" in text
    assert "… and 8000 more" in text
    assert parse(card("t", {"absent": None, "zero": 0}, note="end")).text == "tzero0end"


def test_prompts_of_one_name_have_other_reprs(prompt: SoftPrompt) -> None:
    """Stored answers within a context are looked up by its repr."""
    same, other = SoftPrompt(prompt.vectors.clone(), "p"), SoftPrompt(prompt.vectors + 1e-3, "p")
    assert repr(SoftPrompt(prompt.vectors, "p")) == repr(same) != repr(other)


def test_nearest_tokens() -> None:
    model = dpc.load_model("reasoner")
    prompt = SoftPrompt.from_text(model, "Think step by step.")
    nearest = prompt.nearest_tokens(model, k=2)
    assert nearest["virtual_token"].tolist() == [k for k in range(prompt.n_virtual) for _ in range(2)]
    first = nearest[nearest["rank"] == 0]
    assert first["token"].tolist() == ["Think", " step", " by", " step", "."]
    assert first["cosine"].tolist() == pytest.approx([1.0] * prompt.n_virtual, abs=1e-5)
    assert (nearest[nearest["rank"] == 1]["cosine"] < 0.999).all()
