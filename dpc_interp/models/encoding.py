"""Questions and rationales as token ids, and the mask of the tokens that a loss is taken on.

A `QuestionFormat` decides how a question becomes the text that a model reads. It may be given with a call, with a
prompt (in its recipe: a prompt is read as it was tuned) or with a problem; the first of these that gives one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.end_tokens import end_tokens
from dpc_interp.models.hooked import HookedModel, check_length, tokenizer_of
from dpc_interp.tasks.problem import PLACE, Problem, Template, check_template

DEFAULT_TEMPLATE = f"{PLACE}\n"
"""A question and a line break, on which the bundled prompts were tuned."""
CHAT = "chat"
"""The template of that name is the tokenizer's chat template."""
MAX_UNKNOWN = 5
"""Words that an error names at most."""


@dataclass(frozen=True)
class QuestionFormat:
    r"""How a question becomes the text that a model reads.

    Attributes:
        template: a text that contains `{question}` (its other braces are kept, so that few-shot examples may hold
            LaTeX); a function from the question to the text; `chat` for the tokenizer's chat template with a request
            for an answer; None: that of the problem, else `"{question}\n"`.
        system: text of the system message; only with `chat`. None: no such message.
        prepend_bos: whether BOS comes first; a text that has it already does not get another. None: the tokenizer's own
            rule, as Hugging Face and PEFT have it; with `chat`, what the chat template writes.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.QuestionFormat("Question: {question}\nAnswer:").text("Why?", dpc.load_model("reasoner").tokenizer)
        'Question: Why?\nAnswer:'
    """

    template: Template | None = None
    system: str | None = None
    prepend_bos: bool | None = None

    def __post_init__(self) -> None:
        check_template(self.template)
        if self.system is not None and self.template != CHAT:
            raise DPCInterpError('system= is a message of a chat; give template="chat", or write it into the template')

    def text(self, question: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """The text that a question becomes.

        Args:
            question: text of the question.
            tokenizer: its chat template is used by `chat`.

        Raises:
            DPCInterpError: the tokenizer has no chat template, the template refuses the messages, or a function does
                not return a text.
        """
        if self.template == CHAT:
            return _chat_text(question, self.system, tokenizer)
        template = DEFAULT_TEMPLATE if self.template is None else self.template
        text = template.replace(PLACE, question) if isinstance(template, str) else template(question)
        if not isinstance(text, str):
            raise DPCInterpError(f"the template gives a {type(text).__name__}; let the function return a text")
        return text


def _chat_text(question: str, system: str | None, tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise DPCInterpError('the tokenizer has no chat template; give template= as a text with "{question}"')
    messages = [{"role": "user", "content": question}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates are programs of other authors, and raise what they like
        reason = str(error).partition("\n")[0][:100]
        raise DPCInterpError(
            f"the tokenizer's chat template refuses the messages ({reason}); change system=, or give another template"
        ) from error


def as_question_format(
    template: QuestionFormat | Template | None, prepend_bos: bool | None = None
) -> QuestionFormat | None:
    """The format that the arguments `template=` and `prepend_bos=` of a call stand for.

    Args:
        template: a format, or its template; None: none is given.
        prepend_bos: of a format that does not say it; None: not given.

    Returns:
        None where nothing is given.

    Raises:
        DPCInterpError: `prepend_bos` contradicts the format, or a template without `{question}`.
    """
    if not isinstance(template, QuestionFormat):
        return None if template is None and prepend_bos is None else QuestionFormat(template, None, prepend_bos)
    if prepend_bos is None or template.prepend_bos == prepend_bos:
        return template
    if template.prepend_bos is not None:
        raise DPCInterpError("prepend_bos= contradicts the QuestionFormat; give it once")
    return replace(template, prepend_bos=prepend_bos)


def merged_format(call: QuestionFormat | None, recipe: Mapping[str, Any] | None) -> QuestionFormat | None:
    """The format of a call with a prompt: what the call leaves open is read from the recipe of the prompt.

    Args:
        call: the format given with the call.
        recipe: of the prompt: `template`, `system`, `prepend_bos`; None: no prompt.

    Returns:
        None where neither says anything.

    Raises:
        DPCInterpError: the prompt was tuned with a function as template, which its files cannot hold.
    """
    call, recipe = call or QuestionFormat(), recipe or {}
    prepend_bos = recipe.get("prepend_bos") if call.prepend_bos is None else call.prepend_bos
    if call.template is not None:
        return replace(call, prepend_bos=prepend_bos)
    if recipe.get("template_function"):
        raise DPCInterpError(
            f"the prompt was tuned with the function {recipe['template_function']} as template; give it as template="
        )
    merged = QuestionFormat(recipe.get("template"), recipe.get("system"), prepend_bos)
    return None if merged == QuestionFormat() else merged


def format_recipe(given: QuestionFormat) -> dict[str, Any]:
    """A format as the recipe of a prompt holds it. A function is named there; whoever reads the prompt gives it again.

    Args:
        given: the format that a prompt is tuned in.

    Returns:
        `template`, `system` where there is one, and `prepend_bos`; `template_function` instead of a function.
    """
    recipe: dict[str, Any] = {"prepend_bos": given.prepend_bos}
    if callable(given.template):
        return recipe | {"template_function": getattr(given.template, "__qualname__", type(given.template).__name__)}
    return {"template": given.template} | ({} if given.system is None else {"system": given.system}) | recipe


def for_problem(given: QuestionFormat | None, problem: Problem) -> QuestionFormat:
    """The format of a problem's question: what a call and its prompt leave open is read from the problem.

    Args:
        given: of `merged_format`.
        problem: its template counts where none is given.
    """
    given = given or QuestionFormat()
    return given if given.template is not None else replace(given, template=problem.template)


def encode_question(
    model: HookedModel, question: str, question_format: QuestionFormat | None = None
) -> Int[Tensor, " n_question"]:
    """Token ids of a question as the model reads it.

    Args:
        model: the model whose tokenizer is used.
        question: text of the question, without template.
        question_format: how it becomes a text; None: the question and a line break, BOS by the tokenizer's own rule.

    Returns:
        Token ids on the CPU.

    Raises:
        DPCInterpError: the tokenizer does not know a word of the text, or the template cannot be used.
    """
    question_format = question_format or QuestionFormat()
    tokenizer = tokenizer_of(model)
    text = question_format.text(question, tokenizer)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(encoding.input_ids)
    unknown_id, bos = tokenizer.unk_token_id, tokenizer.bos_token_id
    if unknown_id not in (None, bos, tokenizer.eos_token_id) and unknown_id in ids:
        pieces = [text[start:stop] for start, stop in encoding.offset_mapping]
        words = [(piece.strip() or piece)[:40] for i, piece in zip(ids, pieces, strict=True) if i == unknown_id]
        unknown = list(dict.fromkeys(words))[:MAX_UNKNOWN]
        raise DPCInterpError(
            f"the model's vocabulary lacks {', '.join(map(repr, unknown))}; use only words of its tasks"
        )
    prepend_bos = question_format.prepend_bos
    if prepend_bos is None and question_format.template != CHAT:
        ids = tokenizer_start(tokenizer) + ids if ids[:1] != [bos] else ids
    elif prepend_bos:
        if bos is None:
            raise DPCInterpError("prepend_bos=True, and the tokenizer has no BOS; give prepend_bos=None or False")
        ids = [bos] * (ids[:1] != [bos]) + ids
    if not ids:
        raise DPCInterpError("a question has no tokens; give a question, or a template with a text")
    return torch.tensor(ids, dtype=torch.long)


def tokenizer_start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that a tokenizer itself puts before a text, usually BOS or none.

    Args:
        tokenizer: of any model.
    """
    plain = tokenizer("a", add_special_tokens=False).input_ids
    special = tokenizer("a").input_ids
    n_before = next((i for i in range(len(special)) if special[i : i + len(plain)] == plain), 0)
    return list(special[:n_before])


def encode_questions(
    model: HookedModel,
    problems: Sequence[Problem],
    n_virtual: int,
    max_new_tokens: int,
    *,
    given: QuestionFormat | None = None,
) -> list[Int[Tensor, " _"]]:
    """Token ids of every question.

    Args:
        model: the model whose tokenizer is used.
        problems: the problems whose questions are encoded.
        n_virtual: virtual tokens before each question.
        max_new_tokens: tokens that will be generated after it.
        given: the format of the call and its prompt, see `merged_format`.

    Returns:
        Token ids of each question, as `encode_question` gives them.

    Raises:
        DPCInterpError: a sequence longer than the context, or a question that cannot be encoded.
    """
    questions = [encode_question(model, problem.question, for_problem(given, problem)) for problem in problems]
    check_length(model, n_virtual + max((len(q) for q in questions), default=0) + max_new_tokens)
    return questions


def encode_rationale(model: HookedModel, rationale: str) -> Int[Tensor, " n_rationale"]:
    """Token ids of a written rationale (with its answer line), followed by the stop token.

    Args:
        model: the model whose tokenizer is used.
        rationale: text of the rationale.
    """
    tokenizer = tokenizer_of(model)
    return torch.tensor([*tokenizer(rationale, add_special_tokens=False).input_ids, end_tokens(model)[0]])


def loss_mask(
    n_question: Sequence[int], lengths: Sequence[int], width: int, device: torch.device | str | None = None
) -> Bool[Tensor, "batch pos"]:
    """True at the tokens in the loss of a right-padded batch: those after the question and before the padding.

    Args:
        n_question: question tokens of each row.
        lengths: tokens of each row.
        width: positions of the batch.
        device: device of the mask; None: PyTorch's default device.
    """
    positions = torch.arange(width, device=device)
    starts = torch.tensor(n_question, device=device)[:, None]
    stops = torch.tensor(lengths, device=device)[:, None]
    return (positions >= starts) & (positions < stops)
