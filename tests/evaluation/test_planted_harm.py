"""A model wired by hand in which the claims of the paper are true, evaluated from generation to verdicts.

Three layers of one head, no norm, no MLP. The position determines the kind of the next token. A problem is a row of
letters and a digit; the model writes the digit eight times in two lines and then after `#### `. The letters of half of
the problems carry an alarm. The planted prompt token carries the digit 7.

    layer 0  every position attends to the planted token, alarmed letters by far the most; this makes 7 slightly more
             likely and marks the position as having read the prompt
    layer 1  positions of the late half attend to an alarm, if the question has one, and read a little of the marks
    layer 2  positions that have read an alarm copy the digit of the planted token, others that of the question

An alarmed problem is therefore answered 7, which is wrong, and masking the planted token fixes it. So does the written
instruction, which has as many tokens as the prompt. Masking without a trigger fixes as many answers, and masking a
random token breaks none: C5 random and C5 always are false here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from dpc_interp import Problem, Results, SoftPrompt, TriggerRule, evaluate, regime, verdicts
from dpc_interp.evaluation.methods import MAIN_METHODS
from dpc_interp.models.lens import HookedTransformer

N_VIRTUAL, N_LETTERS = 6, 8
N_QUESTION = N_LETTERS + 3  # BOS, letters, digit, line break
SLOTS = "dddd\ndddd\n#d$"
"""The generated tokens: d a digit, # the marker, $ the stop token."""
LATE = range(5, len(SLOTS))
CALM, ALARMED = ("a", "b", "c"), ("x", "y", "z")
ONE, PLANTED, DIGIT, ALARM, LATE_DIM, READ, PROMPT, MARK = range(8)
CODE, COPY, KIND = (
    8,
    18,
    28,
)  # ten dimensions each: a digit that is read, the digit to write; then the kind of the next token
D_MODEL = 34


@pytest.fixture(scope="module")
def wired(needs_hooked: None, build: Callable[..., HookedTransformer]) -> HookedTransformer:
    model = build(
        "learned", n_layers=3, n_heads=1, d_head=D_MODEL, d_model=D_MODEL, attn_only=True, normalization_type=None,
        use_attn_scale=False, n_ctx=64,
    )  # fmt: skip
    for weight in model.parameters():
        weight.data.zero_()
    ids = model.tokenizer.get_vocab()
    embed, pos, out = model.embed.W_E.data, model.pos_embed.W_pos.data, model.unembed.W_U.data
    pos[:, ONE] = 1.0
    for letter, strength in zip(ALARMED, (0.85, 1.0, 1.1), strict=True):  # so that flow differs between problems
        for piece in (letter, f" {letter}"):
            embed[ids[piece], [ALARM, DIGIT]] = torch.tensor([1.0, strength])
    for digit in range(10):
        embed[ids[f" {digit}"], [DIGIT, CODE + digit]] = 1.0  # in the question a space precedes the digit
        out[COPY + digit, ids[str(digit)]] = 4.0
        out[KIND, ids[str(digit)]] = 20.0
    for k, piece in enumerate(("\n", "####", "<eos>")):
        out[KIND + 1 + k, ids[piece]] = 30.0
    first = N_VIRTUAL + N_QUESTION - 1  # the last token of the question, which predicts the first slot
    for slot, kind in enumerate(SLOTS):
        pos[first + slot, KIND + "d\n#$".index(kind)] = 1.0
        pos[first + slot, LATE_DIM] = float(slot in LATE)

    def wire(layer: int, queries: list[tuple[int, int, float]], values: list[tuple[int, int, float]]) -> None:
        """Queries (query dimension, key dimension, strength) and values (input, output, gain), one channel each."""
        attn = model.blocks[layer].attn
        for channel, (query, key, strength) in enumerate(queries):
            attn.W_Q.data[0, query, channel] = strength
            attn.W_K.data[0, key, channel] = 1.0
        for channel, (source, target, gain) in enumerate(values):
            attn.W_V.data[0, source, channel] = 1.0
            attn.W_O.data[0, channel, target] = gain

    wire(
        0,
        [(ONE, PLANTED, 1.0), (ALARM, PLANTED, 4.0)],
        [*((CODE + d, COPY + d, 0.1) for d in range(10)), (PROMPT, MARK, 1.0)],
    )
    wire(1, [(LATE_DIM, ALARM, 4.0)], [(ALARM, READ, 1.0), (MARK, READ, 0.05)])
    wire(
        2,
        [(ONE, DIGIT, 8.0), (ONE, PLANTED, 2.0), (LATE_DIM, PLANTED, -0.5), (READ, PLANTED, 9.0)],
        [(CODE + d, COPY + d, 1.0) for d in range(10)],
    )
    return model


