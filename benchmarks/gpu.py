"""Analysis and decoding on a GPU, for a model of the shape of Llama-3-8B with random weights in bfloat16.

Run by hand on a machine that has PyTorch with CUDA: `python benchmarks/gpu.py`, about 8 minutes; no test needs it.

- Analysis of one sequence: `saliency_pass` with every segment's sums, compared with (a0), Hugging Face's model with
  SDPA, forward and backward to the embeddings, with logits of the same positions. Where either does not fit, both are
  checkpointed.
- Decoding of 32 rows: `decode` compared with Hugging Face's `generate`, 128 tokens each.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.utils.memory import should_reduce_batch_size
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from dpc_interp.analysis.recorder import FlowBlock
from dpc_interp.analysis.saliency import saliency_pass
from dpc_interp.evaluation.tables import markdown
from dpc_interp.generation.decoding import decode
from dpc_interp.models.families import make_weights_contiguous_as_read, to_hooked_transformer

LENGTHS = (2048, 8192, 16384)
N_VIRTUAL = 20
N_PREDICTED = 512
"""Positions of each sequence that are in the loss."""
BATCH, NEW_TOKENS = 32, 128
SHAPES: dict[str, dict[str, int]] = {
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "tiny": {  # to try the script on a CPU
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}


def build(shape: str, device: str) -> tuple[PreTrainedModel, Any]:
    """The Hugging Face model and the HookedTransformer with its weights."""
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    config = AutoConfig.for_model(
        "llama", **SHAPES[shape], max_position_embeddings=max(LENGTHS), rope_parameters=rope, eos_token_id=0
    )
    with torch.device(device):
        hf_model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval().requires_grad_(False)
    model = to_hooked_transformer(hf_model, device, torch.bfloat16).eval().requires_grad_(False)
    make_weights_contiguous_as_read(model)
    vocabulary = Tokenizer(models.WordLevel({"<eos>": 0}, unk_token="<eos>"))
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, eos_token="<eos>")
    return hf_model, model


def measured(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds after one warm-up, and peak memory above the memory held before, in GiB."""
    work()
    if not torch.cuda.is_available():
        start = time.perf_counter()
        work()
        return time.perf_counter() - start, float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held, seconds = torch.cuda.memory_allocated(), []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), (torch.cuda.max_memory_allocated() - held) / 2**30


def plain(hf_model: Any, tokens: torch.Tensor, vectors: torch.Tensor) -> None:
    """Run (a0)."""
    prompt = vectors.to(hf_model.dtype).clone().requires_grad_()
    embeds = torch.cat([prompt[None], hf_model.get_input_embeddings()(tokens)], dim=1)
    with torch.enable_grad():
        logits = hf_model(inputs_embeds=embeds, use_cache=False, logits_to_keep=N_PREDICTED + 1).logits[0, :-1]
        torch.autograd.grad(cross_entropy(logits.float(), tokens[0, -N_PREDICTED:]), prompt)


def segment_sums(blocks: Any, segments: torch.Tensor) -> torch.Tensor:
    """The flow into and from eight segments, summed block by block."""
    sums = torch.zeros(8, 8, device=segments.device)
    block: FlowBlock
    for block in blocks:
        rows = segments[block.dest]
        by_source = torch.zeros(block.values.shape[1], 8, device=segments.device)
        by_source.index_add_(1, segments[block.src], block.values[0])
        sums.index_add_(0, rows, by_source)
    return sums


