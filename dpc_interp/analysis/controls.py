"""How much of C1 is the prompt's own: accumulation under prompts that nothing was learned into (METHOD 7.1).

Leading tokens draw attention in any language model. So the trained prompt's own transcripts are read again behind other
leading tokens, teacher-forced: questions and answers stay as they are, only what stands in front changes.

| condition | what stands in front of the question |
| --- | --- |
| `trained` | the trained prompt |
| `untrained` | embeddings of random vocabulary tokens: what `tune_prompt` starts from with that seed |
| `random` | Gaussian vectors with the norms of the trained ones |
| `text` | the embeddings of a fixed text, repeated to the prompt's length |
| `trained after text` | that text once, then the trained prompt, whose tokens alone are counted |

In the last one no virtual token stands at position 0. An answer is less likely behind a prompt that it was not written
with, which scales all flow: compare ratios between conditions, not strengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.accumulation import peaks
from dpc_interp.analysis.analyse import analyse
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.lm.generation import Transcript
from dpc_interp.lm.hooked import HookedModel, tokenizer_of
from dpc_interp.lm.soft_prompt import SoftPrompt, check_length, check_prompt

TEXT = "Think step by step.\nShow the steps.\nExplain the answer.\n"
"""Words of the bundled reasoner's vocabulary too."""
CONDITIONS = ("trained", "untrained", "random", "text", "trained after text")


def sink_controls(
    model: HookedModel,
    runs: Sequence[Transcript],
    prompt: SoftPrompt,
    *,
    conditions: Sequence[str] = CONDITIONS,
    text: str = TEXT,
    seed: int | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Accumulation of the same transcripts behind the trained prompt and its controls.

    Args:
        runs: transcripts made with `prompt`, each with a rationale (`with_rationale`).
        conditions: of `CONDITIONS`; each costs one `analyse`.
        text: of the conditions that have one.
        seed: of the untrained and the random vectors; None: the prompt's own tuning seed where its recipe tells, or 0.
        batch_size: see `analyse`.

    Returns:
        One row a condition, instance, layer and virtual_token (counted from the prompt's first): task, prompt,
        condition, instance, layer, virtual_token, value.

    Raises:
        DPCInterpError: no runs, an unknown condition, words the model does not know, or what `analyse` refuses; all
            before the first pass where it can be known.
    """
    if not runs:
        raise DPCInterpError("there are no runs to analyse; generate some first")
    check_prompt(model, prompt.vectors)
    fronts = control_prompts(model, prompt, conditions=conditions, text=text, seed=seed)
    longest = max(len(run.question_tokens) + len(run.generated_tokens) for run in runs)
    check_length(model, longest + max(len(front) for front in fronts.values()))
    frames = []
    for condition, vectors in fronts.items():
        found = analyse(model, runs, SoftPrompt(vectors, prompt.name), batch_size=batch_size, progress=progress)
        own = found.accumulation
        own = own.assign(virtual_token=own["virtual_token"] - (len(vectors) - prompt.n_virtual))
        frames.append(own[own["virtual_token"] >= 0].assign(condition=condition))
    frame = pd.concat(frames, ignore_index=True).assign(task=runs[0].problem.task, prompt=prompt.name)
    return frame[["task", "prompt", "condition", "instance", "layer", "virtual_token", "value"]]


def control_prompts(
    model: HookedModel,
    prompt: SoftPrompt,
    *,
    conditions: Sequence[str] = CONDITIONS,
    text: str = TEXT,
    seed: int | None = None,
) -> dict[str, Float[Tensor, "_ d_model"]]:
    """By condition, the vectors [n_virtual, d_model] in front; `trained after text` has those of the text more."""
    for condition in conditions:
        if condition not in CONDITIONS:
            raise UnknownNameError("condition", condition, CONDITIONS)
    trained = prompt.vectors.detach().cpu().float()
    seed = int(prompt.recipe.get("seed", 0)) if seed is None else seed
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(model.cfg.d_vocab, (prompt.n_virtual,), generator=generator)  # as `tune_prompt` draws them
    directions = torch.randn(trained.shape, generator=generator)
    words = _text_tokens(model, text)
    repeated = words.repeat(-(-prompt.n_virtual // len(words)))[: prompt.n_virtual]
    vectors = {
        "trained": trained,
        "untrained": _embed(model, rows),
        "random": trained.norm(dim=1, keepdim=True) * torch.nn.functional.normalize(directions, dim=1),
        "text": _embed(model, repeated),
        "trained after text": torch.cat([_embed(model, words), trained]),
    }
    return {condition: vectors[condition] for condition in conditions}


def control_peaks(
    frame: pd.DataFrame, *, layers: tuple[int, ...] | None = None, exclude_sink: bool = True
) -> pd.DataFrame:
    """The accumulation token of each instance under each condition.

    Args:
        frame: of `sink_controls`.
        layers, exclude_sink: see `peaks`. Virtual token 0 is left out alike in all conditions, so that they can be
            compared, also where text stands before it.

    Returns:
        One row a condition and instance: task, prompt, condition, instance, peak_token, peak_ratio, and whether virtual
        token 0 draws more than any other (`first_is_peak`).
    """
    parts = []
    names = ["task", "prompt", "condition"]
    for _, rows in frame.groupby(names, sort=False):
        found = peaks(rows, layers=layers, exclude_sink=exclude_sink)
        first = peaks(rows, layers=layers, exclude_sink=False)["peak_token"] == 0
        named = rows[[*names, "instance"]].drop_duplicates()
        parts.append(named.merge(found.assign(first_is_peak=first), left_on="instance", right_index=True))
    return pd.concat(parts, ignore_index=True)


def _text_tokens(model: HookedModel, text: str) -> Tensor:
    tokenizer = tokenizer_of(model)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if not ids or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids):
        raise DPCInterpError(f"the model's vocabulary lacks words of {text[:40]!r}; give text= in words it knows")
    return torch.tensor(ids)


def _embed(model: HookedModel, tokens: Tensor) -> Tensor:
    return model.W_E[tokens.to(model.W_E.device)].detach().cpu().float()
