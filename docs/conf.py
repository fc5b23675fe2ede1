"""The site: `make docs` builds it into build/docs, offline, with warnings as errors.

Furo, because its pages load nothing from elsewhere, have a dark theme, and can be read on a phone; MyST, because the
same Markdown files are read on GitHub; sphinx-gallery, because an example is a plain script that stops the build where
it fails; autodoc, because the reference is in the docstrings. Notebooks are not rendered again: `make test` runs them.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import torch  # noqa: E402
from site_pages import (  # noqa: E402
    GALLERY_ORDER,
    VIEWS,
    link_from_root,
    prepare_docstring,
    write_api_pages,
    write_error_index,
    write_llms_txt,
)

import dpc_interp  # noqa: E402

torch.set_num_threads(1)  # the examples' models are tiny: with two threads on busy cores they take 10 times as long

project, author, copyright = "dpc_interp", "The dpc_interp authors", "The dpc_interp authors"
version = release = dpc_interp.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples"]
highlight_language = "none"  # blocks without a language are commands and equations

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# `analyse` in a docstring becomes a link where that is a public name; every other name in backticks is only code. A
# link that names the package and leads nowhere is an error; other packages cannot be looked up offline.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?s)(?!dpc_interp\.).*"), ("py:.*", r"dpc_interp\.\w+\.\w+\..*")]
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autosummary_generate = False
maximum_signature_line_length = 88
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": GALLERY_ORDER,
    "image_scrapers": ("matplotlib", "site_pages.keep_views"),
    "reset_modules": ("matplotlib",),
    "abort_on_example_error": True,
    "capture_repr": (),
    "remove_config_comments": True,
    "min_reported_time": 5,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,  # its page loads scripts from elsewhere
}

html_theme = "furo"
html_title = "dpc_interp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = [str(VIEWS.relative_to(DOCS))]
html_copy_source = True  # the Markdown of each page, for readers that prefer text
html_theme_options = {"light_css_variables": {"color-brand-primary": "#0a5a8a", "color-brand-content": "#0a5a8a"}}
html_theme_options["dark_css_variables"] = {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"}


def setup(app):
    """Write the pages that are made from the package, and read the Markdown of the repository as pages."""
    from pygments.lexers.special import TextLexer

    VIEWS.mkdir(exist_ok=True)
    write_api_pages(DOCS / "api")
    write_error_index(DOCS / "errors")
    app.add_lexer("mermaid", TextLexer)  # GitHub draws it; here its text is shown, since no library draws it offline
    app.connect("include-read", link_from_root)
    app.connect("source-read", link_from_root)
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)  # before napoleon's
    app.connect("build-finished", write_llms_txt)
