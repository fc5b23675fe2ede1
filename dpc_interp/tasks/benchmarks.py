"""The benchmarks: GSM8K, MATH, MATH-500 and AQuA by name, and `gsm_symbolic`, drawn from templates.

The package `datasets` fetches the first four from the Hugging Face Hub. Their test split is always the published one.
GSM8K and MATH have no validation split, so a hash of the question holds out `VALIDATION_PERCENT` percent of their train
split. `rows.py` describes how a row of each benchmark becomes a `Problem`.

`gsm_symbolic` has GSM8K questions with other names and numbers, from the templates of the package `reasoning-gym`. The
package has 100 templates (Mirzadeh et al. 2024, GSM-Symbolic) and marks 85 of them as correct; only these are used.
`gsm_symbolic/12,38` draws from templates 12 and 38 only. The id of a problem contains the number of its template:
`gsm_symbolic-12-<hash of the question>`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.hub import hub_is_reachable
from dpc_interp.tasks.golds import split_steps
from dpc_interp.tasks.problem import SPLITS, Problem, draw_distinct, question_hash, take
from dpc_interp.tasks.rows import Row, read_rows


class HubDataset(NamedTuple):
    """A benchmark on the Hub.

    Attributes:
        repository: `owner/name` of the dataset.
        configurations: its configurations, which are concatenated.
        splits: split of this package -> split of the dataset. A validation split that maps to "train" is held out from
            it by a hash.
    """

    repository: str
    configurations: tuple[str, ...]
    splits: Mapping[str, str]


MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

HELD_OUT_SPLITS = {"train": "train", "validation": "train", "test": "test"}

HUB_DATASETS = {
    "gsm8k": HubDataset("openai/gsm8k", ("main",), HELD_OUT_SPLITS),
    "math": HubDataset("EleutherAI/hendrycks_math", MATH_SUBJECTS, HELD_OUT_SPLITS),
    "math500": HubDataset("HuggingFaceH4/MATH-500", ("default",), {"test": "test"}),
    "aqua": HubDataset("deepmind/aqua_rat", ("raw",), {split: split for split in SPLITS}),
}
"""Name of a benchmark -> its dataset on the Hub."""

VALIDATION_PERCENT = 10
"""Percentage of the train questions that become the validation split of a benchmark without one."""

GSM_SYMBOLIC = "gsm_symbolic"
DIFFICULTY = 1.0
"""The only difficulty for which the templates of reasoning-gym are defined."""
Generator = Callable[[random.Random, float], dict[str, Any]]


def load_benchmark(name: str, split: str, n: int | None, seed: int, max_steps: int | None) -> list[Problem]:
    """Load distinct problems of a benchmark.

    Args:
        name: a key of `HUB_DATASETS`.
        split: `train`, `validation` or `test`.
        n: number of problems; None: all.
        seed: decides the order. A longer draw begins with the shorter one.
        max_steps: leave out problems with more rationale steps; None: no limit.

    Returns:
        At most `n` problems; fewer if the split has fewer.

    Raises:
        UnknownNameError: the benchmark does not have this split.
        DPCInterpError: the dataset can neither be fetched nor found in the cache, `datasets` is not installed, or no
            problem is easy enough.
    """
    dataset = HUB_DATASETS[name]
    if split not in dataset.splits:
        raise UnknownNameError(f"split of {name}", split, list(dataset.splits))
    rows = (
        row
        for configuration in dataset.configurations
        for row in _fetch(name, dataset.repository, configuration, dataset.splits[split])
    )
    problems = {problem.question: problem for problem in read_rows(rows, name, dataset.repository)}
    if split != "test" and dataset.splits.get("validation") == "train":
        wants_held_out = split == "validation"
        problems = {
            question: problem for question, problem in problems.items() if _is_held_out(question) == wants_held_out
        }
    # Sorting by a seeded hash, unlike a shuffle, does not depend on the order or the number of the rows.
    order = sorted(problems, key=lambda question: question_hash(f"{seed}/{question}"))
    return take((problems[question] for question in order), n, max_steps, name)


def load_gsm_symbolic(name: str, split: str, n: int, seed: int, max_steps: int | None) -> list[Problem]:
    """Draw distinct problems from the templates, each of them equally often on average.

    Args:
        name: `gsm_symbolic`, or `gsm_symbolic/12,38` for two of its templates.
        split: `train`, `validation` or `test`.
        n: number of problems.
        seed: seed of the random draw.
        max_steps: the largest number of rationale steps; None: no limit.

    Returns:
        `n` problems with different questions. A longer draw begins with the shorter one.

    Raises:
        DPCInterpError: a template that does not exist, fewer than `n` such problems, or `reasoning-gym` is not
            installed.
    """
    generators = _load_generators()
    templates = _selected_templates(name, generators)
    rng = random.Random(f"{name}/{split}/{seed}/{max_steps}")

    def draw(_: int) -> Problem | None:
        template = rng.choice(templates)
        # A new generator for each problem, because templates use different numbers of random values.
        problem = _problem_of_template(name, template, generators[template], random.Random(rng.getrandbits(64)))
        return problem if max_steps is None or problem.n_steps <= max_steps else None

    return draw_distinct(draw, name, split, n)


def template_of(problem: Problem) -> int:
    """Read the number of the template that a problem was drawn from.

    Args:
        problem: a problem of `gsm_symbolic`.

    Returns:
        The number of the template.

    Raises:
        DPCInterpError: the problem is not of `gsm_symbolic`.
    """
    match = re.fullmatch(rf"{GSM_SYMBOLIC}-(\d+)-[0-9a-f]+", problem.id)
    if match is None:
        raise DPCInterpError(
            f"{problem.id!r} is not an id of {GSM_SYMBOLIC}; give a problem from load_problems({GSM_SYMBOLIC!r})"
        )
    return int(match[1])


def _is_held_out(question: str) -> bool:
    return question_hash(question) % 100 < VALIDATION_PERCENT


def _fetch(name: str, repository: str, configuration: str, split: str) -> Iterable[Row]:
    """The rows of one configuration and split, from the Hub or, if it cannot be reached, from the cache."""
    try:
        from datasets import load_dataset
        from datasets.packaged_modules.cache.cache import Cache
    except ImportError as error:
        raise DPCInterpError(f"{name} needs the package datasets; pip install datasets") from error
    try:
        if hub_is_reachable():
            return load_dataset(repository, configuration, split=split)
        # load_dataset falls back on this builder too, but only after its client has retried for minutes
        cached = Cache(
            dataset_name=repository.partition("/")[2],
            repo_id=repository,
            config_name=configuration,
            version="auto",
            hash="auto",
        )
        return cached.as_dataset(split=split)
    except (OSError, ValueError, RuntimeError) as error:
        raise DPCInterpError(
            f"{name} cannot be fetched: {repository} is not in the cache and the Hub cannot be reached; connect once, "
            "or give the path of a .jsonl, .json or .parquet file with the same columns"
        ) from error


def _problem_of_template(name: str, template: int, generator: Generator, rng: random.Random) -> Problem:
    example = generator(rng, DIFFICULTY)
    answer = str(example["answer"])
    steps = split_steps(example["metadata"]["answer_cot"].partition("####")[0])
    rationale = "\n".join([*steps, f"#### {answer}"])
    problem = Problem(name, example["question"], rationale, answer, len(steps))
    return replace(problem, id=f"{GSM_SYMBOLIC}-{template}-{question_hash(problem.question):016x}")


def _selected_templates(name: str, generators: dict[int, Generator]) -> list[int]:
    """The templates that `name` selects, in order."""
    _, slash, selection = name.partition("/")
    if not slash:
        return sorted(generators)
    templates = {int(number) if number.isdecimal() else -1 for number in selection.split(",")}
    if not templates <= generators.keys():
        raise DPCInterpError(
            f"{name!r} names a template that does not exist; write {GSM_SYMBOLIC}/12,38 with numbers from "
            f"{min(generators)} to {max(generators)}, except those that reasoning-gym marks as broken"
        )
    return sorted(templates)


def _load_generators() -> dict[int, Generator]:
    """Template -> function that draws an example of it."""
    try:
        from reasoning_gym.arithmetic.gsm_symbolic import gsm_symbolic
    except ImportError as error:
        raise DPCInterpError(f"{GSM_SYMBOLIC} needs the package reasoning-gym; pip install reasoning-gym") from error
    # Only the generators of the dataset are used; they do not depend on its seed and size.
    dataset = gsm_symbolic.GSMSymbolicDataset(gsm_symbolic.GSMSymbolicDatasetConfig(seed=0, size=1))
    return {template: dataset.generators[template] for template in gsm_symbolic.tasks_ok}
