"""Decoding and analysis on a GPU: `python benchmarks/gpu.py`. The tests never need it.

Time and peak memory of decoding, of the analysis and of a plain forward and backward pass at 512, 1,024 and 2,048
positions, for SmolLM2 in float32 and for a model of the shape of Llama-3-8B with random weights in bfloat16.
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
from dpc_interp.analysis.saliency import saliency_pass
from dpc_interp.evaluation.tables import markdown
from dpc_interp.generation.decoding import decode

LENGTHS = (512, 1024, 2048)
N_VIRTUAL = 20
NEW_TOKENS = 64
ROUNDS = 3


def llama3_8b_shaped() -> HookedTransformer:
    """A model of the shape of Llama-3-8B with random weights in bfloat16; its texts mean nothing."""
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
    """Median seconds after one warm-up, and peak memory above the memory held before, in GiB."""
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
    """Run forward and backward to the embedding, without the hooks of the package."""
    graph_roots: list[torch.Tensor] = []

    def start_graph(embed: torch.Tensor, hook: object) -> torch.Tensor:
        graph_roots.append(embed.detach().requires_grad_())
        return graph_roots[0]

    with torch.enable_grad(), model.hooks(fwd_hooks=[("hook_embed", start_graph)]):
        logits = model(tokens)[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        torch.autograd.grad(loss, graph_roots[0])


def row(name: str, model: HookedTransformer, length: int, rounds: int) -> dict[str, object]:
    """Measure decoding and analysis of one random sequence of `length` positions."""
    generator = torch.Generator().manual_seed(length)
    vectors = 0.02 * torch.randn(N_VIRTUAL, model.cfg.d_model, generator=generator).to("cuda")
    tokens = torch.randint(1, model.cfg.d_vocab, (length,), generator=generator)
    ids, question = tokens[N_VIRTUAL:], tokens[: length - N_VIRTUAL - NEW_TOKENS]
    n_generated: list[int] = []
    decoding = measured(
        lambda: n_generated.append(len(decode(model, [question], vectors, None, NEW_TOKENS)[0])), rounds
    )
    baseline = measured(lambda: plain(model, tokens[None].to("cuda")), rounds)
    analysis = measured(lambda: saliency_pass(model, [ids], [len(ids) // 2], vectors, lambda flow: None), rounds)
    return {
        "model": name,
        "positions": length,
        "decoding, tokens/s": f"{n_generated[-1] / decoding[0]:.1f}",
        "decoding, GiB": f"{decoding[1]:.2f}",
        "plain forward and backward, s": f"{baseline[0]:.3f}",
        "plain, GiB": f"{baseline[1]:.2f}",
        "analysis, s": f"{analysis[0]:.3f}",
        "analysis, GiB": f"{analysis[1]:.2f}",
        "analysis / plain": f"{analysis[0] / baseline[0]:.2f}",
    }


def main() -> None:
    """Measure both models on a GPU and write a table."""
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
        f"{N_VIRTUAL} virtual tokens, {NEW_TOKENS} tokens decoded after the rest; median of {args.rounds} rounds; GiB: "
        f"peak above the weights.\n\n{markdown(pd.DataFrame(table))}\n"
    )


if __name__ == "__main__":
    main()
