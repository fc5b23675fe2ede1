"""Saliency maps: the image is the matrix below its diagonal; lines and names are those of the segments."""

from __future__ import annotations

import numpy as np
import pytest

from dpc_interp.errors import DPCInterpError, NonFiniteError
from dpc_interp.plots import plot_saliency_map

Saliency = tuple[np.ndarray, dict[str, tuple[int, int]]]


def test_the_image_is_the_matrix_below_its_diagonal(saliency: Saliency) -> None:
    matrix, spans = saliency
    (image,) = plot_saliency_map(matrix, spans=spans).images
    shown = image.get_array()
    below = np.tril(np.ones_like(matrix, dtype=bool), k=-1)
    np.testing.assert_array_equal(~shown.mask, below)
    np.testing.assert_array_equal(shown.data[below], matrix[below])
    assert image.norm.vmax == matrix[below].max()
    assert image.norm.vmin == pytest.approx(matrix[below].max() / 1e4)


def test_rows_are_destinations_from_the_top(saliency: Saliency) -> None:
    matrix, spans = saliency
    ax = plot_saliency_map(matrix, spans=spans)
    assert ax.yaxis_inverted()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("source", "destination")


def test_lines_and_names_of_the_segments(saliency: Saliency) -> None:
    matrix, spans = saliency
    ax = plot_saliency_map(matrix, spans=spans)
    assert [line.get_ydata()[0] for line in ax.lines[::2]] == [11.5, 33.5, 55.5]
    assert [line.get_xdata()[0] for line in ax.lines[1::2]] == [11.5, 33.5, 55.5]
    for axis in (ax.xaxis, ax.yaxis):
        assert [tick.get_text() for tick in axis.get_ticklabels()] == ["P", "Q", "R", "A"]
        assert list(axis.get_ticklocs()) == [5.5, 22.5, 44.5, 57.5]


def test_zero_flow_takes_the_first_colour_and_pairs_that_are_not_causal_are_white(saliency: Saliency) -> None:
    matrix, spans = saliency
    matrix[10, 3] = 0.0
    (image,) = plot_saliency_map(matrix, spans=spans).images
    colors = image.to_rgba(image.get_array())
    np.testing.assert_allclose(colors[10, 3], image.cmap(0.0))
    np.testing.assert_allclose(colors[3, 10], (1, 1, 1, 1))


def test_an_empty_segment_is_left_out(saliency: Saliency) -> None:
    matrix, spans = saliency
    ax = plot_saliency_map(matrix, spans={**spans, "rationale": (34, 60), "answer": (60, 60)}, vmax=0.5)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["P", "Q", "R"]
    assert ax.images[0].norm.vmax == 0.5


def test_bad_maps_raise(saliency: Saliency) -> None:
    matrix, spans = saliency
    with pytest.raises(DPCInterpError, match=r"square.*\[60, 59\]"):
        plot_saliency_map(matrix[:, 1:], spans=spans)
    with pytest.raises(DPCInterpError, match="segment 'answer' spans 56 to 70, but the map has 60"):
        plot_saliency_map(matrix, spans={**spans, "answer": (56, 70)})
    with pytest.raises(DPCInterpError, match="no value above zero"):
        plot_saliency_map(np.zeros((4, 4)), spans={})
    with pytest.raises(NonFiniteError, match="1 values"):
        plot_saliency_map(np.where(matrix == matrix.max(), np.nan, matrix), spans=spans)


def test_the_old_keyword_still_works_and_warns(saliency: Saliency) -> None:
    matrix, spans = saliency
    with pytest.warns(DeprecationWarning, match="borders= is deprecated.*use spans="):
        ax = plot_saliency_map(matrix, borders=spans)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["P", "Q", "R", "A"]
