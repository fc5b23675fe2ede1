"""Train the bundled reasoner from scratch: `python -m dpc_interp.reasoner.train --out dpc_interp/assets/reasoner`.

A Llama-style model of 1.2M parameters (RMSNorm, rotary, gated MLP, grouped queries) reads documents of `corpus`. The
loss of a response token counts 1, that of a question or prefix token 0.1. Hidden matrices are optimised by Muon, the
rest by AdamW; the learning rate is constant, then falls linearly to zero. The run saves itself every few minutes and
goes on where it stopped. It takes the GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dpc_interp.reasoner.corpus import Document, documents
from dpc_interp.reasoner.tokenizer import build_tokenizer

CONTEXT_WEIGHT = 0.1
CONSTANT_SHARE = 0.3
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
    tokenizer: PreTrainedTokenizerFast, seed: int, n_tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (tokens [batch, pos], loss weight of each token [batch, pos]) of about `n_tokens` tokens."""
    stream = documents(seed)
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


class Batches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """`batches` from the batch `skip` on, so that a loader can make them in a process of its own."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, n_tokens: int, skip: int) -> None:
        self.arguments, self.skip = (tokenizer, seed, n_tokens), skip

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return islice(batches(*self.arguments), self.skip, None)


def train(out: Path, n_tokens: int, batch_tokens: int, seed: int, save_every: float) -> None:
    """Train for `n_tokens` tokens and write model, tokenizer and the loss record to `out`."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(config(len(tokenizer)))
    torch.nn.Module.to(model, device)
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    optimizers = [
        torch.optim.Muon(hidden, lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(
            o, lambda t: min(1.0, 0.02 + t / 5e5, (1 - t / n_tokens) / (1 - CONSTANT_SHARE))
        )
        for o in optimizers
    ]
    state_file, seen, step, record = out / "training_state.pt", 0, 0, []
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        seen, step, record = state["seen"], state["step"], state["record"]
    forward = torch.compile(model, dynamic=True) if device == "cpu" else model  # compiling takes minutes
    loader = DataLoader(
        Batches(tokenizer, seed, batch_tokens, step), batch_size=None, num_workers=int(device == "cuda")
    )
    stream = iter(loader)
    saved_at, losses = time.monotonic(), []
    with tqdm(total=n_tokens, initial=seen, unit="tok", unit_scale=True, mininterval=5) as bar:
        while seen < n_tokens:
            tokens, weight = (tensor.to(device) for tensor in next(stream))
            logits = forward(input_ids=tokens, use_cache=False).logits[:, :-1]
            nll = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view_as(weight[:, 1:])
            loss = (nll * weight[:, 1:]).sum() / weight[:, 1:].sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                scheduler.step(seen)
                optimizer.step()
                optimizer.zero_grad()
            response = weight[:, 1:] == 1
            losses.append((nll[response].mean()).item())
            n = int((weight > 0).sum())
            seen, step = seen + n, step + 1
            bar.update(n)
            if len(losses) == 50:
                record.append({"tokens": seen, "response_nll": round(sum(losses) / 50, 4)})
                bar.set_postfix(nll=record[-1]["response_nll"])
                losses = []
            if time.monotonic() - saved_at > save_every or seen >= n_tokens:
                optimizer_states = [o.state_dict() for o in optimizers]
                state = {"model": model.state_dict(), "optimizers": optimizer_states, "seen": seen, "step": step}
                torch.save(state | {"record": record}, state_file)
                saved_at = time.monotonic()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(
        json.dumps(
            {"seed": seed, "tokens": seen, "steps": step, "batch_tokens": batch_tokens, "loss": record}, indent=1
        )
    )


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model; an unfinished run there goes on")
    parser.add_argument("--tokens", type=float, default=30e6)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=180, help="seconds")
    args = parser.parse_args()
    train(args.out, int(args.tokens), args.batch_tokens, args.seed, args.save_every)


if __name__ == "__main__":
    main()
