"""The model card: its numbers are those of accuracy.csv and training.json, which are measured as stated."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from dpc_interp import generate, load_model, load_problems, load_prompt
from dpc_interp.bundled.model_card import (
    SEED,
    AnswerProblems,
    accuracy_markdown,
    model_card,
    summarise_answers,
)
from dpc_interp.models.loading import BUNDLED
from dpc_interp.stats.paired import wilson
from dpc_interp.tasks.registry import SYNTHETIC

FOLDER = BUNDLED["reasoner"]


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "accuracy.csv")


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "MODEL_CARD.md").read_text()


def read_table(text: str) -> pd.DataFrame:
    """The last Markdown table of a text."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    first = max(i for i, cells in enumerate(lines) if cells[0].strip() == "task")
    header, _, *rows = ([cell.strip() for cell in cells] for cells in lines[first:])
    return pd.DataFrame(rows, columns=header).set_index(["task", "prompt"])


def test_every_accuracy_is_in_its_cell(measured: pd.DataFrame, card: str) -> None:
    cells = read_table(card)
    assert set(cells.index) == {(row.task, row.prompt) for row in measured.itertuples()}
    assert {task for task, _ in cells.index} == set(SYNTHETIC)
    for row in measured.itertuples():
        if row.steps == "all":
            accuracy, low, high = re.fullmatch(
                r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cells.loc[(row.task, row.prompt), "all [95%]"]
            ).groups()
            assert float(low) == pytest.approx(100 * row.low, abs=0.06)
            assert float(high) == pytest.approx(100 * row.high, abs=0.06)
            assert cells.loc[(row.task, row.prompt), "n"] == str(row.n)
        else:
            accuracy = cells.loc[(row.task, row.prompt), f"{row.steps} steps"]
        assert accuracy == f"{100 * row.accuracy:.1f}"


def test_training_numbers_are_those_of_the_run(card: str) -> None:
    training = json.loads((FOLDER / "training.json").read_text())
    tokens, steps, batch, seed = re.search(
        r"`make reasoner`: ([\d,]+) tokens in ([\d,]+) steps of about ([\d,]+), seed (\d+);", card
    ).groups()
    numbers = [int(number.replace(",", "")) for number in (tokens, steps, batch, seed)]
    assert numbers == [training[name] for name in ("tokens", "steps", "batch_tokens", "seed")]
    loss = re.search(r"Last loss on response tokens: ([\d.]+) nats", card)
    assert float(loss[1]) == training["loss"][-1]["response_nll"]


def test_committed_card_is_generated(measured: pd.DataFrame, card: str) -> None:
    """Intervals are computed again from the counts: accuracy.csv has rounded them."""
    bounds = [wilson(round(row.accuracy * row.n), row.n) for row in measured.itertuples()]
    exact = measured.assign(low=[low for low, _ in bounds], high=[high for _, high in bounds])
    pd.testing.assert_frame_equal(exact.round(4), measured)
    assert model_card(exact, FOLDER) == card


def test_summary_of_known_answers() -> None:
    answers = pd.DataFrame(
        {"task": "story", "prompt": "seed0", "n_steps": [1, 1, 1, 1, 2, 2], "correct": [True] * 3 + [False] * 3}
    )
    summary = summarise_answers(answers).set_index("steps")
    assert summary["n"].to_dict() == {"1": 4, "2": 2, "all": 6}
    assert summary["accuracy"].to_dict() == {"1": 0.75, "2": 0.0, "all": 0.5}
    assert (summary.loc["all", "low"], summary.loc["all", "high"]) == wilson(3, 6)
    row = read_table(accuracy_markdown(summary.reset_index())).loc[("story", "seed0")]
    assert (row["1 steps"], row["2 steps"], row["n"]) == ("75.0", "0.0", "6")
    assert row["all [95%]"].startswith("50.0 [")


@pytest.mark.parametrize(("prompt", "condition"), [("bare", "bare"), ("reasoner/story/seed1", "seed1")])
def test_job_answers_the_test_problems(prompt: str, condition: str) -> None:
    rows = AnswerProblems("story", prompt, 4)()
    problems = load_problems("story", "test", n=4, seed=SEED)
    vectors = None if condition == "bare" else load_prompt(prompt)
    runs = generate(load_model("reasoner", device="cpu"), problems, vectors, progress=False)
    assert rows["correct"].tolist() == [run.correct for run in runs]
    assert rows["n_steps"].tolist() == [problem.n_steps for problem in problems]
    assert rows[["task", "prompt"]].drop_duplicates().to_numpy().tolist() == [["story", condition]]
