"""The cost of each method: seconds added up by hand, and those of an evaluation."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from dpc_interp import SoftPrompt, TriggerRule, evaluate, load_problems
from dpc_interp.evaluation.cost import method_costs
from dpc_interp.evaluation.methods import UNTRIGGERED
from dpc_interp.models.hooked import HookedModel

IDS = ["a", "b", "c", "d"]
KEY = "0123456789abcdef"
FIRED = {
    "bare": "",
    "instruct": "",
    "random_prompt": "",
    "cut_off": "",
    "pt": "",
    "dpc": "ab",
    "always": "abcd",
    "random": "c",
    "act": "abcd",
}
TIMINGS = {
    f"validation-pt-{KEY}": 99.0,
    f"corrupted-validation-{KEY}": 99.0,
    f"pt-{KEY}": 10.0,
    f"bare-{KEY}": 4.0,
    f"instruct-{KEY}": 5.0,
    f"corrupted-random_prompt-{KEY}": 6.0,
    f"corrupted-cut_off-{KEY}": 7.0,
    f"analysis-{KEY}-flow": 3.0,
    f"analysis-{KEY}-tokens": 1.0,
    f"corrupted-peak-{KEY}": 8.0,
    f"corrupted-random-{KEY}": 2.0,
    f"corrupted-act-{KEY}": 12.0,
}


def frames(without: str = " ") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Timings, except of stages whose name starts with `without`, and instances."""
    rows = [
        (method, i, i in fired, 20 if i in fired else 10) for method, fired in FIRED.items() for i in IDS
    ]  # a corrupted answer is twice as long
    timings = [(stage, seconds, 0) for stage, seconds in TIMINGS.items() if not stage.startswith(without)]
    return (
        pd.DataFrame(timings, columns=["stage", "seconds", "tokens"]),
        pd.DataFrame(rows, columns=["method", "instance", "fired", "n_tokens"]),
    )


@pytest.mark.parametrize(
    ("method", "parts", "tokens"),
    [
        ("pt", (10.0, 0.0, 0.0), 40),
        ("bare", (4.0, 0.0, 0.0), 40),
        ("instruct", (5.0, 0.0, 0.0), 40),
        ("random_prompt", (6.0, 0.0, 0.0), 40),  # a stage of its own, without the answers of pt
        ("cut_off", (7.0, 0.0, 0.0), 40),
        ("dpc", (10.0, 4.0, 4.0), 80),  # half of the four answers under `peak`
        ("always", (10.0, 4.0, 8.0), 120),
        ("random", (10.0, 4.0, 2.0), 60),  # the only one that uses `random`; `random_prompt` is another stage
        ("act", (10.0, 0.0, 12.0), 120),  # a context needs no analysis
    ],
)
def test_by_hand(method: str, parts: tuple[float, ...], tokens: int) -> None:
    row = method_costs(*frames()).set_index("method").loc[method]
    assert (row["generation"], row["analysis"], row["corruption"]) == parts
    assert row["seconds"] == sum(parts)
    assert row["ratio"] == sum(parts) / 10.0
    assert row["tokens"] == tokens


def test_unknown_seconds_are_nan() -> None:
    table = method_costs(*frames(without="corrupted-peak")).set_index("method")
    assert math.isnan(table.loc["dpc", "ratio"])
    assert table.loc["random", "ratio"] == 1.6


def test_a_method_that_never_fires_pays_for_no_corruption() -> None:
    timings, instances = frames(without="corrupted-random")
    instances.loc[instances["method"] == "random", "fired"] = False
    assert method_costs(timings, instances).set_index("method").loc["random", "seconds"] == 14.0


def test_costs_of_an_evaluation(model: HookedModel, prompt: SoftPrompt) -> None:
    """The names of all stages are recognised: no cost is unknown, and `always` pays for every second."""
    problems = load_problems("story", "test", n=24, max_steps=1)
    rule = TriggerRule("late_share", 0.5)
    methods = [*UNTRIGGERED, "always", "dpc"]
    results = evaluate(model, problems, prompt, methods, rule=rule, max_new_tokens=8, progress=False)
    table = results.cost.set_index("method")
    assert (table.drop(index="pt")["seconds"] > 0).all()
    assert table.loc["pt", "ratio"] == 1.0
    timings = results.timings
    names = timings["stage"].str.extract(r"^(.*?)-[0-9a-f]{16}")[0]
    stages = timings.groupby(names)["seconds"].sum()
    assert table.loc["always", "seconds"] == pytest.approx(stages[["pt", "analysis", "corrupted-peak"]].sum())
    for method, stage in {
        "bare": "bare",
        "instruct": "instruct",
        "random_prompt": "corrupted-random_prompt",
        "cut_off": "corrupted-cut_off",
    }.items():
        assert table.loc[method, "seconds"] == pytest.approx(stages[stage])
    assert stages.sum() == pytest.approx(
        table.loc[["bare", "instruct", "random_prompt", "cut_off", "always"], "seconds"].sum()
    )
    assert table.loc["dpc", "seconds"] <= table.loc["always", "seconds"]
    assert table.loc["pt", "tokens"] == sum(len(run.generated_tokens) for run in results.runs)
