"""Measure the bundled reasoner and write its model card: `python -m dpc_interp.reasoner.card`.

Accuracy on test problems of each task and number of steps, bare and with each bundled prompt. Every number of the card
comes from this command.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from dpc_interp.evaluation.statistics import wilson
from dpc_interp.evaluation.tables import markdown, percent
from dpc_interp.lm.generation import generate
from dpc_interp.lm.loading import BUNDLED, load_model
from dpc_interp.lm.soft_prompt import bundled_prompts, load_prompt
from dpc_interp.parallel import map_processes
from dpc_interp.reasoner.corpus import DIALECTS, SHORT, WITH_PREFIX, WITHOUT_PREFIX
from dpc_interp.tasks.problems import SYNTHETIC, load_problems

SEED = 1
"""Of the test draw; `make figures` draws with seed 0."""


def answers(task: str, prompt_name: str, n: int) -> pd.DataFrame:
    """task, prompt, n_steps, correct of each of `n` test problems; `bare` is the model without a prompt."""
    prompt = None if prompt_name == "bare" else load_prompt(prompt_name)
    problems = load_problems(task, "test", n=n, seed=SEED)
    runs = generate(load_model("reasoner", device="cpu"), problems, prompt, progress=False)
    label = "bare" if prompt is None else prompt_name.rpartition("/")[2]
    rows = [(task, label, run.problem.n_steps, run.correct) for run in runs]
    return pd.DataFrame(rows, columns=["task", "prompt", "n_steps", "correct"])


def measure(n: int) -> pd.DataFrame:
    """Accuracy with its 95% Wilson interval by task, prompt and number of steps (`all` for all together)."""
    jobs = [(task, "bare", n) for task in SYNTHETIC]
    jobs += [(task, name, n) for task in SYNTHETIC for name in bundled_prompts(f"reasoner/{task}/")]
    rows = pd.concat(map_processes(answers, jobs, "measure"))
    groups = [
        *rows.groupby(["task", "prompt", "n_steps"], sort=False)["correct"],
        *(((*key, "all"), group) for key, group in rows.groupby(["task", "prompt"], sort=False)["correct"]),
    ]
    measured = []
    for (task, prompt, n_steps), correct in groups:
        low, high = wilson(int(correct.sum()), len(correct))
        measured.append((task, prompt, str(n_steps), len(correct), correct.mean(), low, high))
    return pd.DataFrame(measured, columns=["task", "prompt", "steps", "n", "accuracy", "low", "high"])


def table(measured: pd.DataFrame) -> str:
    """The accuracies in percent as a Markdown table, one row a task and prompt."""
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


def card(measured: pd.DataFrame, folder: Path) -> str:
    """The model card of the reasoner in `folder`."""
    config = json.loads((folder / "config.json").read_text())
    training = json.loads((folder / "training.json").read_text())
    recipe = load_prompt("reasoner/story").recipe
    shares = "\n".join(
        f"| {dialect} | {short} | {long} | {with_} |"
        for dialect, short, long, with_ in zip(DIALECTS, *WITHOUT_PREFIX.values(), WITH_PREFIX, strict=True)
    )
    shape = (
        f"{config['num_hidden_layers']} layers, d_model {config['hidden_size']}, {config['num_attention_heads']} query "
        f"and {config['num_key_value_heads']} key-value heads, gated MLP of {config['intermediate_size']}, "
        f"RMSNorm, rotary positions, vocabulary {config['vocab_size']}"
    )
    trained = (
        f"{training['tokens']:,} tokens in {training['steps']:,} steps of about {training['batch_tokens']:,}, "
        f"seed {training['seed']}"
    )
    tuned = (
        f"at most {recipe['n_steps']} steps of {recipe['batch_size']} problems, AdamW {recipe['learning_rate']} with "
        f"warm-up and cosine, {recipe['n_train']:,} training problems, stopped and chosen by the loss on "
        f"{recipe['n_validation']} validation problems"
    )
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

A prefix asks for its dialect and, for `rule`, states rules that change from document to document.

## Recipe
`make reasoner`: {trained}; Muon for the hidden matrices, AdamW for the rest; loss weight 1 on responses, 0.1 on
prefixes and questions. Last loss on response tokens: {training["loss"][-1]["response_nll"]} nats (`training.json`).

`make prompts`: 20 virtual tokens, tuning seeds 0 to 2, {tuned} (curves: `recipe.json` beside each prompt).

## Accuracy
Percent of test problems (seed {SEED}), greedy decoding; `make card` measures it again.

{table(measured)}

Licence: that of the package (MIT).
"""


def main() -> None:
    """Write MODEL_CARD.md and accuracy.csv beside the model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--n", type=int, default=1000, help="test problems a task")
    args = parser.parse_args()
    folder = BUNDLED["reasoner"]
    measured = measure(args.n)
    measured.round(4).to_csv(folder / "accuracy.csv", index=False)
    (folder / "MODEL_CARD.md").write_text(card(measured, folder))
    print(table(measured))


if __name__ == "__main__":
    main()
