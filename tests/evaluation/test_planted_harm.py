"""A model wired by hand in which the paper's account is true, taken through every stage to its verdicts.

Three layers of one head, no norm, no MLP. Positions say what kind of token comes next. A problem is a row of letters
and a digit; the model writes the digit eight times in two lines and then after `#### `. The letters of half of the
problems carry an alarm. The planted prompt token carries the digit 7.

    layer 0  all look at the planted token, letters with the alarm more so: what is read makes 7 a little likelier
    layer 1  in the late half, where there is an alarm it is read
    layer 2  where the alarm was read the planted token's digit is copied, elsewhere the question's

So an alarmed problem is answered 7, which is wrong, and masking the planted token mends it. Masking it without the
trigger mends as much, and a random token is no loss: C5 random and C5 always are false here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from dpc_interp import Problem, Results, SoftPrompt, TriggerRule, evaluate, verdicts
from dpc_interp.evaluation.methods import MAIN
from dpc_interp.lm.lens import HookedTransformer

N_VIRTUAL, N_LETTERS = 6, 8
N_QUESTION = N_LETTERS + 3  # BOS, letters, digit, line break
SLOTS = "dddd\ndddd\n#d$"
"""What is written: d a digit, # the marker, $ the stop token."""
LATE = range(5, len(SLOTS))
CALM, ALARMED = ("a", "b", "c"), ("x", "y", "z")
ONE, PLANTED, DIGIT, ALARM, LATE_DIM, READ = 0, 1, 2, 3, 4, 5
CODE, COPY, KIND = 8, 18, 28  # ten dimensions each: the digit carried, the digit to write; then what comes next
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
    for letter, looked_at in zip(ALARMED, (0.85, 1.0, 1.1), strict=True):  # so that flow differs between problems
        for piece in (letter, f" {letter}"):
            embed[ids[piece], [ALARM, DIGIT]] = torch.tensor([1.0, looked_at])
    for digit in range(10):
        embed[ids[f" {digit}"], [DIGIT, CODE + digit]] = 1.0  # in the question, with a space before
        out[COPY + digit, ids[str(digit)]] = 4.0
        out[KIND, ids[str(digit)]] = 20.0
    for k, piece in enumerate(("\n", "####", "<eos>")):
        out[KIND + 1 + k, ids[piece]] = 30.0
    first = N_VIRTUAL + N_QUESTION - 1  # reads the question's end, writes the first slot
    for slot, kind in enumerate(SLOTS):
        pos[first + slot, KIND + "d\n#$".index(kind)] = 1.0
        pos[first + slot, LATE_DIM] = float(slot in LATE)

    def wire(layer: int, queries: list[tuple[int, int, float]], values: list[tuple[int, int, float]]) -> None:
        """Queries (reads, looks for, strength) and values (from, to, gain), one channel each."""
        attn = model.blocks[layer].attn
        for channel, (reads, sought, strength) in enumerate(queries):
            attn.W_Q.data[0, reads, channel] = strength
            attn.W_K.data[0, sought, channel] = 1.0
        for channel, (source, to, gain) in enumerate(values):
            attn.W_V.data[0, source, channel] = 1.0
            attn.W_O.data[0, channel, to] = gain

    wire(0, [(ONE, PLANTED, 3.0), (ALARM, PLANTED, 2.0)], [(CODE + d, COPY + d, 0.1) for d in range(10)])
    wire(1, [(LATE_DIM, ALARM, 4.0)], [(ALARM, READ, 1.0)])
    wire(
        2,
        [(ONE, DIGIT, 8.0), (ONE, PLANTED, 2.0), (LATE_DIM, PLANTED, -0.5), (READ, PLANTED, 9.0)],
        [(CODE + d, COPY + d, 1.0) for d in range(10)],
    )
    return model


def prompt(seed: int, *, planted: bool = True) -> SoftPrompt:
    """Small random vectors; one token, another one a seed, is planted."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.zeros(N_VIRTUAL, D_MODEL)
    vectors[:, CODE : CODE + 10] = 0.05 * torch.randn(N_VIRTUAL, 10, generator=generator)
    if planted:
        vectors[2 + seed, PLANTED] = 1.0
        vectors[2 + seed, CODE : CODE + 10] = torch.nn.functional.one_hot(torch.tensor(7), 10).float()
    return SoftPrompt(vectors, f"wired/seed{seed}")


def asked(n: int, split: str) -> list[Problem]:
    """Every second problem has an alarm in two to seven of its letters."""
    rng = random.Random(split)
    made = []
    for k in range(n):
        letters = [rng.choice(CALM) for _ in range(N_LETTERS)]
        for place in rng.sample(range(N_LETTERS), rng.randint(2, 7) if k % 2 else 0):
            letters[place] = rng.choice(ALARMED)
        digit = rng.choice("01234568")
        made.append(Problem("story", " ".join([*letters, digit]), "", digit, 2, f"{split}-{k}"))
    return made


def run(model: HookedTransformer, *, planted: bool) -> list[Results]:
    return [
        evaluate(
            model, asked(40, "test"), prompt(seed, planted=planted), MAIN, max_new_tokens=len(SLOTS), progress=False,
            **({"validation": asked(20, "validation")} if planted else {"rule": TriggerRule("late_share", 0.5)}),
        )
        for seed in range(3)
    ]  # fmt: skip


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
        assert fires.tolist() == [bool(k % 2) for k in range(40)], "the trigger tells them apart"


def test_the_papers_account_holds(harmed: list[Results]) -> None:
    found = verdicts(harmed, model="wired").set_index("claim")
    holds = ["C1", "C2", "C3", "C4", "C5"]
    assert found["verdict"][holds].tolist() == ["holds"] * 5
    assert found["effect"]["C2 steps"] > 1  # true, but where hardly anything varies within an outcome g is ill measured
    assert found["verdict"]["C2 steps"] != "fails"
    assert found["verdict"]["C5 random"] != "holds"
    assert found["verdict"]["C5 always"] == "fails"


def test_an_unplanted_prompt_does_no_harm_and_nothing_holds(wired: HookedTransformer) -> None:
    found = verdicts(run(wired, planted=False), model="wired").set_index("claim")
    assert "holds" not in found["verdict"].drop("C5 always").tolist()


def test_shuffled_outcomes_leave_no_harm_to_tell(harmed: list[Results]) -> None:
    rng = np.random.default_rng(0)
    shuffled = [
        replace(
            result,
            instances=result.instances.assign(
                correct=result.instances.groupby("method")["correct"].transform(lambda of: rng.permutation(of))
            ),
        )
        for result in harmed
    ]
    found = verdicts(shuffled, model="wired").set_index("claim")
    assert "holds" not in found["verdict"][["C2", "C2 steps", "C4"]].tolist()
