"""One instance token by token: the text, its place and its colour are those of the frame."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import case_height, plot_case
from dpc_interp.plots.case import CHARACTER_WIDTH, INDENT, LINE_HEIGHT, lay_out

SIZE = 7.0


def _boxes(ax: Axes) -> PolyCollection:
    return next(c for c in ax.collections if isinstance(c, PolyCollection))


def _strings(tokens: pd.DataFrame) -> list[str]:
    return list(tokens.drop_duplicates("position").sort_values("position")["token"])


def test_colours_are_the_mean_flow_over_the_last_third_of_layers(tokens: pd.DataFrame) -> None:
    deep = tokens[tokens["layer"].isin([4, 5])].groupby("position")["value"].mean().to_numpy()
    boxes = _boxes(plot_case(tokens.sample(frac=1, random_state=0)))
    np.testing.assert_allclose(boxes.get_array(), deep)
    assert boxes.get_clim() == pytest.approx((deep.max() / 1e4, deep.max()))
    assert isinstance(boxes.norm, LogNorm)


def test_layers_colour_scale_and_title_can_be_chosen(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens, layers=[0, 2], vmax=1e-3, decades=2, title="wrong")
    expected = tokens[tokens["layer"].isin([0, 2])].groupby("position")["value"].mean()
    np.testing.assert_allclose(_boxes(ax).get_array(), expected)
    assert _boxes(ax).get_clim() == (1e-5, 1e-3)
    assert ax.get_title("left") == "wrong"
    assert ax.figure.axes[1].get_xlabel() == "flow from the prompt, layers 0, 2"


def test_every_token_is_written_line_by_line(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens)
    strings = _strings(tokens)
    assert [text.get_text() for text in ax.texts] == [token.strip(" ").replace("\n", "↵") for token in strings]
    lines: dict[float, list[str]] = {}
    for text, token in zip(ax.texts, strings, strict=True):
        lines.setdefault(text.get_position()[1], []).append(token)
    assert ["".join(line) for line in lines.values()] == "".join(strings).splitlines(keepends=True)


def test_a_box_spans_its_token_with_its_leading_space(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens)
    strings = _strings(tokens)
    for path, text, token in zip(_boxes(ax).get_paths(), ax.texts, strings, strict=True):
        (left, low), (right, high) = path.vertices.min(axis=0), path.vertices.max(axis=0)
        assert right - left == pytest.approx(len(token) * CHARACTER_WIDTH * SIZE)
        assert text.get_position()[0] == pytest.approx(left + token.startswith(" ") * CHARACTER_WIDTH * SIZE)
        assert low < text.get_position()[1] < high


def test_drawn_text_lies_within_its_drawn_box(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens)
    ax.figure.draw_without_rendering()
    boxes = _boxes(ax)
    for path, text in zip(boxes.get_paths(), ax.texts, strict=True):
        box = boxes.get_transform().transform_path(path).get_extents().padded(2)
        drawn = text.get_window_extent()
        assert box.x0 <= drawn.x0
        assert drawn.x1 <= box.x1
        assert drawn.y1 <= ax.figure.bbox.y1


def test_text_is_placed_independently_of_the_size_of_the_axes(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens, ax=plt.figure(figsize=(3, 2)).add_subplot(), colorbar=False, columns=40)
    big = plot_case(tokens, ax=plt.figure(figsize=(9, 8)).add_subplot(), colorbar=False, columns=40)
    assert [t.get_position() for t in ax.texts] == [t.get_position() for t in big.texts]


def test_lay_out_by_hand() -> None:
    tokens = ["ab", " cd", "\n", "ef", " gh", " ijk", ".\n", "x"]
    assert lay_out(tokens, 8) == [(0, 0), (0, 2), (0, 5), (1, 0), (1, 2), (2, INDENT), (2, INDENT + 4), (3, 0)]
    assert lay_out(["", "a"], 8) == [(0, 0), (0, 1)]  # an empty token has a box
    assert lay_out(["a" * 20, "b"], 8) == [(0, 0), (1, INDENT)]
    assert case_height(tokens, columns=8, fontsize=10.0) == pytest.approx(4 * LINE_HEIGHT * 10 / 72)


def test_narrow_axes_break_lines_within_their_width(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens, ax=plt.figure(figsize=(1.4, 3)).add_subplot(), colorbar=False)
    widest = max(path.vertices[:, 0].max() for path in _boxes(ax).get_paths())
    assert widest <= ax.get_window_extent().width / ax.figure.dpi * 72
    assert len({t.get_position()[1] for t in ax.texts}) > 4


def test_a_bar_marks_the_start_of_the_late_half(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens)
    (bar,) = (line for line in ax.lines if isinstance(line, Line2D))
    first = int(tokens.loc[tokens["late"], "position"].min())
    assert bar.get_xdata()[0] == pytest.approx(_boxes(ax).get_paths()[first].vertices[:, 0].min())
    assert not plot_case(tokens.drop(columns="late")).lines


def test_dollar_signs_are_text_and_dark_boxes_have_white_text(tokens: pd.DataFrame) -> None:
    two = tokens[tokens["position"] < 2].assign(token=lambda t: np.where(t["position"] == 0, "$5", "$"))
    ax = plot_case(two.assign(value=two["position"].astype(float)))
    assert [text.get_text() for text in ax.texts] == ["$5", "$"]
    assert [text.get_color() for text in ax.texts] == ["black", "white"]
    ax.figure.draw_without_rendering()


def test_several_instances_unknown_layers_and_zero_flow_raise(tokens: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="column 'instance' holds several"):
        plot_case(pd.concat([tokens, tokens.assign(instance="other")]))
    with pytest.raises(DPCInterpError, match=r"column 'layer' lacks \[9\]"):
        plot_case(tokens, layers=[5, 9])
    with pytest.raises(DPCInterpError, match="no value above zero"):
        plot_case(tokens.assign(value=0.0))
