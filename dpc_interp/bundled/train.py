"""Train the bundled reasoner from scratch: `python -m dpc_interp.bundled.train --out dpc_interp/assets/reasoner`.

A Llama-style model of 1.2M parameters (RMSNorm, rotary positions, gated MLP, grouped queries) reads the documents of
`corpus.py`, in the batches of `training_batches.py`. Muon optimises the hidden matrices, AdamW the rest; the learning
rate warms up, is constant, then falls linearly to zero. The run is saved every few minutes, and the same command
resumes it. It uses the GPU where one is available.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cyclopts import run
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from dpc_interp.bundled.tokenizer import build_tokenizer
from dpc_interp.bundled.training_batches import BatchDataset

CONSTANT_SHARE = 0.3
"""Share of the training after which the learning rate falls."""
WARMUP_TOKENS = 5e5
LEARNING_RATE = 0.01
LOG_STEPS = 50
"""Training steps that one point of the loss curve averages."""


def reasoner_config(d_vocab: int) -> LlamaConfig:
    """The architecture of the reasoner, for a vocabulary of `d_vocab` tokens."""
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


@dataclass
class TrainingState:
    """A training run in progress.

    Attributes:
        model: with its current weights.
        optimizers: Muon for the hidden matrices, AdamW for the rest.
        seen: tokens read, without padding.
        step: training steps made.
        record: the loss curve; each point has `tokens` and `response_nll`, nats per response token.
    """

    model: LlamaForCausalLM
    optimizers: list[torch.optim.Optimizer]
    seen: int = 0
    step: int = 0
    record: list[dict[str, float]] = field(default_factory=list)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of the next training step."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate

    def save(self, file: Path) -> None:
        """Write the state to `file`."""
        optimizer_states = [optimizer.state_dict() for optimizer in self.optimizers]
        progress = {"seen": self.seen, "step": self.step, "record": self.record}
        torch.save({"model": self.model.state_dict(), "optimizers": optimizer_states, **progress}, file)

    def load(self, file: Path, device: str) -> None:
        """Continue from the state in `file`, on `device`."""
        saved = torch.load(file, map_location=device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, optimizer_state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        self.seen, self.step, self.record = saved["seen"], saved["step"], saved["record"]


def learning_rate_factor(seen: float, n_tokens: int) -> float:
    """The factor of `LEARNING_RATE` after `seen` of `n_tokens` tokens: warm-up, constant, linear to zero."""
    return min(1.0, 0.02 + seen / WARMUP_TOKENS, (1 - seen / n_tokens) / (1 - CONSTANT_SHARE))


def train(out: Path, n_tokens: int, batch_tokens: int, seed: int, save_every: float) -> None:
    """Train a reasoner, or resume its training, and write model, tokenizer and training.json.

    Args:
        out: folder of the model; it also holds the saved run, `training_state.pt`.
        n_tokens: tokens to train on, without padding.
        batch_tokens: tokens of a batch, about.
        seed: seed of the weights and of the documents.
        save_every: seconds between two saves of the run.
    """
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(reasoner_config(len(tokenizer)))
    torch.nn.Module.to(model, device)
    state = TrainingState(model, _make_optimizers(model))
    state_file = out / "training_state.pt"
    if state_file.exists():
        state.load(state_file, device)
    # compiling takes minutes, which only a run on a CPU earns back
    forward = torch.compile(model, dynamic=True) if device == "cpu" else model
    dataset = BatchDataset(tokenizer, seed, batch_tokens, skip=state.step)
    stream = iter(DataLoader(dataset, batch_size=None, num_workers=int(device == "cuda")))
    saved_at, losses = time.monotonic(), []
    with tqdm(total=n_tokens, initial=state.seen, unit="tok", unit_scale=True, mininterval=5) as bar:
        while state.seen < n_tokens:
            tokens, weight = (tensor.to(device) for tensor in next(stream))
            # the schedule counts tokens, not training steps, so that it does not depend on the batch size
            state.set_learning_rate(LEARNING_RATE * learning_rate_factor(state.seen, n_tokens))
            losses.append(_training_step(forward, state, tokens, weight))
            n_read = int((weight > 0).sum())
            state.seen, state.step = state.seen + n_read, state.step + 1
            bar.update(n_read)
            if len(losses) == LOG_STEPS:
                state.record.append({"tokens": state.seen, "response_nll": round(sum(losses) / LOG_STEPS, 4)})
                bar.set_postfix(nll=state.record[-1]["response_nll"])
                losses = []
            if time.monotonic() - saved_at > save_every or state.seen >= n_tokens:
                state.save(state_file)
                saved_at = time.monotonic()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    summary = {"seed": seed, "tokens": state.seen, "steps": state.step, "batch_tokens": batch_tokens}
    (out / "training.json").write_text(json.dumps(summary | {"loss": state.record}, indent=1))


def _make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    hidden = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "layers" in name]
    rest = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "layers" not in name]
    return [
        torch.optim.Muon(hidden, lr=LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _training_step(
    forward: Callable[..., Any],
    state: TrainingState,
    tokens: Tensor,
    weight: Tensor,
) -> float:
    """Make one training step; returns the mean loss of the response tokens."""
    logits = forward(input_ids=tokens, use_cache=False).logits[:, :-1]
    nll = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view_as(weight[:, 1:])
    loss = (nll * weight[:, 1:]).sum() / weight[:, 1:].sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return nll[weight[:, 1:] == 1].mean().item()


def main(*, out: Path, tokens: float = 30e6, batch_tokens: int = 16384, seed: int = 0, save_every: float = 180) -> None:
    """Train the bundled reasoner from scratch.

    Args:
        out: folder of the model; an unfinished run there resumes.
        tokens: to train on, without padding.
        batch_tokens: tokens of a batch, about.
        seed: of the weights and of the documents.
        save_every: seconds between two saves of the run.
    """
    train(out, int(tokens), batch_tokens, seed, save_every)


if __name__ == "__main__":
    run(main)
