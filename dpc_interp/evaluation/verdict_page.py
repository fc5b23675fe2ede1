"""The verdicts as a page, for all models together: a line a claim, a table by task, and all numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.intervals import LEVEL
from dpc_interp.evaluation.tables import markdown
from dpc_interp.evaluation.verdicts import CLAIMS

STAR = "*"
"""Marks a verdict that stands after Holm's correction."""


def verdicts_markdown(frame: pd.DataFrame) -> str:
    """`verdicts` of one or several models as Markdown."""
    text = [
        "# Which of the paper's claims hold",
        "The rules are fixed in `evaluation/verdicts.py`. An effect is the mean over tuned prompts, its "
        f"{LEVEL:.0%} interval is over problems and tuning seeds (over "
        "problems only where there is one prompt). A claim **holds** where the whole interval lies on the claimed side "
        "of the null, **fails** where it lies on the other (or nothing varies and the effect is not on the claimed "
        f"side), and is **undecided** otherwise. {STAR} marks what stands after Holm's correction over all rows of the "
        "model.",
    ]
    for model, rows in frame.groupby("model", sort=False):
        words = _words(rows)
        table = rows.assign(word=words).pivot_table(index="task", columns="claim", values="word", aggfunc="first")
        table = table.loc[rows["task"].unique(), rows["claim"].unique()].reset_index()
        text += [f"## {model}", "\n".join(_sentences(rows)), markdown(table), markdown(_details(rows, words))]
    return "\n\n".join(text) + "\n"


def _words(rows: pd.DataFrame) -> list[str]:
    return [
        verdict + (STAR if verdict != "undecided" and p < 1 - LEVEL else "")
        for verdict, p in zip(rows["verdict"], rows["p_holm"], strict=True)
    ]


def _sentences(rows: pd.DataFrame) -> Iterator[str]:
    """A line a claim: `- C1. What it says. Rule: ... It holds on story, rule; is undecided on choice. See fig3.`"""
    for claim in CLAIMS:
        of_claim = rows[rows["claim"] == claim.name]
        tasks = {verdict: ", ".join(rows["task"]) for verdict, rows in of_claim.groupby("verdict")}
        words = {"holds": "**holds**", "fails": "**fails**", "undecided": "is **undecided**"}
        where = [f"{word} on {tasks[verdict]}" for verdict, word in words.items() if verdict in tasks]
        if where:
            yield f"- {claim.name}. {claim.says} Rule: {claim.rule}. It {'; '.join(where)}. See {claim.figure}."


def _details(rows: pd.DataFrame, words: list[str]) -> pd.DataFrame:
    cells = [
        {
            "task": row.task,
            "claim": row.claim,
            "verdict": word,
            "effect [95%]": f"{row.effect:.3f} [{row.low:.3f}, {row.high:.3f}]" if row.n_prompts else "not measured",
            "null": f"{row.side} {row.null:g}",
            "p": f"{row.p:.2g}",
            "p, Holm": f"{row.p_holm:.2g}",
            "df": f"{row.df:.1f}",
            "problems": row.n,
            "prompts": row.n_prompts,
            "figure": row.figure,
        }
        for row, word in zip(rows.itertuples(), words, strict=True)
    ]
    return pd.DataFrame(cells).replace("nan", "–")


def write_page(folder: Path) -> Path:
    """Write `folder`/VERDICTS.md from the verdicts.csv of every model in it.

    Raises:
        DPCInterpError: there are none.
    """
    files = sorted(folder.glob("*/verdicts.csv"))
    if not files:
        raise DPCInterpError(f"no {folder}/*/verdicts.csv; run make verdicts first")
    page = folder / "VERDICTS.md"
    text = verdicts_markdown(pd.concat([pd.read_csv(file) for file in files], ignore_index=True))
    page.write_text(f"{text}\nWritten by `make verdicts`.\n")
    return page
