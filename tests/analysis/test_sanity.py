"""Sanity checks of the saliency: their correlations, and that only a copy of the model is randomised."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from dpc_interp import SoftPrompt, Transcript, prompted, saliency_map
from dpc_interp.analysis.recorder import whole_map
from dpc_interp.analysis.saliency import saliency_pass
from dpc_interp.analysis.sanity import saliency_sanity
from dpc_interp.errors import DPCInterpError
from dpc_interp.models.lens import HookedTransformer

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


def test_randomising_all_layers_destroys_the_saliency(frame: pd.DataFrame) -> None:
    """With its weights shuffled, the random model is another random model."""
    last = frame[(frame["test"] == "weights") & (frame["n_randomised"] == 3)]
    assert last["value"].abs().mean() < 0.35
    assert last["value"].max() < 0.8


def test_values_are_spearmans_of_the_maps(
    model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript], frame: pd.DataFrame
) -> None:
    """Shuffled answers recomputed: only the labels of the loss change, so that all patterns stay."""
    run = runs[1]
    true = saliency_map(model, run, prompt)
    shuffled = run.generated_tokens.tolist()
    random.Random(f"0/{run.problem.id}").shuffle(shuffled)
    assert shuffled != run.generated_tokens.tolist()
    targets = torch.cat([run.question_tokens, torch.tensor(shuffled)])
    n_question = len(run.question_tokens)
    maps = saliency_pass(model, [run.tokens], [n_question], prompt.vectors, whole_map, targets=[targets]).layers
    first, stop = true.segments.rationale
    rows = frame[(frame["instance"] == run.problem.id) & (frame["test"] == "answers")]
    for layer, value in rows[rows["source"] == "all"].set_index("layer")["value"].items():
        pairs = [(i, j) for i in range(first, stop) for j in range(i)]
        i, j = (list(column) for column in zip(*pairs, strict=True))
        expected = spearmanr(true.values[layer, i, j], maps[layer][0, i, j]).statistic
        assert value == pytest.approx(expected, abs=1e-4)
    for layer, value in rows[rows["source"] == "prompt"].set_index("layer")["value"].items():
        block = slice(first, stop), slice(0, prompt.n_virtual)
        expected = spearmanr(true.values[layer][block].flatten(), maps[layer][0][block].flatten()).statistic
        assert value == pytest.approx(expected, abs=1e-4)


def test_plain_text_has_no_edges_from_a_prompt(model: HookedTransformer, runs: list[Transcript]) -> None:
    """The values are Spearman's of the maps, over the strictly causal edges into the rationale."""
    frame = saliency_sanity(model, runs[:1], None, progress=False)
    assert set(frame["source"]) == {"all"}
    assert len(frame) == model.cfg.n_layers * (model.cfg.n_layers + 1)
    assert frame["value"].between(-1, 1).all()
    last = frame[(frame["test"] == "weights") & (frame["n_randomised"] == model.cfg.n_layers)]
    assert last["value"].abs().max() < 0.8


def test_targets_change_only_the_loss(model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript]) -> None:
    """The same targets give the same saliency; others give the loss of those tokens after the true text."""
    run = runs[0]
    tokens = run.tokens
    n_question = len(run.question_tokens)
    without_targets, same_targets = (
        saliency_pass(model, [tokens], [n_question], prompt.vectors, whole_map, targets=targets).layers
        for targets in (None, [tokens])
    )
    for plain, same in zip(without_targets, same_targets, strict=True):
        assert torch.equal(plain, same)
    other = tokens.clone()
    other[n_question:] = 7
    with prompted(model, prompt) as forward:
        logits = forward(tokens[None])[0].log_softmax(-1)
    nll = saliency_pass(model, [tokens], [n_question], prompt.vectors, lambda flow: None, targets=[other]).nll[0]
    first = prompt.n_virtual + n_question
    torch.testing.assert_close(nll[first:], -logits[first - 1 : -1, 7], rtol=1e-4, atol=1e-5)


def test_layers_below_change_only_through_the_output_of_the_randomised_ones(
    needs_hooked: None, build: Callable[..., HookedTransformer], prompt: SoftPrompt, runs: list[Transcript]
) -> None:
    """The last layer adds nothing to the residual stream, so its weights have no influence on the layer below."""
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


def test_the_model_is_left_unchanged_and_values_depend_on_the_seed_but_not_on_batches(
    model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript], frame: pd.DataFrame, unchanged
) -> None:
    with unchanged(model):
        unbatched = saliency_sanity(model, runs, prompt, batch_size=1, progress=False)
    keys = ["instance", "test", "n_randomised", "layer", "source"]
    pair = [f.sort_values(keys, ignore_index=True) for f in (frame, unbatched)]
    pd.testing.assert_frame_equal(*pair, atol=1e-3)
    other = saliency_sanity(model, runs, prompt, seed=1, progress=False)
    assert not np.allclose(other["value"], frame["value"], atol=1e-2)


def test_works_on_a_bridge(hugging_face: Callable, bridge: Callable, prompt: SoftPrompt, runs: list, unchanged) -> None:
    model = bridge(hugging_face("llama"))
    with unchanged(model):
        frame = saliency_sanity(model, runs, prompt, progress=False)
    assert frame[frame["n_randomised"] == 2]["value"].mean() < 0.5


def test_runs_without_a_rationale_raise(model: HookedTransformer, prompt: SoftPrompt, written: Callable) -> None:
    for runs in ([], [written("#### 17")]):
        with pytest.raises(DPCInterpError, match="with a rationale"):
            saliency_sanity(model, runs, prompt)
