r"""GSM8K, MATH and AQuA, by name through `datasets` or from files, and problems from any rows.

A row is known by its columns:

- GSM8K: `question`, `answer` ending in `#### 17`. The question as it is (Cobbe et al. 2021); `<<...>>` marks go.
- MATH and MATH-500: `problem`, `solution`, and `answer` where given. The problem as it is; the answer is the last box.
- AQuA: `question`, `options`, `correct`. `Answer Choices: (A) 21 (B) ...` on a second line, as Wei et al. 2022.
- anything else: `question`, `answer` and, where known, `rationale`, `id`, `task`.

The soft prompt stands where instructions would. A rationale has one step a line, a solution of one line is cut into
sentences, and closes with the answer line of its kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.hub import hub_answers
from dpc_interp.tasks.answers import answer_start, extract_answer
from dpc_interp.tasks.problems import SPLITS, Problem, question_hash

Row = Mapping[str, object]

MATH_SUBJECTS = ["algebra", "counting_and_probability", "geometry", "intermediate_algebra"]
MATH_SUBJECTS += ["number_theory", "prealgebra", "precalculus"]
HUB = {
    "gsm8k": ("openai/gsm8k", ["main"], {"train": "train", "validation": "train", "test": "test"}),
    "math": ("EleutherAI/hendrycks_math", MATH_SUBJECTS, {"train": "train", "validation": "train", "test": "test"}),
    "math500": ("HuggingFaceH4/MATH-500", ["default"], {"test": "test"}),
    "aqua": ("deepmind/aqua_rat", ["raw"], {split: split for split in SPLITS}),
}
"""Repository, configurations, and which of its splits each of ours comes from."""
VALIDATION_PERCENT = 10
"""Of the train questions where a benchmark has no validation split, by a hash of the question: no seed moves one."""

FILES = (".jsonl", ".json", ".parquet")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
NAMES_LETTER = re.compile(r"(?i)\W*(?:\w+\W+){0,3}?(?:answer|ans|option|choice)\b.{0,20}|\W*[A-E]\W*")


def from_hub(name: str, split: str, n: int | None, seed: int, max_steps: int | None) -> list[Problem]:
    """Distinct problems of a benchmark, in an order that `seed` decides; a longer draw begins with the shorter."""
    repository, configurations, splits = HUB[name]
    if split not in splits:
        raise UnknownNameError(f"split of {name}", split, list(splits))
    rows = (row for configuration in configurations for row in _fetch(name, repository, configuration, splits[split]))
    problems = {problem.question: problem for problem in _problems(rows, name, repository)}
    if split != "test" and splits.get("validation") == "train":
        held_out = {question for question in problems if question_hash(question) % 100 < VALIDATION_PERCENT}
        keep = held_out if split == "validation" else problems.keys() - held_out
        problems = {question: problem for question, problem in problems.items() if question in keep}
    order = sorted(problems, key=lambda question: question_hash(f"{seed}/{question}"))
    return _first((problems[question] for question in order), n, max_steps, name)


def from_file(path: Path, n: int | None, max_steps: int | None) -> list[Problem]:
    """The first problems of a file of any known layout."""
    if not path.is_file():
        raise DPCInterpError(f"{path} is not a file; give the path of a {path.suffix} file of problems")
    return _first(_problems(_rows_of(path), path.stem, str(path)), n, max_steps, str(path))


def problems_from(
    rows: Iterable[Row], *, task: str = "mine", n: int | None = None, max_steps: int | None = None
) -> list[Problem]:
    """Problems from rows of any known layout: a list of dicts, a `datasets.Dataset`, a generator.

    Args:
        rows: mappings with `question`, `answer` and, where known, `rationale` (a text, or a list of steps), `id`,
            `task`; or the columns of a benchmark. A rationale without an answer line is given one.
        task: the name of rows that have none.
        n: how many, from the first; None: all.
        max_steps: rows of more steps are left out.

    Raises:
        DPCInterpError: a row that lacks a column, or no rows.
    """
    return _first(_problems(rows, task, "rows"), n, max_steps, "rows")


def steps_of(text: str) -> list[str]:
    """The lines of `text` that are not blank; its sentences where it is one line (as `segment` cuts it)."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return SENTENCE_END.split(lines[0]) if len(lines) == 1 else lines


def answer_line(answer: str) -> str:
    r"""`The answer is B` for an option letter, `#### 17` for a number, else `\boxed{...}`."""
    if re.fullmatch("[A-E]", answer):
        return f"The answer is {answer}"
    return f"#### {answer}" if re.fullmatch(r"-?\d[\d,]*(\.\d+)?", answer) else f"\\boxed{{{answer}}}"


def _first(problems: Iterable[Problem], n: int | None, max_steps: int | None, source: str) -> list[Problem]:
    if max_steps is not None and max_steps < 1:
        raise DPCInterpError(f"max_steps is {max_steps}; ask for at least 1 step")
    found: list[Problem] = []
    seen = False
    for problem in problems:
        seen = True
        if max_steps is None or problem.n_steps <= max_steps:
            found.append(problem)
        if len(found) == n:
            break
    if not seen:
        raise DPCInterpError(f"{source} is empty; give at least one problem")
    if not found:
        raise DPCInterpError(f"{source} has no problem of at most {max_steps} steps; raise max_steps")
    return found


