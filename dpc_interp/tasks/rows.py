r"""Problems from rows (dicts) and from `.jsonl`, `.json` and `.parquet` files, in any known layout.

The columns of a row decide its layout:

| layout | columns | question | answer |
| --- | --- | --- | --- |
| GSM8K (Cobbe et al. 2021) | `question`, `answer` with a line `#### 17` | unchanged | the number after `####` |
| MATH, MATH-500 | `problem`, `solution`, `answer` if present | unchanged | `answer`, else the last `\boxed{...}` |
| AQuA | `question`, `options`, `correct` | with a line `Answer Choices: (A) 21 (B) ...` | the letter `correct` |
| plain | `question`, `answer`; if known `rationale`, `id`, `task` | unchanged | `answer` |

The answer choices of AQuA are written as in Wei et al. 2022. Calculator annotations of GSM8K (`<<48/2=24>>`) are
removed. No instructions are added to a question: the soft prompt takes their place.

A rationale has one rationale step per line, and its last line states the answer with the marker of its kind (see
`answers.py`). A solution of one line is split into sentences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dpc_interp.errors import DPCInterpError
from dpc_interp.mathematics.letters import without_letter
from dpc_interp.tasks.answers import answer_start, extract_answer
from dpc_interp.tasks.problem import Problem, question_hash

Row = Mapping[str, object]

FILE_SUFFIXES = (".jsonl", ".json", ".parquet")
"""Suffixes of the files that `problems_from_file` reads."""

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
CALCULATOR_ANNOTATION = re.compile(r"<<[^<>]*>>")


def problems_from_file(path: Path, n: int | None, max_steps: int | None) -> list[Problem]:
    """Read the first problems of a file.

    Args:
        path: a `.jsonl`, `.json` or `.parquet` file of rows in any known layout. Its name is the default task.
        n: number of problems; None: all.
        max_steps: leave out problems with more rationale steps; None: no limit.

    Returns:
        At most `n` problems, in the order of the file.

    Raises:
        DPCInterpError: the file is missing, empty or not of its format, a row is in no known layout, or no problem is
            easy enough.
    """
    if not path.is_file():
        raise DPCInterpError(f"{path} is not a file; give the path of a {path.suffix} file of problems")
    return take(read_rows(_read_file(path), path.stem, str(path)), n, max_steps, str(path))


def problems_from_rows(
    rows: Iterable[Row], *, task: str = "mine", n: int | None = None, max_steps: int | None = None
) -> list[Problem]:
    """Read the first problems of rows: a list of dicts, a `datasets.Dataset` or a generator.

    Args:
        rows: mappings with `question`, `answer` and, if known, `rationale` (a text, or a list of rationale steps), `id`
            and `task`; or the columns of a benchmark. An answer line is added to a rationale without one.
        task: the task of rows without one.
        n: number of problems; None: all.
        max_steps: leave out problems with more rationale steps; None: no limit.

    Returns:
        At most `n` problems, in the order of the rows.

    Raises:
        DPCInterpError: the rows are empty, a row lacks a column, or no problem is easy enough.
    """
    return take(read_rows(rows, task, "rows"), n, max_steps, "rows")


def split_steps(text: str) -> list[str]:
    """Split a rationale into steps, as `step_ends` in `analysis/segments.py` splits the text of a transcript.

    Args:
        text: a rationale without its answer line.

    Returns:
        The lines that are not blank, stripped; the sentences if the text has only one line.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return SENTENCE_END.split(lines[0]) if len(lines) == 1 else lines


def answer_line(answer: str) -> str:
    r"""Write an answer with the marker of its kind, so that `extract_answer` finds it.

    Args:
        answer: the bare answer.

    Returns:
        `The answer is B` for an option letter, `#### 17` for a number, else `\boxed{...}`.
    """
    if re.fullmatch("[A-E]", answer):
        return f"The answer is {answer}"
    return f"#### {answer}" if re.fullmatch(r"-?\d[\d,]*(\.\d+)?", answer) else f"\\boxed{{{answer}}}"


def take(problems: Iterable[Problem], n: int | None, max_steps: int | None, source: str) -> list[Problem]:
    """Take the first problems that are easy enough; the rest of an iterator is not read.

    Args:
        problems: any number of problems.
        n: number of problems to take; None: all.
        max_steps: leave out problems with more rationale steps; None: no limit.
        source: where the problems come from, for the error messages.

    Returns:
        1 to `n` problems.

    Raises:
        DPCInterpError: `max_steps` is below 1, or no problem is left.
    """
    if max_steps is not None and max_steps < 1:
        raise DPCInterpError(f"max_steps is {max_steps}; allow at least 1 step")
    taken: list[Problem] = []
    is_empty = True
    for problem in problems:
        is_empty = False
        if max_steps is None or problem.n_steps <= max_steps:
            taken.append(problem)
        if len(taken) == n:
            break
    if is_empty:
        raise DPCInterpError(f"{source} is empty; give at least one problem")
    if not taken:
        raise DPCInterpError(f"{source} has no problem of at most {max_steps} steps; raise max_steps")
    return taken


