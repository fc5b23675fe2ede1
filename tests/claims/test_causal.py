"""Knock-outs in a model wired by hand, in which it is known which edges matter, and against one knock-out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from dpc_interp import SoftPrompt, Transcript, analyse, prompted, saliency_map
from dpc_interp.claims.causal import CausalEffects, causal_edges
from dpc_interp.claims.causal_scores import curve_areas, rank_correlation
from dpc_interp.claims.edge_batch import EdgeBatch, Order
from dpc_interp.errors import DPCInterpError
from dpc_interp.generation.likelihood import likelihood
from dpc_interp.interventions.knockout import edge_mask
from dpc_interp.models.lens import HookedTransformer

TEXTS = ("buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15", "buys 8: 9 + 8 = 17\n#### 17")
STRENGTHS = (0.0, 3.0, -1.5, -0.8, -0.45, -0.25)
"""Component of each virtual token in the direction that the model reads: largest for token 1; their sum is zero."""
OPTIONS = {"n_draws": 2, "fractions": (0.2, 0.5), "progress": False}


def wired(tokenizer: PreTrainedTokenizerBase) -> HookedTransformer:
    """Two layers of one head. The second layer adds the mean of the earlier positions, the first adds nothing.

    The first direction of a vector raises the logits of the tokens of `TEXTS`; keys along the second direction get
    scores of about -30. All other weights are 0.
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
        model.unembed.W_U.data[0, tokenizer(text, add_special_tokens=False).input_ids] = 2.0
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
    effects = (
        planted.knockouts.dropna(subset="layer").set_index(["instance", "layer", "edges"])["loss_change"].sort_index()
    )
    for instance in ("story-0", "story-1"):
        top, bottom = (effects[instance, 1, edges].item() for edges in ("top", "bottom"))
        assert top > 1e-3, "token 1 raised the logits of the text"
        assert -top / 8 < bottom < 0, "token 5 lowered them a little"
        assert (effects[instance, 1, "random"].abs() < 0.8 * top).all()
        assert (effects[instance, 0].abs() < 1e-6).all(), "the first layer adds nothing"
        groups = planted.groups[planted.groups["instance"] == instance].set_index("group")["loss_change"]
        assert groups["1"] == pytest.approx(top, rel=1e-4)
        assert groups["5"] == pytest.approx(bottom, rel=1e-3)
    assert set(planted.groups["group"]) == set("12345")


def test_tokens_are_removed_singly_and_together(planted: CausalEffects) -> None:
    """The four top tokens of the second layer."""
    groups = planted.groups.set_index(["instance", "group"])["loss_change"]
    for row in planted.redundancy.query("layer == 1").to_dict("records"):
        assert row["tokens"].split()[:2] == ["1", "2"], "the strongest first"
        assert sorted(row["tokens"].split()) == list("1234")
        assert row["single_size"] == pytest.approx(
            sum(abs(groups[row["instance"], token]) for token in "1234"), rel=1e-5
        )
        assert row["single"] == pytest.approx(sum(groups[row["instance"], token] for token in "1234"), rel=1e-5)
        assert row["joint"] != pytest.approx(row["single"], rel=1e-2), "the loss is not linear"
    assert (planted.redundancy.query("layer == 0")[["joint", "single"]].abs() < 1e-6).all(axis=None)


def test_removing_every_token_together_is_the_end_of_the_deletion_curve(
    needs_hooked: None, tokenizer: PreTrainedTokenizerBase, runs: list[Transcript]
) -> None:
    prompt = SoftPrompt(torch.tensor([[strength, 0.0] for strength in STRENGTHS]))
    effects = causal_edges(wired(tokenizer), runs, prompt, n_top=9, deep=(1,), **OPTIONS)
    joint = effects.redundancy.query("layer == 1").set_index("instance")["joint"]
    bare = effects.curves.query("kind == 'deletion' and fraction == 1").groupby("instance")["loss_change"].first()
    pd.testing.assert_series_equal(joint, bare, check_names=False)


