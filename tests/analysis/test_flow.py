"""A batch of two sequences of at most four positions, reduced by hand, and the frames of a batch against loops."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dpc_interp import Segments, Transcript
from dpc_interp.analysis.flow import QUESTION_AND_RATIONALE, PositionGroups, instances_frame, tokens_frame
from dpc_interp.analysis.recorder import FlowBlock
from dpc_interp.analysis.segments import segment

# one virtual token, one question token, then a rationale of two steps of one token, or of one step
TWO_STEPS = Segments(
    prompt=(0, 1), question=(1, 2), rationale=(2, 4), answer=(4, 4), steps=((2, 3), (3, 4)), length=4
)  # fmt: skip
ONE_STEP = Segments(prompt=(0, 1), question=(1, 2), rationale=(2, 3), answer=(3, 3), steps=((2, 3),), length=3)
PADDING = 1000.0
N_VIRTUAL, N_LAYERS = 3, 2
Batch = tuple[list[Transcript], list[Segments], Tensor, Tensor]


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


def blocks_of(flow: Tensor, first: int = 0) -> list[FlowBlock]:
    """One row a block, from the row `first` on."""
    n = flow.shape[1]
    return [FlowBlock(slice(i, i + 1), slice(0, i + 1), flow[:, i : i + 1, : i + 1]) for i in range(first, n)]


def test_reduction_by_hand(groups: PositionGroups, flow: Tensor) -> None:
    """Accumulation: (1 + 2 + 4) / 3 over question and rationale, and (7 + 8) / 2, in which no padding is counted."""
    reduced = groups.reduce(blocks_of(flow))
    question, rationale = 1, 2
    assert reduced.between[0, question, 0] == 1
    assert reduced.between[0, rationale, :3].tolist() == [(2 + 4) / 2, (3 + 5) / 2, 6]
    assert reduced.between[1, rationale, :2].tolist() == [8, 9]
    assert reduced.accumulation.flatten().tolist() == pytest.approx([7 / 3, 15 / 2])
    assert reduced.into_question.flatten().tolist() == [1, 7], "one question token, so one destination"
    assert reduced.from_prompt.tolist() == [[0, 1, 2, 4], [0, 7, 8, PADDING]]
    assert reduced.row_share[0].tolist() == pytest.approx([0, 1, 2 / (2 + 3), 4 / (4 + 5 + 6)])


def test_accumulation_of_each_token_by_hand() -> None:
    """Two virtual tokens; (10 + 30) / 2 and (20 + 40) / 2 into the two question tokens of the first sequence.

    The second sequence has one question token and one of the rationale; the last row is padding.
    """
    layouts = [
        Segments(prompt=(0, 2), question=(2, 4), rationale=(4, 5), answer=(5, 5), steps=((4, 5),), length=5),
        Segments(prompt=(0, 2), question=(2, 3), rationale=(3, 4), answer=(4, 4), steps=((3, 4),), length=4),
    ]
    flow = torch.zeros(2, 5, 5)
    flow[0, 2, :2] = torch.tensor([10.0, 20.0])
    flow[0, 3, :3] = torch.tensor([30.0, 40.0, 500.0])
    flow[0, 4, :4] = torch.tensor([50.0, 90.0, 500.0, 500.0])
    flow[1, 2, :2] = torch.tensor([1.0, 2.0])
    flow[1, 3, :3] = torch.tensor([3.0, 6.0, 500.0])
    flow[1, 4] = PADDING
    groups = PositionGroups.from_segments(layouts, 5, torch.device("cpu"))
    for blocks in (blocks_of(flow, 2), [FlowBlock(slice(2, 5), slice(0, 5), flow[:, 2:])]):
        reduced = groups.reduce(blocks)
        assert reduced.into_question.tolist() == [[20, 30], [1, 2]]
        assert reduced.accumulation.tolist() == [[30, 50], [2, 4]]


def test_rows_of_the_prompt_can_be_left_out(groups: PositionGroups, flow: Tensor) -> None:
    """Nothing reads the destinations in the prompt, so the last rows of the saliency are enough."""
    complete, shorter = groups.reduce(blocks_of(flow)), groups.reduce(blocks_of(flow, 1))
    assert torch.equal(shorter.accumulation, complete.accumulation)
    assert torch.equal(shorter.into_question, complete.into_question)
    assert torch.equal(shorter.between[:, 1:], complete.between[:, 1:])
    assert torch.equal(shorter.from_prompt[:, 1:], complete.from_prompt[:, 1:])


def test_frame_by_hand(groups: PositionGroups, flow: Tensor) -> None:
    """Every pair of segments and of steps that has a causal pair; the second layer is ten times the first."""
    between = groups.reduce(blocks_of(flow)).between
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


@pytest.fixture
def batch(written: Callable[..., Transcript], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Transcripts of different lengths, with and without an answer and a stop token; random flow and NLL."""
    runs = [
        written("buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15", name="two steps", gold="15"),
        written("Tom has 9.", name="no answer", stopped=False),
        written("9\n#### 17", name="one step"),
    ]
    segments = [segment(run, tokenizer, N_VIRTUAL) for run in runs]
    width = max(s.length for s in segments)
    from_prompt = torch.rand(len(runs), N_LAYERS, width)
    nll = torch.zeros(len(runs), width)
    for row, run in enumerate(runs):  # the NLL is 0 in prompt, question and padding
        start = N_VIRTUAL + len(run.question_tokens)
        nll[row, start : start + len(run.generated_tokens)] = torch.rand(len(run.generated_tokens))
    return runs, segments, from_prompt, nll


