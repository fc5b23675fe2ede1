"""The site without building it: its code runs, its messages are the real ones, and no public name is left out."""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import dpc_interp as dpc
from dpc_interp import plots
from dpc_interp.claims.causal import n_causal_passes

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ERRORS = sorted(path for path in (DOCS / "errors").glob("*.md") if path.name != "index.md")
EXAMPLES = sorted((DOCS / "examples").glob("plot_*.py"))
MAX_LINES = 25


@pytest.fixture(scope="module")
def site_pages() -> ModuleType:
    """The module that makes pages."""
    pytest.importorskip("docutils", reason="the extra `docs` is not installed")
    spec = importlib.util.spec_from_file_location("site_pages", DOCS / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def as_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untyped: None) -> Iterator[None]:
    """Run the code of a page: in an empty folder, without the type checks of the tests, all warnings given."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield
    plt.close("all")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "<page>", "exec"), names)
    return names


def message_of(code: str) -> str:
    """`Class: message` of the error that code raises, or else of the first warning of the package."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run(code)
        except dpc.DPCInterpError as error:
            return f"{type(error).__name__}: {error}"
    given = [
        w for w in caught if issubclass(w.category, UserWarning) and w.category.__module__.startswith("dpc_interp")
    ]
    assert given, "the wrong code runs without an error"
    return f"{given[0].category.__name__}: {given[0].message}"


@pytest.mark.parametrize("page", ERRORS, ids=lambda page: page.stem)
@pytest.mark.usefixtures("as_user")
def test_error_page(page: Path) -> None:
    """The wrong code gives the message of the page to the letter; the right code gives none."""
    (symptom,), (wrong, right) = blocks(page, "text"), blocks(page, "python")
    assert message_of(wrong) == symptom.strip()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(right)
    assert [w for w in caught if w.category.__name__ == symptom.partition(":")[0]] == []


@pytest.mark.usefixtures("as_user")
def test_start_page() -> None:
    """The first case of one's own, as a user would run it, gives what the page promises."""
    names = run(blocks(DOCS / "index.md", "python")[0])
    assert names["run"].answer == "17"
    assert names["run"].correct
    assert "<script" in Path("case.html").read_text()


def test_api_pages_hold_every_public_name(site_pages: ModuleType) -> None:
    pages = site_pages.api_pages()
    public = {f"dpc_interp.{name}" for name in dpc.__all__ if name != "plots"}
    public |= {f"dpc_interp.plots.{name}" for name in plots.__all__}
    entries = [
        name for page in pages.values() for name in re.findall(r"^\.\. auto(?:class|function|data):: (\S+)", page, re.M)
    ]
    assert sorted(entries) == sorted(public)
    assert set(re.findall(r"^   ~(\S+)$", pages["index.rst"], re.M)) == public


def test_every_plot_has_an_example_that_draws_it(site_pages: ModuleType) -> None:
    drawn = {name for name in plots.__all__ if name.startswith("plot_")} | {"plot_view"}
    assert {path.stem for path in EXAMPLES} == drawn
    assert {f"plot_{name}" for name in site_pages.GalleryOrder.ORDER} == drawn | {"plot_runs"}
    for path in EXAMPLES:
        called = re.findall(r"dpc\.(?:plots\.)?(\w+)\(", path.read_text())
        assert ("view" if path.stem == "plot_view" else path.stem) in called, path.name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_names_what_exists(path: Path) -> None:
    """Names and keywords are checked here; only `make docs` runs the examples."""
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) < MAX_LINES
    title, line, *body = (ast.get_docstring(tree) or "").splitlines()
    assert len(line) == len(title)
    assert any(body)
    shared = {
        node.name for node in ast.parse((DOCS / "examples/shared_runs.py").read_text()).body if hasattr(node, "name")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "shared_runs":
            assert {alias.name for alias in node.names if alias.name.islower()} <= shared
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if re.fullmatch(r"dpc\.\w+|dpc\.plots\.\w+", dotted):
                eval(dotted, {"dpc": dpc})


def test_choose_names_public_functions_and_measured_costs() -> None:
    """Every name on the page is public, and every cost is a line of the measurements."""
    text = (DOCS / "choose.md").read_text()
    names = re.findall(r"`dpc\.([\w.]+)", text)
    assert len(set(names)) > 30
    for name in names:
        shown: Any = dpc
        for part in name.split("."):
            shown = getattr(shown, part)
    measured = pd.read_csv(ROOT / "benchmarks" / "analyse.csv")
    all_layers = measured[measured["layers"] == measured.groupby("model")["layers"].transform("max")]
    costs = re.findall(r"^\| ([\w-]+) \| (\d+) \| (analyse.*?) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert len(costs) >= 4
    for model, positions, variant, time, peak, seconds in costs:
        letter = {"analyse": "b", "analyse, checkpointed": "b'"}[variant]
        row = all_layers.set_index(["model", "positions", "variant"]).loc[(model, int(positions), letter)]
        assert [time, peak, seconds] == [f"{row[c]:.2f}" for c in ("time / (a0)", "peak / (a0)", "seconds")]
    passes = re.search(r"(\d+) passes a transcript with 6 layers, (\d+) with 30", text)
    assert passes is not None
    assert passes.groups() == tuple(str(n_causal_passes(n_layers)) for n_layers in (6, 30))
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    for model, ours, theirs in re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M):
        assert re.search(rf"^\| {model} \| hooked \| 16 \| Hugging Face .* {ours} \| {theirs} ", results, re.M)
    for ratio, model in re.findall(r"([\d.]+) times\s\(([\w-]+)\)", text):
        assert re.search(rf"^\| {model} \| hooked \| 32 \| 16 \| {ratio} ", results, re.M)


def test_pages_are_in_the_contents() -> None:
    """Every page is in the table of contents, from which Sphinx and llms.txt are made."""
    listed = re.findall(r"^([a-z_]+(?:/index)?)$", (DOCS / "index.md").read_text(), re.M)
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} == {name for name in listed if "/" not in name}


def test_llms_txt(site_pages: ModuleType) -> None:
    text = site_pages.llms_txt({"method": ("Method", "What is computed.")})
    assert text.startswith("# dpc_interp\n\n> ")
    assert text.endswith("- [Method](method.html): What is computed.\n")


def test_broken_links_are_seen(site_pages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#x">b</a><a href="#here">h</a><a href="https://e.org">e</a><a href="c.html">c</a>'
        '<a href="#gone">g</a><script src="https://cdn.org/x.js"></script><img src="no.png">'
    )
    (tmp_path / "b.html").write_text('<p id="x">')
    (tmp_path / "s.css").write_text("@font-face { src: url(//fonts.org/f.woff) }")
    assert site_pages.broken_links(tmp_path) == [
        "a.html links to c.html, which is not there",
        "a.html links to #gone, which is not there",
        "a.html loads https://cdn.org/x.js",
        "a.html links to no.png, which is not there",
        "s.css loads from another site",
    ]


def test_links_of_the_repository_lead_to_pages(site_pages: ModuleType) -> None:
    content = [
        "[m](docs/method.md#2-x) [c](CONTRIBUTING.md) [v](figures/VERDICTS.md) [s](studies/) [h](#a) [w](https://e.org)"
    ]
    site_pages.link_from_root(None, Path("../README.md"), "index", content)
    assert content == [
        "[m](method.md#2-x) [c](contributing.md) [v](path:../figures/VERDICTS.md) [s](architecture.md) [h](#a) "
        "[w](https://e.org)"
    ]
