"""Cost of `analyse` against a plain forward and backward of the same batches without hooks: `make bench`.

Both read the same padded batches of the reasoner and take a gradient to the prompt; they run in turn, and the ratio is
taken pair by pair.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn.functional import cross_entropy
from transformer_lens import HookedTransformer

import dpc_interp as dpc
from dpc_interp.analysis.segments import segment
from dpc_interp.lm.soft_prompt import with_placeholders, write_prompt


def plain(model: HookedTransformer, runs: list[dpc.Transcript], prompt: dpc.SoftPrompt, batch_size: int) -> None:
    """Forward and backward of the batches `analyse` makes, nothing measured."""
    sequences = sorted((torch.cat([r.question_tokens, r.generated_tokens]) for r in runs), key=len)
    for start in range(0, len(sequences), batch_size):
        tokens = torch.nn.utils.rnn.pad_sequence(sequences[start : start + batch_size], batch_first=True)
        vectors = prompt.vectors.clone().requires_grad_()
        with model.hooks(fwd_hooks=[("hook_embed", write_prompt(vectors))]):
            logits = model(with_placeholders(tokens, prompt.n_virtual))[:, prompt.n_virtual - 1 : -1]
        loss = cross_entropy(logits.flatten(0, 1), tokens.flatten())
        torch.autograd.grad(loss, vectors)


def main() -> None:
    """Print the seconds of both and their ratio, medians of paired rounds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--n", type=int, default=128, help="instances")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--task", default="story")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = dpc.load_model("reasoner", device="cpu")
    prompt = dpc.load_prompt(f"reasoner/{args.task}")
    runs = dpc.with_rationale(dpc.generate(model, dpc.load_problems(args.task, n=args.n), prompt), model)
    longest = max(segment(run, model.tokenizer, prompt.n_virtual).length for run in runs)
    seconds: dict[str, list[float]] = {"plain": [], "analyse": []}
    for round_number in range(args.rounds + 1):
        for name in seconds:
            start = time.perf_counter()
            if name == "plain":
                plain(model, runs, prompt, args.batch_size)
            else:
                dpc.analyse(model, runs, prompt, batch_size=args.batch_size, progress=False)
            if round_number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    ratios = [ours / bare for ours, bare in zip(seconds["analyse"], seconds["plain"], strict=True)]
    threads = torch.get_num_threads()
    print(f"{len(runs)} instances of {args.task}, at most {longest} positions")
    print(f"batches of {args.batch_size}, {threads} threads")
    for name, values in seconds.items():
        print(f"{name:8} {statistics.median(values):7.3f} s")
    spread = f"min {min(ratios):.3f}, max {max(ratios):.3f}, {args.rounds} rounds"
    print(f"ratio    {statistics.median(ratios):7.3f}   ({spread})")


if __name__ == "__main__":
    main()
