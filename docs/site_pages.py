"""Pages of the site that are made from the package and from other files; `conf.py` calls these functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from docutils.nodes import make_id

import dpc_interp
from dpc_interp import plots

DOCS = Path(__file__).parent
ROOT = DOCS.parent
VIEWS = DOCS / "views"
"""Folder of the pages that examples save; they are copied to the root of the site."""
ROOMS: Mapping[str, str] = {
    "tasks": "Problems: what is asked, and how answers are read",
    "models": "Models: loading and question formats",
    "parity": "Checks of a model",
    "prompts": "Soft prompts: loading, tuning, putting in front of a question",
    "generation": "Transcripts: what a model writes",
    "analysis": "Saliency, flow, accumulation, and the Dynamic Trigger",
    "interventions": "Corruption, knock-out and attention calibration",
    "evaluation": "Methods compared on the same problems, and sweeps",
    "stats": "Regressions",
    "claims": "The paper's claims and their controls",
    "views": "Interactive views",
    "study": "Whole studies",
    "execution": "How work is run",
    "errors": "Errors",
    "plots": "Figures",
}
"""Room -> title of its page, in the order in which one meets them."""


def public_names() -> dict[str, list[str]]:
    """Room -> full names of its public functions and classes, in the order of `__all__`."""
    rooms: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in dpc_interp.__all__:
        if name != "plots":
            rooms[getattr(dpc_interp, name).__module__.split(".")[1]].append(f"dpc_interp.{name}")
    rooms["plots"] = [f"dpc_interp.plots.{name}" for name in plots.__all__]
    return rooms


def api_pages() -> dict[str, str]:
    """File name -> reStructuredText: an index with a line for each name, and one page a room."""
    rooms = public_names()
    index = [_heading("API reference", "="), "Everything that ``import dpc_interp as dpc`` gives, by room.", ""]
    for room, names in rooms.items():
        index += [_heading(f":doc:`{ROOMS[room]} <{room}>`", "-"), _summary(names), ""]
    index += [".. toctree::", "   :hidden:", "", *(f"   {room}" for room in rooms), ""]
    pages = {"index.rst": "\n".join(index)}
    for room, names in rooms.items():
        intro = f"``dpc_interp/{room}``; the :doc:`architecture <../architecture>` lists its files."
        pages[f"{room}.rst"] = "\n".join([_heading(ROOMS[room], "="), intro, "", *map(_entry, names)])
    return pages


def _heading(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}\n"


def _summary(names: Sequence[str]) -> str:
    return "\n".join([".. autosummary::", "   :nosignatures:", "", *(f"   ~{name}" for name in names), ""])


def _entry(name: str) -> str:
    shown = getattr(plots if name.startswith("dpc_interp.plots.") else dpc_interp, name.rpartition(".")[2])
    if isinstance(shown, type):
        return f".. autoclass:: {name}\n   :members:\n"
    return f".. {'autofunction' if callable(shown) else 'autodata'}:: {name}\n"


def write_api_pages(folder: Path) -> None:
    """Write `api_pages`, and remove pages of rooms that are gone."""
    _write(folder, api_pages())


def error_index() -> str:
    """The page that lists the errors by their messages."""
    pages = sorted(path for path in (DOCS / "errors").glob("*.md") if path.name != "index.md")
    rows = [f"| [{_title(page)}]({page.name}) | `{symptom(page.read_text())}` |" for page in pages]
    return "\n".join(
        [
            "# Errors",
            "",
            "Every refusal is a `DPCInterpError` of one line that says how to fix the problem. These are the ones that",
            "users meet most, each with its cause, code that causes it, and code that does not. All of the code is run",
            "by the tests, which compare the message with the one on the page.",
            "",
            "| page | message |",
            "| --- | --- |",
            *rows,
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *(page.stem for page in pages),
            "```",
            "",
        ]
    )


def symptom(text: str) -> str:
    """The message on the page of an error, without its class."""
    return _blocks(text, "text")[0].split(": ", maxsplit=1)[1].strip()


def python_blocks(text: str) -> list[str]:
    """The Python code in a page of Markdown."""
    return _blocks(text, "python")


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def _title(page: Path) -> str:
    return page.read_text().partition("\n")[0].removeprefix("# ")


def write_error_index(folder: Path) -> None:
    """Write `error_index` next to the pages."""
    _write_changed(folder / "index.md", error_index())


def _write(folder: Path, pages: Mapping[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        _write_changed(folder / name, text)


def _write_changed(file: Path, text: str) -> None:
    """Leave an equal file as it is, so that Sphinx does not read it again."""
    if not file.is_file() or file.read_text() != text:
        file.write_text(text)


def link_from_root(app: Any, page: Any, *content: Any) -> None:
    """Make links of the repository's Markdown lead to pages of the site, and to files next to it.

    Commands lose `.venv/bin/`, which only a checkout has.
    """
    base = ROOT / "docs" if len(content) == 1 else (DOCS / page).resolve().parent  # a page; an included file
    (text,) = content[-1]
    if base in (ROOT, DOCS):
        text = text.replace(".venv/bin/dpc-interp", "dpc-interp")
        content[-1][0] = re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", lambda match: f"]({_target(base, match[1])})", text)


def _target(base: Path, link: str) -> str:
    path, hash_, anchor = link.partition("#")
    file = (base / path).resolve()
    names = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
    pages = {ROOT / name: page for name, page in names.items()}
    if file in pages:
        return pages[file] + hash_ + anchor
    if file.is_dir():  # listed on the page of the architecture, since a site shows no folders
        return "architecture.md"
    if file.is_relative_to(DOCS):
        return f"{file.relative_to(DOCS).as_posix()}{hash_}{anchor}"
    scheme = "path:" if file.suffix == ".md" else ""  # Markdown that is not a page is a file to read or keep
    return f"{scheme}../{file.relative_to(ROOT).as_posix()}"


def _sections() -> dict[str, str]:
    """Number of a section of method.md -> its anchor."""
    headings = re.findall(r"^##+ (([\d.]+) .*)$", (DOCS / "method.md").read_text(), flags=re.MULTILINE)
    return {number: make_id(title) for title, number in headings}


def prepare_docstring(app: Any, kind: str, name: str, shown: Any, options: Any, lines: list[str]) -> None:
    """Link `docs/method.md, section N` to that section, and leave what is returned as it is written.

    In `One row per layer: ...`, napoleon would take the words before the colon for a type.
    """
    sections = _sections()
    for i, line in enumerate(lines):
        line = ":returns:" if line == "Returns:" else line
        lines[i] = re.sub(
            r"docs/method\.md, section ([\d.]*\d)",
            lambda match: f"`method, section {match[1]} <../method.html#{sections[match[1]]}>`__",
            line,
        )


class GalleryOrder:
    """Sort key of sphinx-gallery: the order of `plots.__all__` by subject, the view first, the runs last."""

    ORDER = (
        "view",
        "case",
        "saliency_map",
        "accumulation",
        "accumulation_profile",
        "layer_flow",
        "step_flow",
        "trigger_distribution",
        "roc",
        "precision_recall",
        "cooccurrence",
        "accuracy",
        "regime",
        "triggers",
        "trigger_gain",
        "single_tokens",
        "sensitivity",
        "sensitivity_panel",
        "sink_control",
        "sink_ratios",
        "knockout_by_layer",
        "redundancy",
        "deletion_curves",
        "sanity",
        "verdict_calibration",
        "runs",
    )

    def __init__(self, source_dir: str) -> None:
        """Take the folder, as sphinx-gallery gives it."""

    def __call__(self, filename: str) -> int:
        """Place of an example."""
        return self.ORDER.index(filename.removesuffix(".py").removeprefix("plot_").removeprefix("shared_"))


GALLERY_ORDER = "site_pages.GalleryOrder"


def keep_views(block: Any, block_vars: Mapping[str, Any], gallery_conf: Mapping[str, Any]) -> str:
    """Image scraper of sphinx-gallery: move the HTML pages that an example saved to the site, and show them."""
    shown = []
    for page in sorted(Path(block_vars["src_file"]).parent.glob("*.html")):
        page.replace(VIEWS / page.name)
        frame = f'<iframe src="../{page.name}" title="{page.stem}" class="view"></iframe>'
        link = f'<p><a href="../{page.name}">Open the page by itself</a></p>'
        shown.append(f".. raw:: html\n\n   {frame}\n   {link}\n")
    return "\n".join(shown)


def llms_txt(titles: Mapping[str, tuple[str, str]]) -> str:
    """The index of the site in the format of https://llmstxt.org.

    Args:
        titles: name of each page, in order -> its title and its first sentence.
    """
    lines = ["# dpc_interp", "", f"> {dpc_interp.__doc__.splitlines()[0].partition(': ')[2]}", "", "## Pages", ""]
    lines += [f"- [{title}]({page}.html): {sentence}" for page, (title, sentence) in titles.items()]
    return "\n".join(lines) + "\n"


def write_llms_txt(app: Any, exception: Exception | None) -> None:
    """Write `llms.txt` from the table of contents, and check the pages."""
    if exception is not None or app.builder.name != "html":
        return
    titles = {}
    for page in _in_order(app.env, "index"):
        first = next((str(node.astext()) for node in app.env.get_doctree(page).findall() if _is_text(node)), "")
        text = " ".join(first.split()).removeprefix("Cause. ")
        sentence = re.split(r"(?<=[.:]) ", text, maxsplit=1)[0]
        titles[page] = (app.env.titles[page].astext(), sentence)
    out = Path(app.outdir)
    (out / "llms.txt").write_text(llms_txt(titles))
    if problems := broken_links(out):
        raise RuntimeError("\n".join(problems))


def _is_text(node: Any) -> bool:
    return node.tagname == "paragraph" and node.parent.tagname == "section"


def _in_order(env: Any, page: str) -> list[str]:
    """A page and those below it in the table of contents."""
    return [page, *(name for below in env.toctree_includes.get(page, []) for name in _in_order(env, below))]


class _Links(HTMLParser):
    """The links of a page, what it loads, and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads += [values["src"], *(part.split()[0] for part in values.get("srcset", "").split(",") if part)]


def broken_links(site: Path) -> list[str]:
    """What is wrong with the links of a built site.

    A page may link to other sites, but load nothing from them; links inside lead to files and anchors that exist.

    Args:
        site: folder of the pages.
    """
    pages = {file: _Links(file.read_text()) for file in site.rglob("*.html")}
    problems = []
    for file, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") or parts.netloc:
                problems += [f"{file.relative_to(site)} loads {link}"] if link in page.loads else []
                continue
            if parts.scheme:  # data:, mailto:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                problems.append(f"{file.relative_to(site)} links to {link}, which is not there")
    for style in site.rglob("*.css"):
        if re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"]?https?:", style.read_text()):
            problems.append(f"{style.relative_to(site)} loads from another site")
    return problems
