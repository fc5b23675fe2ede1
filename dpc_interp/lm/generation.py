"""Batched greedy decoding with a cache and a soft prompt.

`HookedTransformer.generate` never fires `hook_embed`, so the loop is ours: one forward over `pad | P | Q` writes the
prompt into the cache through its hook, then each step feeds one token. Rows that have ended leave the batch. Where a
draft of the answer is at hand, one pass over it tells how far the model agrees, and decoding begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformers import PreTrainedTokenizerBase

from dpc_interp.errors import DPCInterpError
from dpc_interp.lm.soft_prompt import (
    PLACEHOLDER,
    PromptEdit,
    SoftPrompt,
    check_length,
    check_prompt,
    edit_prompt,
    logits_behind,
    write_prompt,
)
from dpc_interp.tasks.answers import extract_answer, is_correct
from dpc_interp.tasks.problems import Problem

DRAFTS = 16
"""Drafts in one pass: it makes logits of all their positions."""


@dataclass(frozen=True)
class Transcript:
    """What a model wrote for a problem. `generated_tokens` ends with the stop token where the model wrote one."""

    problem: Problem
    question_tokens: Int[Tensor, " n_question"]
    generated_tokens: Int[Tensor, " n_generated"]
    text: str
    answer: str | None
    correct: bool


def tokenizer_of(model: HookedTransformer) -> PreTrainedTokenizerBase:
    """The model's tokenizer; a model without one is refused."""
    if model.tokenizer is None:
        raise DPCInterpError("this model has no tokenizer; load it with one")
    return model.tokenizer


def question_tokens(model: HookedTransformer, question: str) -> Int[Tensor, " n_question"]:
    """Token ids of a question as the model reads it: BOS where the model has one, the question, a line break.

    Raises:
        DPCInterpError: the tokenizer does not know a word of the question.
    """
    tokenizer = tokenizer_of(model)
    coded = tokenizer(question + "\n", add_special_tokens=False, return_offsets_mapping=True)
    ids = coded.input_ids
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        first, last = coded.offset_mapping[ids.index(tokenizer.unk_token_id)]
        unknown = (question[first:last].strip() or question[first:last])[:40]
        raise DPCInterpError(f"the model's vocabulary lacks {unknown!r}; ask in the words of its tasks")
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    return torch.tensor(start + ids)


@torch.no_grad()
def generate(
    model: HookedTransformer,
    problems: Sequence[Problem],
    prompt: SoftPrompt | None = None,
    *,
    plans: Sequence[PromptEdit] | None = None,
    drafts: Sequence[Int[Tensor, " _"]] | None = None,
    max_new_tokens: int = 96,
    batch_size: int = 128,
    progress: bool = True,
) -> list[Transcript]:
    """Answer problems by greedy decoding.

    Args:
        prompt: the soft prompt before each question; None: the bare model.
        plans: one corruption of the prompt for each problem (METHOD 5); None: the prompt as it is.
        drafts: for each problem the tokens of a likely answer, such as the one under the uncorrupted prompt; what the
            model would write itself is taken from it. None: all is decoded. The text does not depend on it.
        max_new_tokens: decoding stops there at the latest.
        batch_size: questions decoded together; the text does not depend on it.

    Returns:
        One transcript a problem, in the order given.

    Raises:
        DPCInterpError: a prompt that does not fit, a question past the context length, plans without a prompt or not
            one a problem, drafts not one a problem.
    """
    vectors = None if prompt is None else prompt.vectors
    if vectors is not None:
        check_prompt(model, vectors)
    if plans is not None and (prompt is None or len(plans) != len(problems)):
        raise DPCInterpError("corruption needs a soft prompt and one plan for each problem")
    if drafts is not None and len(drafts) != len(problems):
        raise DPCInterpError(f"there are {len(drafts)} drafts for {len(problems)} problems; give one for each")
    questions = [question_tokens(model, problem.question) for problem in problems]
    n_virtual = 0 if vectors is None else vectors.shape[0]
    check_length(model, n_virtual + max((len(q) for q in questions), default=0) + max_new_tokens)
    order = sorted(range(len(problems)), key=lambda i: (len(questions[i]), i))
    written: dict[int, Int[Tensor, " n_generated"]] = {}
    with tqdm(total=len(problems), desc="generate", unit="problem", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch_plans = None if plans is None else [plans[i] for i in chosen]
            asked = [questions[i] for i in chosen]
            if drafts is None:
                rows = decode(model, asked, vectors, batch_plans, max_new_tokens)
            else:
                begun = [drafts[i][:max_new_tokens] for i in chosen]
                rows = _decode_drafted(model, asked, begun, vectors, batch_plans, max_new_tokens)
            written.update(zip(chosen, rows, strict=True))
            bar.update(len(chosen))
    return [transcript(model, p, questions[i], written[i]) for i, p in enumerate(problems)]


def decode(
    model: HookedTransformer,
    questions: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int,
) -> list[Int[Tensor, " _"]]:
    """Decode one batch: left padding first, then the prompt, then the question."""
    n_virtual = 0 if vectors is None else vectors.shape[0]
    width = n_virtual + max(len(q) for q in questions)
    device = model.cfg.device
    starts = torch.tensor([width - n_virtual - len(q) for q in questions])
    tokens = torch.full((len(questions), width), PLACEHOLDER)
    for row, question in enumerate(questions):
        tokens[row, width - len(question) :] = question
    mask = (torch.arange(width) >= starts[:, None]).long()
    hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]] = []
    if vectors is not None:
        hooks.append(("hook_embed", write_prompt(vectors, starts)))
        if plans is not None:
            hooks.append(("hook_embed", edit_prompt(plans, n_virtual, starts)))

    cache = TransformerLensKeyValueCache.init_cache(model.cfg, device, len(questions))
    with model.hooks(fwd_hooks=hooks):
        logits = model(tokens.to(device), attention_mask=mask.to(device), past_kv_cache=cache, prepend_bos=False)
    stop = tokenizer_of(model).eos_token_id
    written = torch.full((len(questions), max_new_tokens), stop)
    alive = torch.arange(len(questions))
    for step in range(max_new_tokens):
        last = logits[:, -1].argmax(-1)
        written[alive, step] = last.cpu()
        going = last != stop
        if not going.any() or step == max_new_tokens - 1:
            break
        if not going.all():
            _keep(cache, going)
            alive, last = alive[going.cpu()], last[going]
        ones = torch.ones(len(last), 1, dtype=torch.long, device=device)
        logits = model(last[:, None], attention_mask=ones, past_kv_cache=cache, prepend_bos=False)
    return [_until_stop(row, stop) for row in written]


