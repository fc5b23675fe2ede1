r"""Problems from rows (dicts) and from files, in any known layout.

The columns of a row decide its layout:

| layout | columns | question | answer |
| --- | --- | --- | --- |
| GSM8K (Cobbe et al. 2021) | `question`, `answer` with the solution and `#### 17` | unchanged | what follows `####` |
| MATH, MATH-500 | `problem`, `solution`, `answer` if present | unchanged | `answer`, else the last `\boxed{...}` |
| AQuA | `question`, `options`, `correct` | with a line `Answer Choices: (A) 21 (B) ...` | the letter `correct` |
| plain | `question`, `answer`; if known `rationale` | unchanged | `answer` |

Each layout may have `id` and `task`. `problem` and `question`, `solution` and `rationale`, `choices` and `options` are
the same columns, and the letter may be in `answer`. An `answer` that is a whole solution is read as one (`golds.py`).
The answer choices of AQuA are written as in Wei et al. 2022. Calculator annotations of GSM8K (`<<48/2=24>>`) are
removed. No instructions are added to a question: the soft prompt takes their place.

Missing values (None, NaN, `pd.NA`, blank texts) count as missing columns. Arrays become lists, and the entries of a
rationale become its lines. A question that is a list of chat messages is the content of its only message, of the user.
Whole floats are written as integers (`17.0` as `17`), truth values as `True` and `False`.

A rationale has one rationale step per line, and its last line states the answer with the marker of its kind (see
`answers.py`). A solution of one line is split into sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dpc_interp.errors import DPCInterpError
from dpc_interp.tasks.answers import answer_start, extract_gold
from dpc_interp.tasks.files import PlacedRow, file_stem, read_file, rows_of
from dpc_interp.tasks.golds import answer_line, body_of, check_gold, is_solution, split_steps
from dpc_interp.tasks.letters import (
    LETTERS,
    letter_of_options,
    letter_of_shown_options,
    printed_list,
    read_options,
    without_letter,
)
from dpc_interp.tasks.problem import Problem, question_hash, take

Row = Mapping[str, object]

SAME_COLUMNS = {"problem": "question", "solution": "rationale", "choices": "options"}
"""Name of a column -> its name in the plain layout, which it has if that column is missing."""
MAX_WHOLE_FLOAT = 2.0**53
"""Above it, not every integer is a float."""


def problems_from_file(path: Path, n: int | None, max_steps: int | None) -> list[Problem]:
    """Read the first problems of a file.

    Args:
        path: a file of rows in any known layout (see `files.py`). Its name is the default task.
        n: number of problems; None: all.
        max_steps: leave out problems with more rationale steps; None: no limit.

    Returns:
        At most `n` problems, in the order of the file.

    Raises:
        DPCInterpError: the file is missing, empty or not of its format, a row is in no known layout, two rows have the
            same id, or no problem is easy enough.
    """
    return take(_distinct_problems(read_file(path), file_stem(path)), n, max_steps, str(path))


def problems_from_rows(
    rows: object, *, task: str = "mine", n: int | None = None, max_steps: int | None = None
) -> list[Problem]:
    """Read the first problems of rows: a list of dicts, a data frame, a `datasets.Dataset` or a generator.

    Args:
        rows: mappings with `question`, `answer` and, if known, `rationale` (a text, or a list of rationale steps), `id`
            and `task`; or the columns of a benchmark; or a table of these (see `rows_of`). An answer line is added to a
            rationale without one.
        task: the task of rows without one.
        n: number of problems; None: all.
        max_steps: leave out problems with more rationale steps; None: no limit.

    Returns:
        At most `n` problems, in the order of the rows.

    Raises:
        DPCInterpError: the rows are empty or no table, a row lacks a column, two rows have the same id, or no
            problem is easy enough.
    """
    numbered = ((f"rows, row {number},", row) for number, row in enumerate(rows_of(rows, "rows"), start=1))
    return take(_distinct_problems(numbered, task), n, max_steps, "rows")


def read_rows(rows: Iterable[object], task: str, source: str) -> Iterator[Problem]:
    """Convert rows of any known layout, one at a time.

    Args:
        rows: mappings from column to value.
        task: the task of rows without one.
        source: where the rows come from, for the error messages.

    Yields:
        One problem per row; equal questions have equal ids.

    Raises:
        DPCInterpError: a row is not a mapping, lacks a column or has a value that cannot be read.
    """
    for number, row in enumerate(rows, start=1):
        yield _read_row(row, task, f"{source}, row {number},")


def _distinct_problems(rows: Iterable[PlacedRow], task: str) -> Iterator[Problem]:
    """The problems of rows, with distinct ids: the second problem of a question gets the id of the first and `-2`."""
    places: dict[str, str] = {}
    for place, row in rows:
        problem = _read_row(row, task, place)
        if problem.id in places and problem.id != _default_id(problem.task, problem.question):
            first = places[problem.id].rstrip(",").rpartition(", ")[2]
            raise DPCInterpError(f"{place} has the id {problem.id!r} of {first}; give every row a different id")
        name, count = problem.id, 1
        while problem.id in places:
            count += 1
            problem = replace(problem, id=f"{name}-{count}")
        places[problem.id] = place
        yield problem


def _default_id(task: str, question: str) -> str:
    return f"{task}-{question_hash(question):016x}"


def _read_row(row: object, task: str, place: str) -> Problem:
    """The problem of a row."""
    if not isinstance(row, Mapping):
        raise DPCInterpError(f"{place} is not a JSON object (a dict); every row needs question and answer")
    cells = {str(name): _plain_value(value) for name, value in row.items()}
    columns = {name: value for name, value in cells.items() if value is not None}
    is_math = {"problem", "solution"} <= columns.keys()
    for name, plain_name in SAME_COLUMNS.items():
        if name in columns:
            columns.setdefault(plain_name, columns[name])
    if "options" in columns and "correct" in columns:
        columns["answer"] = columns["correct"]
    if "answer" not in columns and "rationale" in columns:
        stated = extract_gold(_rationale(columns, place))
        if stated is None and is_math:
            raise DPCInterpError(f"{place} has no \\boxed answer; add the column answer")
        if stated is not None:
            columns["answer"] = stated
    for column in ("question", "answer"):
        if column not in columns:
            raise DPCInterpError(
                f"{place} lacks the column {column!r}; every line needs question and answer (it has "
                f"{', '.join(name for name in cells if name in columns)[:80] or 'no value'})"
            )
    task = _text(columns, "task", place) if "task" in columns else task
    question, answer, rationale, n_steps = _read_columns(columns, place, is_math)
    row_id = _text(columns, "id", place) if "id" in columns else _default_id(task, question)
    return Problem(task, question, rationale, answer, n_steps, row_id)


def _read_columns(columns: Row, place: str, is_math: bool) -> tuple[str, str, str, int]:
    """Question, answer, rationale and number of steps of a row."""
    question, gold_text = _question(columns, place), _text(columns, "answer", place)
    solution = _rationale(columns, place)
    if "options" in columns:
        options = read_options(columns["options"], place)
        letter = letter_of_options(gold_text, options, place)
        steps = without_letter(split_steps(solution), letter, options[LETTERS.index(letter)])
        shown = " ".join(f"({name}) {option}" for name, option in zip(LETTERS, options, strict=False))
        lines = [*steps, f"The answer is {letter}"]
        return f"{question.strip()}\nAnswer Choices: {shown}", letter, "\n".join(lines), len(steps)
    answer = check_gold(extract_gold(gold_text) or gold_text.strip(), place)
    if is_math or (not solution and is_solution(gold_text)):
        # The answer moves to a separate line: a step that contained it would count as the answer line.
        steps = split_steps(body_of(solution or gold_text))
        is_hashed = "####" in (solution or gold_text)
        last_line = f"#### {answer}" if is_hashed else f"\\boxed{{{answer}}}" if is_math else answer_line(answer)
        return question.strip(), answer, "\n".join([*steps, last_line]), len(steps)
    answer = letter_of_shown_options(answer, question, place)
    if solution.strip() and extract_gold(solution) is None:
        solution = f"{solution.rstrip()}\n{answer_line(answer)}"
    return question, answer, solution, len(split_steps(solution[: answer_start(solution)]))


def _question(columns: Row, place: str) -> str:
    """The text of a question; of a list of chat messages, the content of the only one."""
    value = columns["question"]
    messages = [value] if isinstance(value, Mapping) else value
    if isinstance(messages, list) and all(
        isinstance(part, Mapping) and {"role", "from"} & {*part} for part in messages
    ):
        message = messages[0]
        role, content = (message.get(a, message.get(b)) for a, b in (("role", "from"), ("content", "value")))
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
            content = content[0].get("text")  # a list of parts, of which one is a text
        if len(messages) > 1 or role not in ("user", "human") or not isinstance(content, str):
            raise DPCInterpError(
                f"{place} has a question of {len(messages)} chat messages, the first of {role}; write the text of the "
                'user as question, and give a system text with template="chat"'
            )
        return content
    return _text(columns, "question", place)


def _rationale(columns: Row, place: str) -> str:
    value = columns.get("rationale", "")
    if isinstance(value, str):
        value = printed_list(value) if value.lstrip().startswith(("['", '["')) else value
        if isinstance(value, str) and value.lstrip().startswith(("['", '["')):
            raise DPCInterpError(f"{place} has a rationale that is a printed array; write a list of steps or one text")
    if isinstance(value, list):
        return "\n".join(_text({"rationale": step}, "rationale", place) for step in value if step is not None)
    return _text({"rationale": value}, "rationale", place)


def _plain_value(value: object) -> object:
    """A value of Python: None for a missing one, lists for arrays and tuples."""
    if hasattr(value, "tolist"):  # arrays, numpy scalars, series and tensors
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value] or None
    if isinstance(value, str):
        return value if value.strip() else None
    # NaN and NaT are not equal to themselves; pd.NA answers every comparison by itself.
    is_missing = type(value).__name__ in ("NAType", "NaTType") or (not isinstance(value, Mapping) and value != value)
    return None if is_missing else value


def _text(columns: Row, column: str, place: str) -> str:
    """The text of a value."""
    value = columns[column]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | set | bytes | Mapping):
        raise DPCInterpError(f"{place} has a value of type {type(value).__name__} as {column}; write it as one text")
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_WHOLE_FLOAT:
        value = int(value)
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DPCInterpError(
            f"{place} has a {column} with half a character (a lone surrogate); write it again"
        ) from error
    return text
