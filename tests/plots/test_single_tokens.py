"""Single tokens: each token has its accuracy change with interval, and a bar of its accumulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_single_tokens


def test_each_token_has_its_change_and_its_accumulation(single_tokens: pd.DataFrame) -> None:
    ax = plot_single_tokens(single_tokens)
    (container,) = ax.containers
    marks, _, (bars,) = container.lines
    np.testing.assert_array_equal(marks.get_xdata(), single_tokens["virtual_token"])
    np.testing.assert_allclose(marks.get_ydata(), 100 * single_tokens["difference"])
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, 100 * single_tokens[["difference_low", "difference_high"]])
    (twin,) = [other for other in ax.figure.axes if other is not ax]
    np.testing.assert_allclose([bar.get_height() for bar in twin.patches], 100 * single_tokens["accumulation"])
    assert twin.get_ylim()[1] == pytest.approx(250 * single_tokens["accumulation"].max())


def test_a_repeated_token_raises(single_tokens: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="holds a token twice"):
        plot_single_tokens(pd.concat([single_tokens, single_tokens]))


def test_tokens_that_accumulate_nothing_can_be_drawn(single_tokens: pd.DataFrame) -> None:
    ax = plot_single_tokens(single_tokens.assign(accumulation=0.0))
    (twin,) = [other for other in ax.figure.axes if other is not ax]
    assert twin.get_ylim() == (0, 2.5)