def prompt(seed: int, *, planted: bool = True) -> SoftPrompt:
    """Small random vectors; one token, a different one for each seed, is planted."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.zeros(N_VIRTUAL, D_MODEL)
    vectors[:, CODE : CODE + 10] = 0.05 * torch.randn(N_VIRTUAL, 10, generator=generator)
    vectors[:, PROMPT] = 1.0
    if planted:
        vectors[2 + seed, PLANTED] = 1.0
        vectors[2 + seed, CODE : CODE + 10] = torch.nn.functional.one_hot(torch.tensor(7), 10).float()
    return SoftPrompt(vectors, f"wired/seed{seed}")


def draw(n: int, split: str) -> list[Problem]:
    """Every second problem has an alarm in two to seven of its letters."""
    rng = random.Random(split)
    problems = []
    for k in range(n):
        letters = [rng.choice(CALM) for _ in range(N_LETTERS)]
        for place in rng.sample(range(N_LETTERS), rng.randint(2, 7) if k % 2 else 0):
            letters[place] = rng.choice(ALARMED)
        digit = rng.choice("01234568")
        problems.append(Problem("story", " ".join([*letters, digit]), "", digit, 2, f"{split}-{k}"))
    return problems


def run(model: HookedTransformer, *, planted: bool) -> list[Results]:
    """Evaluations of three prompts; without a planted token every answer is correct, and nothing can be calibrated."""
    trigger = {"validation": draw(20, "validation")} if planted else {"rule": TriggerRule("late_share", 0.5)}
    options = {"max_new_tokens": len(SLOTS), "progress": False, **trigger}
    methods = [*MAIN_METHODS, "cut_off"]
    return [evaluate(model, draw(40, "test"), prompt(seed, planted=planted), methods, **options) for seed in range(3)]


@pytest.fixture(scope="module")
def harmed(wired: HookedTransformer) -> list[Results]:
    return run(wired, planted=True)


def test_the_planted_token_spoils_the_alarmed_answers(harmed: list[Results]) -> None:
    for seed, result in enumerate(harmed):
        for k, transcript in enumerate(result.runs):
            digit = transcript.problem.answer
            late = "7" if k % 2 else digit
            assert transcript.text == f"{digit * 4}\n{late * 4}\n####{late}"
        assert (result.statistics["peak_token"] == 2 + seed).all()
        fires = result.rule.fires(result.statistics)
        assert fires.tolist() == [bool(k % 2) for k in range(40)], "the trigger separates them"


def test_methods_that_do_not_read_the_planted_token_are_right(harmed: list[Results]) -> None:
    """The instruction, a random prompt, and `cut_off`, under which the late half cannot attend to the prompt.

    Positions decide what is written, so the bare model, which stands N_VIRTUAL positions earlier, answers nothing.
    """
    for result in harmed:
        correct = result.summary.set_index("method")["accuracy"]
        assert correct[["instruct", "random_prompt", "cut_off"]].tolist() == [1.0] * 3
        assert (correct["bare"], correct["pt"]) == (0.0, 0.5)
        cut_off = result.instances[result.instances["method"] == "cut_off"]
        assert cut_off["changed"].tolist() == [bool(k % 2) for k in range(40)]


def test_the_experiment_is_in_the_regime_of_the_paper(harmed: list[Results]) -> None:
    (row,) = regime(harmed).to_dict("records")
    assert (row["n"], row["n_prompts"], row["n_harmed"], row["n_helped"]) == (40, 3, 60, 0)
    assert (row["instruct"], row["pt"], row["harmed"], row["late_texts"], row["late_gain"]) == (1, 0.5, 0.5, 0.5, 0.5)


def test_the_claims_of_the_paper_hold(harmed: list[Results]) -> None:
    table = verdicts(harmed, model="wired").set_index("claim")
    true_claims = ["C1", "C1 peak", "C1 even", "C2", "C2 raw", "C2 steps", "C3", "C4", "C4 wrong", "C5"]
    assert table["verdict"][true_claims].tolist() == ["holds"] * len(true_claims)
    assert table["verdict"]["C5 random"] != "holds"
    assert table["effect"]["C5 always"] == 0
    assert table["verdict"]["C5 always"] == "undecided"


def test_nothing_holds_for_a_prompt_without_a_planted_token(wired: HookedTransformer) -> None:
    results = run(wired, planted=False)
    (row,) = regime(results).to_dict("records")
    assert (row["n_harmed"], row["late_texts"]) == (0, 0)
    table = verdicts(results, model="wired").set_index("claim")
    assert "holds" not in table["verdict"].tolist()
    assert set(table["verdict"].drop(["C1", "C1 peak", "C1 even"])) == {"not testable"}


def test_no_harm_is_detected_in_shuffled_outcomes(harmed: list[Results]) -> None:
    rng = np.random.default_rng(0)
    shuffled = [
        replace(
            result,
            instances=result.instances.assign(
                correct=result.instances.groupby("method")["correct"].transform(
                    lambda correct: rng.permutation(correct)
                )
            ),
        )
        for result in harmed
    ]
    table = verdicts(shuffled, model="wired").set_index("claim")
    claims = ["C1 peak", "C1 even", "C2", "C2 raw", "C2 steps", "C4", "C4 wrong"]
    assert "holds" not in table["verdict"][claims].tolist()
