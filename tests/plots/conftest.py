"""Small seeded frames, in the shapes the plots are given, and figures that do not pile up."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

N_INSTANCES, N_LAYERS, N_VIRTUAL = 40, 6, 20
LINES = ("buys 12: 33 + 12 = 45", "doubles: 45 * 2 = 90", "loses 7: 90 - 7 = 83", "#### 83")


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def instances() -> pd.DataFrame:
    """Every third instance is wrong; instance i has 1 + i % 4 steps."""
    ids = [f"story-{i:03d}" for i in range(N_INSTANCES)]
    index = np.arange(N_INSTANCES)
    return pd.DataFrame({"instance": ids, "correct": index % 3 != 0, "n_steps": 1 + index % 4})


@pytest.fixture
def accumulation() -> pd.DataFrame:
    """Token 4 gathers most, in shallow layers, in three instances of four; token 0 in the rest."""
    rng = np.random.default_rng(1)
    i, layer, token = (axis.ravel() for axis in np.indices((N_INSTANCES, N_LAYERS, N_VIRTUAL)))
    peak = np.where(i % 4 == 0, 0, 4)
    value = 1e-5 * rng.gamma(4, 1, i.size) * np.exp(-layer / 3) + 2e-4 * (token == peak) * np.exp(-layer / 2)
    ids = [f"story-{k:03d}" for k in i]
    return pd.DataFrame({"instance": ids, "layer": layer, "virtual_token": token, "value": value.astype(np.float32)})


@pytest.fixture
def flow(instances: pd.DataFrame) -> pd.DataFrame:
    """Flow joined with `correct`: wrong instances have more from the prompt in deep layers."""
    rng = np.random.default_rng(2)
    rows = []
    for name, correct, n_steps in instances.itertuples(index=False):
        for layer in range(N_LAYERS):
            shift = 1 + 0.35 * (not correct) * layer / N_LAYERS
            for source, destination in (("prompt", "question"), ("prompt", "rationale"), ("question", "rationale")):
                rows.append((name, layer, source, -1, destination, -1, 1e-3 * shift * rng.gamma(20, 0.05)))
            for k in range(n_steps):
                rows.append((name, layer, "prompt", -1, "rationale", k, 4e-4 * shift * rng.gamma(20, 0.05)))
                rows.append((name, layer, "question", -1, "rationale", k, 1e-3 / (1 + k) * rng.gamma(20, 0.05)))
                rows += [
                    (name, layer, "rationale", m, "rationale", k, 3e-3 * (1 + m) / shift * rng.gamma(20, 0.05))
                    for m in range(k + 1)
                ]
    columns = ["instance", "layer", "source", "source_step", "destination", "step", "value"]
    return pd.DataFrame(rows, columns=columns).merge(instances[["instance", "correct"]], on="instance")


@pytest.fixture
def statistics() -> pd.DataFrame:
    """200 instances; wrong ones have larger late shares and peak ratios. Late shares are coarse, so that some tie."""
    rng = np.random.default_rng(3)
    wrong = rng.random(200) < 0.35
    late = np.clip(np.round((0.45 + 0.2 * wrong + rng.normal(0, 0.18, 200)) * 20) / 20, 0, 1)
    return pd.DataFrame(
        {
            "instance": [f"story-{i:03d}" for i in range(200)],
            "task": "story",
            "correct": ~wrong,
            "late_share": late,
            "deep_flow": 1e-4 * rng.gamma(5 + 2 * wrong, 1),
            "peak_ratio": 1.2 + rng.gamma(3 + 2 * wrong, 0.5),
            "nll": rng.gamma(4 + wrong, 0.05),
            "length": rng.integers(12, 60, 200),
        }
    )


@pytest.fixture
def triggers() -> pd.DataFrame:
    """Four triggers, the last without a ranking, at three rates, against both outcomes."""
    rng = np.random.default_rng(7)
    rows = []
    for name, skill in (("late_share", 0.2), ("answer_nll", 0.1), ("random", 0.0), ("length", np.nan)):
        for rate in (0.1, 0.3, 0.6):
            for k, outcome in enumerate(("PT was wrong", "corruption fixes it")):
                auroc, gain = 0.5 + skill - 0.05 * k, 0.1 * rate * (1 + skill)
                rows.append((name, outcome, rate, rate + 0.02 * rng.random(), auroc, gain))
    frame = pd.DataFrame(rows, columns=["trigger", "outcome", "rate", "firing_rate", "auroc", "difference"])
    frame["firing_rate"] = frame.groupby(["trigger", "rate"])["firing_rate"].transform("first")
    for column, width in (("auroc", 0.06), ("difference", 0.02)):
        frame[f"{column}_low"], frame[f"{column}_high"] = frame[column] - width, frame[column] + width
    frame.insert(0, "task", "story")
    return frame


@pytest.fixture
def tokens() -> pd.DataFrame:
    """One instance's tokens as words, digits and signs with their leading spaces; flow grows along the rationale."""
    rng = np.random.default_rng(4)
    strings = [piece for line in LINES for piece in [*_pieces(line), "\n"]][:-1]
    position, layer = (axis.ravel() for axis in np.indices((len(strings), N_LAYERS)))
    value = 1e-5 * (1 + position / 6) * rng.gamma(3, 1, position.size)
    late = position >= len(strings) // 2
    names = [strings[p] for p in position]
    return pd.DataFrame(
        {"instance": "story-007", "layer": layer, "position": position, "token": names, "late": late, "value": value}
    )


