"""Knock-outs on a model wired by hand, where it is known which prompt edges matter, and against one made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from dpc_interp import SoftPrompt, Transcript, analyse, prompted, saliency_map
from dpc_interp.corruption.knockout import edge_mask
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.causal import CausalEffects, causal_edges, curve_areas, rank_correlation
from dpc_interp.lm.lens import HookedTransformer
from dpc_interp.lm.likelihood import likelihood

TEXTS = ("buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15", "buys 8: 9 + 8 = 17\n#### 17")
STRENGTHS = (0.0, 3.0, -1.5, -0.8, -0.45, -0.25)
"""What each virtual token holds of the direction that is read: the second most, and in all nothing."""
OPTIONS = {"n_draws": 2, "fractions": (0.2, 0.5), "progress": False}


def wired(tokenizer: PreTrainedTokenizerBase) -> HookedTransformer:
    """Two layers of one head. The second adds the mean of what stands before, the first adds nothing; all entries are
    0 but where the first direction of a vector raises the logits of the tokens of `TEXTS`. Keys that hold the second
    direction get scores of about -30.
    """
    from transformer_lens import HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=2,
        d_model=2,
        n_heads=1,
        d_head=2,
        n_ctx=128,
        d_vocab=len(tokenizer),
        attn_only=True,
        normalization_type=None,
        device="cpu",
    )
    model = HookedTransformer(cfg, tokenizer=tokenizer)
    model.tokenizer = tokenizer
    for weight in model.parameters():
        weight.data.zero_()
    for block in model.blocks:
        block.attn.b_Q.data[0, 0] = 1.0
        block.attn.W_K.data[0, 1, 0] = -30 * 2**0.5
    model.blocks[1].attn.W_V.data[0, 0, 0] = model.blocks[1].attn.W_O.data[0, 0, 0] = 1.0
    for text in TEXTS:
        model.unembed.W_U.data[0, tokenizer(text).input_ids] = 2.0
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def runs(written: Callable[..., Transcript]) -> list[Transcript]:
    return [written(text, name=f"story-{i}") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def planted(needs_hooked: None, tokenizer: PreTrainedTokenizerBase, runs: list[Transcript]) -> CausalEffects:
    prompt = SoftPrompt(torch.tensor([[strength, 0.0] for strength in STRENGTHS]))
    return causal_edges(wired(tokenizer), runs, prompt, fraction=0.2, deep=(1,), **OPTIONS)


def test_only_the_planted_edges_matter(planted: CausalEffects) -> None:
    """A fifth of the edges, of 5 tokens: the top ones are all of token 1, the bottom ones all of token 5."""
    effects = planted.knockouts.set_index(["instance", "layer", "edges"])["loss_change"].sort_index()
    for instance in ("story-0", "story-1"):
        top, bottom = (effects[instance, 1, edges].item() for edges in ("top", "bottom"))
        assert top > 1e-3, "what lifts the text's tokens is gone"
        assert -top / 8 < bottom < 0, "what lowers them a little is gone"
        assert (effects[instance, 1, "random"].abs() < 0.8 * top).all()
        assert (effects[instance, 0].abs() < 1e-6).all(), "the first layer adds nothing"
        groups = planted.groups[planted.groups["instance"] == instance].set_index("group")["loss_change"]
        assert groups["1"] == pytest.approx(top, rel=1e-4)
        assert groups["5"] == pytest.approx(bottom, rel=1e-3)
    assert set(planted.groups["group"]) == set("12345")


def test_flow_and_effect_rank_alike(planted: CausalEffects) -> None:
    found = rank_correlation(planted.groups)
    assert list(found["instance"]) == ["story-0", "story-1"]
    np.testing.assert_allclose(found["absolute"], 1.0)
    assert (found["signed"] < 0.5).all(), "four of five lower the loss when they go"


def test_curves_begin_and_end_alike_and_saliency_beats_chance(planted: CausalEffects) -> None:
    curves = planted.curves
    for (_, kind), rows in curves.groupby(["instance", "kind"]):
        by_fraction = rows.groupby("fraction")["loss_change"]
        intact, bare = (0.0, 1.0) if kind == "deletion" else (1.0, 0.0)
        assert (by_fraction.get_group(intact) == 0).all()
        assert by_fraction.get_group(bare).nunique() == 1
    saliency = curves[(curves["kind"] == "deletion") & (curves["order"] == "saliency")]
    mirror = curves[(curves["kind"] == "insertion") & (curves["order"] == "reverse")].assign(
        fraction=lambda frame: 1 - frame["fraction"]
    )
    keys = ["instance", "fraction"]
    np.testing.assert_array_equal(
        saliency.sort_values(keys)["loss_change"], mirror.sort_values(keys)["loss_change"], "insertion is its mirror"
    )
    areas = curve_areas(curves, absolute=False).set_index(["kind", "order"])["advantage"].sort_index()
    assert (areas["deletion", "saliency"] > 0).all()
    assert (areas["deletion", "reverse"] < 0).all()
    assert (areas["deletion", "random"] == 0).all()
    assert (areas["insertion", "saliency"] > 0).all()


def test_areas_by_hand() -> None:
    rows = [
        ("i", True, "deletion", order, draw, fraction, change)
        for order, draw, changes in (("saliency", 0, (0, 4, 4)), ("random", 0, (0, 1, 4)), ("random", 1, (0, 3, 4)))
        for fraction, change in zip((0.0, 0.5, 1.0), changes, strict=True)
    ]
    columns = ["instance", "correct", "kind", "order", "draw", "fraction", "loss_change"]
    areas = curve_areas(pd.DataFrame(rows, columns=columns)).set_index("order")
    assert dict(areas["area"]) == {"saliency": 3.0, "random": 2.0}
    assert dict(areas["advantage"]) == {"saliency": 1.0, "random": 0.0}


def test_nothing_happens_where_the_prompt_is_ignored(
    needs_hooked: None, tokenizer: PreTrainedTokenizerBase, runs: list[Transcript]
) -> None:
    """Virtual tokens nobody attends to; where they are attended to the loss is another, though they hold nothing."""
    model = wired(tokenizer)
    model.embed.W_E.data[:, 0] = torch.randn(len(tokenizer), generator=torch.Generator().manual_seed(0))
    ignored = SoftPrompt(torch.tensor([[strength, 1.0] for strength in STRENGTHS]))
    found = causal_edges(model, runs, ignored, deep=(1,), **OPTIONS)
    for frame in (found.knockouts, found.groups, found.curves):
        assert frame["loss_change"].abs().max() < 1e-6
    assert (found.knockouts["answer_changed"] == 0).all()
    unread = SoftPrompt(torch.zeros(len(STRENGTHS), 2))
    assert (likelihood(model, runs, unread).loss - likelihood(model, runs, ignored).loss).abs().min() > 1e-4


def test_one_knock_out_made_by_hand(model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript]) -> None:
    """The top edges of a layer by scores of minus infinity, one run alone; a batch of two gives the same."""
    found = causal_edges(model, runs, prompt, **OPTIONS).knockouts
    run, layer = runs[0], 1
    map_ = saliency_map(model, run, prompt)
    first, stop = map_.segments.rationale
    late = range(first + (stop - first) // 2, stop)
    flows = {(i, j): map_.values[layer, i, j].item() for i in late for j in range(1, prompt.n_virtual)}
    top = sorted(flows, key=lambda edge: -flows[edge])[: round(0.1 * len(flows))]
    tokens = torch.cat([run.question_tokens, run.generated_tokens])
    mask = edge_mask(top, prompt.n_virtual + len(tokens))
    hook = (f"blocks.{layer}.attn.hook_attn_scores", lambda scores, hook: scores.masked_fill(mask, -torch.inf))
    with prompted(model, prompt) as read:
        plain = read(tokens[None])[0].log_softmax(-1)
        with model.hooks(fwd_hooks=[hook]):
            cut = read(tokens[None])[0].log_softmax(-1)
    targets = torch.cat([torch.zeros(prompt.n_virtual, dtype=torch.long), tokens])[1:]
    before, after = (logits[:-1].gather(1, targets[:, None])[:, 0] for logits in (plain, cut))
    begun, answer = first - 1, slice(map_.segments.answer[0] - 1, map_.segments.answer[1] - 1)
    chosen = (found["instance"] == "story-0") & (found["layer"] == layer) & (found["edges"] == "top")
    (row,) = found[chosen].to_dict("records")
    assert row["n_edges"] == len(top)
    assert row["flow"] == pytest.approx(np.mean([flows[edge] for edge in top]), rel=1e-4)
    assert row["loss_change"] == pytest.approx((before - after)[begun:].mean().item(), abs=1e-6)
    change = after[answer].sum().exp() - before[answer].sum().exp()
    assert row["answer_probability_change"] == pytest.approx(change.item(), rel=1e-2, abs=1e-12)
    assert row["answer_changed"] == float((plain[answer].argmax(-1) != cut[answer].argmax(-1)).any())


def test_neither_batch_nor_order_matters_and_the_seed_does(
    model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript], unchanged
) -> None:
    hooked = isinstance(model, HookedTransformer)  # a bridge's attention rounds otherwise in batches
    with unchanged(model):
        once = causal_edges(model, runs, prompt, **OPTIONS)
    again = causal_edges(model, runs[::-1], prompt, batch_size=1, **OPTIONS)
    other = causal_edges(model, runs, prompt, seed=1, **OPTIONS)
    columns = ("instance", "layer", "kind", "edges", "order", "draw", "group", "fraction")
    for name in ("knockouts", "groups", "curves"):
        frames = [getattr(found, name) for found in (once, again, other)]
        keys = [column for column in columns if column in frames[0]]
        one, two, three = (frame.sort_values(keys, ignore_index=True) for frame in frames)
        pd.testing.assert_frame_equal(one, two, rtol=1e-3, atol=1e-6 if hooked else 5e-6)
        assert list(frames[0]["instance"].unique()) == ["story-0", "story-1"]
        if name == "knockouts":
            drawn = one["edges"] == "random"
            assert (one["loss_change"] != three["loss_change"])[drawn].mean() > 0.9
            assert (one["loss_change"] == three["loss_change"])[~drawn].all()


def test_a_text_without_an_answer_has_no_effect_on_it(
    model: HookedTransformer, prompt: SoftPrompt, written: Callable
) -> None:
    found = causal_edges(model, [written("9 + 8 = 17")], prompt, **OPTIONS).knockouts
    assert found[["answer_probability_change", "answer_changed"]].isna().all(axis=None)
    assert found["loss_change"].notna().all()


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        ([], {}, "no runs"),
        (["#### 17"], {}, "late half"),
        (TEXTS[:1], {"fraction": 0.0}, "fraction from 0 to 1"),
        (TEXTS[:1], {"fractions": (1.0,)}, "within it"),
        (TEXTS[:1], {"deep": (7,)}, "no layer 7"),
    ],
)
def test_what_cannot_be_is_refused(
    model: HookedTransformer, prompt: SoftPrompt, written: Callable, texts: list[str], options: dict, said: str
) -> None:
    with pytest.raises(DPCInterpError, match=said):
        causal_edges(model, [written(text) for text in texts], prompt, **options)
    with pytest.raises(DPCInterpError, match="only the sink"):
        causal_edges(model, [written(TEXTS[0])], SoftPrompt(prompt.vectors[:1]))


def test_candidates_are_the_late_rows_of_the_analysis(
    model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript]
) -> None:
    groups = causal_edges(model, runs, prompt, exclude_sink=False, n_groups=2, deep=(2,), **OPTIONS).groups
    tokens = analyse(model, runs, prompt, progress=False).tokens
    late = tokens[tokens["late"] & (tokens["layer"] == 2)].groupby("instance")
    by_instance = groups.groupby("instance")
    assert dict(by_instance["n_edges"].sum()) == dict(late.size() * prompt.n_virtual)
    assert set(groups["group"].str.count(" ") + 1) == {2, 3}
    mean = (groups["flow"] * groups["n_edges"]).groupby(groups["instance"]).sum() / by_instance["n_edges"].sum()
    np.testing.assert_allclose(mean, late["value"].mean(), rtol=1e-4)
