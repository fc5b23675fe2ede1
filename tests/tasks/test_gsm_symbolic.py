"""`gsm_symbolic`, with the templates of a fake `reasoning-gym` and with the real package if it is installed."""

from __future__ import annotations

import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dpc_interp import DPCInterpError, Problem, load_problems
from dpc_interp.tasks.answers import extract_answer, is_correct
from dpc_interp.tasks.benchmarks import template_of
from dpc_interp.tasks.problem import split_of


def sum_template(template: int, n_steps: int) -> Any:
    """A template of `n_steps` additions, in the form of reasoning-gym."""

    def generate(rng: random.Random, difficulty: float) -> dict[str, Any]:
        assert difficulty == 1.0
        numbers = [rng.randint(1, 999) for _ in range(n_steps + 1)]
        totals = [sum(numbers[:k]) for k in range(1, len(numbers) + 1)]
        lines = [f"{totals[k]} + {numbers[k + 1]} = {totals[k + 1]}" for k in range(n_steps)]
        return {
            "question": f"Template {template}: what is the sum of {', '.join(map(str, numbers))}?",
            "answer": str(totals[-1]),
            "metadata": {"answer_cot": "\n".join([*lines, f"#### {totals[-1]}"])},
        }

    return generate


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with templates 0 to 4 of 1 to 5 steps, of which template 3 is broken."""

    class Dataset:
        def __init__(self, config: SimpleNamespace) -> None:
            self.generators = {template: sum_template(template, template + 1) for template in range(5)}

    names = ["reasoning_gym", "reasoning_gym.arithmetic", "reasoning_gym.arithmetic.gsm_symbolic"]
    modules = {name: ModuleType(name) for name in names}
    modules[names[-1]].gsm_symbolic = SimpleNamespace(
        GSMSymbolicDataset=Dataset, GSMSymbolicDatasetConfig=SimpleNamespace, tasks_ok=[0, 1, 2, 4]
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("templates")
def test_problems() -> None:
    for problem in load_problems("gsm_symbolic", "train", n=60):
        assert problem.n_steps == template_of(problem) + 1
        assert problem.question.startswith(f"Template {template_of(problem)}:")
        lines = problem.rationale.split("\n")
        assert len(lines) == problem.n_steps + 1
        assert lines[-1] == f"#### {problem.answer}"
        assert lines[-2].endswith(f"= {problem.answer}")
        assert split_of(problem.question) == "train"


@pytest.mark.usefixtures("templates")
def test_every_correct_template_is_drawn() -> None:
    assert {template_of(problem) for problem in load_problems("gsm_symbolic", n=60)} == {0, 1, 2, 4}


@pytest.mark.usefixtures("templates")
def test_selected_templates() -> None:
    problems = load_problems("gsm_symbolic/4,1", n=20)
    assert {template_of(problem) for problem in problems} == {1, 4}
    assert {problem.task for problem in problems} == {"gsm_symbolic/4,1"}


@pytest.mark.usefixtures("templates")
def test_seed_decides_and_a_longer_draw_begins_with_the_shorter() -> None:
    problems = load_problems("gsm_symbolic", n=20, seed=1)
    assert load_problems("gsm_symbolic", n=7, seed=1) == problems[:7]
    assert load_problems("gsm_symbolic", n=20, seed=2) != problems


@pytest.mark.usefixtures("templates")
def test_max_steps() -> None:
    assert {problem.n_steps for problem in load_problems("gsm_symbolic", n=30, max_steps=2)} == {1, 2}


@pytest.mark.usefixtures("templates")
@pytest.mark.parametrize("selection", ["3", "1,9", "1,", "-1", "one"])
def test_templates_that_do_not_exist(selection: str) -> None:
    with pytest.raises(DPCInterpError, match=r"template that does not exist; .* numbers from 0 to 4"):
        load_problems(f"gsm_symbolic/{selection}", n=3)


@pytest.mark.usefixtures("templates")
def test_a_selection_without_enough_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpc_interp.tasks.problem.MAX_REJECTIONS", 50)
    with pytest.raises(DPCInterpError, match="only 0 distinct test problems of gsm_symbolic/4 were found"):
        load_problems("gsm_symbolic/4", n=3, max_steps=2)


def test_template_of_another_task() -> None:
    with pytest.raises(DPCInterpError, match="'story-12' is not an id of gsm_symbolic"):
        template_of(Problem("story", "How many?", "", "1", 1, "story-12"))


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.arithmetic.gsm_symbolic", None)
    with pytest.raises(DPCInterpError, match="pip install reasoning-gym"):
        load_problems("gsm_symbolic", n=3)


def test_reasoning_gym_itself() -> None:
    pytest.importorskip("reasoning_gym")
    problems = load_problems("gsm_symbolic/12,38", n=20)
    assert {template_of(problem) for problem in problems} == {12, 38}
    assert problems[:7] == load_problems("gsm_symbolic/12,38", n=7)
    assert all(split_of(problem.question) == "test" for problem in problems)
    assert all(is_correct(extract_answer(p.rationale), p.answer) for p in load_problems("gsm_symbolic", "train", n=300))
    assert {problem.n_steps for problem in load_problems("gsm_symbolic", n=30, max_steps=2)} <= {1, 2}
    with pytest.raises(DPCInterpError, match="template that does not exist"):
        load_problems("gsm_symbolic/32", n=3)
