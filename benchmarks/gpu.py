"""The whole path on a GPU: `python benchmarks/gpu.py`; never needed by the tests.

SmolLM2 in float32 and a model of Llama-3-8B's shape with random weights in bfloat16: time and peak memory of decoding
and of the analysis at 512, 1,024 and 2,048 positions, the analysis beside a plain forward and backward pass.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

from dpc_interp import load_model
from dpc_interp.analysis.saliency import flow_pass
from dpc_interp.evaluation.tables import markdown
from dpc_interp.lm.decoding import decode

LENGTHS = (512, 1024, 2048)
N_VIRTUAL = 20
NEW = 64
ROUNDS = 3


def llama3_8b_shaped() -> HookedTransformer:
    """Random weights in bfloat16; no answer of it means anything."""
    cfg = HookedTransformerConfig(
        model_name="llama-3-8b-shaped",
        n_layers=32,
        d_model=4096,
        n_heads=32,
        n_key_value_heads=8,
        d_head=128,
        d_mlp=14336,
        n_ctx=max(LENGTHS),
        d_vocab=128256,
        act_fn="silu",
        normalization_type="RMS",
        final_rms=True,
        gated_mlp=True,
        positional_embedding_type="rotary",
        rotary_dim=128,
        rotary_base=500000.0,
        init_weights=False,
        device="cuda",
        dtype=torch.bfloat16,
    )
    with torch.device("cuda"):
        model = HookedTransformer(cfg)
    generator = torch.Generator("cuda").manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    vocabulary = Tokenizer(models.WordLevel({"<eos>": 0}, unk_token="<eos>"))
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, eos_token="<eos>")
    return model.eval().requires_grad_(False)


def measured(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds after one warm-up, and peak memory above what was held before, in GiB."""
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held, seconds = torch.cuda.memory_allocated(), []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), (torch.cuda.max_memory_allocated() - held) / 2**30


def plain(model: HookedTransformer, tokens: torch.Tensor) -> None:
    """Forward and backward to the embedding, without a hook of ours."""

    def leaf(embed: torch.Tensor, hook: object) -> torch.Tensor:
        leaves.append(embed.detach().requires_grad_())
        return leaves[0]

    leaves: list[torch.Tensor] = []
    with torch.enable_grad(), model.hooks(fwd_hooks=[("hook_embed", leaf)]):
        logits = model(tokens)[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        torch.autograd.grad(loss, leaves[0])


def row(name: str, model: HookedTransformer, length: int, rounds: int) -> dict[str, object]:
    """Decoding and analysis of one random sequence of `length` positions."""
    generator = torch.Generator().manual_seed(length)
    vectors = 0.02 * torch.randn(N_VIRTUAL, model.cfg.d_model, generator=generator).to("cuda")
    tokens = torch.randint(1, model.cfg.d_vocab, (length,), generator=generator)
    ids, question = tokens[N_VIRTUAL:], tokens[: length - N_VIRTUAL - NEW]
    written: list[int] = []
    decoding = measured(lambda: written.append(len(decode(model, [question], vectors, None, NEW)[0])), rounds)
    plainly = measured(lambda: plain(model, tokens[None].to("cuda")), rounds)
    ours = measured(lambda: flow_pass(model, [ids], [len(ids) // 2], vectors, lambda layer, flow: None), rounds)
    return {
        "model": name,
        "positions": length,
        "decoding, tokens/s": f"{written[-1] / decoding[0]:.1f}",
        "decoding, GiB": f"{decoding[1]:.2f}",
        "plain forward and backward, s": f"{plainly[0]:.3f}",
        "plain, GiB": f"{plainly[1]:.2f}",
        "analysis, s": f"{ours[0]:.3f}",
        "analysis, GiB": f"{ours[1]:.2f}",
        "analysis / plain": f"{ours[0] / plainly[0]:.2f}",
    }


def main() -> None:
    """Measure both models and write a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/GPU.md"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    table = []
    for name, load in (
        ("smollm2-135m, float32", lambda: load_model("smollm2-135m", device="cuda")),
        ("Llama-3-8B-shaped, bfloat16", llama3_8b_shaped),
    ):
        model = load()
        for length in LENGTHS:
            table.append(row(name, model, length, args.rounds))
            print(table[-1], flush=True)
        del model
        gc.collect()
        torch.cuda.empty_cache()
    device = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    args.out.write_text(
        f"# Generation and analysis on a GPU\n\nWritten by `python benchmarks/gpu.py` on one {device}. Batch of one, "
        f"{N_VIRTUAL} virtual tokens, {NEW} tokens decoded behind the rest; median of {args.rounds} rounds; GiB: peak "
        f"above the weights.\n\n{markdown(pd.DataFrame(table))}\n"
    )


if __name__ == "__main__":
    main()
