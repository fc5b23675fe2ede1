"""The frames of `analyse` against plain loops over the saliency map of each transcript."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from dpc_interp import (
    Analysis,
    DPCInterpError,
    Problem,
    SaliencyMap,
    SoftPrompt,
    Transcript,
    accumulation_peaks,
    analyse,
    drop_empty_rationales,
    generate,
    plan_corruption,
    plan_knockout,
    plots,
    prompted,
    saliency,
    saliency_map,
    trigger_statistics,
)
from dpc_interp.analysis.segments import segment
from dpc_interp.generation.likelihood import likelihood
from dpc_interp.models.lens import HookedTransformer

KEYS = {
    "flow": ["instance", "layer", "source", "source_step", "destination", "step"],
    "accumulation": ["instance", "layer", "virtual_token"],
    "tokens": ["instance", "layer", "position"],
    "instances": ["instance"],
}


def with_minus_one(flow: pd.DataFrame) -> pd.DataFrame:
    """The flow frame with -1 instead of NA, so that it can be indexed."""
    return flow.assign(**{name: flow[name].fillna(-1).astype(int) for name in ("source_step", "step")})


@pytest.fixture(scope="module")
def runs(model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, written) -> list[Transcript]:
    """Texts of a model, and five by hand: of one or more steps, with and without an answer and a stop token."""
    texts = [
        ("one", "buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15", True),
        ("two", "Tom has 9. Tom buys 8.\n", False),
        ("three", "9 + 8 = 17. 17 - 2 = 15. Tom has 15.", True),
        ("four", "\n\n9\n#### 1", True),
        ("five", "buys", True),
    ]
    handwritten = [written(text, name=name, gold="15", stopped=stopped) for name, text, stopped in texts]
    return [
        *handwritten,
        *drop_empty_rationales(model, generate(model, problems[:8], prompt, max_new_tokens=20, progress=False)),
    ]


@pytest.fixture(scope="module")
def analysis(model: HookedTransformer, runs: list[Transcript], prompt: SoftPrompt) -> Analysis:
    return analyse(model, runs, prompt, batch_size=8, progress=False)


@pytest.fixture(scope="module")
def maps(model: HookedTransformer, runs: list[Transcript], prompt: SoftPrompt) -> dict[str, SaliencyMap]:
    return {run.problem.id: saliency_map(model, run, prompt) for run in runs}


def mean_of_pairs(flow: torch.Tensor, rows: range, columns: range) -> float | None:
    """The mean over causal pairs, one by one; None without any."""
    values = [flow[i, j].item() for i in rows for j in columns if j < i]
    return sum(values) / len(values) if values else None


def expected_flow(name: str, map_: SaliencyMap) -> Iterator[tuple[object, ...]]:
    spans = {key: range(*span) for key, span in map_.segments.spans().items()}
    steps = [range(*span) for span in map_.segments.steps]
    for layer, flow in enumerate(map_.values):
        pairs = [
            ((source, -1, destination, -1), spans[destination], spans[source])
            for source, destination in product(spans, spans)
            if destination != "prompt"
        ]
        for k, rows in enumerate(steps):
            pairs += [((source, -1, "rationale", k), rows, spans[source]) for source in ("prompt", "question")]
            pairs += [(("rationale", m, "rationale", k), rows, steps[m]) for m in range(k + 1)]
        for key, rows, columns in pairs:
            value = mean_of_pairs(flow, rows, columns)
            if value is not None:
                yield (name, layer, *key, value)


def test_flow_is_the_mean_over_causal_pairs(analysis: Analysis, maps: dict[str, SaliencyMap]) -> None:
    rows = [row for name, map_ in maps.items() for row in expected_flow(name, map_)]
    expected = pd.DataFrame(rows, columns=[*KEYS["flow"], "value"]).set_index(KEYS["flow"])["value"]
    actual = with_minus_one(analysis.flow).set_index(KEYS["flow"])["value"]
    assert actual.index.is_unique
    assert set(actual.index) == set(expected.index)
    pd.testing.assert_series_equal(actual.loc[expected.index].astype(float), expected, rtol=1e-4, atol=1e-8)
    assert analysis.flow["step"].dtype == "Int64"
    assert set(analysis.flow["step"].dropna()) == {0, 1, 2}


def test_accumulation_is_the_mean_over_question_and_rationale(analysis: Analysis, maps: dict[str, SaliencyMap]) -> None:
    rows = []
    for name, map_ in maps.items():
        destinations = range(map_.segments.question[0], map_.segments.rationale[1])
        for layer, token in product(range(len(map_.values)), range(map_.segments.prompt[1])):
            value = sum(map_.values[layer, i, token].item() for i in destinations) / len(destinations)
            question = range(*map_.segments.question)
            into_question = sum(map_.values[layer, i, token].item() for i in question) / len(question)
            rows.append((name, layer, token, value, into_question, token == 0))
    expected = pd.DataFrame(rows, columns=[*KEYS["accumulation"], "value", "into_question", "sink"])
    assert (expected["into_question"] > 0).all()
    pd.testing.assert_frame_equal(
        analysis.accumulation.astype({"value": float, "into_question": float, "instance": object}),
        expected.astype({"instance": object}),
        rtol=1e-4,
        atol=1e-8,
        check_column_type=False,
    )


def test_each_rationale_token_by_loops(analysis: Analysis, maps: dict[str, SaliencyMap]) -> None:
    for name, map_ in maps.items():
        start, stop = map_.segments.rationale
        table = analysis.tokens[analysis.tokens["instance"] == name]
        assert len(table) == len(map_.values) * (stop - start)
        for row in table.itertuples():
            i = start + row.position
            flow = (
                sum(map_.values[row.layer, i, j].item() for j in range(map_.segments.prompt[1]))
                / map_.segments.prompt[1]
            )
            assert row.value == pytest.approx(flow, rel=1e-4, abs=1e-8)
            assert row.token == map_.tokens[i]
            assert row.late == (row.position >= (stop - start) // 2)
            assert [a <= i < b for a, b in map_.segments.steps].index(True) == row.step


def test_nll_is_that_of_the_prompted_model(
    analysis: Analysis, runs: list[Transcript], model, prompt: SoftPrompt
) -> None:
    table = analysis.instances.set_index("instance")
    for run in runs:
        with prompted(model, prompt) as forward:
            logits = forward(torch.cat([run.question_tokens, run.generated_tokens])[None])[0]
        first = prompt.n_virtual + len(run.question_tokens)
        nll = [-logits[first + k - 1].log_softmax(-1)[t].item() for k, t in enumerate(run.generated_tokens.tolist())]
        assert table.loc[run.problem.id, "nll"] == pytest.approx(sum(nll) / len(nll), rel=1e-4)
        of_run = analysis.tokens["instance"] == run.problem.id
        tokens = analysis.tokens[of_run & (analysis.tokens["layer"] == 1)]
        assert tokens["nll"].tolist() == pytest.approx(nll[: len(tokens)], rel=1e-3, abs=1e-5)
        stopped = run.generated_tokens[-1] == model.tokenizer.eos_token_id
        last = len(nll) - (2 if stopped else 1)
        assert table.loc[run.problem.id, "answer_nll"] == pytest.approx(nll[last], rel=1e-3, abs=1e-5)


def test_instances(analysis: Analysis, runs: list[Transcript]) -> None:
    table = analysis.instances
    assert table["instance"].tolist() == [run.problem.id for run in runs]
    assert table["correct"].tolist()[:5] == [True, False, False, False, False]
    assert table["n_rationale_tokens"].tolist()[:5] == [21, 9, 20, 4, 1]
    assert (table["task"] == "story").all()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_values_do_not_depend_on_the_batch_size(
    analysis: Analysis, runs: list[Transcript], model: HookedTransformer, prompt: SoftPrompt, batch_size: int
) -> None:
    other = analyse(model, runs, prompt, batch_size=batch_size, progress=False)
    for name in KEYS:
        pd.testing.assert_frame_equal(getattr(other, name), getattr(analysis, name), rtol=1e-4, atol=1e-7)
    assert analysis.flow["value"].max() > 1e-3, "values must be large against the absolute tolerance"


@pytest.mark.parametrize("reduction", ["sum_of_abs", "mean_of_abs"])
def test_head_reductions_reach_the_frames(runs: list[Transcript], model, prompt: SoftPrompt, reduction: str) -> None:
    run = runs[0]
    tokens = torch.cat([run.question_tokens, run.generated_tokens])
    values = saliency(model, tokens, prompt, len(run.question_tokens), head_reduction=reduction)
    analysis = analyse(model, runs[:3], prompt, head_reduction=reduction, progress=False)
    map_ = saliency_map(model, run, prompt, head_reduction=reduction)
    assert torch.equal(map_.values, values)
    start, stop = map_.segments.rationale
    table = with_minus_one(analysis.flow).set_index(KEYS["flow"])["value"]
    expected = values[2, start:stop, : prompt.n_virtual].mean().item()
    assert table["one", 2, "prompt", -1, "rationale", -1] == pytest.approx(expected, rel=1e-4)
    assert analysis.options["head_reduction"] == reduction


def test_gold_target_reads_the_written_rationale(model, prompt: SoftPrompt, written: Callable[..., Transcript]) -> None:
    gold = written("buys 8: 9 + 8 = 17\n#### 17", gold="17")
    run = Transcript(
        gold.problem, gold.question_tokens, written("Tom has 9.").generated_tokens, "Tom has 9.", None, False
    )
    analysis = analyse(model, [run], prompt, target="gold", progress=False)
    expected = analyse(model, [gold], prompt, progress=False)
    for name in ("flow", "accumulation", "tokens"):
        pd.testing.assert_frame_equal(getattr(analysis, name), getattr(expected, name))
    assert analysis.instances["correct"].tolist() == [False], "whether the answer is correct is a fact about the run"


@pytest.fixture(scope="module")
def plain(model: HookedTransformer, runs: list[Transcript]) -> Analysis:
    return analyse(model, runs, None, batch_size=8, progress=False)


def test_flow_of_plain_text_is_that_of_its_maps(plain: Analysis, runs: list[Transcript], model) -> None:
    maps = {run.problem.id: saliency_map(model, run, None) for run in runs}
    test_flow_is_the_mean_over_causal_pairs(plain, maps)
    assert set(plain.flow["source"]) == set(plain.flow["destination"]) == {"question", "rationale", "answer"}
    map_ = maps["one"]
    assert map_.segments.prompt == (0, 0)
    assert map_.segments.question[0] == 0
    assert map_.tokens[:2] == ["<bos>", "Tom"]


def test_frames_of_plain_text_have_the_columns_of_any_other(plain: Analysis, analysis: Analysis) -> None:
    for name in KEYS:
        pd.testing.assert_series_equal(getattr(plain, name).dtypes, getattr(analysis, name).dtypes)
    assert plain.accumulation.empty
    assert plain.tokens.empty
    assert (plain.n_virtual, plain.n_layers, plain.options["prompt"]) == (0, 3, None)
    assert (analysis.n_virtual, analysis.n_layers) == (5, 3)


def test_nll_of_plain_text_is_that_of_the_bare_model(plain: Analysis, runs: list[Transcript], model) -> None:
    expected = likelihood(model, runs).loss
    torch.testing.assert_close(torch.tensor(plain.instances["nll"].to_numpy()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"gradient_checkpointing": True}])
def test_plain_text_does_not_depend_on_the_batch(plain: Analysis, runs: list[Transcript], model, options) -> None:
    other = analyse(model, runs, None, progress=False, **options)
    for name in KEYS:
        pd.testing.assert_frame_equal(getattr(other, name), getattr(plain, name), rtol=1e-4, atol=1e-7)


def test_plain_text_equals_a_prompt_of_the_first_embeddings(
    model: HookedTransformer, written: Callable[..., Transcript]
) -> None:
    """BOS and the first word as virtual tokens: the flow into the rationale from all that precedes it is the same."""
    run = written("9 + 8 = 17\nTom has 17.\n#### 17")
    n_virtual = 2
    vectors = model.W_E[run.question_tokens[:n_virtual]].detach()
    split = replace(run, question_tokens=run.question_tokens[n_virtual:])
    plain = saliency_map(model, run, None)
    as_prompt = saliency_map(model, split, SoftPrompt(vectors))
    assert plain.segments.rationale == as_prompt.segments.rationale
    assert (plain.values - as_prompt.values).abs().max() <= 1e-5 * plain.values.max()
    flows = []
    for analysed in (analyse(model, [run], None, progress=False), analyse(model, [split], SoftPrompt(vectors))):
        rows = analysed.flow
        inner = rows[rows["source"].isin(["rationale", "answer"])].reset_index(drop=True)
        flows.append(inner)
    pd.testing.assert_frame_equal(*flows, rtol=1e-5, atol=1e-9)


def test_plain_text_can_be_drawn_and_has_no_accumulation_token(plain: Analysis, runs: list[Transcript], model) -> None:
    flow = plain.flow.merge(plain.instances[["instance", "correct"]])
    plots.plot_layer_flow(flow, source="question", destination="rationale")
    plots.plot_step_flow(flow, min_instances=1)
    map_ = saliency_map(model, runs[0], None)
    axes = plots.plot_saliency_map(map_.values[0], spans=map_.segments.spans())
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["Q", "R", "A"]
    plt.close("all")
    for refused in (
        lambda: plots.plot_layer_flow(flow, source="prompt", destination="rationale"),
        lambda: plots.plot_accumulation(plain.accumulation),
        lambda: accumulation_peaks(plain.accumulation),
        lambda: trigger_statistics(plain),
        lambda: plan_corruption(plain),
        lambda: plan_corruption(plain, top_k=2),
        lambda: plan_knockout(plain),
    ):
        with pytest.raises(DPCInterpError) as error:
            refused()
        assert "\n" not in str(error.value)


def test_map_of_a_transcript(maps: dict[str, SaliencyMap], runs: list[Transcript], prompt: SoftPrompt) -> None:
    map_ = maps["one"]
    assert map_.tokens[:7] == ["<P0>", "<P1>", "<P2>", "<P3>", "<P4>", "<bos>", "Tom"]
    assert "".join(map_.tokens[slice(*map_.segments.rationale)]) == "buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n"
    assert map_.values.shape == (3, len(map_.tokens), len(map_.tokens)) == (3, *[map_.segments.length] * 2)


def test_transcripts_without_a_rationale_are_dropped(model, written: Callable[..., Transcript]) -> None:
    with_rationale, two = written("9 + 8 = 17\n#### 17"), written("9 +\n#### 17")
    dropped = [written("#### 17"), written("\n\n#### 17"), written("9#### 17")]
    assert [segment(run, model.tokenizer, 0).n_rationale_tokens for run in dropped] == [0, 0, 1]
    assert drop_empty_rationales(model, [*dropped, with_rationale, two]) == [with_rationale, two]


def test_equal_ids_raise(model, prompt: SoftPrompt, written: Callable[..., Transcript]) -> None:
    """Their rows could not be distinguished, and every statistic would average over both."""
    with pytest.raises(DPCInterpError, match="two problems have the id"):
        analyse(model, [written("buys 8", name=""), written("buys 9", name="")], prompt, progress=False)


def test_the_model_is_left_unchanged(model, runs: list[Transcript], prompt: SoftPrompt, unchanged, monkeypatch) -> None:
    with unchanged(model):
        analyse(model, runs[:3], prompt, progress=False)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpc_interp.analysis.flow.PositionGroups.reduce", fail)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        analyse(model, runs[:3], prompt, progress=False)
