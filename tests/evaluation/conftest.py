"""Evaluations drawn from a known process, true or false by construction; and what a run has written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpc_interp import Results, TriggerRule
from dpc_interp.analysis.analyse import Analysis

N_STEPS, N_LAYERS = 4, 3
World = Callable[..., list[Results]]
Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="session")
def contents() -> Contents:
    """The files of a run, all but the timings, by their names within it."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "timings.jsonl")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def world() -> World:
    """Results of three tuned prompts on the same problems.

    `true`: every claim is true. Otherwise each is false or, C2 to C5 random, its effect is exactly none.
    """

    def make(seed: int, *, true: bool, n: int = 120) -> list[Results]:
        rng = np.random.default_rng(seed)
        hard = rng.normal(size=n)  # of the problems, for all prompts
        ids = np.array([f"story-{k}" for k in range(n)], dtype=object)
        return [_prompt(rng, ids, hard, f"story/seed{s}", true) for s in range(3)]

    return make


def _prompt(rng: np.random.Generator, ids: np.ndarray, hard: np.ndarray, name: str, true: bool) -> Results:
    n = len(ids)
    harm = rng.normal(size=n)  # what the prompt does to an instance
    wrong = 0.7 * hard + 0.7 * (harm if true else rng.normal(size=n)) + 0.05 * rng.normal() > 0.4
    late = harm if true else rng.normal(size=n)
    level = 3.0 if true else 1.4
    stats = pd.DataFrame(
        {
            "instance": ids,
            "correct": ~wrong,
            "peak_ratio": level + 0.1 * rng.normal() + 0.5 * harm + 0.2 * rng.normal(size=n),
            "late_share": np.round(1 / (1 + np.exp(-late - 1.5 * wrong * true)), 1),
            "deep_flow": 1e-4 * np.exp(0.3 * rng.normal(size=n) + 0.6 * wrong * true),
        }
    )
    answers = {"pt": ~wrong}
    for method, fixes, breaks in (
        (("dpc", 0.7, 0.01), ("random", 0.02, 0.4), ("always", 0.02, 0.4))
        if true
        else (("dpc", 0.1, 0.1 * wrong.sum() / (~wrong).sum()), ("random", 0.3, 0.0), ("always", 0.5, 0.02))
    ):
        drawn = rng.random(n)
        answers[method] = np.where(wrong, drawn < fixes, drawn >= breaks)
    instances = pd.concat(
        [
            pd.DataFrame({"task": "story", "prompt": name, "method": m, "instance": ids, "correct": right})
            for m, right in answers.items()
        ],
        ignore_index=True,
    )
    grounded = np.exp(0.3 * rng.normal(size=n) + 0.6 * ~wrong * true)
    nothing = pd.DataFrame()
    accumulation = pd.DataFrame({"layer": range(N_LAYERS), "virtual_token": 0})
    found = Analysis(_flow(ids, grounded), accumulation, nothing, nothing, {})
    return Results(instances, nothing, nothing, stats, TriggerRule("late_share", 0.5), nothing, nothing, found, [])


def _flow(ids: np.ndarray, grounded: np.ndarray) -> pd.DataFrame:
    """Into every step: 1 from the prompt, `grounded` from the question and from each earlier step, in the last layer.

    The other rows must not count: an earlier layer, the step itself, and the first half, are all prompt.
    """
    pairs = [("prompt", -1, k) for k in range(N_STEPS)] + [("question", -1, k) for k in range(N_STEPS)]
    pairs += [("rationale", m, k) for k in range(N_STEPS) for m in range(k + 1)]
    pairs = [(layer, *pair) for layer in (0, 2) for pair in pairs]
    own = [1.0 if source == "prompt" else 99.0 * (m == k) for _, source, m, k in pairs]
    counts = [source != "prompt" and layer == 2 and m < k and k > 1 for layer, source, m, k in pairs]
    rows = pd.DataFrame(pairs, columns=["layer", "source", "source_step", "step"]).assign(destination="rationale")
    flow = rows.loc[np.repeat(rows.index, len(ids))]
    value = np.where(np.array(counts)[:, None], grounded, np.array(own)[:, None])
    return flow.assign(instance=np.tile(ids, len(pairs)), value=value.ravel()).reset_index(drop=True)
