"""The error between two sets of logits against values worked by hand."""

from __future__ import annotations

from math import inf, isnan, log

import pytest
import torch

from dpc_interp.parity.comparison import Comparison, compare, relative_error, without_error

EVEN, QUARTER = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]]).log()


def test_error_by_hand() -> None:
    """Probabilities (1/2, 1/2) against (1/4, 3/4): |log 1/2 - log 1/4| = log 2, over |log 1/4| = 2 log 2."""
    assert relative_error(Comparison(EVEN, QUARTER, "")) == pytest.approx(0.5)
    assert relative_error(Comparison(QUARTER, EVEN, "")) == pytest.approx(1.0), "relative to the second"
    assert relative_error(Comparison(EVEN, EVEN + 7, "")) == 0, "a constant does not change probabilities"


def test_nan_is_an_infinite_error() -> None:
    assert relative_error(Comparison(torch.tensor([[torch.nan, 0.0]]), QUARTER, "")) == inf
    assert compare("check", [Comparison(torch.full((1, 2), torch.nan), QUARTER, "row 0")], 1e9).verdict == "fail"


def test_the_largest_error_decides() -> None:
    comparisons = [Comparison(EVEN, EVEN, "row 0"), Comparison(EVEN, QUARTER, "row 1"), Comparison(EVEN, EVEN, "row 2")]
    row = compare("check", comparisons, 0.4)
    assert (row.check, row.verdict, row.reason) == ("check", "fail", "largest difference: row 1")
    assert (row.error, row.tolerance) == (pytest.approx(0.5), 0.4)
    row = compare("check", comparisons, 0.6)
    assert (row.verdict, row.reason) == ("pass", "row 1")


def test_errors_are_computed_in_float64() -> None:
    """A difference of 1e-9 in a logit is lost in float32."""
    logits = torch.tensor([[0.0, 1e-9]], dtype=torch.float64)
    assert relative_error(Comparison(logits, EVEN.double(), "")) == pytest.approx(5e-10 / log(2), rel=1e-6)


def test_vocabularies_of_another_size_fail() -> None:
    row = compare("check", [Comparison(torch.zeros(1, 3), EVEN, "row 0")], 1.0)
    assert (row.verdict, row.reason) == ("fail", "the vocabularies differ: 3 entries here, 2 there")


def test_a_row_without_error() -> None:
    row = without_error("check", "not checked", "no model")
    assert (row.check, row.verdict, row.reason) == ("check", "not checked", "no model")
    assert isnan(row.error)
    assert isnan(row.tolerance)
