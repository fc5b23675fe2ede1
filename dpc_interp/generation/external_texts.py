r"""Transcripts of texts that were written elsewhere: by vLLM, an API or lm-evaluation-harness.

A fast generator writes the texts, and this package analyses them. `load_transcripts` reads problems and texts from a
file, and `read_transcripts` makes transcripts of them with the tokenizer of a model:

    texts = dpc.load_transcripts("samples_gsm8k_2026-11-28.jsonl")
    runs = dpc.read_transcripts(model, texts.problems, texts.texts, prompt=prompt)

| file | problem | text |
| --- | --- | --- |
| `samples_*.jsonl` of lm-evaluation-harness | the row `doc`, with `doc_id` as id | the one response in `resps` |
| any other file of rows | the columns of `load_problems` | one of the columns `TEXT_COLUMNS` |

Only the text is known, not the tokens. They are found by tokenising the text, and a text that does not come back
unchanged is refused by name: its flow would be that of another text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dpc_interp.errors import DPCInterpError
from dpc_interp.generation.transcript import Transcript, make_transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.encoding import QuestionFormat, as_question_format, encode_questions, merged_format
from dpc_interp.models.end_tokens import end_tokens
from dpc_interp.models.hooked import check_length, tokenizer_of
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt
from dpc_interp.tasks.answers import Extraction
from dpc_interp.tasks.files import read_file
from dpc_interp.tasks.problem import Problem, Template
from dpc_interp.tasks.registry import AnyProblems, as_problems, load_problems

TEXT_COLUMNS = ("text", "generated_text", "response", "completion", "output", "prediction", "generation", "resps")
"""Names under which generators store the text that they wrote; the first that a row has counts."""
SHOWN = 3
"""Names of problems in a message, at most."""


class ExternalTexts(NamedTuple):
    """Problems, and the text that was written for each.

    Attributes:
        problems: as `load_problems` reads them.
        texts: one for each problem.
    """

    problems: list[Problem]
    texts: list[str]


def load_transcripts(path: str | Path) -> ExternalTexts:
    r"""Read problems and the texts written for them.

    Args:
        path: a `samples_*.jsonl` file of lm-evaluation-harness, or any file that `load_problems` reads, with the text
            in one of the columns `TEXT_COLUMNS`.

    Returns:
        Problems and texts, for `read_transcripts`.

    Raises:
        DPCInterpError: a file that cannot be read, a row without a text, or with several.

    Example:
        >>> import dpc_interp as dpc, json, tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.jsonl"
        >>> row = {"question": "What is 9 + 8?", "answer": 17, "text": "9 + 8 = 17\n#### 17"}
        >>> _ = file.write_text(json.dumps(row))
        >>> dpc.load_transcripts(file).texts
        ['9 + 8 = 17\n#### 17']
    """
    file = Path(path).expanduser()
    rows, texts = [], []
    for place, row in read_file(file):
        if not isinstance(row, Mapping):
            raise DPCInterpError(f"{place} is not a JSON object; every row needs a problem and a text")
        texts.append(_text_of(row, place))
        rows.append(_problem_row(row))
    return ExternalTexts(load_problems(rows, n=None), texts)


@torch_defaults()
def read_transcripts(
    model: AnyModel,
    problems: AnyProblems,
    texts: Sequence[str],
    *,
    prompt: AnyPrompt | None = None,
    template: QuestionFormat | Template | None = None,
    prepend_bos: bool | None = None,
    finished: bool | Sequence[bool] = True,
    extraction: Extraction | None = None,
) -> list[Transcript]:
    r"""Make transcripts of texts that were written elsewhere, so that `analyse` can read them.

    Args:
        model: whose tokenizer reads the texts, or its name; it should be the model that wrote them.
        problems: the problems that were answered; or a name (200 problems of the test split), a file or rows.
        texts: what was written for each, without the question.
        prompt: the soft prompt under which they were written, or its name; its recipe gives the question format. None:
            none.
        template: how the questions were given to the generator, see `generate`.
        prepend_bos: see `generate`.
        finished: whether each text ended by itself; then the stop token follows it. False: it was cut off.
        extraction: how answers are read, see `extract_answer`; None: that of the problem.

    Returns:
        One transcript for each problem, in the order given.

    Raises:
        DPCInterpError: another number of texts than of problems, a text that the tokenizer does not give back
            unchanged, or a sequence longer than the context.

    Example:
        >>> import dpc_interp as dpc
        >>> model, problems = dpc.load_model("reasoner"), dpc.load_problems("story", n=1)
        >>> dpc.read_transcripts(model, problems, ["9 + 8 = 17\n#### 17"])[0].answer
        '17'
    """
    problems, prompt, model = as_problems(problems), as_prompt(prompt, optional=True), as_model(model)
    if isinstance(texts, str) or len(texts) != len(problems):
        n_texts = 1 if isinstance(texts, str) else len(texts)
        raise DPCInterpError(f"got {n_texts} texts for {len(problems)} problems; give a list with one for each")
    ended = [finished] * len(problems) if isinstance(finished, bool) else list(finished)
    if len(ended) != len(problems):
        raise DPCInterpError(f"finished has {len(ended)} values for {len(problems)} problems; give one for each")
    given = merged_format(as_question_format(template, prepend_bos), None if prompt is None else prompt.recipe)
    questions = encode_questions(model, problems, 0, 0, given=given)
    tokenizer, stop = tokenizer_of(model), end_tokens(model)[0]
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    changed = [p.id for p, text, ids in zip(problems, texts, rows, strict=True) if tokenizer.decode(ids) != text]
    if changed:
        names = ", ".join(map(repr, changed[:SHOWN])) + (f" and {len(changed) - SHOWN} more" if changed[SHOWN:] else "")
        raise DPCInterpError(
            f"the tokenizer does not give {len(changed)} of {len(texts)} texts back unchanged ({names}); "
            "give the tokenizer of the model that wrote them, or leave these problems out"
        )
    n_virtual = 0 if prompt is None else prompt.n_virtual
    rows = [[*ids, *[stop] * ends] for ids, ends in zip(rows, ended, strict=True)]
    check_length(model, n_virtual + max((len(q) + len(r) for q, r in zip(questions, rows, strict=True)), default=0))
    return [
        make_transcript(
            model,
            problem,
            question,
            torch.tensor(ids, dtype=torch.long),
            max_new_tokens=None if ends else len(ids),
            extraction=extraction,
        )
        for problem, question, ids, ends in zip(problems, questions, rows, ended, strict=True)
    ]


def _text_of(row: Mapping[Any, Any], place: str) -> str:
    column = next((name for name in TEXT_COLUMNS if row.get(name) is not None), None)
    if column is None:
        raise DPCInterpError(f"{place} has no text; put it into a column {' or '.join(TEXT_COLUMNS[:3])}")
    value = row[column]
    while isinstance(value, Sequence) and not isinstance(value, str):  # `resps` is [[text]]
        if len(value) != 1:
            raise DPCInterpError(f"{place} has {len(value)} texts in {column!r}; keep one for each problem")
        value = value[0]
    if not isinstance(value, str):
        raise DPCInterpError(f"{place} has {str(value)[:30]!r} in {column!r}, which is not a text; give texts")
    return value


def _problem_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The row of a problem: `doc` with the id `doc_id` in samples of lm-evaluation-harness, else the row itself."""
    document = row.get("doc")
    if isinstance(document, Mapping):
        named = {"id": f"doc-{row['doc_id']}"} if "doc_id" in row and "id" not in document else {}
        return {**document, **named}
    return {name: value for name, value in row.items() if name not in TEXT_COLUMNS}
