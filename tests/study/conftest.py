"""A small study, with answers that are set by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dpc_interp import Results, evaluate, load_model, load_problems, load_prompt
from dpc_interp.evaluation.methods import METHODS, TRIGGERED
from dpc_interp.evaluation.summary import summarise
from dpc_interp.study.study import Study

PROMPT = "reasoner/algebra/seed0"


@pytest.fixture(autouse=True)
def close_figures() -> None:
    yield
    plt.close("all")


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
def study(with_answers: Callable[..., Results]) -> Study:
    """24 problems of `algebra`.

    With the prompt, as decoded, some answers are correct. All other methods, by hand, answer the first problem
    correctly and the second not, and so on.
    """
    problems, validation = (load_problems("algebra", split, n=24, seed=0) for split in ("test", "validation"))
    model, prompt = load_model("reasoner", device="cpu"), load_prompt(PROMPT)
    results = evaluate(model, problems, prompt, ["pt"], validation=validation, progress=False)
    answers: dict[str, list[bool]] = {method: [True, False] for method in METHODS}
    answers["pt"] = results.statistics["correct"].tolist()
    assert 0 < sum(answers["pt"]) < len(answers["pt"])
    return Study("reasoner", "algebra", PROMPT, with_answers(results, answers, prompt.name))
