"""Prompt tuning: learn only a soft prompt, the model stays frozen (Lester et al. 2021; docs/method.md, section 1).

The loss is the next-token NLL of `R A` and the stop token given `P Q`, averaged over tokens. The vectors enter
as in every other module (`entry.py`). They start from the embeddings of random vocabulary tokens or of a text, the two
values of `prompt_tuning_init` in PEFT. The prompt with the lowest validation loss is returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import DPCInterpError, NonFiniteError
from dpc_interp.execution.batch_splits import by_length, cheapest_split, pass_cost
from dpc_interp.execution.keywords import read_keywords
from dpc_interp.host.torch_state import need_weights_with_gradients, torch_defaults
from dpc_interp.models.encoding import (
    DEFAULT_TEMPLATE,
    QuestionFormat,
    as_question_format,
    encode_question,
    encode_rationale,
    format_recipe,
    loss_mask,
)
from dpc_interp.models.hooked import CachedDecoding, HookedModel, check_length
from dpc_interp.models.loading import AnyModel, as_model
from dpc_interp.models.nonfinite import loss_scales, suggested_fix
from dpc_interp.models.token_nll import token_nll
from dpc_interp.prompts.embedding import check_n_virtual, embed_tokens, repeat_or_cut, text_tokens
from dpc_interp.prompts.entry import check_entry
from dpc_interp.prompts.prefill import prefill_prompt
from dpc_interp.prompts.soft_prompt import SoftPrompt
from dpc_interp.prompts.tuned_on import QUESTIONS, question_hashes
from dpc_interp.tasks.problem import Problem, Template
from dpc_interp.tasks.registry import AnyProblems, as_problems

Example = tuple[Int[Tensor, " _"], int]
"""Ids of question and rationale, and the number of them that are the question."""


@dataclass(frozen=True)
class TuningConfig:
    """How a soft prompt is tuned.

    Attributes:
        max_steps: the most training steps (updates of AdamW).
        batch_size: problems of a training step.
        learning_rate: peak of a schedule with linear warm-up and cosine decay.
        eval_steps: training steps between two evaluations of the validation loss.
        early_stopping_patience: evaluations without a lower loss before training stops.
        init_text: text whose token embeddings the vectors start from, repeated or cut to the number of virtual tokens
            as in PEFT; None: random tokens.
    """

    max_steps: int = 150
    batch_size: int = 16
    learning_rate: float = 0.03
    eval_steps: int = 25
    early_stopping_patience: int = 4
    init_text: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_steps", 0), ("batch_size", 1), ("eval_steps", 1), ("early_stopping_patience", 1)):
            if getattr(self, name) < least:
                raise DPCInterpError(f"{name} is {getattr(self, name)}; give at least {least}")


@torch_defaults(gradients=True)
def tune_prompt(
    model: AnyModel,
    problems: AnyProblems,
    n_virtual_tokens: int = 20,
    seed: int = 0,
    *,
    validation: AnyProblems | None = None,
    config: TuningConfig | None = None,
    template: QuestionFormat | Template | None = None,
    prepend_bos: bool | None = None,
    name: str = "prompt",
    progress: bool = True,
    **fields: Any,
) -> SoftPrompt:
    """Tune a soft prompt on problems with written rationales.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`, or its name; its weights stay frozen.
        problems: training problems, each with a rationale; or a name (200 problems of the train split), a file or rows.
        n_virtual_tokens: vectors of the prompt.
        seed: seed of the initial tokens and of the batches.
        validation: problems whose loss selects the prompt and stops training; None: every tenth of `problems`, which
            is then left out of training.
        config: how it is tuned; None: the defaults of `TuningConfig`.
        template: how a question becomes the text that the model reads, see `generate`; None: that of the problems,
            which must all have the same. The recipe keeps it, so that the prompt is always read as it was tuned.
        prepend_bos: whether BOS comes first; None: the tokenizer's own rule.
        name: name of the prompt.
        progress: show a progress bar.
        fields: single fields of `TuningConfig` by their own names.

    Returns:
        The prompt with the lowest validation loss. Its `recipe` holds the options, hashes of the questions, and
        `learning_curve`: training step, training loss and validation loss (nats).

    Raises:
        DPCInterpError: too few problems, or one without a rationale; an `init_text` without tokens or with words that
            the model's vocabulary lacks; a model that cannot read a soft prompt, or whose weights were created within
            `torch.inference_mode()`.
        NonFiniteError: the loss or its gradient is not finite.

    Example:
        >>> import dpc_interp as dpc
        >>> problems = dpc.load_problems("story", "train", n=20)
        >>> prompt = dpc.tune_prompt(dpc.load_model("reasoner"), problems, 5, max_steps=2, progress=False)
        >>> prompt.vectors.shape
        torch.Size([5, 128])
    """
    problems = as_problems(problems, "train")
    validation = None if validation is None else as_problems(validation, "validation")
    (config,) = read_keywords(fields, config or TuningConfig())
    model = as_model(model)
    need_weights_with_gradients(model)
    check_n_virtual(n_virtual_tokens, "n_virtual_tokens")
    check_entry(model)
    if validation is None:
        validation, problems = problems[::10], [p for i, p in enumerate(problems) if i % 10]
    if not problems or not validation:
        raise DPCInterpError("too few problems to tune a prompt; give at least 2, or 1 and validation=")
    given = _format_of(template, prepend_bos, [*problems, *validation])
    train = [_example(model, problem, given) for problem in problems]
    held_out = sorted((_example(model, problem, given) for problem in validation), key=lambda example: len(example[0]))
    check_length(model, n_virtual_tokens + max(len(tokens) for tokens, _ in [*train, *held_out]))
    generator = torch.Generator().manual_seed(seed)
    rows = _initial_tokens(model, config.init_text, n_virtual_tokens, generator)
    vectors = embed_tokens(model, rows).to(model.W_E.device).requires_grad_()
    best, curve = _train(model, vectors, train, held_out, config, generator, name, progress)
    recipe = format_recipe(given) | {
        "seed": seed,
        "n_train": len(train),
        "n_validation": len(held_out),
        QUESTIONS: question_hashes([*problems, *validation]),
        **asdict(config),
    }
    return SoftPrompt(best.cpu(), name, recipe | {"learning_curve": curve}, str(model.cfg.model_name))


def _train(
    model: HookedModel,
    vectors: Float[Tensor, "n_virtual d_model"],
    train: list[Example],
    held_out: list[Example],
    config: TuningConfig,
    generator: torch.Generator,
    name: str,
    progress: bool,
) -> tuple[Float[Tensor, "n_virtual d_model"], list[dict[str, float]]]:
    """Optimise `vectors` in place; return those with the lowest validation loss, and the learning curve."""
    optimizer = torch.optim.AdamW([vectors], lr=config.learning_rate, weight_decay=0.0)
    schedule = _warmup_cosine(optimizer, config.max_steps)
    best, best_loss, n_since_best = vectors.detach().clone(), float("inf"), 0
    curve: list[dict[str, float]] = []
    losses: list[float] = []
    with tqdm(total=config.max_steps, desc=f"tune {name}", unit="step", disable=not progress, leave=False) as bar:
        for step in range(1, config.max_steps + 1):
            indices = torch.randint(len(train), (config.batch_size,), generator=generator).tolist()
            loss = prompt_loss(model, [train[i] for i in indices], vectors)
            if not torch.isfinite(loss):
                raise NonFiniteError(
                    f"the loss is not finite at training step {step}; tune with a smaller learning_rate"
                )
            vectors.grad = _gradient(model, loss, vectors)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.update()
            if step % config.eval_steps and step != config.max_steps:
                continue
            validation_loss = _held_out_loss(model, held_out, vectors, 4 * config.batch_size)
            if not math.isfinite(validation_loss):
                raise NonFiniteError(
                    f"the validation loss is not finite at training step {step}; load the model in float32 or bfloat16"
                )
            mean_loss = sum(losses) / len(losses)
            curve.append({"step": step, "train": round(mean_loss, 4), "validation": round(validation_loss, 4)})
            bar.set_postfix(validation=curve[-1]["validation"])
            losses, n_since_best = [], n_since_best + 1
            if validation_loss < best_loss:
                best, best_loss, n_since_best = vectors.detach().clone(), validation_loss, 0
            if n_since_best >= config.early_stopping_patience:
                break
    return best, curve


def _gradient(
    model: HookedModel, loss: Float[Tensor, ""], vectors: Float[Tensor, "n_virtual d_model"]
) -> Float[Tensor, "n_virtual d_model"]:
    """The gradient of the loss; that of a float16 model is computed from a multiple of the loss, see `nonfinite.py`."""
    scales = loss_scales(model)
    for scale in scales:
        # not backward(), which would also fill the gradients of a model that is not frozen
        (gradient,) = torch.autograd.grad(loss, vectors, torch.full_like(loss, scale), retain_graph=scale != scales[-1])
        if torch.isfinite(gradient).all():
            return gradient / scale
    raise NonFiniteError(f"the gradient of the prompt is not finite; {suggested_fix(model)}")


def _warmup_cosine(optimizer: torch.optim.Optimizer, max_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    n_warmup = max(1, max_steps // 20)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / n_warmup, total_iters=n_warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, max_steps - n_warmup))
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[n_warmup])


def prompt_loss(
    model: HookedModel, examples: Sequence[Example], vectors: Float[Tensor, "n_virtual d_model"]
) -> Float[Tensor, ""]:
    """Mean NLL of the tokens after each question, with gradient to `vectors`.

    The prompt is the same in every row, so it is prefilled once and its keys and values are shared. Rows of about the
    same length go through the model together where that costs less than their padding. On SmolLM2 this takes 0.73 of
    the time of one padded batch of 8 GSM8K problems, and 0.79 of one of 16 story problems; gradients agree to 2e-6.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        examples: ids of question and rationale, and the number of question tokens, of each row.
        vectors: vectors of the soft prompt.
    """
    lengths = [len(ids) for ids, _ in examples]
    order = by_length(lengths)
    ends = cheapest_split([lengths[i] for i in order], pass_cost(model))
    prompt_cache = prefill_prompt(model, vectors, 1)
    groups = [[examples[i] for i in order[start:end]] for start, end in pairwise([0, *ends])]
    return torch.cat([_nll_after_questions(model, group, prompt_cache) for group in groups]).mean()


def _nll_after_questions(
    model: HookedModel, examples: Sequence[Example], prompt_cache: CachedDecoding
) -> Float[Tensor, " counted"]:
    """The NLL of each token after a question, in one pass; `prompt_cache` is one row that has read the prompt."""
    tokens = pad_sequence([ids for ids, _ in examples], batch_first=True).to(model.cfg.device)
    mask = loss_mask([n for _, n in examples], [len(ids) for ids, _ in examples], tokens.shape[1], tokens.device)

    def keep_predicted_positions(
        resid: Float[Tensor, "batch pos d_model"], hook: HookPoint
    ) -> Float[Tensor, "1 counted d_model"]:
        return resid[:, :-1][mask[:, 1:]][None]  # avoid [batch, pos, d_vocab] logits outside the loss

    rows = prompt_cache.fork(torch.zeros(len(tokens), dtype=torch.long))
    with model.hooks(fwd_hooks=[("unembed.hook_in", keep_predicted_positions)]):
        logits = rows(tokens).flatten(0, 1)  # not [0], whose backward pass would copy them
    return token_nll(logits, tokens[mask])


@torch.no_grad()
def _held_out_loss(
    model: HookedModel, examples: Sequence[Example], vectors: Float[Tensor, "n_virtual d_model"], batch_size: int
) -> float:
    total = n_tokens = 0.0
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        n = sum(len(ids) - n_question for ids, n_question in batch)
        total += prompt_loss(model, batch, vectors).item() * n
        n_tokens += n
    return total / n_tokens


def _initial_tokens(
    model: HookedModel, text: str | None, n_virtual_tokens: int, generator: torch.Generator
) -> Int[Tensor, " n_virtual"]:
    """The tokens whose embeddings the vectors start from."""
    if text is None:
        return torch.randint(model.cfg.d_vocab, (n_virtual_tokens,), generator=generator)
    return repeat_or_cut(text_tokens(model, text, "init_text"), n_virtual_tokens)


def _format_of(
    template: QuestionFormat | Template | None, prepend_bos: bool | None, problems: Sequence[Problem]
) -> QuestionFormat:
    """The one format in which the prompt is tuned and later read."""
    given = as_question_format(template, prepend_bos) or QuestionFormat()
    if given.template is not None:
        return given
    templates = list(dict.fromkeys(problem.template for problem in problems))
    if len(templates) > 1:
        raise DPCInterpError("the problems have several templates; give template= the one to tune the prompt on")
    return replace(given, template=DEFAULT_TEMPLATE if templates[0] is None else templates[0])


def _example(model: HookedModel, problem: Problem, given: QuestionFormat) -> Example:
    if not problem.rationale:
        raise DPCInterpError(f"problem {problem.id!r} has no rationale to learn from; give problems with rationales")
    question = encode_question(model, problem.question, given)
    return torch.cat([question, encode_rationale(model, problem.rationale)]), len(question)