def read_rows(rows: Iterable[object], task: str, source: str) -> Iterator[Problem]:
    """Convert rows of any known layout, one at a time.

    Args:
        rows: mappings from column to value. Columns that are None count as missing.
        task: the task of rows without one.
        source: where the rows come from, for the error messages.

    Yields:
        One problem per row.

    Raises:
        DPCInterpError: a row is not a mapping, lacks a column or has a value that cannot be read.
    """
    for number, row in enumerate(rows, start=1):
        place = f"{source}, {'line' if source.endswith('.jsonl') else 'row'} {number},"
        if not isinstance(row, Mapping):
            raise DPCInterpError(f"{place} is not a JSON object; every line needs question and answer")
        # Parquet files and `datasets` fill missing columns with None.
        columns = {str(key): value for key, value in row.items() if value is not None}
        if {"question", "options", "correct"} <= columns.keys():
            yield _from_aqua(columns, task, place)
        elif {"problem", "solution"} <= columns.keys():
            yield _from_math(columns, task, place)
        elif "rationale" not in columns and _is_gsm8k(columns):
            yield _from_gsm8k(columns, task)
        else:
            yield _from_plain(columns, task, place)


def _benchmark_problem(task: str, question: str, steps: list[str], last_line: str, answer: str) -> Problem:
    return Problem(task, question, "\n".join([*steps, last_line]), answer, len(steps), _default_id(task, question))


def _default_id(task: str, question: str) -> str:
    return f"{task}-{question_hash(question):016x}"


def _is_gsm8k(row: Row) -> bool:
    return "question" in row and "\n#### " in str(row.get("answer"))


def _from_gsm8k(row: Row, task: str) -> Problem:
    solution, _, answer = CALCULATOR_ANNOTATION.sub("", str(row["answer"])).rpartition("#### ")
    answer = answer.strip().replace(",", "")
    return _benchmark_problem(task, str(row["question"]).strip(), split_steps(solution), f"#### {answer}", answer)


def _from_math(row: Row, task: str, place: str) -> Problem:
    solution = re.sub(r"\\fbox(?=\s*\{)", r"\\boxed", str(row["solution"]))
    solution = re.sub(r"\\boxed\s+([^\s$.{}\\])", r"\\boxed{\1}", solution)  # a few solutions write `\boxed 3`
    boxed = row.get("answer", extract_answer(solution))
    if boxed is None:
        raise DPCInterpError(f"{place} has no \\boxed answer; add the column answer")
    answer = str(boxed).strip()
    # The box moves to a separate line: a step that contained it would count as the answer line.
    steps = split_steps(re.sub(r"\\boxed(?=\s*\{)", "", solution))
    return _benchmark_problem(task, str(row["problem"]).strip(), steps, f"\\boxed{{{answer}}}", answer)


def _from_aqua(row: Row, task: str, place: str) -> Problem:
    options = row["options"]
    if isinstance(options, str) or not isinstance(options, Iterable):
        raise DPCInterpError(f'{place} has options that are not a list; write them as ["A)21", "B)22", ...]')
    choices = " ".join(re.sub(r"^\s*([A-E])\s*\)\s*", r"(\1) ", str(option)) for option in options)
    letter = str(row["correct"]).strip()
    steps = without_letter(split_steps(str(row.get("rationale", ""))), letter)
    question = f"{str(row['question']).strip()}\nAnswer Choices: {choices}"
    return _benchmark_problem(task, question, steps, f"The answer is {letter}", letter)


def _from_plain(row: Row, task: str, place: str) -> Problem:
    for column in ("question", "answer"):
        if column not in row:
            raise DPCInterpError(f"{place} lacks the column {column!r}; every line needs question and answer")
    question, answer, task = str(row["question"]), str(row["answer"]), str(row.get("task", task))
    solution = row.get("rationale", "")
    rationale = "\n".join(map(str, solution)) if isinstance(solution, list | tuple) else str(solution)
    if rationale.strip() and extract_answer(rationale) is None:
        rationale = f"{rationale.rstrip()}\n{answer_line(answer)}"
    steps = split_steps(rationale[: answer_start(rationale)])
    return Problem(task, question, rationale, answer, len(steps), str(row.get("id", _default_id(task, question))))


def _read_file(path: Path) -> Iterator[object]:
    """The rows of a file, by its suffix."""
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
        content = _parse_json(text, f"{path}", "a list of JSON objects")
        yield from content if isinstance(content, list) else [content]
        return
    # Not splitlines: it also splits at characters such as U+2028, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _parse_json(line, f"{path}, line {number},", "one JSON object per line")


def _parse_json(text: str, place: str, expected: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DPCInterpError(f"{place} is not JSON ({error.msg}); write {expected}") from error