def _decode_drafted(
    model: HookedTransformer,
    questions: Sequence[Int[Tensor, " _"]],
    drafts: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
    max_new_tokens: int,
) -> list[Int[Tensor, " _"]]:
    """What `decode` writes, its beginning taken from each draft as far as the model agrees with it."""
    stop = tokenizer_of(model).eos_token_id
    rows: list[Int[Tensor, " _"]] = []
    for start in range(0, len(questions), DRAFTS):
        part = slice(start, start + DRAFTS)
        part_plans = None if plans is None else plans[part]
        agreed = _agreement(model, questions[part], drafts[part], vectors, part_plans)
        rows += [draft[:n] for draft, n in zip(drafts[part], agreed, strict=True)]
    open_ = [i for i, row in enumerate(rows) if len(row) < max_new_tokens and (not len(row) or row[-1] != stop)]
    if open_:
        begun = [torch.cat([questions[i], rows[i]]) for i in open_]
        open_plans = None if plans is None else [plans[i] for i in open_]
        most = max(max_new_tokens - len(rows[i]) for i in open_)
        for i, rest in zip(open_, decode(model, begun, vectors, open_plans, most), strict=True):
            rows[i] = torch.cat([rows[i], rest])[:max_new_tokens]
    return rows


def _agreement(
    model: HookedTransformer,
    questions: Sequence[Int[Tensor, " _"]],
    drafts: Sequence[Int[Tensor, " _"]],
    vectors: Float[Tensor, "n_virtual d_model"] | None,
    plans: Sequence[PromptEdit] | None,
) -> list[int]:
    """How many tokens of each draft greedy decoding would write, from one pass over question and draft."""
    n_virtual = 0 if vectors is None else vectors.shape[0]
    hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]] = []
    if vectors is not None:
        hooks.append(("hook_embed", write_prompt(vectors)))
        if plans is not None:
            hooks.append(("hook_embed", edit_prompt(plans, n_virtual)))
    whole = [torch.cat([question, draft]) for question, draft in zip(questions, drafts, strict=True)]
    with model.hooks(fwd_hooks=hooks):
        logits = logits_behind(model, torch.nn.utils.rnn.pad_sequence(whole, batch_first=True), n_virtual)
    own = logits[:, n_virtual:].argmax(-1).cpu()
    agreed = []
    for row, question, draft in zip(own, questions, drafts, strict=True):
        same = row[len(question) - 1 : len(question) - 1 + len(draft)] == draft
        agreed.append(int(same.long().cumprod(0).sum()))
    return agreed


def _keep(cache: TransformerLensKeyValueCache, rows: Tensor) -> None:
    """Leave only `rows` in the cache."""
    for entry in cache.entries:
        entry.past_keys, entry.past_values = entry.past_keys[rows], entry.past_values[rows]
    cache.previous_attention_mask = cache.previous_attention_mask[rows]


def _until_stop(row: Int[Tensor, " max_new"], stop: int) -> Int[Tensor, " n_generated"]:
    ends = (row == stop).nonzero()
    return row[: int(ends[0]) + 1] if len(ends) else row


def transcript(
    model: HookedTransformer,
    problem: Problem,
    question: Int[Tensor, " n_question"],
    generated: Int[Tensor, " n_generated"],
) -> Transcript:
    """Decode the text, read its answer and check it."""
    text = str(tokenizer_of(model).decode(generated, skip_special_tokens=True))
    answer = extract_answer(text)
    return Transcript(problem, question, generated, text, answer, is_correct(answer, problem.answer))
