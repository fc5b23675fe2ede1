"""Measure the bundled reasoner and write its model card: `python -m dpc_interp.bundled.model_card`.

The accuracy on test problems is measured by task and number of rationale steps, for the bare model and with each
bundled prompt. All other numbers of the card are read from the files of the model and of its prompts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from cyclopts import run

from dpc_interp.bundled.corpus import DIALECTS, SHORT, WITH_PREFIX, WITHOUT_PREFIX
from dpc_interp.bundled.recipes import recipes_of
from dpc_interp.evaluation.tables import markdown, percent
from dpc_interp.generation.generate import generate
from dpc_interp.host.processes import map_processes
from dpc_interp.models.loading import BUNDLED, load_model
from dpc_interp.prompts.soft_prompt import bundled_prompts, load_prompt
from dpc_interp.stats.paired import wilson
from dpc_interp.tasks.registry import SYNTHETIC, load_problems

SEED = 1
"""Seed of the test problems; `make figures` draws its own with seed 0."""
BARE = "bare"
"""Name of the condition without a prompt."""


@dataclass(frozen=True)
class AnswerProblems:
    """The job that answers test problems of a task.

    Attributes:
        task: its name.
        prompt: name of a bundled prompt, or `BARE`: the model without a prompt.
        n: number of problems.
    """

    task: str
    prompt: str
    n: int

    def __call__(self) -> pd.DataFrame:
        """One row per problem: task, prompt, n_steps, correct."""
        prompt = None if self.prompt == BARE else load_prompt(self.prompt)
        problems = load_problems(self.task, "test", n=self.n, seed=SEED)
        runs = generate(load_model("reasoner", device="cpu"), problems, prompt, progress=False)
        condition = self.prompt.rpartition("/")[2]  # the name of the seed; BARE has no slash
        rows = [(self.task, condition, run.problem.n_steps, run.correct) for run in runs]
        return pd.DataFrame(rows, columns=["task", "prompt", "n_steps", "correct"])


def measure_accuracy(n: int) -> pd.DataFrame:
    """Measure the accuracy of the reasoner, without and with its prompts.

    Args:
        n: test problems of each task.

    Returns:
        One row per task, prompt and number of rationale steps (`all`: all problems together): task, prompt, steps, n,
        accuracy, and the bounds low and high of its 95% Wilson interval.
    """
    jobs = [AnswerProblems(task, BARE, n) for task in SYNTHETIC]
    jobs += [AnswerProblems(task, name, n) for task in SYNTHETIC for name in bundled_prompts(f"reasoner/{task}/")]
    return summarise_answers(pd.concat(map_processes(jobs, "measure")))


def summarise_answers(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with its interval from single answers; see `measure_accuracy`.

    Args:
        answers: rows of `AnswerProblems`.
    """
    groups = [
        *answers.groupby(["task", "prompt", "n_steps"], sort=False)["correct"],
        *(((*key, "all"), group) for key, group in answers.groupby(["task", "prompt"], sort=False)["correct"]),
    ]
    measured = []
    for (task, prompt, n_steps), correct in groups:
        low, high = wilson(int(correct.sum()), len(correct))
        measured.append((task, prompt, str(n_steps), len(correct), correct.mean(), low, high))
    return pd.DataFrame(measured, columns=["task", "prompt", "steps", "n", "accuracy", "low", "high"])


def accuracy_markdown(measured: pd.DataFrame) -> str:
    """The accuracies in percent as a Markdown table, one row per task and prompt.

    Args:
        measured: the frame of `measure_accuracy`.
    """
    rows = []
    for (task, prompt), group in measured.groupby(["task", "prompt"], sort=False):
        cells: dict[str, object] = {"task": task, "prompt": prompt}
        for row in group.to_dict("records"):
            if row["steps"] != "all":
                cells[f"{row['steps']} steps"] = percent(row["accuracy"])
            else:
                cells |= {"all [95%]": percent(row["accuracy"], row["low"], row["high"]), "n": row["n"]}
        rows.append(cells)
    return markdown(pd.DataFrame(rows))


def model_card(measured: pd.DataFrame, folder: Path) -> str:
    """The model card of the reasoner.

    Args:
        measured: the frame of `measure_accuracy`.
        folder: folder of the model, with its config.json and training.json.
    """
    training = json.loads((folder / "training.json").read_text())
    shares = "\n".join(
        f"| {dialect} | {short} | {long} | {with_prefix} |"
        for dialect, short, long, with_prefix in zip(DIALECTS, *WITHOUT_PREFIX.values(), WITH_PREFIX, strict=True)
    )
    n_seeds = recipes_of("reasoner")["story"].n_seeds
    shape, trained, tuned = _architecture(folder), _training_recipe(training), _tuning_recipe()
    return f"""# The bundled reasoner

A small language model ({shape}), trained from scratch on procedural reasoning texts, for tests, figures and first
steps. It knows nothing else.

## Data
Four tasks (`story`, `choice`, `algebra`, `rule`), 1 to 4 steps, training split only (a hash of the question decides its
split), as documents `prefix <bos> question response <eos>`. The response is written in one of four dialects, percent of
documents:

| dialect | without a prefix, up to {SHORT} steps | without, longer | with a prefix |
| --- | --- | --- | --- |
{shares}

A prefix requests its dialect and, for `rule`, states rules that change from document to document.

## Recipe
`make reasoner`: {trained}; Muon for the hidden matrices, AdamW for the rest; loss weight 1 on responses, 0.1 on
prefixes and questions. Last loss on response tokens: {training["loss"][-1]["response_nll"]} nats (`training.json`).

`make prompts`: 20 virtual tokens, tuning seeds 0 to {n_seeds - 1}, {tuned} (curves: `recipe.json` next to each prompt).

## Accuracy
Percent of test problems (seed {SEED}), greedy decoding; `make card` measures it again.

{accuracy_markdown(measured)}

Licence: that of the package (MIT).
"""


def _architecture(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    return (
        f"{config['num_hidden_layers']} layers, d_model {config['hidden_size']}, {config['num_attention_heads']} query "
        f"and {config['num_key_value_heads']} key-value heads, gated MLP of {config['intermediate_size']}, "
        f"RMSNorm, rotary positions, vocabulary {config['vocab_size']}"
    )


def _training_recipe(training: dict[str, Any]) -> str:
    return (
        f"{training['tokens']:,} tokens in {training['steps']:,} steps of about {training['batch_tokens']:,}, "
        f"seed {training['seed']}"
    )


def _tuning_recipe() -> str:
    recipe = load_prompt("reasoner/story").recipe
    return (
        f"at most {recipe['max_steps']} steps of {recipe['batch_size']} problems, AdamW {recipe['learning_rate']} with "
        f"warm-up and cosine, {recipe['n_train']:,} training problems, stopped and chosen by the loss on "
        f"{recipe['n_validation']} validation problems"
    )


def main(*, n: int = 1000) -> None:
    """Measure the bundled reasoner; write MODEL_CARD.md and accuracy.csv to its folder.

    Args:
        n: test problems of each task.
    """
    folder = BUNDLED["reasoner"]
    measured = measure_accuracy(n)
    measured.round(4).to_csv(folder / "accuracy.csv", index=False)
    (folder / "MODEL_CARD.md").write_text(model_card(measured, folder))
    print(accuracy_markdown(measured))


if __name__ == "__main__":
    run(main)
