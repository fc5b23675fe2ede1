"""The checks of `check_model`: each a second way to the same numbers.

Short random sequences go through the code that generates and analyses, and each result is held against another way to
the same numbers: the Hugging Face model, the same rows alone, the same tokens without a cache. Two sets of logits are
compared as log-probabilities, error = max |a - b| / max |b|; a pattern is on the loss path if zeroing it changes the
loss and the loss has a gradient there.
"""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.hook_points import HookPoint
from transformers import PreTrainedModel

from dpc_interp.lm.decoding import left_padded
from dpc_interp.lm.hooked import CachedDecoding, HookedModel
from dpc_interp.lm.prefix import can_be_shared, read_prompt
from dpc_interp.lm.soft_prompt import SoftPrompt, check_length, prompted, write_prompt

LENGTHS = (16, 11, 7)
"""Tokens in each row of the batch."""
N_STEPS = 4
"""Tokens fed one by one to the cache."""
Row = dict[str, object]


class Probe:
    """The checks, each one row of the table, on the same tokens and prompt."""

    def __init__(
        self,
        model: HookedModel,
        hf_model: PreTrainedModel | None,
        source: str,
        prompt: SoftPrompt | None,
        tolerance: float,
    ):
        self.model, self.hf_model, self.source, self.tolerance = model, hf_model, source, tolerance
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.cfg.d_vocab, (len(LENGTHS) * max(LENGTHS) + 4,), generator=generator)
        special = set() if model.tokenizer is None else set(model.tokenizer.all_special_ids)
        plain = next(i for i in range(model.cfg.d_vocab) if i not in special)
        ids = torch.tensor([plain if i in special else i for i in ids.tolist()])
        if prompt is None:
            prompt = SoftPrompt(model.W_E[ids[-4:].to(model.W_E.device)].detach().clone())
        self.prompt = prompt
        check_length(model, prompt.n_virtual + max(LENGTHS))
        self.rows = [ids[i * max(LENGTHS) :][:n] for i, n in enumerate(LENGTHS)]
        with torch.no_grad():
            self.alone = [self._prompted(row[None])[0] for row in self.rows]

    def logits(self) -> Row:
        """Without a prompt, the model against Hugging Face's."""
        name = "logits = Hugging Face's"
        if self.hf_model is None:
            return _row(name, "not checked", self.source)
        tokens = self.rows[0][None]
        theirs = self.hf_model(tokens.to(self.hf_model.device)).logits
        return self._compare(name, [(self._forward(tokens), theirs, f"from {self.source}")])

    def in_front(self) -> Row:
        """The prompt written by a hook against the same vectors in front of the embeddings, as PEFT has them."""
        name = "prompted logits = inputs_embeds"
        if self.hf_model is None:
            return _row(name, "not checked", self.source)
        embed = self.hf_model.get_input_embeddings()
        pairs = []
        for i, row in enumerate(self.rows):
            embedded = embed(row.to(self.hf_model.device))
            joined = torch.cat([self.prompt.vectors.to(embedded), embedded])[None]
            pairs.append((self.alone[i], self.hf_model(inputs_embeds=joined).logits[0], f"row {i}"))
        return self._compare(name, pairs)

    def pattern_edits(self) -> Row:
        """Zeroing any layer's pattern changes the loss by more than running the model twice does."""
        name = "pattern edits change the loss"
        tokens = self.rows[0]
        plain = self._loss(tokens)
        noise = (self._loss(tokens) - plain).abs()
        dead = []
        for layer in range(self.model.cfg.n_layers):
            with self.model.hooks(fwd_hooks=[(_pattern(layer), lambda pattern, hook: torch.zeros_like(pattern))]):
                if not (self._loss(tokens) - plain).abs() > noise:
                    dead.append(layer)
        if dead:
            return _row(name, "fail", f"layers {dead}: zeroing hook_pattern leaves the loss as it is")
        return _row(name, "pass", "in every layer")

    def pattern_gradients(self) -> Row:
        """The loss has a finite gradient, not all zero, at every layer's pattern."""
        name = "every pattern has its gradient"
        found: dict[int, Tensor] = {}

        def watch(pattern: Tensor, hook: HookPoint) -> None:
            layer = hook.layer()
            if pattern.requires_grad:
                pattern.register_hook(lambda grad: found.__setitem__(layer, grad))

        leaf: list[Tensor] = []

        def require_grad(embed: Tensor, hook: HookPoint) -> Tensor:
            leaf.append(embed.detach().requires_grad_())
            return leaf[0]

        layers = range(self.model.cfg.n_layers)
        with torch.enable_grad(), self.model.hooks(fwd_hooks=[(_pattern(layer), watch) for layer in layers]):
            loss = self._loss(self.rows[0], require_grad)
            torch.autograd.grad(loss, leaf[0])
        for layer in layers:
            if layer not in found:
                return _row(name, "fail", f"layer {layer}: none reaches hook_pattern")
            if not torch.isfinite(found[layer]).all():
                return _row(name, "fail", f"layer {layer}: not finite")
            if not found[layer].any():
                return _row(name, "fail", f"layer {layer}: all zero")
        return _row(name, "pass", "in every layer")

    def right_padded(self) -> Row:
        """Rows of an analysed batch against each row alone."""
        logits = self._prompted(pad_sequence(self.rows, batch_first=True))
        pairs = [(logits[i, : len(own)], own, f"row {i}") for i, own in enumerate(self.alone)]
        return self._compare("right-padded batch = rows alone", pairs)

    def left_padded(self) -> Row:
        """Rows of a batch as it is decoded against each row alone."""
        logits = self._left_padded()
        pairs = [(logits[i, -len(own) :], own, f"row {i}") for i, own in enumerate(self.alone)]
        return self._compare("left-padded batch = rows alone", pairs)

    def cached(self) -> Row:
        """A left-padded batch whose last tokens are fed one by one, a row leaving, against the batch in one pass.

        With the prompt in each row, and, as decoding has it where it can, behind a prompt that was read once, a token
        that was read and refused hidden.
        """
        whole = self._left_padded()
        n_virtual, batch = self.prompt.n_virtual, len(self.rows)
        tokens, mask, starts = left_padded(self.rows, n_virtual)
        read = CachedDecoding(self.model, batch)
        with self.model.hooks(fwd_hooks=[("hook_embed", write_prompt(self.prompt.vectors, starts))]):
            # the first of them comes with the prompt, as in decoding
            first = read(tokens[:, :-N_STEPS], mask[:, :-N_STEPS])
        pairs = [(first[:, -1], whole[:, -N_STEPS - 1], "first pass"), *self._fed(read, whole, "")]
        if can_be_shared(self.model, tokens.shape[1] + 1):
            tokens, mask, _ = left_padded(self.rows, 0)
            read = read_prompt(self.model, self.prompt.vectors, batch)
            first = read(tokens[:, :-N_STEPS], mask[:, :-N_STEPS])
            read(tokens[:, -1:])
            read.forget(torch.ones(batch, 1, dtype=torch.bool))
            pairs += [(first[:, -1], whole[:, -N_STEPS - 1], "first pass, shared prompt")]
            pairs += self._fed(read, whole, ", shared prompt")
        return self._compare("cached = uncached", pairs)

    def _fed(
        self, read: CachedDecoding, whole: Float[Tensor, "batch n_virtual_and_pos d_vocab"], how: str
    ) -> list[tuple[Tensor, Tensor, str]]:
        """The last tokens fed one by one, beside `whole`; the second row leaves before."""
        kept = torch.tensor([row for row in range(len(self.rows)) if row != 1])
        read.select(kept)
        last = torch.stack([self.rows[row][-N_STEPS:] for row in kept.tolist()])
        steps = [(read(last[:, [k]])[:, -1], whole[kept.to(whole.device), k - N_STEPS]) for k in range(N_STEPS)]
        return [(*pair, f"step {k + 1}{how}") for k, pair in enumerate(steps)]

    def _forward(
        self, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        tokens = tokens.to(self.model.cfg.device)
        mask = torch.ones_like(tokens) if mask is None else mask.to(tokens.device)
        return self.model(tokens, attention_mask=mask)

    def _prompted(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch n_virtual_and_pos d_vocab"]:
        with prompted(self.model, self.prompt) as run:
            return run(tokens)

    def _left_padded(self) -> Float[Tensor, "batch n_virtual_and_pos d_vocab"]:
        tokens, mask, starts = left_padded(self.rows, self.prompt.n_virtual)
        with self.model.hooks(fwd_hooks=[("hook_embed", write_prompt(self.prompt.vectors, starts))]):
            return self._forward(tokens, mask)

    def _loss(self, tokens: Int[Tensor, " pos"], *more: Any) -> Float[Tensor, ""]:
        with prompted(self.model, self.prompt, *more) as run:
            logits = run(tokens[None])[0, self.prompt.n_virtual - 1 : -1]
        return cross_entropy(logits.float(), tokens.to(logits.device))

    def _compare(self, name: str, pairs: list[tuple[Tensor, Tensor, str]]) -> Row:
        """The largest error among pairs of logits, and where it is."""
        worst, where = -1.0, ""
        for ours, theirs, place in pairs:
            if ours.shape[-1] != theirs.shape[-1]:
                reason = f"the vocabularies differ: {ours.shape[-1]} entries here, {theirs.shape[-1]} there"
                return _row(name, "fail", reason)
            expected = theirs.cpu().double().log_softmax(-1)
            found = ours.cpu().double().log_softmax(-1).view_as(expected)
            error = float((found - expected).abs().max() / expected.abs().max())
            error = inf if isnan(error) else error
            if error > worst:
                worst, where = error, place
        passes = worst <= self.tolerance
        return _row(name, "pass" if passes else "fail", where if passes else f"differs, most in {where}") | {
            "error": worst,
            "tolerance": self.tolerance,
        }


def _row(check: str, verdict: str, reason: str) -> Row:
    return {"check": check, "verdict": verdict, "error": float("nan"), "tolerance": float("nan"), "reason": reason}


def _pattern(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"
