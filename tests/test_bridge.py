"""Every public function gives the same for a `TransformerBridge` and the HookedTransformer of the same weights."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

import dpc_interp as dpc
from dpc_interp import CorruptionPlan, DPCInterpError, Problem, SoftPrompt, TriggerRule
from dpc_interp.models.encoding import encode_question
from dpc_interp.models.lens import HookedTransformer

FAMILIES = ["llama", "mistral", "qwen2", "gpt2"]
TOKENS = torch.tensor([1, 40, 51, 62, 9, 13, 20, 33, 20, 87, 101, 2])
MAX_NEW = 12
Pair = tuple[TransformerBridge, HookedTransformer]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family: str, hugging_face: Callable, bridge: Callable) -> TransformerBridge:
    return bridge(hugging_face(family))


@pytest.fixture(scope="module")
def pair(model: TransformerBridge, family: str, hugging_face: Callable, hooked: Callable) -> Pair:
    """A bridge and the HookedTransformer of the same weights."""
    return model, hooked(hugging_face(family))


def decode_with_hugging_face(
    hf_model: PreTrainedModel, question: Tensor, vectors: Tensor | None, stop: int
) -> list[int]:
    """Greedy decoding by plain Hugging Face: no cache, no batch, no hook, the prompt in front as embeddings."""
    generated: list[int] = []
    while len(generated) < MAX_NEW and (not generated or generated[-1] != stop):
        embeds = hf_model.get_input_embeddings()(torch.cat([question, torch.tensor(generated, dtype=torch.long)]))
        embeds = embeds if vectors is None else torch.cat([vectors, embeds])
        generated.append(int(hf_model(inputs_embeds=embeds[None]).logits[0, -1].argmax()))
    return generated


@pytest.mark.parametrize("bare", [False, True], ids=["prompted", "bare"])
def test_text_is_that_of_hugging_face(
    model: TransformerBridge,
    family: str,
    hugging_face: Callable,
    problems: list[Problem],
    prompt: SoftPrompt,
    bare: bool,
) -> None:
    """Left-padded batches decoded with the wrapped model's cache, rows leaving at different times."""
    reference, problems = hugging_face(family), problems[:8]
    vectors, stop = None if bare else prompt.vectors, model.tokenizer.eos_token_id
    expected = [
        decode_with_hugging_face(reference, encode_question(model, p.question), vectors, stop) for p in problems
    ]
    assert len({tuple(ids) for ids in expected}) > 4
    runs = dpc.generate(model, problems, None if bare else prompt, max_new_tokens=MAX_NEW, batch_size=5, progress=False)
    assert [run.generated_tokens.tolist() for run in runs] == expected


def test_rows_leave_the_batch(hugging_face: Callable, bridge: Callable, problems: list[Problem], prompt: SoftPrompt):
    runs = dpc.generate(bridge(hugging_face("llama")), problems, prompt, max_new_tokens=MAX_NEW, progress=False)
    lengths = {len(run.generated_tokens) for run in runs}
    assert len(lengths) > 2, "rows must leave the batch at different times"


def test_prompted_and_corrupted(pair: Pair, prompt: SoftPrompt) -> None:
    plan = CorruptionPlan((1,), mask=0.0, gamma=25.0)
    ids = torch.stack([TOKENS, TOKENS.flip(0)])
    logits = []
    for model in pair:
        with dpc.prompted(model, prompt) as run:
            plain = run(ids)
        with dpc.corrupted(model, prompt, plan) as run:
            logits.append((plain, run(ids)))
    (plain, corrupted), expected = logits
    assert (plain - corrupted).abs().max() > 0.1
    torch.testing.assert_close((plain, corrupted), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduction", ["abs_of_sum", "mean_of_abs"])
def test_saliency(pair: Pair, prompt: SoftPrompt, reduction: str) -> None:
    values, expected = (dpc.saliency(model, TOKENS, prompt, 6, head_reduction=reduction) for model in pair)
    assert (expected.amax(dim=(1, 2)) > 1e-4).all()
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-5 * expected.max().item())


