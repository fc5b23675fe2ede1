"""Memory of the digest of a model and of the start of a run, above the weights: `python benchmarks/start_memory.py`.

The model has the shape of Llama-3-8B in bfloat16, 16 GB. Its weights are a sparse file that is mapped into memory, so
neither a disk nor memory of that size is needed. Measured is the largest `RssAnon` of /proc/self/status, the memory of
the process that no file holds, above that of the finished model. The run ends where the model would be called first.
`tests/test_start_memory.py` runs it on a smaller model.

Measured on two cores shared with other work, one thread: 164 to 215 MB for the digest, which takes 62 to 105 seconds,
and 99 to 131 MB for the start of a run.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

import dpc_interp as dpc
from dpc_interp.execution.digest import model_digest
from dpc_interp.models.families import ATTENTION_ORDERS, GATED_MLP_ORDERS, UNEMBED_ORDERS


class FirstPass(Exception):
    """Raised where the model is called."""


def mapped_model(
    folder: Path, n_layers: int, d_model: int, n_heads: int, d_mlp: int, d_vocab: int
) -> HookedTransformer:
    """A model with the layout of a loaded Llama-3 whose weights are zeros in a sparse file.

    Args:
        folder: where the file is written.
        n_layers: of the model.
        d_model: of the model.
        n_heads: of the model; a quarter of them have keys of their own.
        d_mlp: of the model.
        d_vocab: of the model.
    """
    cfg = HookedTransformerConfig(
        model_name="llama-3-shaped",
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_key_value_heads=n_heads // 4,
        d_head=d_model // n_heads,
        d_mlp=d_mlp,
        n_ctx=8192,
        d_vocab=d_vocab,
        act_fn="silu",
        normalization_type="RMS",
        final_rms=True,
        gated_mlp=True,
        positional_embedding_type="rotary",
        rotary_dim=d_model // n_heads,
        rotary_base=500000.0,
        init_weights=False,
        device="meta",
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = HookedTransformer(cfg, move_to_device=False)
    file = folder / "weights"
    n_numbers = sum(weight.numel() for weight in model.parameters())
    with file.open("wb") as stream:
        stream.truncate(2 * n_numbers)
    numbers = torch.from_file(str(file), shared=True, size=n_numbers, dtype=torch.bfloat16)
    orders = ATTENTION_ORDERS | GATED_MLP_ORDERS | UNEMBED_ORDERS
    start = 0
    for name, weight in list(model.named_parameters()):
        part = numbers[start : start + weight.numel()]
        start += weight.numel()
        order = orders.get(".".join(name.split(".")[-2:]), tuple(range(weight.ndim)))
        stored = part.view([weight.shape[axis] for axis in order])
        path, _, last = name.rpartition(".")
        parameter = torch.nn.Parameter(stored.permute([order.index(axis) for axis in range(weight.ndim)]), False)
        setattr(model.get_submodule(path), last, parameter)
    for name, buffer in list(model.named_buffers()):
        path, _, last = name.rpartition(".")
        model.get_submodule(path).register_buffer(last, torch.zeros(buffer.shape, dtype=buffer.dtype))
    model.cfg.device = "cpu"
    model.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<eos>": 0}, unk_token="<eos>")), eos_token="<eos>"
    )
    return model.eval()


def anonymous_bytes() -> int:
    """Memory of this process that no file holds."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+) kB", status)
    return 1024 * int(kilobytes)


@contextmanager
def peak_above() -> Iterator[Callable[[], int]]:
    """Yield a function for the most anonymous memory so far above that at the entry, sampled every millisecond."""
    before = peak = anonymous_bytes()
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, anonymous_bytes())
            time.sleep(0.001)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: peak - before
    finally:
        ended.set()
        thread.join()


def start_run(model: HookedTransformer, out: Path) -> None:
    """Call `evaluate`, which ends where the model would be called."""

    def stop(module: object, inputs: object) -> None:
        raise FirstPass

    problems = dpc.load_problems("story", n=40)
    prompt = dpc.SoftPrompt(torch.zeros(20, model.cfg.d_model))
    hook = model.register_forward_pre_hook(stop)
    try:
        with suppress(FirstPass):
            dpc.evaluate(model, problems, prompt, rule=dpc.TriggerRule("late_share", 0.5), out=out, progress=False)
            raise RuntimeError("the model was never called")
    finally:
        hook.remove()


def main() -> None:
    """Measure both and print one JSON object: MB (10^6 bytes), and the seconds of the digest."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    sizes = {"n_layers": 32, "d_model": 4096, "n_heads": 32, "d_mlp": 14336, "d_vocab": 128256}
    for name, size in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = mapped_model(Path(folder), **vars(args))
        weights = list(model.parameters())
        row = {"weights": sum(w.nbytes for w in weights), "largest": max(w.nbytes for w in weights)}
        began = time.perf_counter()
        with peak_above() as peak:
            model_digest(model)
        row |= {"digest": peak(), "seconds": 1e6 * (time.perf_counter() - began)}
        with peak_above() as peak:
            start_run(model, Path(folder) / "run")
        row["start"] = peak()
        print(json.dumps({name: round(value / 1e6, 1) for name, value in row.items()}))


if __name__ == "__main__":
    main()
