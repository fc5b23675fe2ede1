"""Tune the bundled soft prompts: `python -m dpc_interp.reasoner.prompts`.

20 virtual tokens for each task, three tuning seeds each. A prompt that is there already is left alone; remove its
folder to tune it again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dpc_interp.lm.loading import load_model
from dpc_interp.lm.soft_prompt import PROMPTS
from dpc_interp.lm.tuning import tune_prompt
from dpc_interp.parallel import map_processes
from dpc_interp.tasks.problems import SYNTHETIC, load_problems

N_VIRTUAL_TOKENS = 20
SEEDS = (0, 1, 2)


def tune(task: str, seed: int, out: Path) -> str:
    """Tune one prompt and save it as a PEFT adapter; its last validation loss, in words."""
    folder = out / task / f"seed{seed}"
    if (folder / "adapter_model.safetensors").exists():
        return f"{task} seed {seed}: there already"
    prompt = tune_prompt(
        load_model("reasoner", device="cpu"),
        load_problems(task, "train", n=4000, seed=seed),
        N_VIRTUAL_TOKENS,
        seed,
        validation=load_problems(task, "validation", n=100, seed=1),
        name=f"{task}/seed{seed}",
        progress=False,
    )
    prompt.save_pretrained(folder, base_model="reasoner")
    return f"{task} seed {seed}: validation loss {min(row['validation'] for row in prompt.recipe['learning_curve'])}"


def main() -> None:
    """Tune every prompt, two at a time on two cores."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=PROMPTS / "reasoner")
    parser.add_argument("--tasks", nargs="+", default=SYNTHETIC, choices=SYNTHETIC)
    args = parser.parse_args()
    jobs = [(task, seed, args.out) for task in args.tasks for seed in SEEDS]
    print("\n".join(map_processes(tune, jobs, "tune prompts")))


if __name__ == "__main__":
    main()
