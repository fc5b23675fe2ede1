"""Accuracy of SmolLM2 without a soft prompt, on the test problems of its figures: `python benchmarks/accuracy.py`.

The same problems are asked bare, in the model's chat template with an instruction as the system message, and after
worked examples. Decoding is greedy and the problems have a fixed seed, so the table repeats on the same machine. It is
written after each way to ask, so that an interrupted run leaves the finished ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from results import machine

import dpc_interp as dpc
from dpc_interp.evaluation.tables import markdown, percent
from dpc_interp.stats.paired import wilson

MODEL, TASK, MAX_STEPS, SEED = "smollm2-135m", "story", 3, 0
"""The problems of `make figures MODEL=smollm2-135m`."""
INSTRUCTION = "Solve the problem step by step. End with: The answer is <number>."
NEW_TOKENS = 256


def formats() -> Mapping[str, tuple[dpc.QuestionFormat, int | None]]:
    """The ways to ask: name -> question format and `max_new_tokens`; None is the default, 96."""
    examples = dpc.load_problems(TASK, "train", n=MAX_STEPS, seed=SEED, max_steps=MAX_STEPS)
    worked = "".join(f"Question: {problem.question}\nAnswer: {problem.rationale}\n\n" for problem in examples)
    return {
        "bare, as `base` in the figures": (dpc.QuestionFormat(prepend_bos=True), None),
        "chat template and instruction": (dpc.QuestionFormat("chat", system=INSTRUCTION), NEW_TOKENS),
        f"{MAX_STEPS} worked examples": (dpc.QuestionFormat(f"{worked}Question: {{question}}\nAnswer:"), None),
    }


def measure(
    model: object, problems: list[dpc.Problem], name: str, asked: dpc.QuestionFormat, max_new_tokens: int | None
) -> dict[str, object]:
    """The row of one way to ask.

    Args:
        model: SmolLM2.
        problems: of the test split.
        name: of the way.
        asked: the question format.
        max_new_tokens: the most tokens of a text; None: the default of the task.
    """
    runs = dpc.generate(model, problems, template=asked, max_new_tokens=max_new_tokens, batch_size=50)  # type: ignore[arg-type]
    n_correct = sum(run.correct for run in runs)
    return {
        "question": name,
        "n": len(runs),
        "correct": n_correct,
        "accuracy [95%]": percent(n_correct / len(runs), *wilson(n_correct, len(runs))),
        "answer found": percent(sum(run.answer is not None for run in runs) / len(runs)),
        "finished": percent(sum(run.finished for run in runs) / len(runs)),
        "tokens": f"{sum(len(run.generated_tokens) for run in runs) / len(runs):.0f}",
    }


def page(rows: list[dict[str, object]], n: int) -> str:
    """The page of the table.

    Args:
        rows: of `measure`.
        n: test problems.
    """
    return (
        f"# Accuracy of {MODEL} on `{TASK}` without a soft prompt\n\nWritten by `python benchmarks/accuracy.py`, never "
        f"by hand: {n} test problems of 1 to {MAX_STEPS} steps (seed {SEED}), greedy decoding in float32. An answer is "
        f"read wherever the grammar of docs/answers.md finds one. At most {NEW_TOKENS} new tokens with the chat "
        "template, else 96. In percent, with 95% Wilson intervals; tokens: mean of a text.\n\nThe instruction, as the "
        f'system message: "{INSTRUCTION}"\n\n{markdown(pd.DataFrame(rows))}\n\n{machine()}\n'
    )


def main() -> None:
    """Measure every way to ask and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "ACCURACY.md")
    parser.add_argument("--n", type=int, default=300, help="test problems")
    args = parser.parse_args()
    model = dpc.load_model(MODEL, device="cpu")
    problems = dpc.load_problems(TASK, "test", n=args.n, seed=SEED, max_steps=MAX_STEPS)
    rows: list[dict[str, object]] = []
    for name, (asked, max_new_tokens) in formats().items():
        rows.append(measure(model, problems, name, asked, max_new_tokens))
        args.out.write_text(page(rows, args.n))


if __name__ == "__main__":
    main()
