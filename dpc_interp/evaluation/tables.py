"""Tables as people read them: frames of shares -> percent with intervals -> Markdown."""

from __future__ import annotations

import pandas as pd


def markdown(frame: pd.DataFrame) -> str:
    """A frame of finished cells as a Markdown table, without its index."""
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def percent(share: float, low: float | None = None, high: float | None = None) -> str:
    """`52.0 [47.6, 56.3]`; signs are shown where the interval is of a difference."""
    if low is None or high is None:
        return _tenths(share)
    return f"{_tenths(share)} [{_tenths(low)}, {_tenths(high)}]"


def _tenths(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}"  # no -0.0


def accuracy_table(summary: pd.DataFrame) -> pd.DataFrame:
    """`summarise` rows of several tasks as cells: percent, points and counts."""
    cells = []
    for row in summary.to_dict("records"):
        cells.append(
            {
                "task": row["task"],
                "method": row["method"],
                "accuracy % [95%]": percent(row["accuracy"], row["low"], row["high"]),
                "minus pt, points [95%]": percent(row["difference"], row["difference_low"], row["difference_high"]),
                "McNemar p by prompt": row["p_by_prompt"],
                "fixed": row["fixed"],
                "broken": row["broken"],
                "both right": row["both_right"],
                "both wrong": row["both_wrong"],
                "fires %": percent(row["firing_rate"]),
                "tokens": f"{row['tokens']:.1f}",
                "n": row["n"],
                "prompts": row["n_prompts"],
            }
        )
    return pd.DataFrame(cells)


def variants_table(frame: pd.DataFrame) -> pd.DataFrame:
    """`corruption_variants` rows as cells: points against pt and counts, a row per variant and method."""
    cells = [
        {
            "task": row["task"],
            "variant": row["variant"],
            "fires": row["method"],
            "minus pt, points [95%]": percent(row["difference"], row["difference_low"], row["difference_high"]),
            "McNemar p": f"{row['p_mcnemar']:.2g}",
            "fixed": row["fixed"],
            "broken": row["broken"],
            "fires %": percent(row["firing_rate"]),
            "n": row["n"],
        }
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(cells)
