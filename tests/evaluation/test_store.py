"""A stage is stored whole or not at all, and made once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import DPCInterpError
from dpc_interp.evaluation.store import RunStore, SharedStore, digest

FRAME = pd.DataFrame({"instance": ["a", "b"], "generated_tokens": [[1, 2], []], "answer": ["3", None]})


def never() -> pd.DataFrame:
    pytest.fail("a stored stage was made again")


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    first = RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", lambda: FRAME)
    again = RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", never)
    pd.testing.assert_frame_equal(first, again)
    assert [list(tokens) for tokens in again["generated_tokens"]] == [[1, 2], []]
    assert again["answer"].isna().tolist() == [False, True]


def test_an_interrupted_stage_leaves_the_others(tmp_path: Path) -> None:
    def interrupted() -> pd.DataFrame:
        raise KeyboardInterrupt

    store = RunStore(tmp_path, {})
    store.stage("pt", lambda: FRAME)
    with pytest.raises(KeyboardInterrupt):
        store.stage("base", interrupted)
    again = RunStore(tmp_path, {})
    again.stage("pt", never)
    assert len(again.stage("base", lambda: FRAME)) == 2


def test_a_half_written_file_is_not_read(tmp_path: Path, monkeypatch) -> None:
    def half(self: pd.DataFrame, path: Path) -> None:
        path.write_bytes(b"PAR1 and no more")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", half)
        with pytest.raises(OSError, match="disk full"):
            RunStore(tmp_path, {}).stage("pt", lambda: FRAME)
    assert len(RunStore(tmp_path, {}).stage("pt", lambda: FRAME)) == 2


def test_other_options_are_refused_by_name(tmp_path: Path) -> None:
    RunStore(tmp_path, {"gamma": 10, "seed": 0, "rule": None}).stage("pt", lambda: FRAME)
    for options in (
        {"gamma": 20, "seed": 0, "rule": None},
        {"seed": 0, "rule": None},
        {"gamma": 20, "rule": None, "seed": 0, "x": 1},
    ):
        with pytest.raises(DPCInterpError, match="another gamma"):
            RunStore(tmp_path, options)
    RunStore(tmp_path, {"rule": None, "seed": 0, "gamma": 10}).stage("pt", never)


def test_without_a_folder_nothing_is_kept() -> None:
    store = RunStore(None, {"gamma": 10})
    assert store.stage("pt", lambda: FRAME) is FRAME


def test_a_shared_store_holds_each_stage_once(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "grid"):
        store = SharedStore(folder)
        first = store.stage("pt-0", lambda: FRAME)
        assert store.stage("pt-0", never) is first
    again = SharedStore(tmp_path / "grid")
    pd.testing.assert_frame_equal(again.stage("pt-0", never), first)
    assert [len(frame) for frame in again.stored("pt-")] == [2]
    assert again.stored("base-") == []


def test_single_runs_and_ablations_do_not_mix(tmp_path: Path) -> None:
    RunStore(tmp_path / "run", {"gamma": 10}).stage("pt", lambda: FRAME)
    with pytest.raises(DPCInterpError, match="holds a single run of evaluate"):
        SharedStore(tmp_path / "run")
    SharedStore(tmp_path / "grid").stage("pt-0", lambda: FRAME)
    with pytest.raises(DPCInterpError, match="holds the stages of an ablation"):
        RunStore(tmp_path / "grid", {"gamma": 10})


def test_digest_tells_where_parts_end() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert digest(b"ab") == digest(b"ab")
