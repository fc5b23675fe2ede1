"""A summary worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.evaluation.summary import summarise
from dpc_interp.stats.paired import wilson


def table(prompt: str, outcomes: dict[str, str], fired: dict[str, str] | None = None) -> pd.DataFrame:
    """One digit an instance: 1 correct, 0 wrong. The answer to problem k has k + 1 tokens."""
    rows = []
    for method, correct in outcomes.items():
        fires = (fired or {}).get(method, "0" * len(correct))
        rows += [
            (prompt, method, f"story-{k}", outcome == "1", fire == "1", k + 1)
            for k, (outcome, fire) in enumerate(zip(correct, fires, strict=True))
        ]
    return pd.DataFrame(rows, columns=["prompt", "method", "instance", "correct", "fired", "n_tokens"])


def test_summary_by_hand() -> None:
    """Of ten problems dpc fixes two (5 and 6) and breaks one (0), so 6 instead of 5 are correct."""
    frame = table("seed0", {"pt": "1111100000", "dpc": "0111111000"}, {"dpc": "1000011100"})
    summary = summarise(frame).set_index("method")
    pt, dpc = summary.loc["pt"], summary.loc["dpc"]
    assert dpc[["n", "n_prompts", "fixed", "broken", "both_right", "both_wrong"]].tolist() == [10, 1, 2, 1, 4, 3]
    assert dpc[["accuracy", "difference", "firing_rate", "tokens"]].tolist() == pytest.approx([0.6, 0.1, 0.4, 5.5])
    assert (dpc["low"], dpc["high"]) == wilson(6, 10)
    assert dpc["p_mcnemar"] == 1.0  # 2 against 1
    assert dpc["difference_low"] < 0.1 < dpc["difference_high"]
    assert pt[["accuracy", "difference", "difference_low", "difference_high", "p_mcnemar"]].tolist() == [
        0.5,
        0,
        0,
        0,
        1,
    ]


def test_rows_are_paired_by_prompt_and_problem_in_any_order() -> None:
    frame = pd.concat(
        [
            table("seed0", {"pt": "1100", "dpc": "1110"}),
            table("seed1", {"pt": "0011", "dpc": "0111"}),
        ]
    )
    dpc = summarise(frame).set_index("method").loc["dpc"]
    assert dpc[["n", "n_prompts", "fixed", "broken", "both_right", "both_wrong"]].tolist() == [8, 2, 2, 0, 4, 2]
    assert np.isnan(dpc["p_mcnemar"]), "pairs of the same problem are not independent"
    shuffled = summarise(frame.sample(frac=1, random_state=0)).set_index("method").loc["dpc"]
    counts = ["n", "n_prompts", "fixed", "broken", "both_right", "both_wrong", "accuracy", "difference"]
    assert shuffled[counts].tolist() == dpc[counts].tolist()
    assert (shuffled["low"], shuffled["high"]) == (dpc["low"], dpc["high"])