def test_random_edges_are_drawn_anew_at_each_layer(
    needs_hooked: None, tokenizer: PreTrainedTokenizerBase, runs: list[Transcript], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    orders_of = EdgeBatch.orders

    def record(batch: EdgeBatch, row: int, flow: object, n_draws: int, seed: int | str) -> dict[tuple[str, int], Order]:
        orders = orders_of(batch, row, flow, n_draws, seed)
        if row == 0:
            drawn.append(orders["random", 0].tolist())
        return orders

    monkeypatch.setattr(EdgeBatch, "orders", record)
    prompt = SoftPrompt(torch.tensor([[strength, 0.0] for strength in STRENGTHS]))
    causal_edges(wired(tokenizer), runs, prompt, fraction=0.2, deep=(1,), **OPTIONS)
    first, second, deep, _ = drawn  # each layer, all deep layers, the curves
    assert sorted(first) == sorted(second) == sorted(deep)
    assert len({tuple(order) for order in (first, second, deep)}) == 3


def test_flow_and_effect_have_the_same_ranks(planted: CausalEffects) -> None:
    correlations = rank_correlation(planted.groups)
    assert list(correlations["instance"]) == ["story-0", "story-1"]
    np.testing.assert_allclose(correlations["absolute"], 1.0)
    assert (correlations["signed"] < 0.5).all(), "removing four of the five tokens lowers the loss"


def test_curves_share_their_ends_and_saliency_beats_chance(planted: CausalEffects) -> None:
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


def test_nothing_changes_where_the_prompt_is_ignored(
    needs_hooked: None, tokenizer: PreTrainedTokenizerBase, runs: list[Transcript]
) -> None:
    """No position attends to the virtual tokens. Attention to empty virtual tokens does change the loss."""
    model = wired(tokenizer)
    model.embed.W_E.data[:, 0] = torch.randn(len(tokenizer), generator=torch.Generator().manual_seed(0))
    ignored = SoftPrompt(torch.tensor([[strength, 1.0] for strength in STRENGTHS]))
    effects = causal_edges(model, runs, ignored, deep=(1,), **OPTIONS)
    for frame in (effects.knockouts, effects.groups, effects.curves):
        assert frame["loss_change"].abs().max() < 1e-6
    assert (effects.knockouts["answer_changed"] == 0).all()
    attended = SoftPrompt(torch.zeros(len(STRENGTHS), 2))
    assert (likelihood(model, runs, attended).loss - likelihood(model, runs, ignored).loss).abs().min() > 1e-4


def test_one_knock_out_by_hand(model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript]) -> None:
    """In an unbatched run the top edges of a layer get scores of minus infinity; `causal_edges` reads two at a time."""
    knockouts = causal_edges(model, runs, prompt, **OPTIONS).knockouts
    run, layer = runs[0], 1
    map_ = saliency_map(model, run, prompt)
    first, stop = map_.segments.rationale
    late = range(first + (stop - first) // 2, stop)
    flows = {(i, j): map_.values[layer, i, j].item() for i in late for j in range(1, prompt.n_virtual)}
    top = sorted(flows, key=lambda edge: -flows[edge])[: round(0.1 * len(flows))]
    tokens = torch.cat([run.question_tokens, run.generated_tokens])
    mask = edge_mask(top, prompt.n_virtual + len(tokens))
    hook = (f"blocks.{layer}.attn.hook_attn_scores", lambda scores, hook: scores.masked_fill(mask, -torch.inf))
    with prompted(model, prompt) as run_model:
        plain = run_model(tokens[None])[0].log_softmax(-1)
        with model.hooks(fwd_hooks=[hook]):
            cut = run_model(tokens[None])[0].log_softmax(-1)
    targets = torch.cat([torch.zeros(prompt.n_virtual, dtype=torch.long), tokens])[1:]
    before, after = (logits[:-1].gather(1, targets[:, None])[:, 0] for logits in (plain, cut))
    rationale_start, answer = first - 1, slice(map_.segments.answer[0] - 1, map_.segments.answer[1] - 1)
    chosen = (knockouts["instance"] == "story-0") & (knockouts["layer"] == layer) & (knockouts["edges"] == "top")
    (row,) = knockouts[chosen].to_dict("records")
    assert row["n_edges"] == len(top)
    assert row["flow"] == pytest.approx(np.mean([flows[edge] for edge in top]), rel=1e-4)
    assert row["loss_change"] == pytest.approx((before - after)[rationale_start:].mean().item(), abs=1e-6)
    change = after[answer].sum().exp() - before[answer].sum().exp()
    assert row["answer_probability_change"] == pytest.approx(change.item(), rel=1e-2, abs=1e-12)
    assert row["answer_changed"] == float((plain[answer].argmax(-1) != cut[answer].argmax(-1)).any())


def test_neither_batch_nor_order_matters_and_the_seed_does(
    model: HookedTransformer, prompt: SoftPrompt, runs: list[Transcript], unchanged
) -> None:
    hooked = isinstance(model, HookedTransformer)  # attention of a bridge rounds differently in batches
    with unchanged(model):
        once = causal_edges(model, runs, prompt, **OPTIONS)
    again = causal_edges(model, runs[::-1], prompt, batch_size=1, **OPTIONS)
    other = causal_edges(model, runs, prompt, seed=1, **OPTIONS)
    columns = ("instance", "layer", "kind", "edges", "order", "draw", "group", "fraction")
    for name in ("knockouts", "groups", "redundancy", "curves"):
        frames = [getattr(effects, name) for effects in (once, again, other)]
        keys = [column for column in columns if column in frames[0]]
        one, two, three = (frame.sort_values(keys, ignore_index=True) for frame in frames)
        pd.testing.assert_frame_equal(one, two, rtol=1e-3, atol=1e-6 if hooked else 5e-6)
        assert list(frames[0]["instance"].unique()) == ["story-0", "story-1"]
        if name == "knockouts":
            is_random = one["edges"] == "random"
            assert (one["loss_change"] != three["loss_change"])[is_random].mean() > 0.9
            assert (one["loss_change"] == three["loss_change"])[~is_random].all()


def test_changes_of_the_answer_are_nan_without_an_answer(
    model: HookedTransformer, prompt: SoftPrompt, written: Callable
) -> None:
    knockouts = causal_edges(model, [written("9 + 8 = 17")], prompt, **OPTIONS).knockouts
    assert knockouts[["answer_probability_change", "answer_changed"]].isna().all(axis=None)
    assert knockouts["loss_change"].notna().all()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "no runs"),
        (["#### 17"], {}, "late half"),
        (TEXTS[:1], {"fraction": 0.0}, "fraction from 0 to 1"),
        (TEXTS[:1], {"fractions": (1.0,)}, "within it"),
        (TEXTS[:1], {"deep": (7,)}, "no layer 7"),
        (TEXTS[:1], {"gamma": 5}, "unknown option 'gamma'; known: deep"),
    ],
)
def test_invalid_arguments_raise(
    model: HookedTransformer, prompt: SoftPrompt, written: Callable, texts: list[str], options: dict, message: str
) -> None:
    with pytest.raises(DPCInterpError, match=message):
        causal_edges(model, [written(text) for text in texts], prompt, **options)
    with pytest.raises(DPCInterpError, match="only sinks"):
        causal_edges(model, [written(TEXTS[0])], SoftPrompt(prompt.vectors[:1]))


def test_candidates_are_the_late_tokens_of_the_analysis(
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