def test_rationale_tokens_by_loops(batch: Batch, tokenizer: PreTrainedTokenizerBase) -> None:
    runs, segments, from_prompt, nll = batch
    expected = []
    for layer in range(N_LAYERS):
        for row, (run, layout) in enumerate(zip(runs, segments, strict=True)):
            start, stop = layout.rationale
            for k, position in enumerate(range(start, stop)):
                expected.append(
                    {
                        "instance": run.problem.id,
                        "position": k,
                        "token": tokenizer.decode([int(run.generated_tokens[k])]),
                        "step": layout.step_of(position),
                        "late": k >= (stop - start) // 2,
                        "nll": nll[row, position].item(),
                        "layer": layer,
                        "value": from_prompt[row, layer, position].item(),
                        "row_share": from_prompt[row, layer, position].item() / 2,
                    }
                )
    frame = tokens_frame(tokenizer, runs, segments, from_prompt, from_prompt / 2, nll)
    assert frame.to_dict("records") == expected
    assert {row["step"] for row in expected} == {0, 1}
    assert len({row["instance"] for row in expected}) == 3


def test_rationale_tokens_keep_their_spaces(batch: Batch) -> None:
    """Also the first one, where a token alone is decoded without its space, as by the tokenizer of Llama-2."""
    runs, segments, from_prompt, nll = batch
    words = {f"▁w{i}": i for i in range(1 + max(int(run.tokens.max()) for run in runs))}
    spaced = Tokenizer(WordLevel(words, "▁w0"))
    spaced.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=spaced, unk_token="▁w0")
    assert fast.decode([3]) == "w3"
    frame = tokens_frame(fast, runs, segments, from_prompt, from_prompt / 2, nll)
    rationales = [run.generated_tokens[: s.n_rationale_tokens].tolist() for run, s in zip(runs, segments, strict=True)]
    assert frame["token"].tolist() == [f" w{i}" for ids in rationales for i in ids] * N_LAYERS


def test_instances_by_hand(batch: Batch) -> None:
    """The last answer token precedes the stop token; without an answer it is the last token of the rationale."""
    runs, segments, _, nll = batch
    frame = instances_frame(runs, segments, nll).set_index("instance")
    assert frame.index.tolist() == ["two steps", "no answer", "one step"]
    assert frame["correct"].tolist() == [True, False, True]
    assert frame["n_steps"].tolist() == [run.problem.n_steps for run in runs]
    assert frame["n_rationale_tokens"].tolist() == [21, 4, 2]
    for row, run in enumerate(runs):
        first, n = N_VIRTUAL + len(run.question_tokens), len(run.generated_tokens)
        generated = nll[row, first : first + n]
        last = n - 1 if run.problem.id == "no answer" else n - 2
        assert frame["nll"].iloc[row] == pytest.approx(generated.mean().item())
        assert frame["answer_nll"].iloc[row] == generated[last].item()
