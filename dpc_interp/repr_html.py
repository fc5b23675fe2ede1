"""How results show themselves in a notebook: a title, facts, texts and tables, all of them escaped.

There are no colours but those of the notebook, so that every theme shows them well.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd

MAX_CHARACTERS = 2000
"""Characters of a text that are shown."""
MAX_ROWS = 12
"""Rows of a table that are shown."""
LINE = "border-bottom: 1px solid rgba(128,128,128,.35)"
CELL = f"text-align: left; padding: .1em .8em .1em 0; vertical-align: top; {LINE}"


def card(title: str, facts: Mapping[str, object], *blocks: str, note: str = "") -> str:
    """A title with facts under it.

    Args:
        title: plain text.
        facts: name -> value, shown by `str`; those that are None are left out.
        blocks: HTML of `text_block` and `table_block`.
        note: plain text at the end.

    Example:
        >>> "<b>a &lt; b</b>" in card("a < b", {})
        True
    """
    rows = "".join(
        f'<tr><th style="{CELL}">{_text(name)}</th><td style="{CELL}">{_text(value)}</td></tr>'
        for name, value in facts.items()
        if value is not None
    )
    table = f'<table style="border-collapse: collapse; margin: .3em 0">{rows}</table>' if rows else ""
    end = f'<div style="opacity: .75; font-size: .9em">{_text(note)}</div>' if note else ""
    return f'<div style="overflow-wrap: anywhere"><b>{_text(title)}</b>{table}{"".join(blocks)}{end}</div>'


def text_block(title: str, text: str) -> str:
    """A text with its line breaks.

    Args:
        title: plain text.
        text: plain text; what is beyond `MAX_CHARACTERS` is counted.
    """
    style = f"white-space: pre-wrap; border-left: 3px solid rgba(128,128,128,.5); padding-left: .6em; {LINE}"
    return f'<div style="margin: .3em 0"><i>{_text(title)}</i><div style="{style}">{_text(text)}</div></div>'


def table_block(frame: pd.DataFrame, title: str = "") -> str:
    """The first rows of a frame.

    Args:
        frame: any frame; what is beyond `MAX_ROWS` is counted.
        title: plain text.
    """
    shown = frame.head(MAX_ROWS).map(lambda value: _cut(f"{value:.4g}" if isinstance(value, float) else str(value)))
    rest = f"<div>and {len(frame) - MAX_ROWS} more rows</div>" if len(frame) > MAX_ROWS else ""
    heading = f"<div><i>{_text(title)}</i></div>" if title else ""
    return heading + shown.to_html(index=False, border=0, escape=True) + rest


def span_text(counts: Mapping[str, int]) -> str:
    """Named counts on one line, such as `prompt 20, question 31`.

    Args:
        counts: name -> number.
    """
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def first_line(text: str, n_characters: int = 60) -> str:
    r"""The beginning of a text on one line, for plain reprs.

    Args:
        text: any text.
        n_characters: at most, with the mark that something is cut off.

    Example:
        >>> first_line("one\ntwo three", 8)
        'one two…'
    """
    words = " ".join(text.split())
    return words if len(words) <= n_characters else words[: n_characters - 1] + "…"


def _text(value: Any) -> str:
    return html.escape(_cut(str(value)))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} … and {len(text) - MAX_CHARACTERS} more"
