"""The command line `dpc-interp`. Arguments, defaults and help come from signatures and dataclasses (cyclopts).

Input that the package refuses ends in one line and exit code 2.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from dpc_interp.analysis.options import Options
from dpc_interp.bundled.studies import BundledStudy
from dpc_interp.claims.verdict_page import write_page
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.grid import ProblemSample, load_prompts
from dpc_interp.evaluation.tables import accuracy_table, markdown
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.models.loading import load_model
from dpc_interp.parity.check import check_model
from dpc_interp.prompts.tuning import TuningConfig, tune_prompt
from dpc_interp.study.accuracy_tables import pool_prompts
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.source import folder_name
from dpc_interp.study.study import study as make_study
from dpc_interp.tasks.registry import has_validation, load_problems

Flat = Parameter(name="*")
"""Every field of a dataclass is an option of its own name."""
Backend = Literal["hooked", "bridge"]

app = App(
    name="dpc-interp",
    help="See, and change, what a soft prompt does inside a language model while it reasons.",
    version=version("dpc_interp"),
    help_format="plaintext",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=(), negative_none=()),
)


@app.command
def study(
    model: str,
    *,
    prompts: list[str],
    problems: list[str],
    validation: list[str] | None = None,
    n: int = ProblemSample.n,
    n_validation: int = ProblemSample.n_validation,
    device: str | None = None,
    dtype: str = "float32",
    backend: Backend | None = None,
    options: Annotated[Options | None, Flat] = None,
    run: Annotated[RunConfig | None, Flat] = None,
    sizes: Annotated[ControlSizes | None, Flat] = None,
) -> None:
    """Evaluate prompts, run the controls, judge the paper's claims; write figures, tables and a report.

    Files go to --out, by default to studies/ and the name of the model; the same command resumes there.

    Args:
        model: name, folder or .gguf file of the model.
        prompts: adapters, by name or folder; several tuning seeds, or no claim can be judged.
        problems: tasks, by name or file.
        validation: files whose problems calibrate, one for each task that is a file; default: 30% of its problems.
        n: problems of each task that are reported.
        n_validation: problems of each task that calibrate, at most.
        device: cpu, cuda, cuda:1, mps; default: a GPU if there is one.
        dtype: of the weights, such as bfloat16.
        backend: hooked or bridge; default: hooked where it can be.
    """
    run = run or RunConfig()
    out = Path(run.out or Path("studies") / folder_name(Path(model).name))
    files = [file for file in problems if not has_validation(file)]
    if validation and len(validation) != len(files):
        raise DPCInterpError(
            f"--validation has {len(validation)} files for {len(files)} tasks without a validation split; give one each"
        )
    held_out = {
        load_problems(file, n=1)[0].task: load_problems(calibrates, n=None)
        for file, calibrates in zip(files, validation or (), strict=False)
    }
    made = make_study(
        model,
        problems,
        prompts,
        load_options={"device": device, "dtype": dtype, "backend": backend},
        sample=ProblemSample(n, n_validation, validation=held_out),
        options=options,
        run=replace(run, out=out / "runs"),
        sizes=sizes,
    )
    print(f"wrote {made.figures(out / 'figures')}")
    print(f"wrote {made.control_figures(out / 'figures')}")
    print(f"wrote {write_page(out)}")
    print(f"wrote {made.report(out / 'report.html')}")


@app.command
def figures(*, which: Annotated[BundledStudy | None, Flat] = None, out: Path | None = None) -> None:
    """Draw the paper's figures and tables of a bundled model.

    Args:
        out: folder of figures and tables; default: figures/ and the name of the model. The figures of the first task
            are written to it, those of the others to subfolders.
    """
    which = which or BundledStudy()
    start = time.perf_counter()
    page = which.open().figures(out or Path("figures") / which.model)
    print(f"wrote {page.parent} in {time.perf_counter() - start:.0f} s")


@app.command
def verdicts(
    *,
    which: Annotated[BundledStudy | None, Flat] = None,
    sizes: Annotated[ControlSizes | None, Flat] = None,
    out: Path | None = None,
) -> None:
    """Run the controls of a bundled model and judge the paper's claims.

    Args:
        out: folder of figures and tables; default: figures/ and the name of the model. VERDICTS.md is written next to
            it.
    """
    which = which or BundledStudy()
    start = time.perf_counter()
    folder = which.open(sizes).control_figures(out or Path("figures") / which.model).parent
    page = write_page(folder.parent)
    print(f"wrote {folder} and {page} in {time.perf_counter() - start:.0f} s")


@app.command
def evaluate(
    model: str,
    prompt: str,
    problems: str,
    *,
    n: int = ProblemSample.n,
    device: str | None = None,
    dtype: str = "float32",
    options: Annotated[Options | None, Flat] = None,
    run: Annotated[RunConfig | None, Flat] = None,
) -> None:
    """Compare prompt tuning and the corruptions on the same problems, and print a table.

    Args:
        model: name, folder or .gguf file of the model.
        prompt: adapter, by name or folder.
        problems: a task, by name or file.
        n: problems that are reported.
        device: cpu, cuda, cuda:1, mps; default: a GPU if there is one.
        dtype: of the weights, such as bfloat16.
    """
    load_options = {"device": device, "dtype": dtype}
    made = make_study(model, problems, prompt, load_options=load_options, n=n, options=options, run=run)
    print(markdown(accuracy_table(pool_prompts(made.results))))


@app.command
def tune(
    model: str,
    problems: str,
    out: Path,
    *,
    n: int = 4000,
    n_virtual_tokens: int = 20,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "float32",
    config: Annotated[TuningConfig | None, Flat] = None,
) -> None:
    """Tune a soft prompt and write it as a PEFT adapter.

    Args:
        model: name, folder or .gguf file of the model.
        problems: a task with written rationales, by name or file; its training split.
        out: folder of the adapter.
        n: training problems.
        n_virtual_tokens: vectors of the prompt.
        seed: of the initial tokens and of the batches.
        device: cpu, cuda, cuda:1, mps; default: a GPU if there is one.
        dtype: of the weights, such as bfloat16.
    """
    rows = load_problems(problems, "train", n=n)
    tuned = tune_prompt(
        load_model(model, device=device, dtype=dtype), rows, n_virtual_tokens, seed, config=config, name=out.name
    )
    tuned.save_pretrained(out, base_model=model)
    print(f"wrote {out}: {tuned.n_virtual} virtual tokens")


@app.command
def check(model: str, *, prompt: str | None = None, device: str | None = None, dtype: str = "float32") -> None:
    """Test a model before its numbers are trusted.

    Args:
        model: name, folder or .gguf file of the model.
        prompt: adapter, by name or folder; default: random vectors.
        device: cpu, cuda, cuda:1, mps; default: a GPU if there is one.
        dtype: of the weights, such as bfloat16.
    """
    loaded = load_model(model, device=device, dtype=dtype)
    print(check_model(loaded, prompt=None if prompt is None else load_prompts(prompt)[0]))


def main(arguments: list[str] | None = None) -> None:
    """Run a command; input that the package refuses ends in one line and exit code 2.

    Args:
        arguments: of the command; None: those of this process.
    """
    try:
        app(arguments)
    except DPCInterpError as error:
        print(f"dpc-interp: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
