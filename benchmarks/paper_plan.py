"""What the paper's whole study would cost: `python benchmarks/paper_plan.py` writes docs/scale.md.

Three models, three benchmarks, ten prompts of 100 virtual tokens each. Models are shapes without weights. Lengths of
questions and solutions are those of the benchmark files, in tokens of SmolLM2's tokenizer (`make smollm2`). Seconds are
assumptions, stated in the page, until `benchmarks/gpu.py` has been run on such a GPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from dpc_interp import Options, RunConfig, SoftPrompt, load_model, load_problems
from dpc_interp.evaluation.tables import markdown
from dpc_interp.study.control_runs import ControlSizes
from dpc_interp.study.evaluated import StudySettings, StudyTask
from dpc_interp.study.study_plan import Costs, plan_study

FLOPS, BANDWIDTH = 0.4 * 312e12, 0.5 * 2.0e12
"""Assumed of an A100 with 80 GB in bfloat16: 40% of its arithmetic, 50% of its memory bandwidth."""
BATCH, N_VALIDATION, N_PROMPTS, N_VIRTUAL = 64, 200, 10, 100
CACHED = 350
"""Positions in the cache of each text, about."""
SHAPES: dict[str, dict[str, int]] = {
    "Llama-2-13B": {"n_layers": 40, "n_heads": 40, "d_model": 5120, "d_mlp": 13824, "d_vocab": 32000},
    "Llama-3-8B": {"n_layers": 32, "n_heads": 32, "d_model": 4096, "d_mlp": 14336, "d_vocab": 128256},
    "Mistral-7B v0.2": {"n_layers": 32, "n_heads": 32, "d_model": 4096, "d_mlp": 14336, "d_vocab": 32000},
}
KEY_HEADS = {"Llama-2-13B": 40, "Llama-3-8B": 8, "Mistral-7B v0.2": 8}
FILES = {"GSM8K": "gsm8k_test.jsonl", "MATH-500": "math500.jsonl", "AQuA": "aqua_test.json"}
WORKERS = (1, 8, 64)


def shape(name: str, tokenizer: Any) -> HookedTransformer:
    """A model without weights."""
    sizes = SHAPES[name]
    cfg = HookedTransformerConfig(
        **sizes,
        d_head=sizes["d_model"] // sizes["n_heads"],
        n_key_value_heads=KEY_HEADS[name],
        n_ctx=4096,
        act_fn="silu",
        gated_mlp=True,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        dtype=torch.bfloat16,
        device="meta",
        init_weights=False,
        model_name=name,
    )
    with torch.device("meta"):
        model = HookedTransformer(cfg, move_to_device=False)
    model.tokenizer = tokenizer
    return model


def costs_of(model: HookedTransformer) -> Costs:
    """A step of decoding reads weights and cache; a position costs two operations a weight, four with backward."""
    cfg, n_weights = model.cfg, sum(weight.numel() for weight in model.parameters())
    cache = BATCH * CACHED * cfg.n_layers * 2 * (cfg.n_key_value_heads or cfg.n_heads) * cfg.d_head
    step = 2 * (n_weights + cache) / BANDWIDTH  # two bytes a number
    return Costs(prefill=2 * n_weights / FLOPS, decode=step / BATCH, read=4 * n_weights / FLOPS)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "scale.md")
    args = parser.parse_args()
    tokenizer = load_model("smollm2-135m", device="cpu").tokenizer
    settings = StudySettings(None, Options(), RunConfig(batch_size=BATCH))
    rows, parts, longest = [], [], []
    for name in SHAPES:
        model = shape(name, tokenizer)
        vectors = torch.zeros(N_VIRTUAL, model.cfg.d_model)
        prompts = [SoftPrompt(vectors, f"seed{seed}") for seed in range(N_PROMPTS)]
        for task, file in FILES.items():
            problems = load_problems(args.data / file, n=None)
            test, validation = problems[N_VALIDATION:][:500], problems[:N_VALIDATION]
            if len(problems) < 500:  # AQuA has validation problems of its own
                test = problems
            study = StudyTask(task, test, validation, prompts)
            plan = plan_study(model, settings, [study], ControlSizes(), costs=costs_of(model))
            parts.append(plan.parts.assign(model=name))
            longest.append(plan.longest_hours)
            rows.append(
                {
                    "model": name,
                    "task": task,
                    "problems": len(test),
                    "texts": f"{plan.parts['texts'].sum():,}",
                    "tokens, M": f"{plan.parts['tokens'].sum() / 1e6:.1f}",
                    "positions, M": f"{plan.parts['positions'].sum() / 1e6:.1f}",
                    "GPU-hours": f"{plan.hours:.1f}",
                    "first prompt, h": f"{longest[-1]:.1f}",
                }
            )
    joined = pd.concat(parts)
    by_part = joined.groupby("part", sort=False)["hours"].sum()
    hours = joined["hours"].sum()
    wall = ", ".join(f"{max(*longest, hours / n):.1f} hours on {n}" for n in WORKERS)
    shares = ", ".join(f"{part} {value / hours:.0%}" for part, value in by_part.items())
    args.out.write_text(PAGE.format(table=markdown(pd.DataFrame(rows)), hours=hours, wall=wall, shares=shares))


PAGE = """# The paper's whole study

Written by `python benchmarks/paper_plan.py`: what `Study.plan` counts for three models, three benchmarks and ten
prompts of 100 virtual tokens each. **Nothing of this has been run.** Counts are upper bounds (see
`study/study_plan.py`); seconds are assumed, not measured: a GPU with 80 GB that reaches 40% of 312 TFLOP/s when it
reads and half of 2 TB/s when it decodes 64 texts. Run `dpc-interp plan` on your GPU for seconds of your own.

{table}

In all {hours:.0f} GPU-hours; if prompts are evaluated side by side (`engine="ray"`),
{wall} GPUs. By part:
{shares}.

## What limits it

- From 8 GPUs on the first prompt of a task decides: its evaluation and all of its controls follow one another on one
  worker. Most of that is the choice of heads for ACT (one pass a head and problem: `n_heads`), then the knock-outs
  (`n_causal`) and the sweeps (`n_sweep`), which mask each of 100 virtual tokens. Next step: a job for each control.
- A model never passes through the driver: each actor loads it by its name. Results do; `benchmarks/ray_actors.py` tries
  how many actors one driver keeps busy (not measured yet).
"""


if __name__ == "__main__":
    main()
