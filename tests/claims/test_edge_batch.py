"""Candidate edges, their orders, and the changes when some are removed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dpc_interp import SoftPrompt, Transcript, edge_mask, knocked_out, saliency_map
from dpc_interp.analysis.segments import Segments, segment
from dpc_interp.claims.edge_batch import EdgeBatch
from dpc_interp.generation.likelihood import likelihood
from dpc_interp.models.hooked import HookedModel

TEXTS = ("buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15", "buys 8: 9 + 8 = 17\n#### 17")


@pytest.fixture(scope="module")
def runs(written: Callable[..., Transcript]) -> list[Transcript]:
    return [written(text, name=f"story-{i}") for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def segments(runs: list[Transcript], tokenizer, prompt: SoftPrompt) -> list[Segments]:
    return [segment(run, tokenizer, prompt.n_virtual) for run in runs]


@pytest.fixture(scope="module")
def batch(model: HookedModel, runs: list[Transcript], segments: list[Segments], prompt: SoftPrompt) -> EdgeBatch:
    return EdgeBatch(model, runs, segments, prompt, sinks=(0,), head_reduction="abs_of_sum")


def test_edges_go_from_virtual_tokens_to_the_late_half_with_their_flow(
    model: HookedModel, batch: EdgeBatch, runs: list[Transcript], segments: list[Segments], prompt: SoftPrompt
) -> None:
    for row, run in enumerate(runs):
        edges, flow = batch.edges(row, (0, 2))
        expected = [
            [layer, position, token]
            for layer in (0, 2)
            for position in range(*segments[row].late)
            for token in range(1, prompt.n_virtual)
        ]
        assert edges.tolist() == expected
        values = saliency_map(model, run, prompt).values[edges[:, 0], edges[:, 1], edges[:, 2]]
        np.testing.assert_allclose(flow, values.numpy(), rtol=1e-3, atol=1e-7)


def test_the_sink_is_a_candidate_unless_it_is_excluded(
    model: HookedModel, batch: EdgeBatch, runs: list[Transcript], segments: list[Segments], prompt: SoftPrompt
) -> None:
    with_sink = EdgeBatch(model, runs, segments, prompt, sinks=(), head_reduction="abs_of_sum")
    assert not batch.candidates[..., 0].any()
    assert with_sink.candidates[..., 0].any()
    assert torch.equal(with_sink.candidates[..., 1:], batch.candidates[..., 1:])


def test_changes_are_those_of_the_likelihood_under_knock_out(
    model: HookedModel, batch: EdgeBatch, runs: list[Transcript], segments: list[Segments], prompt: SoftPrompt
) -> None:
    """The rows lose different edges, at different layers; each is compared with an unbatched run."""
    removed = [batch.edges(0, (0,))[0], batch.edges(1, (1, 2))[0][:7]]
    changes = batch.changes_without(removed)
    for row, run in enumerate(runs):
        n_positions = prompt.n_virtual + len(run.tokens)
        masks = {
            layer: edge_mask([(i, j) for at, i, j in removed[row].tolist() if at == layer], n_positions)
            for layer in range(3)
        }
        before = likelihood(model, [run], prompt)
        with knocked_out(model, masks):
            after = likelihood(model, [run], prompt)
        answer = slice(*segments[row].answer)
        assert changes[row]["loss_change"] == pytest.approx(float(after.loss - before.loss), abs=2e-6)
        probabilities = [float(torch.exp(-nll[0, answer].sum())) for nll in (before.nll, after.nll)]
        assert changes[row]["answer_probability_change"] == pytest.approx(
            probabilities[1] - probabilities[0], rel=1e-2, abs=1e-9
        )
        differs = (before.predicted[0, answer] != after.predicted[0, answer]).any()
        assert changes[row]["answer_changed"] == float(differs)
    assert all(abs(change["loss_change"]) > 1e-5 for change in changes), "the removed edges must matter"


def test_removing_nothing_changes_nothing(batch: EdgeBatch) -> None:
    empty = torch.zeros(0, 3, dtype=torch.long)
    for change in batch.changes_without([empty, empty]):
        assert change == {"loss_change": 0.0, "answer_probability_change": 0.0, "answer_changed": 0.0}


def test_a_row_without_an_answer_has_no_change_of_it(
    model: HookedModel, written: Callable[..., Transcript], tokenizer, prompt: SoftPrompt
) -> None:
    run = written("9 + 8 = 17")
    batch = EdgeBatch(model, [run], [segment(run, tokenizer, prompt.n_virtual)], prompt, (0,), "abs_of_sum")
    (change,) = batch.changes_without([batch.edges(0, (0,))[0]])
    assert np.isnan(change["answer_probability_change"])
    assert np.isnan(change["answer_changed"])
    assert np.isfinite(change["loss_change"])


def test_orders_by_hand(batch: EdgeBatch) -> None:
    orders = batch.orders(0, np.array([2.0, 5.0, 2.0, 9.0]), n_draws=2, seed=0)
    assert list(orders) == [("saliency", 0), ("reverse", 0), ("random", 0), ("random", 1)]
    assert orders["saliency", 0].tolist() == [3, 1, 0, 2], "ties keep the order of the edges"
    assert orders["reverse", 0].tolist() == [2, 0, 1, 3]


def test_random_orders_depend_on_seed_instance_and_draw(batch: EdgeBatch) -> None:
    flow = np.zeros(50)
    orders = [
        batch.orders(row, flow, n_draws=2, seed=seed)["random", draw].tolist()
        for row, seed, draw in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert batch.orders(0, flow, n_draws=1, seed=0)["random", 0].tolist() == orders[0]


def test_instance_columns(batch: EdgeBatch, runs: list[Transcript]) -> None:
    assert [batch.instance_columns(row) for row in range(2)] == [
        {"instance": run.problem.id, "correct": run.correct} for run in runs
    ]
    assert [run.correct for run in runs] == [False, True], "the gold answer is 17"
