"""Small seeded frames with the columns that the plots need; every test closes the figures it opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import Collection

N_INSTANCES, N_LAYERS, N_VIRTUAL = 40, 6, 20
KNOCKOUT_INSTANCES = tuple(f"story-{i}" for i in range(12))
LINES = ("buys 12: 33 + 12 = 45", "doubles: 45 * 2 = 90", "loses 7: 90 - 7 = 83", "#### 83")


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def band_ends() -> Callable[[Collection], tuple[np.ndarray, np.ndarray]]:
    """A function that reads the lower and upper ends of a band of `Axes.fill_between`, in the order of x."""

    def read(band: Collection) -> tuple[np.ndarray, np.ndarray]:
        vertices = band.get_paths()[0].vertices
        ends = pd.DataFrame(vertices, columns=["x", "y"]).groupby("x")["y"].agg(["min", "max"])
        return ends["min"].to_numpy(), ends["max"].to_numpy()

    return read


@pytest.fixture
def instances() -> pd.DataFrame:
    """Every third instance is wrong; instance i has 1 + i % 4 steps."""
    ids = [f"story-{i:03d}" for i in range(N_INSTANCES)]
    index = np.arange(N_INSTANCES)
    return pd.DataFrame({"instance": ids, "correct": index % 3 != 0, "n_steps": 1 + index % 4})


@pytest.fixture
def accumulation() -> pd.DataFrame:
    """Three instances in four peak at token 4, the others at token 0, most strongly in shallow layers."""
    rng = np.random.default_rng(1)
    i, layer, token = (axis.ravel() for axis in np.indices((N_INSTANCES, N_LAYERS, N_VIRTUAL)))
    peak = np.where(i % 4 == 0, 0, 4)
    value = 1e-5 * rng.gamma(4, 1, i.size) * np.exp(-layer / 3) + 2e-4 * (token == peak) * np.exp(-layer / 2)
    ids = [f"story-{k:03d}" for k in i]
    return pd.DataFrame({"instance": ids, "layer": layer, "virtual_token": token, "value": value.astype(np.float32)})


@pytest.fixture
def flow(instances: pd.DataFrame) -> pd.DataFrame:
    """Flow joined with `correct`; in deep layers wrong instances receive more from the prompt."""
    rng = np.random.default_rng(2)
    rows = []
    for name, correct, n_steps in instances.itertuples(index=False):
        for layer in range(N_LAYERS):
            shift = 1 + 0.35 * (not correct) * layer / N_LAYERS
            for source, destination in (("prompt", "question"), ("prompt", "rationale"), ("question", "rationale")):
                rows.append((name, layer, source, pd.NA, destination, pd.NA, 1e-3 * shift * rng.gamma(20, 0.05)))
            for k in range(n_steps):
                rows.append((name, layer, "prompt", pd.NA, "rationale", k, 4e-4 * shift * rng.gamma(20, 0.05)))
                rows.append((name, layer, "question", pd.NA, "rationale", k, 1e-3 / (1 + k) * rng.gamma(20, 0.05)))
                rows += [
                    (name, layer, "rationale", m, "rationale", k, 3e-3 * (1 + m) / shift * rng.gamma(20, 0.05))
                    for m in range(k + 1)
                ]
    columns = ["instance", "layer", "source", "source_step", "destination", "step", "value"]
    frame = pd.DataFrame(rows, columns=columns).astype({"source_step": "Int64", "step": "Int64"})
    return frame.merge(instances[["instance", "correct"]], on="instance")


@pytest.fixture
def statistics() -> pd.DataFrame:
    """200 instances; wrong ones have larger late shares and peak ratios. Late shares are rounded, so some are tied."""
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
    """Four triggers at three rates against both outcomes; the last trigger has no AUROC."""
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
    """Tokens of one instance: words, digits and punctuation with leading spaces; flow grows along the rationale."""
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
    """Split a line into words and punctuation with their leading space; numbers are split into digits."""
    pieces: list[str] = []
    for i, word in enumerate(line.split(" ")):
        tail = word.removesuffix(":")
        parts = list(tail) if tail.isdigit() else [tail]
        pieces += [f"{' ' if i else ''}{parts[0]}", *parts[1:], *([":"] if word.endswith(":") else [])]
    return pieces


@pytest.fixture
def saliency() -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """A causal map of 60 positions over six powers of ten, and the spans of its segments."""
    rng = np.random.default_rng(5)
    matrix = np.tril(10.0 ** rng.uniform(-8, -2, (60, 60)), k=-1)
    return matrix, {"prompt": (0, 12), "question": (12, 34), "rationale": (34, 56), "answer": (56, 60)}


@pytest.fixture
def summary() -> pd.DataFrame:
    """Accuracy of six methods on four tasks."""
    rng = np.random.default_rng(6)
    rows = [
        (task, method, accuracy, accuracy - 0.03, accuracy + 0.025)
        for task in ("story", "choice", "algebra", "rule")
        for method, accuracy in zip(
            ("bare", "pt", "random", "always", "dpc", "oracle"), rng.uniform(0.3, 0.9, 6), strict=True
        )
    ]
    return pd.DataFrame(rows, columns=["task", "method", "accuracy", "low", "high"])


@pytest.fixture
def simulated() -> pd.DataFrame:
    """Verdicts on simulated gains."""
    rows = [("no effect", share, n, 0.5, 100, 0.02, 0.01) for n in (3, 10) for share in (0.001, 0.1)]
    return pd.DataFrame(rows, columns=["truth", "changed", "n_prompts", "shared", "n", "holds", "fails"])


@pytest.fixture
def regimes() -> pd.DataFrame:
    """Shares of two tasks with their intervals; nothing changes under the cut-off of the second."""
    rows = {
        "story": {"bare": 0.1, "instruct": 0.62, "pt": 0.7, "helped": 0.2, "harmed": 0.12, "late_texts": 0.55},
        "rule": {"bare": 0.0, "instruct": 0.05, "pt": 0.98, "helped": 0.93, "harmed": 0.01, "late_texts": 0.0},
    }
    shares = pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")
    ends = {"_low": (shares - 0.04).clip(lower=0), "": shares, "_high": (shares + 0.06).clip(upper=1)}
    return pd.concat([frame.add_suffix(end) for end, frame in ends.items()], axis=1).reset_index()


@pytest.fixture
def swept() -> pd.DataFrame:
    """Two options on both splits; the value that is best on validation is not the best on test."""
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
    """Masking a token lowers accuracy in proportion to what it accumulates."""
    rng = np.random.default_rng(7)
    share = rng.dirichlet(np.ones(N_VIRTUAL))
    change = -0.3 * share + rng.normal(0, 0.01, N_VIRTUAL)
    columns = {"virtual_token": np.arange(N_VIRTUAL), "accumulation": share, "difference": change}
    return pd.DataFrame({**columns, "difference_low": change - 0.02, "difference_high": change + 0.01})


@pytest.fixture
def sink_controls(accumulation: pd.DataFrame) -> pd.DataFrame:
    """The peaks of `accumulation` after the trained prompt; flat and a thousand times stronger after the other."""
    flat = accumulation.assign(value=1e-2 * (1 + accumulation["layer"]))
    both = pd.concat([accumulation.assign(condition="trained"), flat.assign(condition="untrained")])
    return both.assign(sink=both["virtual_token"] == 0)


@pytest.fixture
def sink_summary() -> pd.DataFrame:
    """Peak ratios of two prompts under three conditions."""
    rows = [
        (prompt, condition, 2.0 + i + k, 1.5 + i + k, 2.2 + i + k, 1.1 + i)
        for i, prompt in enumerate(("seed0", "seed1"))
        for k, condition in enumerate(("trained", "untrained", "text"))
    ]
    return pd.DataFrame(rows, columns=["prompt", "condition", "peak_ratio", "low", "high", "chance"])


@pytest.fixture
def knockouts() -> pd.DataFrame:
    """Edges of four layers and of all deep layers at once (layer NA); random edges are drawn three times."""
    rng = np.random.default_rng(0)
    rows = [
        (name, layer, edges, draw, size * rng.normal(1, 2), rng.normal(), float(rng.random() < 0.3))
        for name in KNOCKOUT_INSTANCES
        for layer in (0, 1, 2, 3, pd.NA)
        for edges, size, draws in (("top", 1e-2, 1), ("random", 1e-4, 3), ("bottom", 1e-7, 1))
        for draw in range(draws)
    ]
    columns = ["instance", "layer", "edges", "draw", "loss_change", "answer_probability_change", "answer_changed"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


@pytest.fixture
def redundancy() -> pd.DataFrame:
    """Removing the top virtual tokens together costs more than one by one, less so in later layers."""
    rng = np.random.default_rng(2)
    rows = [
        (name, layer, rng.normal(0.9 / 2**layer, 0.1), 0.1, 0.2) for name in KNOCKOUT_INSTANCES for layer in range(4)
    ]
    return pd.DataFrame(rows, columns=["instance", "layer", "joint", "single", "single_size"])


@pytest.fixture
def curves() -> pd.DataFrame:
    """Deletion and insertion in three orders; random orders are drawn twice."""
    rng = np.random.default_rng(1)
    rows = [
        (name, kind, order, draw, fraction, (fraction**power) * rng.normal(0.2, 1))
        for name in KNOCKOUT_INSTANCES
        for kind in ("deletion", "insertion")
        for order, power, draws in (("saliency", 0.3, 1), ("random", 1, 2), ("reverse", 4, 1))
        for draw in range(draws)
        for fraction in (0.0, 0.2, 0.5, 1.0)
    ]
    return pd.DataFrame(rows, columns=["instance", "kind", "order", "draw", "fraction", "loss_change"])


@pytest.fixture
def sanity() -> pd.DataFrame:
    """Four layers; 1 to 4 randomised blocks, and shuffled answers."""
    rng = np.random.default_rng(2)
    rows = [
        (name, test, n, layer, source, rng.uniform(-0.2, 0.2))
        for name in KNOCKOUT_INSTANCES
        for test, n in (("answers", 0), ("weights", 1), ("weights", 2), ("weights", 3), ("weights", 4))
        for layer in range(4)
        for source in ("prompt", "all")
    ]
    return pd.DataFrame(rows, columns=["instance", "test", "n_randomised", "layer", "source", "value"])
