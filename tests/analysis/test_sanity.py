"""Sanity checks of the saliency: what they change, what they leave, and that a copy is what they randomise."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from dpc_interp import SoftPrompt, Transcript, prompted, saliency_map
from dpc_interp.analysis.saliency import flow_pass
from dpc_interp.analysis.sanity import saliency_sanity
from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.lens import HookedTransformer

TEXTS = ("buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15", "buys 8: 9 + 8 = 17\n#### 17")


@pytest.fixture(scope="module")
def runs(written: Callable[..., Transcript]) -> list[Transcript]:
    return [written(text, name=f"story-{i}") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def frame(model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript]) -> pd.DataFrame:
    return saliency_sanity(model, runs, prompt, progress=False)


def test_a_row_for_every_instance_layer_source_and_change(model: HookedTransformer, frame: pd.DataFrame) -> None:
    n_layers = model.cfg.n_layers
    keys = ["instance", "test", "n_randomised", "layer", "source"]
    assert not frame.duplicated(keys).any()
    assert len(frame) == 2 * 2 * n_layers * (n_layers + 1)
    assert set(frame["n_randomised"][frame["test"] == "answers"]) == {0}
    assert set(frame["n_randomised"][frame["test"] == "weights"]) == {1, 2, 3}
    assert frame["value"].between(-1, 1).all()


def test_all_layers_randomised_leave_little(frame: pd.DataFrame) -> None:
    """A random model's other weights make another random model."""
    last = frame[(frame["test"] == "weights") & (frame["n_randomised"] == 3)]
    assert last["value"].abs().mean() < 0.35
    assert last["value"].max() < 0.8


def test_values_are_spearmans_of_the_maps(
    model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript], frame: pd.DataFrame
) -> None:
    """The shuffled answers again by hand: only what the loss looks for changes, so that all patterns stay."""
    run = runs[1]
    true = saliency_map(model, run, prompt)
    shuffled = run.generated_tokens.tolist()
    random.Random(f"0/{run.problem.id}").shuffle(shuffled)
    assert shuffled != run.generated_tokens.tolist()
    maps: dict[int, torch.Tensor] = {}
    read = torch.cat([run.question_tokens, run.generated_tokens])
    told = torch.cat([run.question_tokens, torch.tensor(shuffled)])
    n_question = len(run.question_tokens)
    flow_pass(model, [read], [n_question], prompt.vectors, maps.__setitem__, targets=[told])
    first, stop = true.segments.rationale
    found = frame[(frame["instance"] == run.problem.id) & (frame["test"] == "answers")]
    for layer, row in found[found["source"] == "all"].set_index("layer")["value"].items():
        pairs = [(i, j) for i in range(first, stop) for j in range(i)]
        i, j = (list(column) for column in zip(*pairs, strict=True))
        expected = spearmanr(true.values[layer, i, j], maps[layer][0, i, j]).statistic
        assert row == pytest.approx(expected, abs=1e-4)
    for layer, row in found[found["source"] == "prompt"].set_index("layer")["value"].items():
        block = slice(first, stop), slice(0, prompt.n_virtual)
        expected = spearmanr(true.values[layer][block].flatten(), maps[layer][0][block].flatten()).statistic
        assert row == pytest.approx(expected, abs=1e-4)


def test_targets_change_the_loss_alone(model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript]) -> None:
    """The same targets give the same saliency; others the loss of those tokens behind the true text."""
    run = runs[0]
    read = torch.cat([run.question_tokens, run.generated_tokens])
    n_question = len(run.question_tokens)
    kept: list[torch.Tensor] = []
    for told in (None, [read]):
        flow_pass(model, [read], [n_question], prompt.vectors, lambda layer, flow: kept.append(flow), targets=told)
    for plain, same in zip(kept[:3], kept[3:], strict=True):
        assert torch.equal(plain, same)
    other = read.clone()
    other[n_question:] = 7
    with prompted(model, prompt) as forward:
        logits = forward(read[None])[0].log_softmax(-1)
    nll = flow_pass(model, [read], [n_question], prompt.vectors, lambda layer, flow: None, targets=[other])[0]
    first = prompt.n_virtual + n_question
    torch.testing.assert_close(nll[first:], -logits[first - 1 : -1, 7], rtol=1e-4, atol=1e-5)


def test_only_randomised_layers_and_those_read_by_them_change(
    needs_hooked: None, build: Callable[..., HookedTransformer], prompt: SoftPrompt, runs: list[Transcript]
) -> None:
    """Where the last layer adds nothing to what is read, its weights say nothing of the layers below."""
    model = build("plain")
    for block in model.blocks[1:]:
        block.attn.W_O.data.zero_()
        block.attn.b_O.data.zero_()
        block.mlp.W_out.data.zero_()
        block.mlp.b_out.data.zero_()
    frame = saliency_sanity(model, runs, prompt, progress=False)
    first = frame[(frame["test"] == "weights") & (frame["n_randomised"] == 1)].groupby("layer")["value"]
    np.testing.assert_allclose(first.get_group(0), 1.0, atol=1e-6)
    assert first.get_group(1).isna().all(), "a saliency that is 0 everywhere ranks nothing"


def test_the_model_is_not_touched_batches_do_not_matter_and_the_seed_does(
    model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript], frame: pd.DataFrame, unchanged
) -> None:
    with unchanged(model):
        alone = saliency_sanity(model, runs, prompt, batch_size=1, progress=False)
    keys = ["instance", "test", "n_randomised", "layer", "source"]
    pair = [f.sort_values(keys, ignore_index=True) for f in (frame, alone)]
    pd.testing.assert_frame_equal(*pair, atol=1e-3)
    other = saliency_sanity(model, runs, prompt, seed=1, progress=False)
    assert not np.allclose(other["value"], frame["value"], atol=1e-2)


def test_works_on_a_bridge(hugging_face: Callable, bridge: Callable, prompt: SoftPrompt, runs: list, unchanged) -> None:
    model = bridge(hugging_face("llama"))
    with unchanged(model):
        frame = saliency_sanity(model, runs, prompt, progress=False)
    assert frame[frame["n_randomised"] == 2]["value"].mean() < 0.5


def test_runs_without_a_rationale_are_refused(model: HookedTransformer, prompt: SoftPrompt, written: Callable) -> None:
    for runs in ([], [written("#### 17")]):
        with pytest.raises(DPCInterpError, match="with a rationale"):
            saliency_sanity(model, runs, prompt)
