"""The frames of a batch against loops over its transcripts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dpc_interp import Segments, Transcript
from dpc_interp.analysis.segments import segment
from dpc_interp.analysis.token_frames import instances_frame, tokens_frame

N_VIRTUAL, N_LAYERS = 3, 2
Batch = tuple[list[Transcript], list[Segments], Tensor, Tensor]


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
    from_prompt = torch.rand(len(runs), N_LAYERS, width - N_VIRTUAL)
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
                        "value": from_prompt[row, layer, position - N_VIRTUAL].item(),
                    }
                )
    frame = tokens_frame(tokenizer, runs, segments, from_prompt, nll)
    assert frame.to_dict("records") == expected
    assert {row["step"] for row in expected} == {0, 1}
    assert len({row["instance"] for row in expected}) == 3


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