def _problems(rows: Iterable[object], task: str, source: str) -> Iterator[Problem]:
    for number, row in enumerate(rows, start=1):
        place = f"{source}, {'line' if source.endswith('.jsonl') else 'row'} {number},"
        if not isinstance(row, Mapping):
            raise DPCInterpError(f"{place} is not a JSON object; every line needs question and answer")
        given = {str(key): value for key, value in row.items() if value is not None}
        if {"question", "options", "correct"} <= given.keys():
            yield _aqua(given, task, place)
        elif {"problem", "solution"} <= given.keys():
            yield _math(given, task, place)
        elif "rationale" not in given and _is_gsm8k(given):
            yield _gsm8k(given, task)
        else:
            yield _plain(given, task, place)


def _problem(task: str, question: str, steps: list[str], last: str, answer: str) -> Problem:
    identity = f"{task}-{question_hash(question):016x}"
    return Problem(task, question, "\n".join([*steps, last]), answer, len(steps), identity)


def _is_gsm8k(row: Row) -> bool:
    return "question" in row and "\n#### " in str(row.get("answer"))


def _gsm8k(row: Row, task: str) -> Problem:
    body, _, answer = re.sub(r"<<[^<>]*>>", "", str(row["answer"])).rpartition("#### ")
    answer = answer.strip().replace(",", "")
    return _problem(task, str(row["question"]).strip(), steps_of(body), f"#### {answer}", answer)


def _math(row: Row, task: str, place: str) -> Problem:
    solution = re.sub(r"\\fbox(?=\s*\{)", r"\\boxed", str(row["solution"]))
    solution = re.sub(r"\\boxed\s+([^\s$.{}\\])", r"\\boxed{\1}", solution)  # a few are written `\boxed 3`
    found = row.get("answer", extract_answer(solution))
    if found is None:
        raise DPCInterpError(f"{place} has no \\boxed answer; add the column answer")
    answer = str(found).strip()
    # the box moves to a line of its own, or the step that holds it would count as the answer
    steps = steps_of(re.sub(r"\\boxed(?=\s*\{)", "", solution))
    return _problem(task, str(row["problem"]).strip(), steps, f"\\boxed{{{answer}}}", answer)


def _aqua(row: Row, task: str, place: str) -> Problem:
    listed = row["options"]
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise DPCInterpError(f'{place} has options that are no list; write them as ["A)21", "B)22", ...]')
    options = " ".join(re.sub(r"^\s*([A-E])\s*\)\s*", r"(\1) ", str(option)) for option in listed)
    steps = steps_of(str(row.get("rationale", "")))
    while steps and NAMES_LETTER.fullmatch(steps[-1]):
        steps.pop()
    letter = str(row["correct"]).strip()
    question = f"{str(row['question']).strip()}\nAnswer Choices: {options}"
    return _problem(task, question, steps, f"The answer is {letter}", letter)


def _plain(row: Row, task: str, place: str) -> Problem:
    for key in ("question", "answer"):
        if key not in row:
            raise DPCInterpError(f"{place} lacks the column {key!r}; every line needs question and answer")
    question, answer, task = str(row["question"]), str(row["answer"]), str(row.get("task", task))
    written = row.get("rationale", "")
    rationale = "\n".join(map(str, written)) if isinstance(written, list | tuple) else str(written)
    if rationale.strip() and extract_answer(rationale) is None:
        rationale = f"{rationale.rstrip()}\n{answer_line(answer)}"
    identity = str(row.get("id", f"{task}-{question_hash(question):016x}"))
    steps = [step for step in steps_of(rationale[: answer_start(rationale)]) if step] if rationale.strip() else []
    return Problem(task, question, rationale, answer, len(steps), identity)


def _rows_of(path: Path) -> Iterator[object]:
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        try:
            yield from parquet.read_table(path).to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise DPCInterpError(f"{path} is not a parquet file; write it again") from error
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        content = _from_json(text, f"{path}", "a list of JSON objects")
        yield from content if isinstance(content, list) else [content]
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _from_json(line, f"{path}, line {number},", "one JSON object a line")


def _from_json(text: str, place: str, mend: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{place} is not JSON ({error.msg}); write {mend}") from error


def _fetch(name: str, repository: str, configuration: str, split: str) -> Iterable[Row]:
    try:
        from datasets import load_dataset
        from datasets.packaged_modules.cache.cache import Cache
    except ImportError as error:
        raise DPCInterpError(f"{name} needs the package datasets; pip install datasets") from error
    try:
        if hub_answers():
            return load_dataset(repository, configuration, split=split)
        # what load_dataset falls back on, after its client has tried the hub again and again
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
            f"{name} cannot be fetched: {repository} is neither in the cache nor within reach; connect once, or give "
            "the path of a .jsonl, .json or .parquet file of its columns"
        ) from error
