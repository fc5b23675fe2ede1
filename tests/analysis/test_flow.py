"""A batch of two sequences of at most four positions, reduced by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import Tensor

from dpc_interp import Segments
from dpc_interp.analysis.flow import QUESTION_AND_RATIONALE, PositionGroups

# one virtual token, one question token, then a rationale of two steps of one token, or of one step
TWO_STEPS = Segments(
    prompt=(0, 1), question=(1, 2), rationale=(2, 4), answer=(4, 4), steps=((2, 3), (3, 4)), length=4
)  # fmt: skip
ONE_STEP = Segments(prompt=(0, 1), question=(1, 2), rationale=(2, 3), answer=(3, 3), steps=((2, 3),), length=3)
PADDING = 1000.0


@pytest.fixture
def groups() -> PositionGroups:
    return PositionGroups.from_segments([TWO_STEPS, ONE_STEP], 4, torch.device("cpu"))


@pytest.fixture
def flow() -> Tensor:
    """I [batch, destination, source]; the last position of the second sequence is padding."""
    return torch.tensor(
        [
            [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [2.0, 3.0, 0.0, 0.0], [4.0, 5.0, 6.0, 0.0]],
            [[0.0, 0.0, 0.0, 0.0], [7.0, 0.0, 0.0, 0.0], [8.0, 9.0, 0.0, 0.0], [PADDING] * 4],
        ]
    )


def test_groups_and_causal_pairs_by_hand(groups: PositionGroups) -> None:
    """The rationale of two tokens has one causal pair in itself, a step of one token none."""
    assert groups.names == (
        ("prompt", None),
        ("question", None),
        ("rationale", None),
        ("answer", None),
        ("rationale", 0),
        ("rationale", 1),
        (QUESTION_AND_RATIONALE, None),
    )
    assert groups.n_virtual == 1
    assert groups.member[0].tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [0, 1, 1, 1],
    ]
    rationale, first_step, last_step = 2, 4, 5
    assert groups.pairs[0, rationale].tolist() == [2, 2, 1, 0, 1, 0, 3]
    assert groups.pairs[0, last_step, first_step] == 1
    assert groups.pairs[0, first_step, last_step] == 0, "a later step is no source of an earlier one"
    assert groups.pairs[0, first_step, first_step] == 0
    assert groups.member[1, last_step].sum() == 0


def test_reduction_by_hand(groups: PositionGroups, flow: Tensor) -> None:
    """Accumulation: (1 + 2 + 4) / 3 over question and rationale, and (7 + 8) / 2, in which no padding is counted."""
    reduced = groups.reduce(flow)
    question, rationale = 1, 2
    assert reduced.between[0, question, 0] == 1
    assert reduced.between[0, rationale, :3].tolist() == [(2 + 4) / 2, (3 + 5) / 2, 6]
    assert reduced.between[1, rationale, :2].tolist() == [8, 9]
    assert reduced.accumulation.flatten().tolist() == pytest.approx([7 / 3, 15 / 2])
    assert reduced.from_prompt.tolist() == [[0, 1, 2, 4], [0, 7, 8, PADDING]]


def test_rows_of_the_prompt_can_be_left_out(groups: PositionGroups, flow: Tensor) -> None:
    """Nothing reads the destinations in the prompt, so the last rows of the saliency are enough."""
    complete, shorter = groups.reduce(flow), groups.reduce(flow[:, 1:])
    assert torch.equal(shorter.accumulation, complete.accumulation)
    assert torch.equal(shorter.between[:, 1:], complete.between[:, 1:])
    assert torch.equal(shorter.from_prompt, complete.from_prompt[:, 1:])


def test_frame_by_hand(groups: PositionGroups, flow: Tensor) -> None:
    """Every pair of segments and of steps that has a causal pair; the second layer is ten times the first."""
    between = groups.reduce(flow).between
    frame = groups.flow_frame(torch.stack([between, 10 * between], dim=1), ["two", "one"])
    first = [
        ("two", "prompt", None, "question", None, 1.0),
        ("two", "prompt", None, "rationale", None, 3.0),
        ("two", "question", None, "rationale", None, 4.0),
        ("two", "rationale", None, "rationale", None, 6.0),
        ("two", "prompt", None, "rationale", 0, 2.0),
        ("two", "question", None, "rationale", 0, 3.0),
        ("two", "prompt", None, "rationale", 1, 4.0),
        ("two", "question", None, "rationale", 1, 5.0),
        ("two", "rationale", 0, "rationale", 1, 6.0),
        ("one", "prompt", None, "question", None, 7.0),
        ("one", "prompt", None, "rationale", None, 8.0),
        ("one", "question", None, "rationale", None, 9.0),
        ("one", "prompt", None, "rationale", 0, 8.0),
        ("one", "question", None, "rationale", 0, 9.0),
    ]
    columns = ["instance", "source", "source_step", "destination", "step", "value"]
    expected = pd.DataFrame(first, columns=columns).astype({"source_step": "Int64", "step": "Int64"})
    for layer, factor in enumerate((1, 10)):
        rows = frame.loc[frame["layer"] == layer, columns].reset_index(drop=True)
        scaled = expected.assign(value=factor * expected["value"])
        pd.testing.assert_frame_equal(rows, scaled, check_dtype=False)
        assert rows["step"].dtype == rows["source_step"].dtype == "Int64"