def _pieces(line: str) -> list[str]:
    """Words and signs with their leading space, numbers digit by digit."""
    pieces: list[str] = []
    for i, word in enumerate(line.split(" ")):
        tail = word.removesuffix(":")
        parts = list(tail) if tail.isdigit() else [tail]
        pieces += [f"{' ' if i else ''}{parts[0]}", *parts[1:], *([":"] if word.endswith(":") else [])]
    return pieces


@pytest.fixture
def saliency() -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """A causal map of 60 positions over six powers of ten, and its segments."""
    rng = np.random.default_rng(5)
    matrix = np.tril(10.0 ** rng.uniform(-8, -2, (60, 60)), k=-1)
    return matrix, {"prompt": (0, 12), "question": (12, 34), "rationale": (34, 56), "answer": (56, 60)}


@pytest.fixture
def summary() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    rows = [
        (task, method, accuracy, accuracy - 0.03, accuracy + 0.025)
        for task in ("story", "choice", "algebra", "rule")
        for method, accuracy in zip(
            ("base", "pt", "random", "always", "dpc", "oracle"), rng.uniform(0.3, 0.9, 6), strict=True
        )
    ]
    return pd.DataFrame(rows, columns=["task", "method", "accuracy", "low", "high"])


@pytest.fixture
def swept() -> pd.DataFrame:
    """Two options on both splits; what is best on validation is not what is best on test."""
    rows = [
        ("gamma", "0", "validation", False, False, -0.01),
        ("gamma", "0", "test", False, False, 0.06),
        ("gamma", "10", "validation", True, False, 0.0),
        ("gamma", "10", "test", True, False, 0.01),
        ("gamma", "20", "validation", False, True, 0.04),
        ("gamma", "20", "test", False, True, -0.02),
        ("head_reduction", "abs_of_sum", "validation", True, True, 0.0),
        ("head_reduction", "abs_of_sum", "test", True, True, 0.01),
        ("head_reduction", "mean_of_abs", "validation", False, False, -0.03),
        ("head_reduction", "mean_of_abs", "test", False, False, 0.02),
    ]
    frame = pd.DataFrame(rows, columns=["option", "value", "split", "default", "selected", "difference"])
    return frame.assign(difference_low=frame["difference"] - 0.02, difference_high=frame["difference"] + 0.03)


@pytest.fixture
def single_tokens() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    share = rng.dirichlet(np.ones(N_VIRTUAL))
    change = -0.3 * share + rng.normal(0, 0.01, N_VIRTUAL)
    columns = {"virtual_token": np.arange(N_VIRTUAL), "accumulation": share, "difference": change}
    return pd.DataFrame({**columns, "difference_low": change - 0.02, "difference_high": change + 0.01})
