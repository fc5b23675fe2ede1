"""The pooled tables are the numbers of the studies, pooled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import Results
from dpc_interp.evaluation.methods import MAIN_METHODS
from dpc_interp.study.accuracy_tables import ABLATION, write_tables
from dpc_interp.study.evaluated import EvaluatedPrompt


@pytest.fixture(scope="module")
def studies(study: EvaluatedPrompt, with_answers: Callable[..., Results]) -> list[EvaluatedPrompt]:
    """Two prompts. With the second, `pt` answers one of four problems, `dpc` three of four, all others none."""
    answers = {method: [False] for method in study.results.instances["method"].unique()}
    answers |= {"pt": [True, False, False, False], "dpc": [True, True, True, False]}
    second = with_answers(study.results, answers, "algebra/seed1")
    return [study, replace(study, results=second)]


@pytest.fixture(scope="module")
def written(studies: list[EvaluatedPrompt], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("tables")
    return folder, write_tables(studies, folder)


@pytest.mark.parametrize(("name", "methods"), [("tab1_accuracy", MAIN_METHODS), ("tab2_ablation", ABLATION)])
def test_accuracies_pool_the_prompts(
    studies: list[EvaluatedPrompt], written: tuple[Path, str], name: str, methods: tuple[str, ...]
) -> None:
    table = pd.read_csv(written[0] / f"{name}.csv").set_index("method")
    assert set(table.index) == set(methods)
    assert (table["n_prompts"] == 2).all()
    assert (table["n"] == 48).all()
    n_correct = sum(study.results.instances.groupby("method")["correct"].sum() for study in studies)
    for method in methods:
        assert table.loc[method, "accuracy"] == pytest.approx(n_correct[method] / 48, rel=1e-5)
    assert {file.suffix for file in written[0].glob(f"{name}.*")} == {".csv", ".parquet", ".pdf", ".png"}


def test_fixed_and_broken_are_counted_over_both_prompts(
    studies: list[EvaluatedPrompt], written: tuple[Path, str]
) -> None:
    table = pd.read_csv(written[0] / "tab1_accuracy.csv").set_index("method")
    first = studies[0].results.summary.set_index("method").loc["dpc"]
    assert table.loc["dpc", "fixed"] == first["fixed"] + 12, "the second prompt: two of four problems"
    assert table.loc["dpc", "broken"] == first["broken"]


def test_p_values_are_stated_by_prompt(studies: list[EvaluatedPrompt], written: tuple[Path, str]) -> None:
    table = pd.read_csv(written[0] / "tab1_accuracy.csv").set_index("method")
    p_values = [study.results.summary.set_index("method").loc["dpc", "p_mcnemar"] for study in studies]
    assert table.loc["dpc", "p_by_prompt"] == ", ".join(f"{p:.2g}" for p in p_values)
    assert p_values[1] == pytest.approx(2 * 0.5**12), "12 problems are fixed and none is broken"


def test_text_holds_every_table(written: tuple[Path, str]) -> None:
    text = written[1]
    table = pd.read_csv(written[0] / "tab1_accuracy.csv").set_index("method")
    row = next(line for line in text.splitlines() if line.startswith("| algebra | dpc |"))
    assert f"{100 * table.loc['dpc', 'accuracy']:.1f} [" in row
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [heading.split(":")[0] for heading in headings[:2]] == ["## tab1_accuracy", "## tab2_ablation"]
    assert len(headings) == 2
