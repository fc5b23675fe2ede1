"""The view in a browser without network: it shows the numbers of the frame, and mouse, keyboard and filters work."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpc_interp.views.case import Case
from dpc_interp.views.case_page import describe_case
from dpc_interp.views.page import view_block, write_page
from dpc_interp.views.view import CaseView

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>\'"&lt;<!--'


@pytest.fixture
def page(shown: Case, open_page: Callable[[Path], Any], tmp_path: Path) -> Any:
    return open_page(CaseView(shown).save(tmp_path / "case.html"))


def numbers(page: Any) -> dict[int, tuple[float, float]]:
    """Position -> flow and row share, of the table."""
    rows = page.locator("table.numbers tbody tr").evaluate_all(
        "rows => rows.map(row => [row.dataset.position,"
        " ...[...row.querySelectorAll('[data-value]')].map(cell => cell.dataset.value)])"
    )
    return {int(position): (float(value), float(share)) for position, value, share in rows}


def set_layer(page: Any, layer: int) -> None:
    page.locator("input[type=range]").evaluate(
        "(slider, layer) => { slider.value = layer; slider.dispatchEvent(new Event('input')); }", layer
    )


def test_numbers_are_those_of_the_saliency_map(shown: Case, page: Any) -> None:
    """20 random layers and tokens: the largest flows into a token, their shares, and flows out of it."""
    values, error = shown.map.values.double().numpy(), describe_case(shown)[0]["flow"]["relative_error"]
    rng = random.Random(0)
    for _ in range(20):
        layer, token = rng.randrange(len(values)), rng.randrange(25, shown.map.segments.length)
        set_layer(page, layer)
        page.locator(f".token[data-position='{token}']").click()
        into = values[layer, token]
        found = numbers(page)
        assert sorted(found) == sorted(np.argsort(-into, kind="stable")[: len(found)].tolist())
        assert len(found) == min(8, (into > 0).sum())
        for position, (value, share) in found.items():
            assert value == pytest.approx(into[position], rel=1.01 * error)
            assert share == pytest.approx(into[position] / into.sum(), rel=2.02 * error)
    page.get_by_role("button", name="flows to").click()
    out_of = values[layer, :, token]
    assert numbers(page)
    for position, (value, _) in numbers(page).items():
        assert value == pytest.approx(out_of[position], rel=1.01 * error)


def test_groups_and_row_share(shown: Case, page: Any) -> None:
    token = shown.affected[0]
    assert page.locator(f".token[data-position='{token}']").get_attribute("aria-selected") == "true"
    for name, layers in (("shallow", shown.shallow), ("all", range(6)), ("deep", shown.deep)):
        page.get_by_role("button", name=name, exact=True).click()
        mean = shown.map.values[list(layers)].double().mean(0)
        for position, (value, _) in numbers(page).items():
            assert value == pytest.approx(mean[token, position].item(), rel=1e-3)
    page.get_by_role("button", name="row share").click()
    # bars of row shares follow the shares: out of a token they rank destinations in another order than flows do
    page.get_by_role("button", name="flows to").click()
    page.locator(".token[data-position='1']").click()
    shares = (mean / mean.sum(1, keepdim=True).clamp(min=1e-30))[:, 1]
    assert list(numbers(page))[:3] == shares.argsort(descending=True)[:3].tolist()


def test_hover_keyboard_and_marks(shown: Case, page: Any) -> None:
    segments = shown.map.segments
    page.locator(f".token[data-position='{segments.question[0] + 5}']").hover()
    selected = page.locator(".token[aria-selected=true]")
    assert int(selected.get_attribute("data-position")) == segments.question[0] + 5
    selected.focus()
    moves = {
        "ArrowRight": segments.question[0] + 6,
        "ArrowLeft": segments.question[0] + 5,
        "ArrowDown": segments.steps[0][0],
        "ArrowUp": segments.question[0],
        "End": segments.length - 1,
        "Home": 0,
    }
    for key, position in moves.items():
        page.keyboard.press(key)
        assert page.evaluate("Number(document.activeElement.dataset.position)") == position
    assert page.locator(".token[tabindex='0']").count() == 1
    page.locator(".token[data-position='30']").click()
    page.locator(".token[data-position='35']").hover()
    assert selected.get_attribute("data-position") == "30", "a click keeps its token until Escape"
    page.keyboard.press("Escape")
    page.locator(".token[data-position='36']").hover()
    assert selected.get_attribute("data-position") == "36"
    positions = "nodes => nodes.map(node => Number(node.dataset.position))"
    assert page.locator(".token.affected").evaluate_all(positions) == list(shown.affected)
    assert page.locator(".token.peak").evaluate_all(positions) == [shown.statistics["peak_token"]]
    assert page.locator(".token").all_text_contents()[segments.prompt[1] :] == [
        token.replace("\n", "↵") for token in shown.map.tokens[segments.prompt[1] :]
    ]
    label = page.locator(f".token[data-position='{shown.affected[0]}']").get_attribute("aria-label")
    assert "step" in label
    assert "affected by the prompt" in label


def test_what_is_left_out_is_said(shown: Case, open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    """The shares in the sentence add up to the whole row, and the largest flow out of a token is never left out."""
    block = view_block({}, {0: describe_case(shown, max_entries=3000)})
    page = open_page(write_page("few", block, tmp_path / "few.html"))
    n_cut = 0
    for token in range(*shown.map.segments.late):
        page.locator(f".token[data-position='{token}']").click()
        sentence = page.locator(".sentence").text_content()
        n_cut += "too small to be kept" in sentence
        shares = [float(share) for share in re.findall(r"([\d.]+)% from", sentence)]
        assert sum(shares) == pytest.approx(100, abs=0.5 * len(shares))
    assert n_cut
    page.get_by_role("button", name="flows to").click()
    set_layer(page, 2)
    for token in range(0, shown.map.segments.rationale[1] - 1, 7):
        page.locator(f".token[data-position='{token}']").click()
        assert next(iter(numbers(page))) == shown.map.values[2, :, token].argmax()
        assert "the largest flow goes to" in page.locator(".sentence").text_content()
    page.get_by_role("button", name="row share").click()
    assert "the largest share of a row that is kept" in page.locator(".sentence").text_content()


def test_text_of_others_is_shown_as_text(shown: Case, open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    """In the question, both answers, the name of the model and a token, which is long."""
    tokens = [*shown.map.tokens]
    tokens[30], tokens[31] = HOSTILE, "x" * 10_000
    problem = replace(shown.run.problem, answer=HOSTILE)
    run = replace(shown.run, answer=HOSTILE, text=HOSTILE, problem=problem)
    corrupted = replace(run, text=HOSTILE + " and more")
    case = replace(shown, map=replace(shown.map, tokens=tokens), run=run, corrupted=corrupted, model=HOSTILE)
    page = open_page(CaseView(case).save(tmp_path / "hostile.html"))
    assert page.locator(".token[data-position='30']").text_content() == HOSTILE
    assert page.locator(".token[data-position='31']").text_content() == "x" * 10_000
    assert page.title().startswith(HOSTILE)
    assert HOSTILE in page.locator("h3").text_content()
    assert page.locator(".outcome").text_content().endswith(f"answered {HOSTILE}, expected {HOSTILE}")
    assert HOSTILE in page.locator(".changes .after p").text_content()
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_two_thousand_tokens_stay_smooth(shown: Case, open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    """With 32 layers: a page under 2 MB, in which a token is drawn within a frame of 60 a second, on average."""
    n, n_layers = 2000, 32
    generator = torch.Generator().manual_seed(0)
    flow = torch.exp(2 * torch.randn(n, n, generator=generator) - 12).tril(-1)
    steps = tuple((start, start + 60) for start in range(800, 1940, 60))
    segments = replace(
        shown.map.segments, question=(20, 800), rationale=(800, 1940), answer=(1940, n), steps=steps, length=n
    )
    tokens = [f" t{k}" for k in range(n)]
    case = replace(shown, map=replace(shown.map, values=flow.expand(n_layers, n, n), segments=segments, tokens=tokens))
    file = CaseView(case).save(tmp_path / "long.html")
    assert file.stat().st_size < 2_000_000
    page = open_page(file)
    page.locator(".token[aria-selected=true]").wait_for()
    milliseconds = page.evaluate(
        """() => {
            const nodes = [...document.querySelectorAll(".token")].slice(1500, 1600), start = performance.now();
            for (const node of nodes) node.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
            document.body.offsetHeight;
            return (performance.now() - start) / nodes.length;
        }"""
    )
    assert milliseconds < 16


def test_a_study_is_filtered_sorted_and_opened(shown: Case, open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    rows = [
        ["story", "a", "wrong", 0.25],
        ["story", "b", "right", None],
        ["rule", "c10", "wrong", 0.5],
        ["rule", "c9", "right", 0.75],
    ]
    study = {
        "title": "Study",
        "columns": ["task", "instance", "outcome", "R"],
        "rows": rows,
        "filters": ["task", "outcome"],
        "available": [2],
        "note": "",
    }
    page = open_page(write_page("Study", view_block(study, {2: describe_case(shown)}), tmp_path / "study.html"))
    ids = lambda: page.locator("tbody tr td:nth-child(3)").all_text_contents()  # noqa: E731
    assert ids() == ["a", "b", "c10", "c9"]
    page.get_by_role("button", name="instance").click()
    assert ids() == ["a", "b", "c9", "c10"]
    page.get_by_role("button", name="R", exact=True).click()
    page.get_by_role("button", name="R", exact=True).click()
    assert ids() == ["c9", "c10", "a", "b"]
    assert page.locator("th[aria-sort=descending]").text_content() == "R"
    page.locator("select[data-filter=outcome]").select_option("wrong")
    assert ids() == ["c10", "a"]
    assert page.locator(".count").text_content() == "2 of 4 instances"
    assert page.locator("tr[data-row='0'] button").is_disabled()
    assert page.locator(".token").count() == 0
    page.locator("tr[data-row='2'] button").click()
    page.locator(".token").first.wait_for()
    assert page.locator(".token").count() == len(shown.map.tokens)


def test_themes_differ(shown: Case, browser: Any, tmp_path: Path) -> None:
    file = CaseView(shown).save(tmp_path / "case.html")
    colours = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, offline=True)
        page = context.new_page()
        page.goto(file.as_uri())
        style = "getComputedStyle(document.querySelector('.dpc-view'))"
        colours[scheme] = page.evaluate(f"[{style}.backgroundColor, {style}.color]")
        page.evaluate("document.body.dataset.jpThemeLight = 'true'")
        assert page.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)", "JupyterLab's theme takes precedence"
        context.close()
    assert colours["light"] == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    assert colours["dark"] == ["rgb(22, 25, 29)", "rgb(230, 232, 235)"]
