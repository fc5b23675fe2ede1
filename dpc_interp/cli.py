"""The command line `dpc-interp`. Arguments, defaults and help come from signatures and dataclasses (cyclopts).

Input that the package refuses ends in one line and exit code 2.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Yaml

from dpc_interp.analysis.options import Options
from dpc_interp.bundled.studies import BundledStudy
from dpc_interp.claims.verdict_page import write_page as write_verdict_page
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.grid import ProblemSample, load_prompts
from dpc_interp.evaluation.tables import accuracy_table, markdown
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.models.loading import load_model
from dpc_interp.parity.check import check_model
from dpc_interp.prompts.tuning import TuningConfig, tune_prompt
from dpc_interp.study.accuracy_tables import pool_prompts
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.study import study as make_study
from dpc_interp.study_call import SETTINGS, Flat, LoadOptions, StudyCall
from dpc_interp.tasks.registry import load_problems


def _read_config(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Add the arguments in the file `--config` to those of the command line."""
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            file = argument.tokens[0].value
            if not Path(file).expanduser().is_file():
                raise DPCInterpError(f"there is no file {file}; give the YAML file with the arguments of a study")
            Yaml(file, use_commands_as_keys=False)(app, commands, arguments)


app = App(
    name="dpc-interp",
    help="See, and change, what a soft prompt does inside a language model while it reasons.",
    version=version("dpc_interp"),
    help_format="plaintext",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=(), negative_none=()),
    config=_read_config,
)


@app.command
def study(model: str, *, which: Annotated[StudyCall, Flat], config: Path | None = None) -> None:
    """Evaluate prompts, run the controls, judge the paper's claims; write figures, tables and a report.

    It prints first how long it will take. Files go to --out, by default to studies/ and the name of the model; the same
    command resumes there. What the study was given is written there too, as study.yaml.

    Args:
        model: name, folder or .gguf file of the model.
        config: YAML file with any of these arguments, such as study.yaml of another study; those of the command line
            take precedence.
    """
    out = which.folder(model)
    resumes = (out / SETTINGS).exists()
    if resumes:
        which.check_resumes(model, out / SETTINGS)
    made = which.open(model)
    if not resumes:
        print(made.plan())
    which.write(model, out / SETTINGS)
    print(f"wrote {made.figures(out / 'figures')}")
    print(f"wrote {made.control_figures(out / 'figures')}")
    print(f"wrote {write_verdict_page(out)}")
    print(f"wrote {made.report(out / 'report.html')}")


@app.command
def plan(
    model: str, *, which: Annotated[StudyCall, Flat], config: Path | None = None, minutes: float | None = None
) -> None:
    """Print what a study computes and about how long it takes, after a short timing.

    Args:
        model: name, folder or .gguf file of the model.
        config: YAML file with any of these arguments.
        minutes: shrink the controls until the study takes at most this time, and print their sizes as options.
    """
    planned = which.open(model).plan(minutes=minutes)
    print(planned)
    if minutes is not None:
        sizes = asdict(planned.sizes)
        print("With these options of study:", *(f"--{name.replace('_', '-')} {value}" for name, value in sizes.items()))


@app.command
def report(folder: Path, *, out: Path | None = None) -> None:
    """Write the report of a study again, from its finished parts.

    Args:
        folder: of the study, in which study.yaml is.
        out: path of the report; default: report.html in the folder.
    """
    if not (folder / "runs").is_dir():
        raise DPCInterpError(f"{folder} holds no study; give the folder that dpc-interp study wrote")
    _, given, *_ = app.parse_args(["study", "--config", str(folder / SETTINGS)], exit_on_error=False, print_error=False)
    which: StudyCall = given.arguments["which"]
    which = replace(which, run=replace(which.run, out=folder))  # the folder may have been moved
    print(f"wrote {which.open(given.arguments['model']).report(out or folder / 'report.html')}")


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
    page = write_verdict_page(folder.parent)
    print(f"wrote {folder} and {page} in {time.perf_counter() - start:.0f} s")


@app.command
def evaluate(
    model: str,
    prompt: str,
    problems: str,
    *,
    n: int = ProblemSample.n,
    load: Annotated[LoadOptions | None, Flat] = None,
    options: Annotated[Options | None, Flat] = None,
    run: Annotated[RunConfig | None, Flat] = None,
) -> None:
    """Compare prompt tuning and the corruptions on the same problems, and print a table.

    Args:
        model: name, folder or .gguf file of the model.
        prompt: adapter, by name or folder.
        problems: a task, by name or file.
        n: problems that are reported.
    """
    load_options = asdict(load or LoadOptions())
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
    load: Annotated[LoadOptions | None, Flat] = None,
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
    """
    rows = load_problems(problems, "train", n=n)
    loaded = load_model(model, **asdict(load or LoadOptions()))
    tuned = tune_prompt(loaded, rows, n_virtual_tokens, seed, config=config, name=out.name)
    tuned.save_pretrained(out, base_model=model)
    print(f"wrote {out}: {tuned.n_virtual} virtual tokens")


@app.command
def check(model: str, *, prompt: str | None = None, load: Annotated[LoadOptions | None, Flat] = None) -> None:
    """Test a model before its numbers are trusted.

    Args:
        model: name, folder or .gguf file of the model.
        prompt: adapter, by name or folder; default: random vectors.
    """
    loaded = load_model(model, **asdict(load or LoadOptions()))
    print(check_model(loaded, prompt=None if prompt is None else load_prompts(prompt)[0]))


def main(arguments: list[str] | None = None) -> None:
    """Run a command; input that the package refuses ends in one line and exit code 2.

    Args:
        arguments: of the command; None: those of this process.
    """
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except (DPCInterpError, CycloptsError) as error:
        print(f"dpc-interp: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
