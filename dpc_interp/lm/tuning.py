"""Prompt tuning: learn a soft prompt alone, the model frozen (Lester et al. 2021; METHOD 1).

The loss is the next-token NLL of `R A` and the stop token given `P Q`, averaged over tokens. The vectors enter at
`hook_embed` as everywhere else; they start at the embeddings of random vocabulary tokens, or of a text's (PEFT's two
`prompt_tuning_init`). The prompt with the lowest validation loss is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import DPCInterpError, NonFiniteError
from dpc_interp.lm.generation import question_tokens
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.prefix import read_prompt
from dpc_interp.lm.soft_prompt import SoftPrompt, check_length
from dpc_interp.tasks.problems import Problem

Example = tuple[Int[Tensor, " _"], int]
"""Question and rationale ids, and how many of them are the question."""


def tune_prompt(
    model: HookedModel,
    problems: Sequence[Problem],
    n_virtual_tokens: int = 20,
    seed: int = 0,
    *,
    validation: Sequence[Problem] | None = None,
    n_steps: int = 150,
    batch_size: int = 16,
    learning_rate: float = 0.03,
    check_every: int = 25,
    patience: int = 4,
    init_text: str | None = None,
    name: str = "prompt",
    progress: bool = True,
) -> SoftPrompt:
    """Tune a soft prompt on problems with written rationales.

    Args:
        validation: where the loss that stops the training is taken; None: every tenth of `problems`, left out of the
            training.
        n_steps: at most so many updates of AdamW, learning rate `learning_rate` warmed up and decayed by a cosine.
        check_every, patience: the validation loss is taken every `check_every` updates; `patience` checks without a
            better one stop.
        init_text: the vectors start at the embeddings of its tokens, repeated or cut to `n_virtual_tokens` as in PEFT;
            None: of random tokens.

    Returns:
        The best prompt on validation. Its `recipe` holds the options and `learning_curve`: step, train loss, validation
        loss.

    Raises:
        DPCInterpError: too few problems, or one without a rationale.
        NonFiniteError: the loss is not finite.
    """
    if n_virtual_tokens < 1:
        raise DPCInterpError(f"n_virtual_tokens is {n_virtual_tokens}; give at least 1")
    if validation is None:
        validation, problems = problems[::10], [p for i, p in enumerate(problems) if i % 10]
    if not problems or not validation:
        raise DPCInterpError("too few problems to tune a prompt; give at least 2, or more with validation=")
    train = [_example(model, problem) for problem in problems]
    held_out = sorted((_example(model, problem) for problem in validation), key=lambda example: len(example[0]))
    check_length(model, n_virtual_tokens + max(len(tokens) for tokens, _ in [*train, *held_out]))
    generator = torch.Generator().manual_seed(seed)
    rows = _first_tokens(model, init_text, n_virtual_tokens, generator)
    vectors = model.W_E[rows.to(model.W_E.device)].detach().clone().float().requires_grad_()
    optimizer = torch.optim.AdamW([vectors], lr=learning_rate, weight_decay=0.0)
    warmup = max(1, n_steps // 20)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, n_steps - warmup)),
        ],
        milestones=[warmup],
    )
    best, best_loss, checks_since, curve, running = vectors.detach().clone(), float("inf"), 0, [], []
    with tqdm(total=n_steps, desc=f"tune {name}", unit="step", disable=not progress, leave=False) as bar:
        for step in range(1, n_steps + 1):
            chosen = torch.randint(len(train), (batch_size,), generator=generator).tolist()
            loss = prompt_loss(model, [train[i] for i in chosen], vectors)
            if not torch.isfinite(loss):
                raise NonFiniteError(f"the loss is not finite at step {step}; tune with a smaller learning_rate")
            (vectors.grad,) = torch.autograd.grad(loss, vectors)
            optimizer.step()
            schedule.step()
            running.append(loss.item())
            bar.update()
            if step % check_every and step != n_steps:
                continue
            validation_loss = _held_out_loss(model, held_out, vectors, 4 * batch_size)
            curve.append(
                {"step": step, "train": round(sum(running) / len(running), 4), "validation": round(validation_loss, 4)}
            )
            bar.set_postfix(validation=curve[-1]["validation"])
            running, checks_since = [], checks_since + 1
            if validation_loss < best_loss:
                best, best_loss, checks_since = vectors.detach().clone(), validation_loss, 0
            if checks_since >= patience:
                break
    recipe = {
        "seed": seed,
        "n_train": len(train),
        "n_validation": len(held_out),
        "n_steps": n_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "init_text": init_text,
        "learning_curve": curve,
    }
    return SoftPrompt(best, name, recipe)


def prompt_loss(
    model: HookedModel, examples: Sequence[Example], vectors: Float[Tensor, "n_virtual d_model"]
) -> Float[Tensor, ""]:
    """Mean NLL of the tokens after each question, with gradient to `vectors`.

    The prompt comes first and is the same in every row: it is read once, and its keys and values are shared.
    """
    tokens = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in examples], batch_first=True).to(model.cfg.device)
    n_question = torch.tensor([n for _, n in examples], device=tokens.device)[:, None]
    length = torch.tensor([len(ids) for ids, _ in examples], device=tokens.device)[:, None]
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    counted = (positions >= n_question) & (positions < length)

    def needed(resid: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "1 counted d_model"]:
        return resid[:, :-1][counted[:, 1:]][None]  # logits of a large vocabulary are dear

    read = read_prompt(model, vectors, len(tokens))
    with model.hooks(fwd_hooks=[("unembed.hook_in", needed)]):
        logits = read(tokens)[0]
    return cross_entropy(logits.float(), tokens[counted])


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


def _first_tokens(
    model: HookedModel, text: str | None, n_virtual_tokens: int, generator: torch.Generator
) -> Int[Tensor, " n_virtual"]:
    """The tokens at whose embeddings the vectors start."""
    if text is None:
        return torch.randint(model.cfg.d_vocab, (n_virtual_tokens,), generator=generator)
    ids = tokenizer_of(model)(text, add_special_tokens=False).input_ids
    if not ids:
        raise DPCInterpError("init_text has no tokens; give a text, or None for random tokens")
    return torch.tensor((ids * -(-n_virtual_tokens // len(ids)))[:n_virtual_tokens])


def _example(model: HookedModel, problem: Problem) -> Example:
    if not problem.rationale:
        raise DPCInterpError(f"problem {problem.id!r} has no rationale to learn from; give problems with rationales")
    question = question_tokens(model, problem.question)
    tokenizer = tokenizer_of(model)
    ids = tokenizer(problem.rationale, add_special_tokens=False).input_ids
    return torch.cat([question, torch.tensor([*ids, tokenizer.eos_token_id])]), len(question)
