"""Certainty: the intervals and paired tests of an evaluation's tables.

Accuracies carry Wilson intervals where each row is another problem. Where several tuned prompts answer the same
problems, and for every paired difference, intervals come from a seeded bootstrap that resamples problems with all their
rows: they are about these prompts. Those of `verdicts`, over problems and tuning seeds, are about any prompt so tuned.
"""

from __future__ import annotations

import pandas as pd

from dpc_interp.stats.paired import bootstrap_mean, exact_mcnemar, wilson


def summarise(instances: pd.DataFrame, reference: str = "pt", seed: int = 0) -> pd.DataFrame:
    """Accuracy of each method, paired with `reference` on the same problems and prompts.

    Args:
        instances: rows of one task: prompt, method, instance, correct, fired, n_tokens.

    Returns:
        One row per method: n (rows), n_prompts, accuracy, low, high, difference (to `reference`), difference_low,
        difference_high, p_mcnemar (NaN where several prompts share problems, since their pairs are not independent),
        fixed, broken, both_right, both_wrong, firing_rate, tokens (generated, mean).
    """
    keys = ["prompt", "instance"]
    base = instances[instances["method"] == reference].set_index(keys)["correct"]
    rows = []
    for method, frame in instances.groupby("method", sort=False):
        now = frame.set_index(keys)["correct"].to_numpy(bool)
        before = base.loc[frame.set_index(keys).index].to_numpy(bool)
        problems = frame["instance"].to_numpy()
        n_prompts = frame["prompt"].nunique()
        low, high = (
            wilson(int(now.sum()), len(now)) if n_prompts == 1 else bootstrap_mean(now.astype(float), problems, seed)
        )
        paired_low, paired_high = bootstrap_mean(now.astype(float) - before.astype(float), problems, seed)
        rows.append(
            {
                "method": method,
                "n": len(now),
                "n_prompts": n_prompts,
                "accuracy": now.mean(),
                "low": low,
                "high": high,
                "difference": now.mean() - before.mean(),
                "difference_low": paired_low,
                "difference_high": paired_high,
                "p_mcnemar": exact_mcnemar(before, now) if n_prompts == 1 else float("nan"),
                "fixed": int((now & ~before).sum()),
                "broken": int((~now & before).sum()),
                "both_right": int((now & before).sum()),
                "both_wrong": int((~now & ~before).sum()),
                "firing_rate": frame["fired"].mean(),
                "tokens": frame["n_tokens"].mean(),
            }
        )
    return pd.DataFrame(rows)
