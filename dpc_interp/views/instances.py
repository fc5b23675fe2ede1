"""The instances of a study as a table: what happened to each, by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dpc_interp.evaluation.evaluate import Results

FILTERS = ("task", "prompt", "outcome", "effect", "fired")
"""Columns that the view of a study filters by."""


def instances_table(results: Sequence[Results]) -> pd.DataFrame:
    """One row per prompt and instance that was analysed.

    Args:
        results: of `evaluate`.

    Returns:
        task, prompt, instance, outcome (`right` or `wrong` with the prompt), effect (`harmed`: right with the written
        instruction, wrong with the prompt; `helped`: the reverse; `none`; `–` where the method `instruct` was not
        evaluated), fired (`yes` or `no`: the calibrated trigger), peak_token, late_share, row_share, nll, length and
        answer.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> problems, rule = dpc.load_problems("story", n=4), dpc.TriggerRule("late_share", 0.3)
        >>> results = dpc.evaluate(model, problems, prompt, ["pt"], rule=rule, progress=False)
        >>> len(instances_table([results]))
        4
    """
    return pd.concat([_of_prompt(result) for result in results], ignore_index=True)


def _of_prompt(result: Results) -> pd.DataFrame:
    correct = result.instances.pivot_table(index="instance", columns="method", values="correct", aggfunc="first")
    answers = result.instances[result.instances["method"] == "pt"].set_index("instance")["answer"]
    stats = result.statistics
    right = stats["correct"].astype(bool)
    effect = pd.Series("–", index=stats.index)
    if "instruct" in correct:
        instructed = stats["instance"].map(correct["instruct"]).astype(bool)
        effect = pd.Series("none", index=stats.index)
        effect[instructed & ~right] = "harmed"
        effect[~instructed & right] = "helped"
    return pd.DataFrame(
        {
            "task": result.task,
            "prompt": result.prompt,
            "instance": stats["instance"],
            "outcome": right.map({True: "right", False: "wrong"}),
            "effect": effect,
            "fired": result.rule.fires(stats).map({True: "yes", False: "no"}),
            **{name: stats[name] for name in ("peak_token", "late_share", "row_share", "nll", "length")},
            "answer": stats["instance"].map(answers).fillna("–"),
        }
    )
