"""The verdicts as a page, for all models together: one line per claim, a table by task, and all numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dpc_interp.claims.regime import regime_table
from dpc_interp.claims.verdicts import CLAIMS
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.tables import markdown
from dpc_interp.stats.bootstrap import LEVEL

REGIME_TEXT = (
    "The paper is about a model that reasons when it is asked to (*instruct*), and a prompt that changes it little on "
    "average because it helps some answers and harms others. *Cut-off*: everything that is written cannot attend to "
    "the prompt at any layer. Where that changes next to nothing, the prompt acts through the question alone, and "
    "claims about flow from the prompt into the text are not testable."
)
STAR = "*"
"""Marks a verdict that remains after Holm's correction."""
AUROC_CLAIMS = {claim.name for claim in CLAIMS if claim.effect == "auroc"}


def verdicts_markdown(frame: pd.DataFrame, regimes: Mapping[str, pd.DataFrame] | None = None) -> str:
    """Write verdicts as Markdown.

    Args:
        frame: frame of `verdicts`, of one or several models.
        regimes: model -> frame of `regime`, which opens its section; None: no such tables.

    Returns:
        The page: how to read it, then for each model the regime of its experiments, a line per claim, a table by task
        and a table of all numbers.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> rule = dpc.TriggerRule("late_share", 0.5)
        >>> results = dpc.evaluate(model, dpc.load_problems("story", n=4), prompt, [], rule=rule, progress=False)
        >>> page = dpc.verdicts_markdown(dpc.verdicts([results], model="reasoner"))
        >>> page.splitlines()[0]
        "# Which of the paper's claims hold"
    """
    text = [
        "# Which of the paper's claims hold",
        "The rules are fixed in `claims/verdicts.py`. An effect is the mean over tuned prompts, its "
        f"{LEVEL:.0%} interval is over problems and tuning seeds (over "
        "problems only where there is one prompt). A claim **holds** where the whole interval lies on the claimed side "
        "of the null, or within its distance of 0 where a small effect is claimed, **fails** where it lies on the "
        "other side, or beyond it, is **not testable** where the experiment cannot speak of it (the table of numbers "
        'says why), and is **undecided** otherwise. "Smaller than the paper\'s" says of an '
        "undecided claim that its interval excludes an effect as large as the paper reports. "
        f"{STAR} marks a verdict that remains after Holm's correction over all rows of the model.",
    ]
    for model, rows in frame.groupby("model", sort=False):
        words = starred_verdicts(rows)
        table = rows.assign(word=words).pivot_table(index="task", columns="claim", values="word", aggfunc="first")
        # `pivot_table` sorts; the page keeps the order of the frame
        table = table.loc[rows["task"].unique(), rows["claim"].unique()].reset_index()
        text += [f"## {model}"]
        if regimes and str(model) in regimes:
            text += [REGIME_TEXT, markdown(regime_table(regimes[str(model)]))]
        text += ["\n".join(claim_lines(rows)), markdown(table), markdown(verdicts_table(rows))]
    return "\n\n".join(text) + "\n"


def starred_verdicts(rows: pd.DataFrame) -> list[str]:
    """The verdicts of one model, those that remain after Holm's correction with a star.

    Args:
        rows: of `verdicts`.
    """
    return [
        verdict + (STAR if verdict in ("holds", "fails") and p < 1 - LEVEL else "")
        for verdict, p in zip(rows["verdict"], rows["p_holm"], strict=True)
    ]


def claim_lines(rows: pd.DataFrame) -> Iterator[str]:
    """A line per claim: `- C1. The statement. Rule: ... It holds on story, rule; is undecided on choice. See fig3.`

    Args:
        rows: of `verdicts`, of one model.
    """
    for claim in CLAIMS:
        claim_rows = rows[rows["claim"] == claim.name]
        tasks = {verdict: ", ".join(same["task"]) for verdict, same in claim_rows.groupby("verdict")}
        words = {"holds": "**holds**", "fails": "**fails**"} | {
            verdict: f"is **{verdict}**" for verdict in ("undecided", "not testable")
        }
        outcomes = [f"{word} on {tasks[verdict]}" for verdict, word in words.items() if verdict in tasks]
        if outcomes:
            yield f"- {claim.name}. {claim.statement} Rule: {claim.rule}. It {'; '.join(outcomes)}. See {claim.figure}."


def verdicts_table(rows: pd.DataFrame) -> pd.DataFrame:
    """All numbers of the verdicts of one model as a table, whose cells are finished text or counts.

    Args:
        rows: of `verdicts`.
    """
    cells = [
        {
            "task": row.task,
            "claim": row.claim,
            "verdict": word,
            "effect [95%]": f"{row.effect:.3f} [{row.low:.3f}, {row.high:.3f}]" if row.n_prompts else "not measured",
            "null": f"{row.side} {row.null:g}",
            "remark": _remark(row),
            "p": f"{row.p:.2g}",
            "p, Holm": f"{row.p_holm:.2g}",
            "df": f"{row.df:.1f}",
            "problems": row.n,
            "prompts": row.n_prompts,
            "figure": row.figure,
        }
        for row, word in zip(rows.itertuples(), starred_verdicts(rows), strict=True)
    ]
    return pd.DataFrame(cells).replace("nan", "–")


def _remark(row: Any) -> str:
    """Why a claim is not testable, on which side it fails, or that the paper's effect is excluded."""
    if row.verdict == "not testable":
        return str(row.reason)
    if row.verdict == "fails" and row.side == "within":
        return "gains" if row.effect > 0 else "loses"
    if row.verdict == "fails" and row.claim in AUROC_CLAIMS:
        return "reversed"
    return "smaller than the paper's" if row.verdict == "undecided" and bool(row.excludes_paper) else "–"


def write_page(folder: Path) -> Path:
    """Write VERDICTS.md from the verdicts of every model.

    Args:
        folder: with one `MODEL/verdicts.csv` a model; the page is written into it.

    Returns:
        The path of the page.

    Raises:
        DPCInterpError: there is no verdicts.csv.
    """
    files = sorted(folder.glob("*/verdicts.csv"))
    if not files:
        raise DPCInterpError(f"no {folder}/*/verdicts.csv; run Study.control_figures or make verdicts first")
    page = folder / "VERDICTS.md"
    frames = [pd.read_csv(file) for file in files]
    regimes = {
        str(frame["model"].iloc[0]): pd.read_csv(file.with_name("regime.csv"))
        for file, frame in zip(files, frames, strict=True)
        if file.with_name("regime.csv").exists()
    }
    page.write_text(verdicts_markdown(pd.concat(frames, ignore_index=True), regimes))
    return page
