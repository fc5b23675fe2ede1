"""A small study, with answers that are set by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dpc_interp import Results, evaluate, load_model, load_problems, load_prompt
from dpc_interp.evaluation.methods import METHODS, TRIGGERED
from dpc_interp.evaluation.summary import summarise
from dpc_interp.evaluation.sweeps import SWEPT_VALUES, VARIANTS
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study import control_runs
from dpc_interp.study.evaluated import EvaluatedPrompt
from dpc_interp.tasks.problem import SPLITS
from dpc_interp.tasks.registry import SYNTHETIC

PROMPT = "reasoner/algebra/seed0"
FEW = {
    "corruption_variants": {
        "variants": {name: VARIANTS[name] for name in ("accumulation token", "noise", "knock-out, deep")}
    },
    "option_sensitivity": {"values": {option: SWEPT_VALUES[option][:2] for option in ("gamma", "target")}},
}
"""Options of the sweeps that make them short."""


@pytest.fixture(autouse=True)
def close_figures() -> None:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def few_sweeps() -> Iterator[None]:
    """Controls in this process sweep few options; `tests/evaluation/test_sweeps.py` tests all of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, values in FEW.items():
            patch.setattr(control_runs, name, partial(getattr(control_runs, name), **values))
        yield


@pytest.fixture(scope="session")
def with_answers() -> Callable[[Results, dict[str, list[bool]], str], Results]:
    """Replace the answers of a result: method -> whether each problem is answered correctly.

    A method changes the text of every fourth problem, `pt` none.
    """

    def change(results: Results, correct: dict[str, list[bool]], prompt: str) -> Results:
        problems = results.statistics["instance"]
        instances = pd.concat(
            [
                pd.DataFrame({"task": "algebra", "prompt": prompt, "method": method, "instance": problems})
                .assign(answer="7", fired=method in TRIGGERED, n_tokens=12)
                .assign(changed=[method != "pt" and i % 4 == 0 for i in range(len(problems))])
                .assign(correct=[values[i % len(values)] for i in range(len(problems))])
                for method, values in correct.items()
            ],
            ignore_index=True,
        )
        summary = summarise(instances)
        summary.insert(0, "task", "algebra")
        return replace(results, instances=instances, summary=summary)

    return change


@pytest.fixture(scope="session")
def reasoner() -> HookedModel:
    """The model of `study`."""
    return load_model("reasoner", device="cpu")


@pytest.fixture(scope="session")
def study(with_answers: Callable[..., Results], reasoner: HookedModel) -> EvaluatedPrompt:
    """24 problems of `algebra`.

    With the prompt, as decoded, some answers are correct. All other methods, by hand, answer the first problem
    correctly and the second not, and so on.
    """
    problems, validation = (load_problems("algebra", split, n=24, seed=0) for split in ("test", "validation"))
    prompt = load_prompt(PROMPT)
    results = evaluate(reasoner, problems, prompt, ["pt"], validation=validation, progress=False)
    answers: dict[str, list[bool]] = {method: [True, False] for method in METHODS}
    answers["pt"] = results.statistics["correct"].tolist()
    assert 0 < sum(answers["pt"]) < len(answers["pt"])
    return EvaluatedPrompt(prompt, with_answers(results, answers, prompt.name))


@pytest.fixture(scope="session")
def check_provenance() -> Callable[[Path], None]:
    """Check that no reported problem calibrated or selected anything, and that each is of the split of its hash."""

    def bucket(name: str) -> int:
        return int(name.rpartition("-")[2], 16) % 100  # the hash in the id of a synthetic problem decides its split

    def check(file: Path) -> None:
        for task, record in json.loads(file.read_text()).items():
            calibrated, reported = set(record["calibrated_on"]), set(record["reported_on"])
            assert calibrated
            assert reported
            assert not calibrated & reported
            assert record["alpha"]
            assert record["selected"]
            if task in SYNTHETIC:
                assert all(
                    SPLITS["train"] <= bucket(name) < SPLITS["train"] + SPLITS["validation"] for name in calibrated
                )
                assert all(SPLITS["train"] + SPLITS["validation"] <= bucket(name) < 100 for name in reported)

    return check