def analyse(model: Any, hf_model: Any, length: int, rounds: int) -> dict[str, Any]:
    """Measure the analysis of one random sequence of `length` positions."""
    device = hf_model.device
    generator = torch.Generator().manual_seed(length)
    vectors = (0.02 * torch.randn(N_VIRTUAL, model.cfg.d_model, generator=generator)).to(device)
    tokens = torch.randint(1, model.cfg.d_vocab, (1, length - N_VIRTUAL), generator=generator).to(device)
    segments = torch.arange(length, device=device) * 8 // length
    for checkpointed in (False, True):
        try:
            if checkpointed:  # both, so that the ratio compares like with like
                hf_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
                hf_model.train()  # Hugging Face checkpoints only then; a Llama has no dropout
            theirs = measured(lambda: plain(hf_model, tokens, vectors), rounds)
            ours = measured(
                lambda: saliency_pass(
                    model,
                    [tokens[0]],
                    [tokens.shape[1] - N_PREDICTED],
                    vectors,
                    lambda blocks: segment_sums(blocks, segments),
                    gradient_checkpointing=checkpointed,  # noqa: B023  (called within the loop)
                ),
                rounds,
            )
        except RuntimeError as error:
            if checkpointed or not should_reduce_batch_size(error):
                raise
        else:
            break
        finally:
            hf_model.gradient_checkpointing_disable()
            hf_model.eval()
        gc.collect()
        torch.cuda.empty_cache()
    return {
        "positions": length,
        "checkpointed": "yes" if checkpointed else "no",
        "time / (a0)": f"{ours[0] / theirs[0]:.2f}",
        "seconds": f"{ours[0]:.2f}",
        "(a0), seconds": f"{theirs[0]:.2f}",
        "peak, GiB": f"{ours[1]:.1f}",
        "(a0), GiB": f"{theirs[1]:.1f}",
    }


@torch.no_grad()
def decoding(model: Any, hf_model: Any, rounds: int) -> dict[str, Any]:
    """Measure the decoding of a batch of questions of one length."""
    device = hf_model.device
    generator = torch.Generator().manual_seed(0)
    vectors = (0.02 * torch.randn(N_VIRTUAL, model.cfg.d_model, generator=generator)).to(device)
    questions = list(torch.randint(1, model.cfg.d_vocab, (BATCH, 200), generator=generator))
    embeds = hf_model.get_input_embeddings()(torch.stack(questions).to(device))
    embeds = torch.cat([vectors.to(embeds).expand(BATCH, -1, -1), embeds], dim=1)
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    n_ours: list[int] = []
    ours = measured(
        lambda: n_ours.append(sum(map(len, decode(model, questions, vectors, None, NEW_TOKENS, stop_strings=())))),
        rounds,
    )
    theirs = measured(lambda: hf_model.generate(inputs_embeds=embeds, **options), rounds)
    pace = n_ours[-1] / ours[0], BATCH * NEW_TOKENS / theirs[0]
    return {
        "rows": BATCH,
        "tokens/s": f"{pace[0]:.0f}",
        "Hugging Face, tokens/s": f"{pace[1]:.0f}",
        "pace / Hugging Face": f"{pace[0] / pace[1]:.2f}",
        "peak, GiB": f"{ours[1]:.1f}",
        "Hugging Face, GiB": f"{theirs[1]:.1f}",
    }


def main() -> None:
    """Measure and write benchmarks/GPU.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "GPU.md")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    args = parser.parse_args()
    hf_model, model = build(args.shape, args.device)
    device = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    decoded = decoding(model, hf_model, args.rounds)
    print(decoded, flush=True)
    analysed: list[dict[str, Any]] = []
    for length in args.lengths:
        analysed.append(analyse(model, hf_model, length, args.rounds if length < 16384 else 1))
        print(analysed[-1], flush=True)
        # written after each length, so that an interrupted run leaves the finished lengths
        args.out.write_text(
            f"# A GPU\n\nWritten by `python benchmarks/gpu.py` on one {device}, torch {torch.__version__}: shape "
            f"{args.shape}, random weights, bfloat16, {N_VIRTUAL} virtual tokens, {N_PREDICTED} positions in the loss; "
            f"medians of {args.rounds} rounds; GiB: peak above the weights.\n\n## Analysis\n\n"
            f"{markdown(pd.DataFrame(analysed))}\n\n## Decoding\n\n{markdown(pd.DataFrame([decoded]))}\n"
        )


if __name__ == "__main__":
    main()
