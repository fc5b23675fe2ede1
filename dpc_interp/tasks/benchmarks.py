"""The benchmarks GSM8K, MATH, MATH-500 and AQuA, fetched by name from the Hugging Face Hub with the package `datasets`.

The test split is always the published one. GSM8K and MATH have no validation split, so a hash of the question holds out
`VALIDATION_PERCENT` percent of their train split. `rows.py` describes how a row of each benchmark becomes a `Problem`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.hub import hub_is_reachable
from dpc_interp.tasks.problem import SPLITS, Problem, question_hash
from dpc_interp.tasks.rows import Row, read_rows, take


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