def test_map_and_frames(pair: Pair, prompt: SoftPrompt, written: Callable) -> None:
    texts = ["buys 8: 9 + 8 = 17\n#### 17", "9 + 8 = 17\nbuys 2: 17 + 2 = 19\n#### 19"]
    runs = [written(text, name=f"story-{i}") for i, text in enumerate(texts)]
    maps = [dpc.saliency_map(model, runs[1], prompt) for model in pair]
    assert maps[0].tokens == maps[1].tokens
    torch.testing.assert_close(maps[0].values, maps[1].values, rtol=1e-3, atol=1e-5 * maps[1].values.max().item())
    analysis, expected = (dpc.analyse(model, runs, prompt, progress=False) for model in pair)
    for name in ("flow", "accumulation", "tokens", "instances"):
        frames = getattr(analysis, name), getattr(expected, name)
        pd.testing.assert_frame_equal(*frames, rtol=1e-3, atol=1e-6)


def test_tuning(pair: Pair, problems: list[Problem]) -> None:
    tuned, expected = (
        dpc.tune_prompt(model, problems, 3, max_steps=4, batch_size=4, eval_steps=2, progress=False) for model in pair
    )
    assert (tuned.vectors - tuned.vectors[:1]).abs().max() > 0.01
    torch.testing.assert_close(tuned.vectors, expected.vectors, rtol=1e-2, atol=1e-3)
    assert tuned.recipe["learning_curve"][-1] == pytest.approx(expected.recipe["learning_curve"][-1], rel=1e-3)


def test_evaluation(
    hugging_face: Callable, bridge: Callable, hooked: Callable, prompt: SoftPrompt, written: Callable, monkeypatch
) -> None:
    """Every stage runs on a bridge; random models write no rationale, so the analysis reads the written ones."""
    problems, rule = dpc.load_problems("story", n=8, max_steps=2), TriggerRule("late_share", 0.3, "given", "none")
    monkeypatch.setattr("dpc_interp.evaluation.jobs.generate", _with_gold_rationales(dpc.generate))
    methods = ["bare", "instruct", "random_prompt", "cut_off", "pt", "dpc", "always"]
    results = [
        dpc.evaluate(model, problems, prompt, methods, rule=rule, max_new_tokens=8, progress=False)
        for model in (bridge(hugging_face("llama")), hooked(hugging_face("llama")))
    ]
    assert set(results[0].instances["method"]) == set(methods)
    pd.testing.assert_frame_equal(results[0].instances, results[1].instances)
    pd.testing.assert_frame_equal(results[0].statistics, results[1].statistics, rtol=1e-2, atol=1e-5)


def _with_gold_rationales(generate: Callable) -> Callable:
    """`generate`, with prompted and uncorrupted transcripts replaced by the written rationales."""
    from dpc_interp.generation.transcript import gold_transcript

    def run(model, problems, prompt, *, plans=None, **options):
        runs = generate(model, problems, prompt, plans=plans, **options)
        return runs if prompt is None or plans is not None else [gold_transcript(model, r) for r in runs]

    return run


def test_the_model_is_left_unchanged(
    model: TransformerBridge, problems: list[Problem], prompt: SoftPrompt, unchanged
) -> None:
    with unchanged(model):
        dpc.generate(model, problems[:3], prompt, max_new_tokens=3, progress=False)
        dpc.saliency(model, TOKENS, prompt, 6)
    with unchanged(model), pytest.raises(KeyboardInterrupt), dpc.prompted(model, prompt):
        raise KeyboardInterrupt


def test_a_model_without_a_cache_raises(hugging_face: Callable, bridge: Callable, problems: list[Problem], monkeypatch):
    model = bridge(hugging_face("llama"))
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: (forward(*a, **k | {"return_type": "logits"}), None))
    with pytest.raises(DPCInterpError, match="no key and value cache"):
        dpc.generate(model, problems[:2], max_new_tokens=3, progress=False)


def test_keys_that_a_window_drops_cannot_be_named(bridge: Callable, hugging_face: Callable, prompt: SoftPrompt) -> None:
    """Positions count from the start of the text, and the cache of a bridge with a window of 8 does not."""
    windowed, problems = bridge(hugging_face("mistral")), dpc.load_problems("story", n=2)
    plans = [dpc.KnockoutPlan((1,))] * 2
    with pytest.raises(DPCInterpError, match="drops the keys of positions before its attention window of 8"):
        dpc.generate(windowed, problems, prompt, plans=plans, max_new_tokens=4, progress=False)
    with (
        dpc.attention_calibration(windowed, [(0, 0)]),
        pytest.raises(DPCInterpError, match="shorten the texts, or load the model with backend='hooked'"),
    ):
        dpc.generate(windowed, problems, prompt, max_new_tokens=4, progress=False)
