"""Train the bundled reasoner from scratch: `python -m dpc_interp.reasoner.train --out dpc_interp/assets/reasoner`.

A Llama-style model of 1.2M parameters (RMSNorm, rotary, gated MLP, grouped queries) reads documents of `corpus`. The loss of a
response token counts 1, that of a question or prefix token 0.1. Hidden matrices are optimised by Muon, the rest by AdamW; the learning
rate is constant, then falls linearly to zero. The run saves itself every few minutes and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dpc_interp.reasoner.corpus import Document, documents
from dpc_interp.reasoner.tokenizer import build_tokenizer

CONTEXT_WEIGHT = 0.1
LEARNING_RATE = 0.01
WARMUP_TOKENS = 500_000


@dataclass(frozen=True)
class Stage:
    """`n_tokens` of documents, with look-up drills or without, at `peak` times the learning rate, falling to 0."""

    n_tokens: int
    peak: float
    constant_share: float
    lookups: bool

    def rate(self, seen: int) -> float:
        """The factor of the learning rate after `seen` tokens of the stage: warm-up, constant, linear to 0."""
        warm, left = 0.02 + seen / WARMUP_TOKENS, (1 - seen / self.n_tokens) / (1 - self.constant_share)
        return self.peak * min(1.0, warm, left)


STAGES = (Stage(20_000_000, 1.0, 0.3, lookups=False), Stage(7_000_000, 0.6, 0.4, lookups=True))
POOL = 2048
"""Documents sorted by length together, so that a batch is not mostly padding."""


def config(d_vocab: int) -> LlamaConfig:
    """The reasoner's architecture."""
    return LlamaConfig(
        vocab_size=d_vocab,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def encode(tokenizer: PreTrainedTokenizerFast, docs: list[Document]) -> list[tuple[list[int], int]]:
    """Token ids of each document and the position of its first response token."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    prefixes = tokenizer([doc.prefix for doc in docs]).input_ids
    questions = tokenizer([doc.question + "\n" for doc in docs]).input_ids
    responses = tokenizer([doc.response for doc in docs]).input_ids
    return [
        ([*p, bos, *q, *r, eos], len(p) + 1 + len(q)) for p, q, r in zip(prefixes, questions, responses, strict=True)
    ]


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, n_tokens: int, lookups: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (tokens [batch, pos], loss weight of each token [batch, pos]) of about `n_tokens` tokens."""
    stream = documents(seed, lookups)
    generator = torch.Generator().manual_seed(seed)
    while True:
        rows = sorted(encode(tokenizer, list(islice(stream, POOL))), key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], int]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > n_tokens:
                groups.append([])
            groups[-1].append(row)
        for i in torch.randperm(len(groups), generator=generator).tolist():
            width = -(-max(len(ids) for ids, _ in groups[i]) // 8) * 8
            tokens = torch.zeros(len(groups[i]), width, dtype=torch.long)
            weight = torch.zeros(len(groups[i]), width)
            for k, (ids, start) in enumerate(groups[i]):
                tokens[k, : len(ids)] = torch.tensor(ids)
                weight[k, :start] = CONTEXT_WEIGHT
                weight[k, start : len(ids)] = 1.0
            yield tokens, weight


def train(
    out: Path, stages: Sequence[Stage] = STAGES, batch_tokens: int = 8192, seed: int = 0, save_every: float = 180
) -> None:
    """Train through all stages and write model, tokenizer and the loss record to `out`; `save_every` is in seconds."""
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(config(len(tokenizer)))
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    optimizers = [
        torch.optim.Muon(hidden, lr=LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    state_file = out / "training_state.pt"
    begun, seen, step, losses = 0, 0, 0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        begun, seen, step, losses = state["stage"], state["seen"], state["step"], state["losses"]
    forward = torch.compile(model, dynamic=True)
    for number, stage in list(enumerate(stages))[begun:]:
        stream = islice(batches(tokenizer, seed + number, batch_tokens, stage.lookups), step, None)
        saved_at, window = time.monotonic(), []
        bar = tqdm(total=stage.n_tokens, initial=seen, desc=f"stage {number}", unit="tok", unit_scale=True, mininterval=5)
        while seen < stage.n_tokens:
            tokens, weight = next(stream)
            logits = forward(input_ids=tokens, use_cache=False).logits[:, :-1]
            nll = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view_as(weight[:, 1:])
            loss = (nll * weight[:, 1:]).sum() / weight[:, 1:].sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = LEARNING_RATE * stage.rate(seen)
                optimizer.step()
                optimizer.zero_grad()
            window.append(nll[weight[:, 1:] == 1].mean().item())
            n = int((weight > 0).sum())
            seen, step = seen + n, step + 1
            bar.update(n)
            if len(window) == 50:
                losses.append({"stage": number, "tokens": seen, "response_nll": round(sum(window) / 50, 4)})
                bar.set_postfix(nll=losses[-1]["response_nll"])
                window = []
            if time.monotonic() - saved_at > save_every or seen >= stage.n_tokens:
                done = seen >= stage.n_tokens
                place = {"stage": number + done, "seen": 0 if done else seen, "step": 0 if done else step}
                weights = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
                torch.save({**weights, **place, "losses": losses}, state_file)
                saved_at = time.monotonic()
        bar.close()
        seen = step = 0
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    recipe = {"seed": seed, "batch_tokens": batch_tokens, "stages": [asdict(stage) for stage in stages], "loss": losses}
    (out / "training.json").write_text(json.dumps(recipe, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model; an unfinished run there goes on")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=180, help="seconds")
    args = parser.parse_args()
    train(args.out, STAGES, args.batch_tokens, args.seed, args.save_every)


if __name__ == "__main__":
    main()
