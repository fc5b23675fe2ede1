"""`generate`: answer problems by greedy decoding and return a transcript of each."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from dpc_interp.errors import DPCInterpError, renamed_keywords
from dpc_interp.execution.backoff import batches_with_backoff, check_batch_size
from dpc_interp.execution.batch_splits import by_length
from dpc_interp.execution.run_config import RunConfig
from dpc_interp.generation.decoding import decode
from dpc_interp.generation.stopping import check_stop_strings, resolve_max_new_tokens, warn_unfinished
from dpc_interp.generation.transcript import Transcript, make_transcript
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.encoding import QuestionFormat, as_question_format, encode_questions, merged_format
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.prompts.embed_hooks import PromptEdit
from dpc_interp.prompts.soft_prompt import AnyPrompt, as_prompt, check_prompt
from dpc_interp.tasks.answers import STOP_STRINGS, Extraction, check_extraction
from dpc_interp.tasks.problem import Template
from dpc_interp.tasks.registry import AnyProblems, as_problems


@renamed_keywords({"drafts": "draft_tokens"})
@torch_defaults()
def generate(
    model: AnyModel,
    problems: AnyProblems,
    prompt: AnyPrompt | None = None,
    *,
    plans: Sequence[PromptEdit] | None = None,
    draft_tokens: Sequence[Int[Tensor, " _"]] | None = None,
    max_new_tokens: int | None = None,
    template: QuestionFormat | Template | None = None,
    prepend_bos: bool | None = None,
    stop_strings: Sequence[str] = STOP_STRINGS,
    extraction: Extraction | None = None,
    batch_size: int = RunConfig.batch_size,
    progress: bool = True,
) -> list[Transcript]:
    """Answer problems by greedy decoding.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name.
        problems: whose questions are answered; or a name (200 problems of the test split), a file or rows.
        prompt: the soft prompt before each question, or its name; None: the bare model.
        plans: one corruption of the prompt for each problem (docs/method.md, section 5); None: no corruption. A plan
            may depend only on the vectors that it is called with, because equal plans are applied once a batch.
        draft_tokens: for each problem the tokens of a likely answer, such as the answer under the uncorrupted prompt.
            Some are verified in each pass and accepted while they equal the greedy choice (speculative decoding), so
            the text does not depend on them. None: no drafts.
        max_new_tokens: the most tokens generated for a problem; a warning states the share of texts that were cut off
            there. None: a length by task (96 for the synthetic tasks, 512 for GSM8K and AQuA, else 1,024), or what
            the context leaves.
        template: how a question becomes the text that the model reads: a text with `{question}`, a function, `chat`,
            or a `QuestionFormat`, which may hold a system message. None: that of the prompt, else that of the problem.
        prepend_bos: whether BOS comes first; None: that of the prompt, else the tokenizer's own rule.
        stop_strings: a text ends before the first of them. The default are beginnings of another question.
        extraction: how the answer is read, see `extract_answer`; None: that of the problem.
        batch_size: questions decoded together, halved with a warning where memory runs out; the text does not depend on
            it.
        progress: show a progress bar.

    Returns:
        One transcript for each problem, in the order given.

    Raises:
        DPCInterpError: a prompt that does not fit, a question longer than the context, plans without a prompt, or a
            number of plans or drafts other than the number of problems.
        NonFiniteError: the model's logits are not finite.

    Example:
        >>> import dpc_interp as dpc
        >>> model, prompt = dpc.load_model("reasoner"), dpc.load_prompt("reasoner/story")
        >>> runs = dpc.generate(model, dpc.load_problems("story", n=2), prompt, progress=False)
        >>> [len(run.generated_tokens) <= 96 for run in runs]
        [True, True]
    """
    problems, prompt, model = as_problems(problems), as_prompt(prompt, optional=True), as_model(model)
    vectors = None if prompt is None else prompt.vectors
    if vectors is not None:
        check_prompt(model, vectors)
    if plans is not None and (prompt is None or len(plans) != len(problems)):
        raise DPCInterpError("corruption needs a soft prompt and one plan for each problem")
    if draft_tokens is not None and len(draft_tokens) != len(problems):
        raise DPCInterpError(f"got {len(draft_tokens)} draft_tokens for {len(problems)} problems; give one for each")
    check_batch_size(batch_size)
    given = merged_format(as_question_format(template, prepend_bos), None if prompt is None else prompt.recipe)
    check_stop_strings(stop_strings)
    if extraction is not None:
        check_extraction(extraction)
    n_virtual = 0 if vectors is None else vectors.shape[0]
    questions = encode_questions(model, problems, n_virtual, max_new_tokens or 0, given=given)
    n_read = n_virtual + max(map(len, questions), default=0)
    limit = resolve_max_new_tokens(model, problems, n_read, max_new_tokens)
    order = by_length([len(question) for question in questions])  # questions of like length need the least padding
    generated: dict[int, Int[Tensor, " n_generated"]] = {}

    def decode_batch(indices: Sequence[int]) -> list[Int[Tensor, " n_generated"]]:
        batch_plans = None if plans is None else [plans[i] for i in indices]
        batch_drafts = None if draft_tokens is None else [draft_tokens[i] for i in indices]
        return decode(model, [questions[i] for i in indices], vectors, batch_plans, limit, batch_drafts, stop_strings)

    hint = "shorten the question, or load the model in bfloat16"
    with tqdm(total=len(problems), desc="generate", unit="problem", disable=not progress, leave=False) as bar:
        for indices, rows in batches_with_backoff(order, batch_size, decode_batch, hint):
            generated.update(zip(indices, rows, strict=True))
            bar.update(len(indices))
    runs = [
        make_transcript(model, p, questions[i], generated[i], max_new_tokens=limit, extraction=extraction)
        for i, p in enumerate(problems)
    ]
    warn_unfinished(runs, limit)
    return runs
