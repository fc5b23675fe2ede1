"""Evaluations drawn from known processes: claims are true or false, triggers good or bad, by construction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from dpc_interp import Analysis, Options, Results, TriggerRule

N_STEPS, N_LAYERS = 4, 3
N_VALIDATION = 120
EMPTY = pd.DataFrame()


@pytest.fixture(scope="session")
def world() -> Callable[..., list[Results]]:
    """Make results of three tuned prompts on the same problems.

    With `true`, every claim is true. Otherwise every claim is false or, C2 to C5 random, its effect is exactly zero.
    """

    def make(seed: int, *, true: bool, n: int = 120) -> list[Results]:
        rng = np.random.default_rng(seed)
        hardness = rng.normal(size=n)  # of the problems, the same for all prompts
        ids = np.array([f"story-{k}" for k in range(n)], dtype=object)
        return [_evaluated_prompt(rng, ids, hardness, f"story/seed{s}", true) for s in range(3)]

    return make


def _evaluated_prompt(
    rng: np.random.Generator, ids: np.ndarray, hardness: np.ndarray, name: str, true: bool
) -> Results:
    n = len(ids)
    harm = rng.normal(size=n)  # that the prompt does to an instance
    wrong = 0.7 * hardness + 0.7 * (harm if true else rng.normal(size=n)) + 0.05 * rng.normal() > 0.4
    late = harm if true else rng.normal(size=n)
    level = 3.0 if true else 1.1  # above and below the chance level of the accumulation
    stats = pd.DataFrame(
        {
            "instance": ids,
            "correct": ~wrong,
            "peak_ratio": level * np.exp(0.03 * rng.normal() + 0.1 * harm + 0.05 * rng.normal(size=n)),
            "late_share": np.round(1 / (1 + np.exp(-late - 1.5 * wrong * true)), 1),
            "deep_flow": 1e-4 * np.exp(0.3 * rng.normal(size=n) + 0.6 * wrong * true),
            "row_share": 0.01 * np.exp(0.3 * rng.normal(size=n) + 0.6 * wrong * true + 0.3 * harm * true),
            "nll": np.exp(0.3 * rng.normal(size=n) - 2),
            "length": rng.integers(20, 40, size=n),
        }
    )
    # harmed: most wrong answers, which the instructed model has right
    answers = {"pt": ~wrong, "instruct": np.where(wrong, rng.random(n) < 0.8, rng.random(n) < 0.9)}
    for method, fixes, breaks in (
        (("dpc", 0.7, 0.01), ("random", 0.02, 0.4), ("always", 0.0, 0.0))
        if true
        else (("dpc", 0.1, 0.1 * wrong.sum() / (~wrong).sum()), ("random", 0.3, 0.0), ("always", 0.5, 0.02))
    ):
        draws = rng.random(n)
        answers[method] = np.where(wrong, draws < fixes, draws >= breaks)
    answers["cut_off"] = ~wrong
    instances = pd.concat(
        [
            pd.DataFrame(
                {"task": "story", "prompt": name, "method": method, "instance": ids, "correct": correct}
            ).assign(fired=method not in ("pt", "instruct", "cut_off"), changed=method == "cut_off")
            for method, correct in answers.items()
        ],
        ignore_index=True,
    )
    grounded = np.exp(0.3 * rng.normal(size=n) + 0.6 * ~wrong * true)
    return Results(
        instances=instances,
        summary=EMPTY,
        triggers=EMPTY,
        statistics=stats,
        rule=TriggerRule("late_share", 0.5),
        validation=EMPTY,
        timings=EMPTY,
        analysis=Analysis(_flow(ids, grounded), _accumulation(rng, ids, wrong, harm, true), EMPTY, EMPTY, {}),
        runs=[],
        options=Options(),
    )


def _accumulation(
    rng: np.random.Generator, ids: np.ndarray, wrong: np.ndarray, harm: np.ndarray, true: bool
) -> pd.DataFrame:
    """Five virtual tokens: token 2 is ahead of the others, on the question more so where the answer is wrong."""
    n = len(ids)
    parts = []
    for token in range(5):
        ahead = true * (token == 2)
        value = np.exp((0.2 if true else 0.5) * rng.normal(size=n) + 1.5 * ahead)
        into_question = np.exp(0.2 * rng.normal(size=n) + ahead * (1 + wrong + 0.3 * harm))
        columns = {"instance": ids, "layer": 0, "virtual_token": token, "value": value, "into_question": into_question}
        parts += [pd.DataFrame({**columns, "layer": layer}) for layer in range(N_LAYERS)]
    return pd.concat(parts, ignore_index=True)


def _flow(ids: np.ndarray, grounded: np.ndarray) -> pd.DataFrame:
    """Into every step: 1 from the prompt, `grounded` from the question and from each earlier step, in the last layer.

    All other rows must not count: an earlier layer, the step itself, the first half and whole segments carry flow from
    the prompt only, or much flow of any kind.
    """
    pairs = [("prompt", pd.NA, k) for k in range(N_STEPS)] + [("question", pd.NA, k) for k in range(N_STEPS)]
    pairs += [("rationale", m, k) for k in range(N_STEPS) for m in range(k + 1)]
    rows = [(layer, *pair) for layer in (0, 2) for pair in pairs]
    values = []
    for layer, source, source_step, step in rows:
        earlier = source == "question" or (source == "rationale" and source_step < step)
        if source == "prompt":
            values.append(np.ones(len(ids)))
        elif earlier:
            values.append(grounded if layer == 2 and step > 1 else np.zeros(len(ids)))
        else:  # from the step to itself
            values.append(np.full(len(ids), 99.0))
    # flow into the whole rationale, which belongs to no step
    rows += [(2, source, pd.NA, pd.NA) for source in ("prompt", "question")]
    values += [np.full(len(ids), 50.0)] * 2
    frame = pd.DataFrame(rows, columns=["layer", "source", "source_step", "step"]).assign(destination="rationale")
    frame = frame.astype({"source_step": "Int64", "step": "Int64"})
    flow = frame.loc[np.repeat(frame.index, len(ids))]
    return flow.assign(instance=np.tile(ids, len(rows)), value=np.concatenate(values)).reset_index(drop=True)


@pytest.fixture(scope="session")
def planted() -> Callable[..., Results]:
    """Make results in which corruption fixes half of the wrong answers and breaks a fifth of the right ones.

    The last `n_silent` problems have no rationale. `statistics` has triggers of known quality.
    """

    def make(seed: int = 0, prompt: str = "seed0", n: int = 400, n_silent: int = 8) -> Results:
        stats, validation = _statistics(n, seed, "test"), _statistics(N_VALIDATION, seed + 100, "validation")
        rng = np.random.default_rng(seed + 200)
        pt = stats["correct"].to_numpy()
        corrupted = np.where(pt, rng.random(n) >= 0.2, rng.random(n) < 0.5)
        silent = np.arange(n) >= n - n_silent
        corrupted[silent] = pt[silent]
        rule = TriggerRule("late_share", 0.5, "youden", "validation", N_VALIDATION)
        dpc = rule.fires(stats).to_numpy() & ~silent
        answers = {"pt": pt, "always": corrupted, "dpc": np.where(dpc, corrupted, pt)}
        fired = {"pt": np.zeros(n, dtype=bool), "always": ~silent, "dpc": dpc}
        rows = [
            stats[["task", "instance"]].assign(
                prompt=prompt, method=method, correct=answers[method], fired=fired[method], n_tokens=9
            )
            for method in answers
        ]
        return Results(
            instances=pd.concat(rows, ignore_index=True),
            summary=EMPTY,
            triggers=EMPTY,
            statistics=stats[~silent].reset_index(drop=True),
            rule=rule,
            validation=validation,
            timings=EMPTY,
            analysis=Analysis(EMPTY, EMPTY, EMPTY, EMPTY, {}),
            runs=[],
            options=Options(),
        )

    return make


def _statistics(n: int, seed: int, name: str) -> pd.DataFrame:
    """`late_share` takes six values and is larger where PT is wrong; `perfect` is the outcome; `coarse` is binary."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.4
    return pd.DataFrame(
        {
            "instance": [f"{name}-{i:03d}" for i in range(n)],
            "task": "story",
            "correct": ~wrong,
            "late_share": np.round(np.clip(0.4 + 0.2 * wrong + rng.normal(0, 0.2, n), 0, 1) * 5) / 5,
            "perfect": wrong + 0.0,
            "noise": rng.normal(size=n),
            "coarse": (rng.random(n) < 0.7) + 0.0,
            "constant": 3.0,
        }
    )
