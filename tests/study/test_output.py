"""Files of figures and tables: rounded, without dates, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from dpc_interp.errors import DPCInterpError
from dpc_interp.study.output import Drawing, draw_or_explain, save_figure, save_frame, save_table


def make_figure() -> Figure:
    figure, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    return figure


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, 123456789.0], "n": [1, 1234567890]}, index=[5, 7])


def test_frame_is_rounded_and_loses_its_index(frame: pd.DataFrame, tmp_path: Path) -> None:
    save_frame(frame, tmp_path / "a")
    stored = pd.read_parquet(tmp_path / "a.parquet")
    assert stored["value"].tolist() == [0.333333, 123457000.0]
    assert stored["n"].tolist() == [1, 1234567890], "counts are not rounded"
    assert stored.index.tolist() == [0, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_table_holds_the_same_in_both_formats(frame: pd.DataFrame, tmp_path: Path) -> None:
    save_table(frame, tmp_path / "a")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet"))
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "name,value,n"


def test_figure_is_written_with_its_frame_and_closed(frame: pd.DataFrame, tmp_path: Path) -> None:
    figure = make_figure()
    save_figure(figure, tmp_path / "a", frame)
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.pdf", "a.parquet"}
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DPCInterpError("no answer is right"), "no answer is right"),
        (torch.OutOfMemoryError("CUDA out of memory"), "it does not fit in memory; load the model in bfloat16"),
        (MemoryError(), "it does not fit in memory; load the model in bfloat16"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(error: Exception, reason: str, tmp_path: Path) -> None:
    def fail() -> Drawing:
        make_figure()
        raise error

    assert draw_or_explain("fig", fail, tmp_path).startswith(f"fig: not drawn: {reason}")
    assert not plt.get_fignums()


def test_a_fault_is_not_hidden(tmp_path: Path) -> None:
    def fail() -> Drawing:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        draw_or_explain("fig", fail, tmp_path)


def test_figure_without_a_frame_is_written_alone(tmp_path: Path) -> None:
    save_figure(make_figure(), tmp_path / "a")
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.pdf"}


def test_same_figure_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_figure(make_figure(), tmp_path / "a")
    monkeypatch.setattr("time.time", lambda: 4e9)
    save_figure(make_figure(), tmp_path / "b")
    for suffix in ("png", "pdf"):
        first, second = (tmp_path / f"{name}.{suffix}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
        assert b"CreationDate" not in first.read_bytes()
