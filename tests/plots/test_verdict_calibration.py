"""The calibration of verdicts: lines are the largest shares of the frame, and the nominal share is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_verdict_calibration

FRAME = pd.DataFrame(
    [
        ("no effect", 0.01, 3, 0.0, 100, 0.0, 0.01),
        ("no effect", 0.01, 3, 1.0, 100, 0.02, 0.0),
        ("no effect", 0.1, 3, 0.0, 100, 0.03, 0.01),
        ("paper's effect", 0.1, 3, 0.2, 100, 0.9, 0.0),
    ],
    columns=["truth", "changed", "n_prompts", "shared", "n", "holds", "fails"],
)


def test_lines_are_the_worst_shares_in_percent() -> None:
    ax = plot_verdict_calibration(FRAME)
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["3 prompts, holds"].get_xydata(), [[1, 2], [10, 3]])
    np.testing.assert_allclose(lines["3 prompts, fails"].get_xydata(), [[1, 1], [10, 1]])
    assert lines["3 prompts, fails"].get_linestyle() == "--"
    assert 2.5 in [line.get_ydata()[0] for line in ax.lines], "the nominal share"


def test_another_truth_and_an_unknown_one() -> None:
    assert plot_verdict_calibration(FRAME, truth="paper's effect").get_title() == "paper's effect"
    with pytest.raises(DPCInterpError, match="no rows of 'noise'"):
        plot_verdict_calibration(FRAME, truth="noise")
