"""ACT against a direct transcription of its formula, and cached decoding under it against full passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import Tensor

from dpc_interp import CorruptionPlan, Problem, SoftPrompt, generate, prompted
from dpc_interp.errors import DPCInterpError
from dpc_interp.generation.likelihood import Likelihood, likelihood
from dpc_interp.generation.transcript import gold_transcript
from dpc_interp.interventions.act import (
    Act,
    attention_calibration,
    calibrate_pattern,
    choose_heads,
    find_sinks,
    head_gains,
)
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.lens import HookedTransformer

TOKENS = torch.tensor([[1, 40, 51, 62, 9, 13, 77, 31], [1, 33, 20, 87, 101, 2, 14, 56]])
HEADS = ((0, 1), (1, 0), (1, 3))
LOW = 1.2
"""Small enough that a random model has sinks."""
MAX_NEW = 16


def calibrate_by_loops(pattern: Tensor, alpha: float, beta: float) -> tuple[Tensor, set[int]]:
    """The formula entry by entry, for one head [pos, pos]: the calibrated pattern and its sinks."""
    n = len(pattern)
    sinks = {j for j in range(1, n) if sum(pattern[i, j].item() for i in range(j, n)) / (n - j) > alpha / n}
    out = pattern.clone()
    for i in range(n):
        others = [t for t in range(i + 1) if t not in sinks]
        freed = sum((1 - beta) * pattern[i, s] for s in sinks)
        rest = sum(pattern[i, t] for t in others)
        for s in sinks:
            out[i, s] = beta * pattern[i, s]
        for t in others:
            out[i, t] = pattern[i, t] + freed * pattern[i, t] / rest
    return out, sinks


def random_pattern(n: int = 7) -> Tensor:
    scores = 2 * torch.randn(2, 3, n, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)


def test_vectorised_code_equals_the_formula_entry_by_entry() -> None:
    pattern, alpha, beta = random_pattern(), 1.5, 0.4
    sinks = find_sinks(pattern, torch.tensor([0, 0]), torch.tensor([7, 7]), alpha)
    calibrated = calibrate_pattern(pattern, sinks, beta)
    for row in range(2):
        for head in range(3):
            expected, expected_sinks = calibrate_by_loops(pattern[row, head], alpha, beta)
            assert set(sinks[row, head].nonzero()[:, 0].tolist()) == expected_sinks
            torch.testing.assert_close(calibrated[row, head], expected)
    assert 2 < sinks.sum() < 20
    torch.testing.assert_close(calibrated.sum(-1), torch.ones(2, 3, 7, dtype=torch.float64))


def test_one_sink_by_hand() -> None:
    """Position 1 receives (0.8 + 0.6) / 2 = 0.7 > 1.5 / 3; of 0.6 it keeps 0.24; 0.36 goes to the others, 3 : 1."""
    pattern = torch.tensor([[1.0, 0, 0], [0.2, 0.8, 0], [0.3, 0.6, 0.1]])[None, None]
    sinks = find_sinks(pattern, torch.tensor([0]), torch.tensor([3]), alpha=1.5)
    assert sinks[0, 0].tolist() == [False, True, False]
    calibrated = calibrate_pattern(pattern, sinks, 0.4)[0, 0]
    torch.testing.assert_close(calibrated, torch.tensor([[1.0, 0, 0], [0.68, 0.32, 0], [0.57, 0.24, 0.19]]))


def test_sinks_are_only_among_prompt_and_question() -> None:
    """Padding, generated tokens and the first position of a row, wherever it is, are no sinks."""
    pattern = random_pattern()
    unpadded = find_sinks(pattern[:, :, :5, :5], torch.tensor([0, 0]), torch.tensor([5, 5]), 1.2)
    padded = torch.zeros(2, 3, 9, 9, dtype=torch.float64)
    padded[:, :, 2:, 2:] = pattern
    sinks = find_sinks(padded, torch.tensor([2, 2]), torch.tensor([7, 7]), 1.2)
    assert torch.equal(sinks[..., 2:7], unpadded)
    assert not sinks[..., [0, 1, 2, 7, 8]].any()
    fixed = find_sinks(pattern, torch.tensor([0, 0]), torch.tensor([7, 7]), threshold=1e-9)
    assert torch.equal(fixed, torch.tensor([False] + [True] * 6).expand_as(fixed))


def test_acts_in_the_chosen_heads_only(each_model: HookedTransformer, prompt: SoftPrompt, unchanged) -> None:
    seen: dict[int, Tensor] = {}
    raw: dict[int, Tensor] = {}
    name = "blocks.1.attn.hook_pattern"
    with unchanged(each_model), prompted(each_model, prompt) as run:
        with each_model.hooks(fwd_hooks=[(name, lambda p, hook: raw.__setitem__(1, p))]):
            plain = run(TOKENS)
        record = (name, lambda p, hook: seen.__setitem__(1, p))
        with attention_calibration(each_model, [(1, 0), (1, 3)], alpha=LOW), each_model.hooks(fwd_hooks=[record]):
            changed = run(TOKENS)
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert torch.equal(seen[1][:, [1, 2]], raw[1][:, [1, 2]])
    for head in (0, 3):
        torch.testing.assert_close(seen[1][0, head], calibrate_by_loops(raw[1][0, head], LOW, 0.4)[0])


def test_without_heads_or_sinks_or_with_beta_one_nothing_changes(model: HookedTransformer, prompt: SoftPrompt) -> None:
    """Bit for bit, compared with a pass in which the same layers compute their patterns."""
    unchanged = ({"alpha": 1e6}, {"threshold": 1.1}, {"alpha": LOW, "beta": 1.0})
    with prompted(model, prompt) as run:
        for heads, options in (([], {}), *((HEADS, options) for options in unchanged)):
            layers = sorted({layer for layer, _ in heads})
            reads_pattern = [(f"blocks.{layer}.attn.hook_pattern", lambda pattern, hook: None) for layer in layers]
            with model.hooks(fwd_hooks=reads_pattern):
                plain = run(TOKENS)
            with attention_calibration(model, heads, **options):
                assert torch.equal(run(TOKENS), plain)


def decode_uncached(model: HookedTransformer, question: Tensor, vectors: Tensor) -> list[int]:
    """Greedy decoding by full forward passes of one sequence, under ACT with the sinks of prompt and question."""
    n, generated = len(vectors), []
    while len(generated) < MAX_NEW and (not generated or generated[-1] != model.tokenizer.eos_token_id):
        ids = torch.cat([torch.full((n,), 9), question, torch.tensor(generated, dtype=torch.long)])[None]
        embed = ("hook_embed", lambda value, hook: torch.cat([vectors[None], value[:, n:]], dim=1))
        with attention_calibration(model, HEADS, alpha=LOW, n_read=torch.tensor([n + len(question)])):
            generated.append(int(model.run_with_hooks(ids, fwd_hooks=[embed])[0, -1].argmax()))
    return generated


@pytest.mark.parametrize("bare", [False, True], ids=["prompted", "bare"])
def test_decoded_text_is_that_of_full_passes(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, unchanged, bare: bool
) -> None:
    vectors = torch.zeros(0, model.cfg.d_model) if bare else prompt.vectors
    maybe_prompt = None if bare else prompt
    expected = [decode_uncached(model, encode_question(model, p.question), vectors) for p in problems]
    options = {"max_new_tokens": MAX_NEW, "progress": False}
    plain = [run.generated_tokens for run in generate(model, problems, maybe_prompt, **options)]
    assert sum(a.tolist() != b for a, b in zip(plain, expected, strict=True)) > 2
    assert len({len(ids) for ids in expected}) > 3
    with unchanged(model), attention_calibration(model, HEADS, alpha=LOW):
        for more in ({"batch_size": 7}, {"draft_tokens": plain}, {"draft_tokens": [ids[:4] for ids in plain]}):
            runs = generate(model, problems, maybe_prompt, **options, **more)
            assert [run.generated_tokens.tolist() for run in runs] == expected


def test_combines_with_corruption_and_with_a_bridge(
    hugging_face: Callable, bridge: Callable, hooked: Callable, problems: list[Problem], prompt: SoftPrompt
) -> None:
    texts = []
    for model in (bridge(hugging_face("llama")), hooked(hugging_face("llama"))):
        with attention_calibration(model, HEADS, alpha=LOW):
            plans = [CorruptionPlan((1,), gamma=10)] * 6
            runs = generate(model, problems[:6], prompt, plans=plans, max_new_tokens=8, progress=False)
            texts.append([run.generated_tokens.tolist() for run in runs])
    assert texts[0] == texts[1]


def test_gains_are_losses_with_one_head_calibrated(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt
) -> None:
    runs = generate(model, problems[:5], prompt, max_new_tokens=1, progress=False)
    gains = head_gains(model, runs, prompt, alpha=LOW, batch_size=2, progress=False).set_index(["layer", "head"])
    assert len(gains) == model.cfg.n_layers * model.cfg.n_heads
    for head in ((0, 1), (2, 2)):
        losses = []
        for run in runs:
            gold = gold_transcript(model, run)
            n_read = torch.tensor([prompt.n_virtual + len(run.question_tokens)])
            with attention_calibration(model, [head], alpha=LOW, n_read=n_read):
                calibrated = likelihood(model, [gold], prompt).loss.item()
            losses.append(likelihood(model, [gold], prompt).loss.item() - calibrated)
        assert gains["gain"][head] == pytest.approx(sum(losses) / len(losses), abs=1e-6)


def test_batches_for_the_gains_are_halved_where_memory_runs_out(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = generate(model, problems[:4], prompt, max_new_tokens=1, progress=False)
    expected = head_gains(model, runs, prompt, progress=False)

    def limited(model: HookedTransformer, batch: list, prompt: SoftPrompt) -> Likelihood:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return likelihood(model, batch, prompt)

    monkeypatch.setattr("dpc_interp.interventions.act.likelihood", limited)
    with pytest.warns(UserWarning, match="4 sequences did not fit into memory; continuing with 2") as warned:
        gains = head_gains(model, runs, prompt, progress=False)
    assert len([warning for warning in warned if "did not fit" in str(warning.message)]) == 1, "not for every head"
    pd.testing.assert_frame_equal(gains, expected, atol=1e-5)


def test_heads_that_gain_are_chosen_best_first() -> None:
    gains = pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "gain": [0.1, -0.2, 0.3, 0.0]})
    assert choose_heads(gains) == ((1, 0), (0, 0))
    assert choose_heads(gains, n_heads=1) == ((1, 0),)


@pytest.mark.parametrize(
    ("heads", "options", "message"),
    [
        ([(9, 0)], {}, "no layer 9"),
        ([(0, 9)], {}, "no head 9"),
        (HEADS, {"beta": 1.5}, "beta from 0 to 1"),
        (HEADS, {"alpha": 0.0}, "above 0"),
    ],
)
def test_invalid_options_raise_and_restore_the_model(
    model: HookedTransformer, heads: list, options: dict, message: str, unchanged
) -> None:
    with unchanged(model), pytest.raises(DPCInterpError, match=message), attention_calibration(model, heads, **options):
        pytest.fail("the body must not run")
    with unchanged(model), pytest.raises(KeyboardInterrupt), attention_calibration(model, HEADS):
        raise KeyboardInterrupt
    with pytest.raises(DPCInterpError, match="no runs"):
        head_gains(model, [])


def test_problems_without_a_written_rationale_are_refused(
    model: HookedTransformer, problems: list[Problem], prompt: SoftPrompt
) -> None:
    bare = [replace(problem, rationale=" ") for problem in problems[:1]]
    runs = generate(model, bare, prompt, max_new_tokens=1, progress=False)
    with pytest.raises(DPCInterpError, match="has no written rationale, on which heads are chosen"):
        head_gains(model, runs, prompt, progress=False)


def test_a_threshold_reaches_the_calibration(model: HookedTransformer) -> None:
    tokens = torch.arange(3, 13)[None]
    logits = []
    for act in (Act(HEADS, threshold=0.05), Act(HEADS)):
        with act(model):
            logits.append(model(tokens))
    with attention_calibration(model, HEADS, threshold=0.05):
        assert torch.equal(logits[0], model(tokens))
    assert not torch.equal(*logits)
